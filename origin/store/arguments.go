package store

import (
	"fmt"
	"strings"

	"waitingroom/origin/queue"
)

// MaxSeq bounds the sequence numbers of batches to what any store can count with.
const MaxSeq = 1<<53 - 1

// What follows checks arguments for what no caller can mean. Every store does so before it looks for the
// queue, so that all refuse the same with the same ErrInvalid.

func invalid(why string) error { return fmt.Errorf("%w: %s", ErrInvalid, why) }

// CheckNames checks the names of an incarnation and of a generation of it.
func CheckNames(incarnation, generation string) error {
	if incarnation == "" || generation == "" || strings.ContainsAny(generation, ", ") {
		return invalid("incarnation and generation are names without commas or blanks")
	}
	return nil
}

// Check checks a batch's edge and number.
func (b *JoinBatch) Check() error {
	if b.Edge == "" || b.Seq == 0 || b.Seq > MaxSeq {
		return invalid("a batch has an edge and a number from 1")
	}
	return nil
}

// Check wants a name for the session, whether it is going to be used or not.
func (c *Claim) Check() error {
	if c.SessionID == "" {
		return invalid("a claim brings an id for the session")
	}
	return nil
}

// CheckEnd checks the fate that a session is ended with.
func CheckEnd(fate queue.Fate) error {
	if fate != queue.Ended && fate != queue.Left {
		return invalid("a session comes to the fate ended or left")
	}
	return nil
}

// CheckOwner checks the name of whoever wants or has a lease.
func CheckOwner(owner string) error {
	if owner == "" {
		return invalid("a lease has an owner")
	}
	return nil
}

// Check wants the session named that is to be revoked.
func (r *Revocation) Check() error {
	if r.ID == "" {
		return invalid("a revocation names a session")
	}
	return nil
}
