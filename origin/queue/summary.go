package queue

import "time"

// Summary is the public state of a queue: the same for everybody, and enough to compute what anyone
// in line is told beyond the watermark, so that any cache can answer the polls of a crowd.
type Summary struct {
	QueueState State `json:"queueState"`
	// OpensAt is set until the queue opens.
	OpensAt       time.Time `json:"opensAt,omitzero"`
	Watermark     uint64    `json:"watermark"`
	Issued        uint64    `json:"issued"`
	Waiting       int       `json:"waiting"`
	Owed          int       `json:"owed"`
	RatePerMinute int       `json:"ratePerMinute"`
	FirstBlock    uint64    `json:"firstBlock"`
	Blocks        []int     `json:"blocks"`
	Bits          []byte    `json:"bits"` // base64
	// Estimate turns Ahead into a wait; null while there is no measure.
	Estimate *Curve `json:"estimate"`
	// LikelySoldOutFrom is the Ahead from which on what remains will likely not reach a fan; the owed
	// count as one less. Null while that is nobody in line, or not known.
	LikelySoldOutFrom *int64 `json:"likelySoldOutFrom"`
	Turn              uint64 `json:"turn"`
	// SightAfterSeconds is how long after asking for the own status somebody who reads this document
	// has to ask again in order to be seen in every turn.
	SightAfterSeconds int    `json:"sightAfterSeconds"`
	Seq               string `json:"seq"`
	// Stale says that the edge has lost contact with the origin and tells its last knowledge.
	Stale bool      `json:"stale"`
	Now   time.Time `json:"now"`
}

// Summary computes the public state at a moment.
func (v *View) Summary(now time.Time) Summary {
	firstBlock, counts, bits := v.Blocks()
	s := Summary{
		QueueState: v.Settings.State, Watermark: v.Watermark, Issued: v.Issued,
		Waiting: v.Waiting, Owed: v.Owed, RatePerMinute: v.RatePerMinute(now),
		FirstBlock: firstBlock, Blocks: counts, Bits: bits, Estimate: v.curve(),
		LikelySoldOutFrom: v.likelySoldOutFrom(), Turn: v.Turn,
		SightAfterSeconds: int(SightAfter(v.Settings.TurnLength()) / time.Second),
		Seq:               v.seq, Now: now,
	}
	if v.Settings.State == Scheduled {
		s.OpensAt = v.Settings.OpensAt
	}
	return s
}
