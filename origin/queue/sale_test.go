package queue_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"waitingroom/origin/queue"
)

func decode(t *testing.T, body string) queue.Settings {
	t.Helper()
	s, err := queue.DecodeSettings([]byte(body), noon)
	if err != nil {
		t.Fatalf("create %s: %v", body, err)
	}
	return s
}

func rfc(after time.Duration) string { return noon.Add(after).Format(time.RFC3339Nano) }

// A queue is made, patched at certain times, and looked at by nobody else but time.
func TestSale(t *testing.T) {
	type step struct {
		at    time.Duration
		patch string // "" is a look
		state queue.State
		due   time.Duration // NextDue after it, as time after noon; -1 for none
	}
	day := 24 * time.Hour
	ms := time.Millisecond
	turns := 3 * time.Minute // before the opening, with the default hold
	for _, c := range []struct {
		name, create string
		steps        []step
	}{
		{"no opening", `{"capacity":1}`, []step{{0, "", queue.Open, -1}, {day, "", queue.Open, -1}}},
		{"an opening that is past", `{"capacity":1,"opensAt":"` + rfc(0) + `"}`, []step{{0, "", queue.Open, -1}}},
		{"an opening", `{"capacity":1,"opensAt":"` + rfc(time.Hour) + `"}`, []step{
			{0, "", queue.Scheduled, time.Hour - turns},
			{time.Hour - turns, "", queue.Scheduled, time.Hour},
			{time.Hour - ms, "", queue.Scheduled, time.Hour},
			{time.Hour, "", queue.Open, -1},
		}},
		{"moved to later and to now", `{"capacity":1,"state":"scheduled","opensAt":"` + rfc(time.Hour) + `"}`, []step{
			{time.Minute, `{"opensAt":"` + rfc(29*day+time.Hour) + `"}`, queue.Scheduled, 29*day + time.Hour - turns},
			{2 * time.Minute, `{"state":null}`, queue.Scheduled, 29*day + time.Hour - turns},
			{2 * time.Minute, `{"opensAt":"` + rfc(-time.Hour) + `"}`, queue.Open, -1},
		}},
		{"opened early", `{"capacity":1,"opensAt":"` + rfc(time.Hour) + `"}`, []step{
			{time.Minute, `{"state":"open"}`, queue.Open, -1},
			{time.Hour, "", queue.Open, -1},
		}},
		{"paused before the opening and scheduled again", `{"capacity":1,"opensAt":"` + rfc(time.Hour) + `"}`, []step{
			{time.Minute, `{"state":"paused"}`, queue.Paused, -1},
			{2 * time.Minute, `{"capacity":2}`, queue.Paused, -1},
			{3 * time.Minute, `{"state":"scheduled"}`, queue.Scheduled, time.Hour - turns},
			{4 * time.Minute, `{"state":"sold_out"}`, queue.SoldOut, -1},
			{5 * time.Minute, `{"state":"paused"}`, queue.Paused, -1},
			{6 * time.Minute, `{"state":null}`, queue.Scheduled, time.Hour - turns},
			{time.Hour, "", queue.Open, -1},
		}},
		{"paused before the opening and postponed", `{"capacity":1,"opensAt":"` + rfc(time.Hour) + `"}`, []step{
			{time.Minute, `{"state":"paused"}`, queue.Paused, -1},
			{2 * time.Hour, `{"state":"scheduled","opensAt":"` + rfc(3*time.Hour) + `"}`, queue.Scheduled, 3*time.Hour - turns},
			{3 * time.Hour, "", queue.Open, -1},
		}},
		{"paused over its opening, with the default state", `{"capacity":1,"opensAt":"` + rfc(time.Hour) + `"}`, []step{
			{time.Minute, `{"state":"paused"}`, queue.Paused, -1},
			{time.Hour, `{"state":null}`, queue.Open, -1},
		}},
		{"paused before the opening stays paused", `{"capacity":1,"opensAt":"` + rfc(time.Hour) + `"}`, []step{
			{time.Minute, `{"state":"paused"}`, queue.Paused, -1},
			{time.Hour, "", queue.Paused, -1},
			{2 * time.Hour, `{"state":"open"}`, queue.Open, -1},
		}},
		{"sold out and reopened", `{"capacity":1,"remaining":2}`, []step{
			{0, `{"remaining":0}`, queue.SoldOut, -1},
			{day, "", queue.SoldOut, -1},
			{day, `{"remaining":1}`, queue.SoldOut, day + 10*time.Second},
			{day + 5*time.Second, `{"remaining":3}`, queue.SoldOut, day + 10*time.Second},
			{day + 10*time.Second - ms, "", queue.SoldOut, day + 10*time.Second},
			{day + 10*time.Second, "", queue.Open, -1},
		}},
		{"tickets that go back and forth", `{"capacity":1,"remaining":0}`, []step{
			{0, "", queue.SoldOut, -1},
			{0, `{"remaining":1}`, queue.SoldOut, 10 * time.Second},
			{9 * time.Second, `{"remaining":0}`, queue.SoldOut, -1},
			{11 * time.Second, `{"remaining":1}`, queue.SoldOut, 21 * time.Second},
			{21 * time.Second, "", queue.Open, -1},
		}},
		{"no longer reported is no longer nothing", `{"capacity":1,"remaining":0}`, []step{
			{time.Minute, `{"remaining":null}`, queue.SoldOut, 70 * time.Second},
			{70*time.Second - ms, "", queue.SoldOut, 70 * time.Second},
			{70 * time.Second, "", queue.Open, -1},
		}},
		{"no longer reported while it reopens", `{"capacity":1,"remaining":0}`, []step{
			{0, `{"remaining":1}`, queue.SoldOut, 10 * time.Second},
			{time.Second, `{"remaining":null}`, queue.SoldOut, 10 * time.Second},
			{10 * time.Second, "", queue.Open, -1},
		}},
		{"no longer reported by mistake", `{"capacity":1,"remaining":0}`, []step{
			{0, `{"remaining":null}`, queue.SoldOut, 10 * time.Second},
			{9 * time.Second, `{"remaining":0}`, queue.SoldOut, -1},
			{time.Hour, "", queue.SoldOut, -1},
		}},
		{"sold out by hand, and no longer reported", `{"capacity":1,"remaining":0}`, []step{
			{0, `{"state":"sold_out"}`, queue.SoldOut, -1},
			{0, `{"remaining":null}`, queue.SoldOut, -1},
			{time.Hour, "", queue.SoldOut, -1},
		}},
		{"sold out by hand ends only by hand", `{"capacity":1,"remaining":5,"state":"sold_out"}`, []step{
			{time.Minute, "", queue.SoldOut, -1},
			{time.Minute, `{"remaining":0}`, queue.SoldOut, -1},
			{time.Minute, `{"remaining":50}`, queue.SoldOut, -1},
			{time.Hour, "", queue.SoldOut, -1},
			{time.Hour, `{"state":"open"}`, queue.Open, -1},
		}},
		{"sold out by itself, then by hand", `{"capacity":1,"remaining":0}`, []step{
			{time.Minute, `{"state":"sold_out"}`, queue.SoldOut, -1},
			{time.Minute, `{"remaining":50}`, queue.SoldOut, -1},
			{time.Hour, "", queue.SoldOut, -1},
		}},
		{"opened by hand with nothing left is sold out by itself", `{"capacity":1,"state":"sold_out","remaining":0}`, []step{
			{time.Minute, `{"state":"open"}`, queue.SoldOut, -1},
			{time.Minute, `{"remaining":1}`, queue.SoldOut, time.Minute + 10*time.Second},
			{time.Minute + 10*time.Second, "", queue.Open, -1},
		}},
		{"reopened by hand at once", `{"capacity":1,"remaining":0}`, []step{
			{time.Minute, `{"remaining":1,"state":"open"}`, queue.Open, -1},
		}},
		{"paused is not sold out", `{"capacity":1,"state":"paused","remaining":1}`, []step{
			{0, `{"remaining":0}`, queue.Paused, -1},
			{time.Hour, "", queue.Paused, -1},
			{time.Hour, `{"state":"open"}`, queue.SoldOut, -1},
		}},
		{"an opening with nothing to sell", `{"capacity":1,"remaining":0,"opensAt":"` + rfc(time.Hour) + `"}`, []step{
			{0, "", queue.Scheduled, time.Hour - turns},
			{time.Hour, "", queue.SoldOut, -1},
		}},
		{"closed", `{"capacity":1,"retentionSeconds":60,"remaining":0}`, []step{
			{time.Hour, `{"state":"closed"}`, queue.Closed, time.Hour + time.Minute},
			{time.Hour + time.Second, `{"remaining":5,"retentionSeconds":120}`, queue.Closed, time.Hour + 2*time.Minute},
			{day, "", queue.Closed, time.Hour + 2*time.Minute},
		}},
	} {
		s := decode(t, c.create)
		for i, step := range c.steps {
			now := noon.Add(step.at)
			if step.patch == "" {
				s, _ = s.At(now)
			} else {
				var err error
				if s, err = s.Patch([]byte(step.patch), now); err != nil {
					t.Fatalf("%s, step %d: %v", c.name, i, err)
				}
			}
			if again, changed := s.At(now); changed {
				t.Errorf("%s, step %d: something is due twice: %+v, then %+v", c.name, i, s, again)
			}
			due := time.Duration(-1)
			if at := s.NextDue(now); !at.IsZero() {
				due = at.Sub(noon)
			}
			if s.State != step.state || due != step.due {
				t.Errorf("%s, step %d: %s, next due %v after noon, want %s, %v", c.name, i, s.State, due, step.state, step.due)
			}
		}
	}
}

func TestPatchOfTheOpeningRefused(t *testing.T) {
	scheduled := decode(t, `{"capacity":1,"opensAt":"`+rfc(time.Hour)+`"}`)
	moved, err := scheduled.Patch([]byte(`{"opensAt":"`+rfc(20*24*time.Hour)+`"}`), noon)
	if err != nil {
		t.Fatalf("move the opening: %v", err)
	}
	open := decode(t, `{"capacity":1}`)
	patched := func(s queue.Settings, patches ...string) queue.Settings {
		for _, patch := range patches {
			if s, err = s.Patch([]byte(patch), noon); err != nil {
				t.Fatalf("%s: %v", patch, err)
			}
		}
		return s
	}
	paused := patched(scheduled, `{"state":"paused"}`)
	opened := patched(paused, `{"state":"open"}`, `{"state":"paused"}`)
	emptied := patched(paused, `{"remaining":0}`, `{"state":"open"}`, `{"state":"paused"}`)
	for _, c := range []struct {
		from           queue.Settings
		patch, problem string
	}{
		{scheduled, `{"opensAt":null}`, "not removed"},
		{scheduled, `{"opensAt":"` + rfc(29*24*time.Hour+time.Hour+time.Millisecond) + `"}`, "29 days past its first value"},
		{moved, `{"opensAt":"` + rfc(30*24*time.Hour) + `"}`, "29 days past its first value"},
		{scheduled, `{"opensAt":"` + rfc(-time.Hour) + `","state":"scheduled"}`, "opensAt in the future"},
		{open, `{"opensAt":"` + rfc(time.Hour) + `"}`, "only while the queue is scheduled"},
		{open, `{"state":"scheduled"}`, "has not been open since"},
		{open, `{"state":"scheduled","opensAt":"` + rfc(time.Hour) + `"}`, "has not been open since"},
		{paused, `{"opensAt":"` + rfc(2*time.Hour) + `"}`, "as it is scheduled again"},
		{paused, `{"state":"scheduled","opensAt":"` + rfc(-time.Hour) + `"}`, "opensAt in the future"},
		{paused, `{"state":"scheduled","opensAt":"` + rfc(30*24*time.Hour) + `"}`, "29 days past its first value"},
		{opened, `{"state":"scheduled"}`, "has not been open since"},
		{emptied, `{"state":"scheduled"}`, "has not been open since"},
		{open, `{"notes":{"soldOut":true}}`, "unknown field /notes"},
	} {
		got, err := c.from.Patch([]byte(c.patch), noon)
		if err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s of a queue that is %s: %+v, %v, want an error that says %q", c.patch, c.from.State, got, err, c.problem)
		}
	}
	// Whose opening has come is open, whether anybody has looked or not.
	if got, err := scheduled.Patch([]byte(`{"opensAt":"`+rfc(2*time.Hour)+`"}`), noon.Add(time.Hour)); err == nil {
		t.Errorf("an opening that has come was moved: %+v", got)
	}
}

func TestOverAfterTheRetention(t *testing.T) {
	s := decode(t, `{"capacity":1,"retentionSeconds":60}`)
	if s.Over(noon.Add(1000 * time.Hour)) {
		t.Error("an open queue is over")
	}
	s, err := s.Patch([]byte(`{"state":"closed"}`), noon)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{0, false}, {time.Minute - time.Millisecond, false}, {time.Minute, true}, {time.Hour, true}} {
		if got := s.Over(noon.Add(c.after)); got != c.want {
			t.Errorf("%v after the closing: over %v, want %v", c.after, got, c.want)
		}
	}
	look := queue.Look{Settings: s, NextSessionEnd: noon.Add(2 * time.Minute)}
	if got := look.NextDue(noon); !got.Equal(look.NextSessionEnd) {
		t.Errorf("a closed queue with a session is due at %v, want the end of the session, %v", got, look.NextSessionEnd)
	}
}

// The notes go with the settings wherever a store or the feed takes them.
func TestNotesAreWritten(t *testing.T) {
	s := decode(t, `{"capacity":1,"remaining":0,"opensAt":"`+rfc(-time.Hour)+`"}`)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	again := queue.DefaultSettings()
	if err := json.Unmarshal(text, &again); err != nil || fmt.Sprintf("%+v", again.Notes) != fmt.Sprintf("%+v", s.Notes) || !again.Notes.SoldOut {
		t.Errorf("notes %+v written and read are %+v, %v", s.Notes, again.Notes, err)
	}
}

// Fans who wait for an opening ask at the most as often as they must, and hear of it soon, those in
// front first; not all of them ask in the same second.
func TestPollsBeforeTheOpening(t *testing.T) {
	const fans = 100_000
	turn := time.Minute
	inSecond := make(map[int]int)
	latest := time.Duration(0)
	for position := uint64(1); position <= fans; position++ {
		// Fans joined at any time, and their pages poll up to a fifth early.
		at := -time.Hour - time.Duration(position%97)*time.Second
		polls := 0
		for at <= 0 {
			wait := queue.PollBeforeOpening(position, fans, -at, turn)
			if wait < time.Second || wait > 30*time.Second || wait%time.Second != 0 {
				t.Fatalf("position %d, %v before the opening: poll after %v", position, -at, wait)
			}
			early := 1 - 0.2*float64(position*7919%100)/100
			at += time.Duration(float64(wait) * early)
			if at > -time.Minute {
				inSecond[int(at/time.Second)]++
				polls++
			}
		}
		latest = max(latest, at)
		if position <= 5000 && at > 3*time.Second {
			t.Fatalf("position %d hears of the opening after %v, want soon", position, at)
		}
	}
	if latest > 30*time.Second {
		t.Errorf("the last of %d fans hears of the opening after %v, want half a minute", fans, latest)
	}
	for second, n := range inSecond {
		if n > 25_000 {
			t.Errorf("%d of %d fans poll in second %d of the opening", n, fans, second)
		}
	}
	for _, late := range []time.Duration{0, time.Second, 10 * time.Second, time.Hour} {
		got := queue.PollBeforeOpening(fans, fans, -late, turn)
		if got < time.Second || got > max(5*time.Second, late/2) || got > 30*time.Second {
			t.Errorf("an opening that is %v late: poll after %v", late, got)
		}
	}
}
