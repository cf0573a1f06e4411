package redis_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
	"waitingroom/origin/store/storetest"
)

// note notes what is wrong.
func (c *crowd) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrongs = append(c.wrongs, fmt.Sprintf(format, args...))
}

// enter enters what a batch was answered in the book.
func (c *crowd) enter(edge string, seq uint64, users []store.Key, joined []store.Joined, highest uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wrong := func(format string, args ...any) {
		c.wrongs = append(c.wrongs, fmt.Sprintf("batch %d of %s: ", seq, edge)+fmt.Sprintf(format, args...))
	}
	for i, j := range joined {
		user := users[i]
		place, known := c.places[user]
		switch {
		case user == (store.Key{}):
			if !j.New {
				wrong("an anonymous fan got position %d, which is not new", j.Position)
			}
		case c.retired[user]: // may get another one
		case known && place != j.Position:
			wrong("a user got position %d, and had %d before", j.Position, place)
		default:
			c.places[user] = j.Position
		}
		if !j.New {
			continue
		}
		if j.Position <= highest {
			wrong("position %d is not above %d, which was answered before it was asked for", j.Position, highest)
		}
		// A user's two joins on their way at once are answered in any order, but one of them only is new.
		if _, taken := c.fans[j.Position]; taken {
			wrong("position %d was given twice", j.Position)
		}
		if user == (store.Key{}) {
			user = userKey(1_000_000 + int(j.Position)) // a random subject
		}
		c.fans[j.Position] = user
		c.highest = max(c.highest, j.Position)
	}
}

func sameState(a, b queue.Snapshot) bool {
	a.Admitted, b.Admitted = nil, nil // a snapshot from the store has none
	return reflect.DeepEqual(a, b)
}

// pick picks a position to claim: one that was offered, or one that has a session already, whose
// id comes with it. 0 when there is none.
func (c *crowd) pick(random *rand.Rand) (position uint64, fan store.Key, session string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := &c.offered
	if len(c.held) > 0 && (len(c.offered) == 0 || random.IntN(2) == 0) {
		list = &c.held
	}
	if len(*list) == 0 {
		return 0, fan, ""
	}
	n := random.IntN(len(*list))
	position = (*list)[n]
	fan, known := c.fans[position]
	if !known { // the join is not answered yet
		return 0, fan, ""
	}
	(*list)[n] = (*list)[len(*list)-1]
	*list = (*list)[:len(*list)-1]
	return position, fan, c.sessions[position]
}

// inLine are the positions of all who have no session, or of one of them.
func (c *crowd) inLine(all bool) queue.Positions {
	c.mu.Lock()
	defer c.mu.Unlock()
	var positions queue.Positions
	for position := range c.fans {
		if _, shops := c.sessions[position]; shops {
			continue
		}
		if positions = append(positions, position); !all {
			break
		}
	}
	slices.Sort(positions)
	return positions
}

// enterShop enters a session in the book, and reports whether it is to be ended now.
func (c *crowd) enterShop(position uint64, session string, end bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions[position] = session
	if !end {
		c.held = append(c.held, position)
		return false
	}
	c.ending[position] = true
	c.retired[c.fans[position]] = true
	return true
}

// end ends the crowd, and compares its book with what the store says.
func (c *crowd) end() {
	c.t.Helper()
	c.stop()
	c.work.Wait()
	s := c.origins[0]
	if c.rewritten.Load() == 0 { // the log of a new generation does not tell how it came to be
		entries, err := s.Entries(c.t.Context(), c.id, "inc", 0, "", 1_000_000)
		if err == nil {
			err = storetest.CheckHistory(entries)
		}
		if err != nil {
			c.t.Errorf("the log: %v", err)
		}
	}
	snapshot, err := s.Snapshot(c.t.Context(), c.id)
	if err != nil {
		c.t.Fatalf("Snapshot: %v", err)
	}
	view := queue.NewView(snapshot)
	for c.readOn(c.t.Context()) {
	}
	if followed, read := c.view.Snapshot(), view.Snapshot(); !sameState(followed, read) {
		c.note("who followed the log sees another queue than who reads a snapshot: entry %d, %d issued, %d offers, %d sessions, and entry %d, %d issued, %d offers, %d sessions",
			followed.Number, followed.Issued, len(followed.Offers), len(followed.Sessions), read.Number, read.Issued, len(read.Offers), len(read.Sessions))
	}
	for position := range c.fans {
		fate := view.Fate(position)
		session, runs := view.Session(position)
		id, claimed := c.sessions[position]
		switch {
		case position > view.Issued:
			c.note("position %d was answered, and the store has issued only %d", position, view.Issued)
		case c.ending[position]:
		case claimed && (!runs || session.ID != id):
			c.note("position %d has session %q (%v), and was told %q", position, session.ID, fate, id)
		case fate.Done() && fate != queue.Claimed:
			c.note("position %d lost its place: %v", position, fate)
		}
	}
	var users []store.Key
	for user := range c.places {
		if !c.retired[user] {
			users = append(users, user)
		}
	}
	again, err := s.Join(c.t.Context(), store.JoinBatch{Queue: c.id, Edge: "audit", Seq: 1, Users: users, Now: time.Now()})
	if err != nil {
		c.t.Fatalf("Join: %v", err)
	}
	for i, j := range again.Joins {
		if j.New || j.Position != c.places[users[i]] {
			c.note("in the end a user has position %d (new: %v), and was told %d", j.Position, j.New, c.places[users[i]])
		}
	}
	for _, wrong := range c.wrongs[:min(len(c.wrongs), 30)] {
		c.t.Error(wrong)
	}
	c.t.Logf("%d fans, %d sessions, %d users in line, %d entries, rewritten %d times; %d answers wrong",
		len(c.fans), len(c.sessions), len(users), view.Number, c.rewritten.Load(), len(c.wrongs))
}
