package fans

import (
	"encoding/json"
	"testing"
	"time"
)

const waitingStatus = `{"state":"waiting","queueState":"open","position":17,"ahead":12,"waitSeconds":{"p50":60,"p90":90},` +
	`"likelySoldOut":false,"heldUntil":"2026-11-23T10:30:00Z","pollAfterSeconds":3,"now":"2026-11-23T10:00:00.25Z","seq":"abc.42","stale":false}`

func TestStatusIsRead(t *testing.T) {
	var s status
	if err := s.read([]byte(waitingStatus)); err != nil {
		t.Fatal(err)
	}
	if s.state != waiting || s.position != 17 || !s.hasAhead || s.ahead != 12 || string(s.generation) != "abc" || s.entry != 42 {
		t.Errorf("got %+v", s)
	}
	if want := time.Date(2026, 11, 23, 10, 0, 0, 250e6, time.UTC); !s.now.Equal(want) {
		t.Errorf("got now %v, want %v", s.now, want)
	}
	if err := s.read([]byte(`{"type":"admitted","state":"admitted","position":17,"ahead":null,"claimBy":"2026-11-23T10:05:00Z","now":"2026-11-23T10:00:00Z","seq":"abc.43"}`)); err != nil {
		t.Fatal(err)
	}
	if string(s.event) != "admitted" || s.state != admitted || s.hasAhead || s.claimBy.IsZero() {
		t.Errorf("got %+v", s)
	}
}

func TestWhatIsNoStatusIsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "not an object": `[]`, "cut off": waitingStatus[:60], "no position": `{"state":"waiting","now":"2026-11-23T10:00:00Z","seq":"a.1"}`,
		"two positions": `{"position":1,"position":2,"state":"waiting","now":"2026-11-23T10:00:00Z","seq":"a.1"}`,
		"unknown state": `{"state":"lost","position":1,"now":"2026-11-23T10:00:00Z","seq":"a.1"}`,
		"seq":           `{"state":"waiting","position":1,"now":"2026-11-23T10:00:00Z","seq":"7"}`,
		"time":          `{"state":"waiting","position":1,"now":"ten","seq":"a.1"}`,
		"no colon":      `{"state""waiting"}`, "trailing comma": `{"state":"waiting",}`,
	} {
		var s status
		if err := s.read([]byte(text)); err == nil {
			t.Errorf("%s: got no error, want one", name)
		}
	}
}

func FuzzMembers(f *testing.F) {
	f.Add([]byte(waitingStatus))
	f.Add([]byte(`{"a":{"b":["}",{"c":"\""}]},"d":-1e5}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		names := 0
		err := eachMember(data, func(_, _ []byte) error { names++; return nil })
		var members map[string]json.RawMessage
		compact := json.Valid(data) && len(data) > 0 && data[0] == '{'
		if compact && err == nil && json.Unmarshal(data, &members) == nil && names < len(members) {
			t.Errorf("got %d members of %q, want at least %d", names, data, len(members))
		}
	})
}

func TestAFanChecksWhatItIsTold(t *testing.T) {
	known := fan{position: 17, state: waiting, generation: "g", entry: 10, ahead: 5, hasAhead: true}
	fresh := known
	fresh.first = true
	back := fresh
	back.returns = true
	out := known
	out.state = closed
	told := func(s state, entry, ahead uint64) status {
		return status{state: s, position: 17, generation: []byte("g"), entry: entry, ahead: ahead, hasAhead: s == waiting}
	}
	stranger := told(waiting, 11, 4)
	stranger.position = 18
	anew := told(waiting, 1, 9)
	anew.generation = []byte("h")
	for _, c := range []struct {
		name  string
		fan   fan
		told  status
		event string
		right bool
	}{
		{"the line moves", known, told(waiting, 11, 4), "position_changed", true},
		{"again the same", known, told(waiting, 10, 5), "position_changed", true},
		{"let in", known, told(admitted, 11, 0), "admitted", true},
		{"closed", known, told(closed, 11, 0), "queue_closed", true},
		{"expired", known, told(expired, 11, 0), "expired", true},
		{"the first one", fresh, told(waiting, 11, 4), "status", true},
		{"a new generation begins anew", known, anew, "position_changed", true},
		{"an older one at the beginning, elsewhere", back, told(waiting, 9, 6), "status", true},
		{"an older one", known, told(waiting, 9, 5), "position_changed", false},
		{"an older one at the very beginning", fresh, told(waiting, 9, 5), "status", false},
		{"more ahead", known, told(waiting, 11, 6), "position_changed", false},
		{"somebody else's", known, stranger, "position_changed", false},
		{"another name", known, told(admitted, 11, 0), "position_changed", false},
		{"the first one under another name", fresh, told(waiting, 11, 4), "position_changed", false},
		{"back from the dead", out, told(waiting, 11, 4), "position_changed", false},
	} {
		f := c.fan
		if err := f.take(&c.told, []byte(c.event)); (err == nil) != c.right {
			t.Errorf("%s: got %v, want it right: %t", c.name, err, c.right)
		}
	}
	f := back
	older := told(waiting, 9, 6)
	if _ = f.take(&older, []byte("status")); f.ahead != 5 || f.entry != 10 {
		t.Errorf("an older status: got %d ahead at entry %d, want it ignored", f.ahead, f.entry)
	}
}
