package queue_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"waitingroom/origin/queue"
)

// FuzzSettings: whatever is accepted as settings is the same when it is written and read again, and
// what is refused is refused with reasons.
func FuzzSettings(f *testing.F) {
	for _, text := range []string{
		`{"capacity":1}`, `{"capacity":0,"state":"paused","returnOrigins":["https://shop.example.com:8443"],"branding":{"name":"Shop"}}`,
		`{"capacity":1,"capacity":2}`, `{"capacity":1e2}`, `{"capacity":-0}`, `{"capacity":null}`, `{"capacity":1,"vip":true}`, `{}`, `[]`, `null`,
		`{"capacity":1,"holdSeconds":9223372036854775808}`, `{"capacity":1,"branding":{"name":"\ud800"}}`, `{"capacity":1,"returnOrigins":["https://[::1]:1"]}`,
		`{"capacity":1,"opensAt":"2026-03-01T13:00:00.123456+01:00"}`, `{"capacity":1,"opensAt":"2026-05-01T00:00:00Z","state":"scheduled"}`,
		`{"capacity":1,"opensAt":"9999-12-31T23:59:59Z","remaining":0}`, `{"capacity":1,"remaining":0}`, `{"capacity":1,"state":"closed","remaining":-1}`, `{"capacity":1,"notes":{}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		settings, err := queue.DecodeSettings(text, noon)
		checkSettings(t, settings, err)
	})
}

// FuzzPatch does the same for merge patches.
func FuzzPatch(f *testing.F) {
	for _, text := range []string{
		`{"capacity":1}`, `{"holdSeconds":null}`, `{"capacity":null}`, `{"branding":{"name":null}}`, `{"branding":null}`, `{"state":"closed"}`, `{"a":null}`,
		`{"returnOrigins":[]}`, `{}`, `null`, `[{}]`, `{"capacity":1,"\u0063apacity":2}`,
		`{"state":"open"}`, `{"state":null}`, `{"state":"scheduled"}`, `{"opensAt":"2026-03-03T00:00:00Z"}`, `{"opensAt":null}`, `{"opensAt":"2026-02-01T00:00:00Z"}`,
		`{"remaining":0}`, `{"remaining":0,"state":"open"}`, `{"remaining":5}`, `{"remaining":null}`, `{"state":"sold_out","remaining":1}`,
	} {
		f.Add([]byte(text))
	}
	open := queue.DefaultSettings()
	open.Capacity, open.Remaining = 5, new(9)
	scheduled, err := queue.DecodeSettings([]byte(`{"capacity":5,"opensAt":"2026-03-02T12:00:00Z"}`), noon)
	if err != nil {
		f.Fatal(err)
	}
	soldOut, err := open.Patch([]byte(`{"remaining":0}`), noon)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, start := range []queue.Settings{open, scheduled, soldOut} {
			patchTwice(t, start, text)
		}
	})
}

func patchTwice(t *testing.T, start queue.Settings, text []byte) {
	settings, err := start.Patch(text, noon)
	checkSettings(t, settings, err)
	if again, err2 := settings.Patch(text, noon); err == nil && settings.State != queue.Closed && (err2 != nil || !reflect.DeepEqual(again, settings)) {
		t.Errorf("%q applied twice: got %+v, %v, want %+v", text, again, err2, settings)
	}
}

func checkSettings(t *testing.T, settings queue.Settings, err error) {
	if err != nil {
		var problems *queue.SettingsError
		if !errors.As(err, &problems) || len(problems.Problems) == 0 || problems.Problems[0] == "" {
			t.Fatalf("refused with %v, want reasons", err)
		}
		return
	}
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatalf("encode what was accepted: %v", err)
	}
	again := queue.DefaultSettings() // as a store reads what it wrote
	if err := json.Unmarshal(text, &again); err != nil || !reflect.DeepEqual(again, settings) {
		t.Fatalf("%s read again: got %+v, %v, want %+v", text, again, err, settings)
	}
}

// FuzzQueueID: an id that is accepted is made of two names, and of nothing else.
func FuzzQueueID(f *testing.F) {
	for _, text := range []string{"shop.match", "a.b.c", ".", "a.", "a.{b}", "A.b", "a.\x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := queue.ParseID(text)
		if err != nil {
			return
		}
		if !queue.ValidName(id.Tenant()) || !queue.ValidName(id.Slug()) || id.Tenant()+"."+id.Slug() != text {
			t.Errorf("%q was taken for queue %q of tenant %q", text, id.Slug(), id.Tenant())
		}
	})
}
