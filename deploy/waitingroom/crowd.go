package main

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Crowd is a number of simulated fans who come, wait in line as the tenant's app would, and buy
// or wander off; after a while each comes again as somebody new.
type Crowd struct {
	Edge, Shop, Queue string
	Key               string // the tenant's publishable key
	Fans              int
	// Shopping is the mean time in the shop, Away the mean pause between two visits.
	Shopping, Away time.Duration

	counts crowdCounts
}

// crowdCounts says how the visits so far came out.
type crowdCounts struct {
	Joined, Bought, Left, Silent, Lapsed, Lost atomic.Int64
}

// temper is what a fan does on this visit.
type temper int

const (
	buyer  temper = iota // waits, enters, buys
	leaver               // loses patience and leaves the line
	silent               // closes the app in line without a word
	lapser               // is gone when the turn comes: the offer lapses
)

func chooseTemper() temper {
	switch n := rand.IntN(100); {
	case n < 84:
		return buyer
	case n < 92:
		return leaver
	case n < 97:
		return silent
	default:
		return lapser
	}
}

// Run keeps the fans coming until ctx ends.
func (c *Crowd) Run(ctx context.Context) error {
	transport := &http.Transport{MaxConnsPerHost: 128, MaxIdleConnsPerHost: 128, IdleConnTimeout: 30 * time.Second}
	defer transport.CloseIdleConnections()
	app := app{edge: c.Edge, shop: c.Shop, key: c.Key, http: &http.Client{Transport: transport, Timeout: 10 * time.Second}}
	var fans errgroup.Group
	for range c.Fans {
		fans.Go(func() error {
			// At the start everybody comes soon, as when a sale opens.
			for wait := uniform(c.Away / 4); rest(ctx, wait); wait = uniform(2 * c.Away) {
				c.visit(ctx, app, chooseTemper())
			}
			return nil
		})
	}
	return fans.Wait()
}

// visit plays one fan from joining to the end. What fails is tried again as the answer says; a
// fan whom the waiting room cannot serve any more counts as lost.
func (c *Crowd) visit(ctx context.Context, app app, temper temper) {
	fan, err := app.join(ctx, c.Queue)
	if err != nil {
		c.counts.Lost.Add(1)
		return
	}
	c.counts.Joined.Add(1)
	patience := time.Now().Add(3*time.Second + uniform(4*c.Away))
	for {
		switch {
		case fan.State == "admitted" && temper == lapser:
			c.counts.Lapsed.Add(1)
			return
		case fan.State == "admitted":
			c.buy(ctx, app, fan)
			return
		case fan.State != "waiting" && fan.State != "scheduled":
			c.counts.Lost.Add(1)
			return
		case temper != buyer && temper != lapser && time.Now().After(patience):
			if temper == silent {
				c.counts.Silent.Add(1)
			} else if app.leave(ctx, fan) == nil {
				c.counts.Left.Add(1)
			}
			return
		}
		poll := time.Duration(max(fan.PollAfterSeconds, 1)) * time.Second
		if !rest(ctx, poll-uniform(poll/5)) {
			return
		}
		if err := app.poll(ctx, &fan); err != nil {
			c.counts.Lost.Add(1)
			return
		}
	}
}

func (c *Crowd) buy(ctx context.Context, app app, fan fan) {
	session, err := app.claim(ctx, fan)
	if err != nil {
		c.counts.Lost.Add(1)
		return
	}
	if !rest(ctx, c.Shopping/2+uniform(c.Shopping)) {
		return
	}
	if err := app.buy(ctx, session); err != nil {
		c.counts.Lost.Add(1)
		return
	}
	c.counts.Bought.Add(1)
}

// uniform is a random time from nothing to most.
func uniform(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return rand.N(most)
}

// rest waits; false when ctx ended first.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
