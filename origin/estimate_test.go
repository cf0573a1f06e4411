package origin

import (
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store/memory"
)

// A fan is told how long it will take as soon as visits to the shop have ended, and every origin
// tells the same, also one that has just started.
func TestWaitIsEstimatedAndToldAlikeByAllOrigins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		creds, st := newCredentials(t), &memory.Store{}
		time.Sleep(300 * time.Millisecond)
		r := newRig(t, creds, st)
		id := r.create("sale", `"capacity":10,"purchaseWindowSeconds":20,"claimSeconds":10`)
		time.Sleep(time.Second)
		a := &audience{r: r, id: id, seen: make(map[uint64]bool)}
		for range 100 {
			a.arrive()
		}
		claimed := make(map[uint64]bool)
		for range 65 {
			a.pass(time.Second)
			for p := range a.seen {
				if r.status(id, p).State == queue.TicketAdmitted && !claimed[p] {
					r.claimOne(id, p)
					claimed[p] = true
				}
			}
			if got := r.status(id, 100).WaitSeconds; len(claimed) <= 10 && got != nil {
				t.Fatalf("before any visit has ended: got an estimate of %+v, want none", *got)
			}
		}
		got := r.status(id, 100)
		// Ten visits of 20 s at a time.
		if left := int(*got.Ahead) * 2; got.WaitSeconds == nil || got.WaitSeconds.P50 < left/2 || got.WaitSeconds.P90 > 2*left+30 {
			t.Fatalf("with %d ahead: got an estimate of %+v, want about %d s", *got.Ahead, got.WaitSeconds, left)
		}

		other := newRig(t, creds, st)
		if v := other.view(id); v.Number != r.view(id).Number {
			t.Fatalf("another origin is at entry %d, want %d", v.Number, r.view(id).Number)
		}
		for p := uint64(50); p <= 100; p++ {
			if got, want := other.status(id, p).WaitSeconds, r.status(id, p).WaitSeconds; !reflect.DeepEqual(got, want) {
				t.Errorf("position %d: another origin tells %+v, want %+v", p, got, want)
			}
		}
		r.operate("PATCH", "/queues/"+string(id), `{"state":"paused"}`)
		time.Sleep(time.Second)
		if got := r.status(id, 100); got.QueueState != queue.Paused || got.WaitSeconds != nil {
			t.Errorf("while paused: got state %s and an estimate of %+v, want none", got.QueueState, got.WaitSeconds)
		}
		other.stop()
		r.stop()
	})
}
