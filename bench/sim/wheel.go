package main

const (
	// frame is the grain of virtual time in milliseconds: what falls due within one happens at its
	// end, in the order in which it was planned.
	frame = 10
	// nearFrames is how many frames ahead an event has a place of its own; later ones wait by
	// the minute.
	nearFrames = 8192
	farSpan    = 60_000
)

// event is what somebody does: the number of a ticket, and in the two lowest bits the kind.
type event uint32

// The kinds of events.
const (
	eventWake    event = iota // the fan looks at the page: polls, joins again, leaves
	eventClaim                // the fan claims the offer
	eventRelease              // the shop ends the session
)

func (e event) ticket() uint32 { return uint32(e >> 2) }
func (e event) kind() event    { return e & 3 }

// wheel holds events by the frame in which they are due. Adding one and taking one cost a few
// nanoseconds however many there are, because nearly all of them are polls within the next turn.
type wheel struct {
	now  int32 // the frame that was taken last
	near [nearFrames][]event
	far  [][]farEvent // by minute
	// planned is how many are in it.
	planned int
}

type farEvent struct {
	at int32
	event
}

// add plans an event, for the next frame at the earliest.
func (w *wheel) add(at int32, e event) {
	at = max(at, w.now+frame)
	w.planned++
	if at-w.now < nearFrames*frame {
		i := (at / frame) % nearFrames
		w.near[i] = append(w.near[i], e)
		return
	}
	minute := int(at / farSpan)
	for len(w.far) <= minute {
		w.far = append(w.far, nil)
	}
	w.far[minute] = append(w.far[minute], farEvent{at, e})
}

// take advances to a frame, the one after the last, and returns its events. They are to be dealt
// with before the wheel has turned once.
func (w *wheel) take(now int32) []event {
	w.now = now
	if minute := int(now / farSpan); now%farSpan == 0 && minute < len(w.far) {
		for _, e := range w.far[minute] {
			i := (e.at / frame) % nearFrames
			w.near[i] = append(w.near[i], e.event)
		}
		w.far[minute] = nil
	}
	i := (now / frame) % nearFrames
	due := w.near[i]
	w.near[i] = due[:0]
	w.planned -= len(due)
	return due
}
