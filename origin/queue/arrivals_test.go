package queue_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"waitingroom/origin/queue"
)

// TestWaits lets a line form in one go and slowly, serves it steadily, and compares the waits of each
// minute with those that every single fan had.
func TestWaits(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	l := newLedger(t, 1_000_000, queue.Open)
	var joined []time.Time
	next := uint64(1)
	exact := map[time.Time][]float64{}
	longest := 0.0
	for second := range 5400 {
		l.now = noon.Add(time.Duration(second)*time.Second + time.Duration(r.IntN(1000))*time.Millisecond)
		arrive := 0
		switch {
		case second < 10:
			arrive = 1000 // a rush
		case second < 600:
			arrive = r.IntN(12)
		case second%60 == 0 && second < 4000:
			arrive = 30
		}
		if arrive > 0 {
			l.join(uint64(arrive))
			for range arrive {
				joined = append(joined, l.now)
			}
		}
		if second%2 == 1 && next+7 < l.view.Issued {
			l.now = l.now.Add(time.Millisecond)
			var positions []uint64
			minute := l.now.Truncate(time.Minute)
			for range 7 {
				positions = append(positions, next)
				wait := l.now.Sub(joined[next-1]).Seconds()
				exact[minute] = append(exact[minute], wait)
				longest = max(longest, wait)
				next++
			}
			l.offer(positions...)
		}
	}
	_, minutes, _ := l.journal()
	checked := 0
	for _, m := range minutes {
		waits := exact[m.At]
		if len(waits) == 0 {
			if m.Wait != nil {
				t.Errorf("minute %v: got %+v, want no wait of nobody", m.At, m.Wait)
			}
			continue
		}
		checked++
		slices.Sort(waits)
		for _, c := range []struct {
			name      string
			got       int
			want      float64
			precision float64
		}{
			{"P50", m.Wait.P50, waits[(len(waits)-1)/2], 1. / 16},
			{"P90", m.Wait.P90, waits[(9*len(waits)+9)/10-1], 1. / 16},
			{"max", m.Wait.Max, waits[len(waits)-1], 0},
		} {
			// Arrivals are kept to a part of the time that the line goes back.
			tolerance := 2 + longest/32 + c.precision*c.want
			if d := float64(c.got) - c.want; d > tolerance || d < -tolerance {
				t.Errorf("minute %v: %s of %d waits: got %d, want %.1f ± %.1f", m.At.Sub(noon), c.name, len(waits), c.got, c.want, tolerance)
			}
		}
	}
	if checked < 40 {
		t.Errorf("only %d minutes had somebody admitted", checked)
	}
}

// TestWaitOfALongLine wants nearly exact waits where a long line has formed steadily.
func TestWaitOfALongLine(t *testing.T) {
	l := newLedger(t, 100, queue.Open)
	for n := range 3600 {
		l.now = noon.Add(time.Duration(n) * time.Second)
		l.join(1)
	}
	l.now = noon.Add(time.Hour)
	for _, position := range []uint64{20, 777, 1500, 2900, 3590} {
		l.now = l.now.Add(time.Minute)
		l.offer(position)
		_, minutes, _ := l.journal()
		wait := minutes[len(minutes)-1].Wait
		want := int(l.now.Sub(noon)/time.Second) - int(position)
		if wait == nil || wait.Max < want-2 || wait.Max > want+4 {
			t.Errorf("wait of position %d: got %+v, want %d s", position, wait, want)
		}
	}
}

// TestWaitOfAShortLine wants exact seconds where the line is short.
func TestWaitOfAShortLine(t *testing.T) {
	l := newLedger(t, 100, queue.Open)
	for n := range uint64(20) {
		l.now = noon.Add(time.Duration(n) * 3 * time.Second)
		l.join(1)
	}
	l.now = noon.Add(60 * time.Second)
	l.offer(1, 11, 20)
	_, minutes, moves := l.journal()
	want := queue.MinuteWait{P50: 30, P90: 60, Max: 60}
	if got := minutes[1].Wait; got == nil || *got != want {
		t.Errorf("wait: got %+v, want %+v", got, want)
	}
	if moves[0].To != 20 || minutes[1].Absent != 17 {
		t.Errorf("got watermark %d with %d absent, want 20 with 17", moves[0].To, minutes[1].Absent)
	}
}
