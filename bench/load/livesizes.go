package main

import "time"

// liveSizes are those of the scenarios with live connections; the tests have smaller ones.
type liveSizes struct {
	fans, edges int
	// perSecond is how many connections are begun in a second at each edge, below the edges' own limit.
	perSecond int
	// reportEvery is how often the crowds are asked what they were told.
	reportEvery time.Duration
	idle        time.Duration // before memory is read
	hold        time.Duration // with the line moving
	perMinute   int           // fans let in while it moves
	think       time.Duration // of a fan who is let in
	shop        time.Duration // of a fan who buys
	atOnce      int           // fans let in at one tick
	rounds      int
	settle      time.Duration // after each round

	slowFans, slowReaders, slowRounds int
	slowHalf                          time.Duration
	slowSoak                          time.Duration // at most, until bad readers are dropped
	// passersBy stand in front of those who watch, and are let in while they do: more than are
	// needed for all rounds, so that nobody who watches is let in.
	passersBy, slowPerMinute int

	killedFans, otherFans int
}

func fullLiveSizes() liveSizes {
	return liveSizes{
		fans: 100_000, edges: 6, perSecond: 900, reportEvery: time.Second, idle: 20 * time.Second, hold: 2 * time.Minute,
		perMinute: 1200, think: 2 * time.Second, shop: 10 * time.Second, atOnce: 2000, rounds: 5, settle: 2 * time.Second,
		slowFans: 9000, slowReaders: 1000, slowRounds: 3, slowHalf: 20 * time.Second, slowSoak: 100 * time.Second, passersBy: 150_000, slowPerMinute: 24_000,
		killedFans: 10_000, otherFans: 2500,
	}
}
