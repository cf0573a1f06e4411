package queue

import "time"

// Kind says what an entry of the log tells.
type Kind string

// The kinds of log entries, with the members of Entry that each one uses besides Number and At.
const (
	EntryJoined    Kind = "joined"    // Issued: the highest position now
	EntryOffered   Kind = "offered"   // Positions, Until (claimBy), Watermark, Issued (an offer can come with its join)
	EntryClaimed   Kind = "claimed"   // Positions (one), Session, Since, Until (the window)
	EntryLapsed    Kind = "lapsed"    // Positions: missed offers, owed again
	EntryWithdrawn Kind = "withdrawn" // Positions: offers taken back by a change of state; owed, not missed
	EntryProlonged Kind = "prolonged" // Until - Since is added to claimBy of every running offer
	EntryDone      Kind = "done"      // Positions, Fate (Ended, Expired, Missed, Left), Reason
	EntrySettings  Kind = "settings"  // Settings
	EntryTurn      Kind = "turn"      // Turn: the one that runs now
	EntryEstimate  Kind = "estimate"  // Estimate
	// EntryGeneration begins a generation: entries before it may have been lost, and it tells
	// nothing of what took their place, so that every reader takes a snapshot.
	EntryGeneration Kind = "generation"
)

// Entry is one change of a queue. Numbers count from 1 without gaps within a generation.
type Entry struct {
	Number    uint64    `json:"number"`
	At        time.Time `json:"at"`
	Kind      Kind      `json:"kind"`
	Positions Positions `json:"positions,omitempty"`
	Issued    uint64    `json:"issued,omitzero"`
	Watermark uint64    `json:"watermark,omitzero"`
	Fate      Fate      `json:"fate,omitzero"`
	Reason    string    `json:"reason,omitzero"`
	Session   string    `json:"session,omitzero"`
	Since     time.Time `json:"since,omitzero"`
	Until     time.Time `json:"until,omitzero"`
	Turn      uint64    `json:"turn,omitzero"`
	Settings  *Settings `json:"settings,omitzero"`
	Estimate  *Estimate `json:"estimate,omitzero"`
	// Chain is computed from the entry and the Chain of the one before it, so that two logs that
	// have it in common are alike up to here. It stays with those who read the store.
	Chain string `json:"-"`
}

// Snapshot is the whole of a queue as of log entry Number: what a reader of the log starts from.
type Snapshot struct {
	ID          ID     `json:"id"`
	Incarnation string `json:"incarnation"`
	// Generations are the names of the queue's memory, the running one last. Tickets of the
	// earlier ones stay valid.
	Generations []string  `json:"generations"`
	Number      uint64    `json:"number"`
	Chain       string    `json:"-"` // of the entry Number
	Version     uint64    `json:"-"` // of the settings
	CreatedAt   time.Time `json:"createdAt"`
	Settings    Settings  `json:"settings"`
	Issued      uint64    `json:"issued"`
	Watermark   uint64    `json:"watermark"`
	Turn        uint64    `json:"turn"`
	// Fates holds 4 bits for each position from 1, the first position in the high half of the
	// first byte; what it does not reach is Waiting.
	Fates    []byte    `json:"fates"`
	Offers   []Offer   `json:"offers"`
	Sessions []Session `json:"sessions"`
	// Admitted are the offers made in the last minutes, oldest first, from which the rate is
	// computed; a snapshot read from the store has none.
	Admitted []Admitted `json:"admitted,omitempty"`
	// Estimate is the last one logged since the settings changed.
	Estimate *Estimate `json:"estimate,omitzero"`
}

// Offer is a slot kept for a fan until ClaimBy.
type Offer struct {
	Position uint64    `json:"position"`
	ClaimBy  time.Time `json:"claimBy"`
}

// Session is a claimed slot.
type Session struct {
	Position  uint64    `json:"position"`
	ID        string    `json:"id"` // queue~random
	StartsAt  time.Time `json:"startsAt"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// Admitted counts the offers that were made in the ten seconds from At.
type Admitted struct {
	At    time.Time `json:"at"`
	Count int       `json:"count"`
}
