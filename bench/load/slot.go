package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"waitingroom/origin/queue"
)

// slotPollEvery is how often the fan whose turn is next asks. It is far less than what is
// measured, and a fan at the front is told to ask every second.
const slotPollEvery = 5 * time.Millisecond

// slotCapacity is how many fans each shop holds.
const slotCapacity = 10

// runSlot frees slots in several queues at once, and takes the time until the next fan in line is
// told of an offer: from when the shop begins to end a session until the fan has the answer.
func runSlot(ctx context.Context, l *lab) (measured, error) {
	in, err := l.install(ctx)
	if err != nil {
		return measured{}, err
	}
	defer in.close()
	lines := make([]slotLine, l.sizes.slotQueues)
	for i := range lines {
		if lines[i], err = in.slotLine(ctx, fmt.Sprintf("sale-%d", i), l.sizes.slots); err != nil {
			return measured{}, err
		}
	}
	l.progress(fmt.Sprintf("freeing %d slots in each of %d queues", l.sizes.slots, len(lines)))
	var mu sync.Mutex
	var all []time.Duration
	group, working := errgroup.WithContext(ctx)
	for _, line := range lines {
		group.Go(func() error {
			took, err := line.run(working)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return measured{}, err
	}
	return measured{values: []float64{milliseconds(percentile(all, 99))}}, nil
}

// slotLine is a full shop with fans waiting.
type slotLine struct {
	in       *installation
	id       queue.ID
	sessions []string // tokens, those of the fans who came first in front
	waiting  []fan
}

func (in *installation) slotLine(ctx context.Context, slug string, slots int) (slotLine, error) {
	line := slotLine{in: in}
	var err error
	if line.id, err = in.createQueue(ctx, slug, slotCapacity); err != nil {
		return line, err
	}
	fans, err := in.fans(ctx, line.id, slotCapacity+slots)
	if err != nil {
		return line, err
	}
	for _, f := range fans[:slotCapacity] {
		if err := in.awaitOffer(ctx, f); err != nil {
			return line, err
		}
		session, err := in.claim(ctx, f)
		if err != nil {
			return line, err
		}
		line.sessions = append(line.sessions, session)
	}
	line.waiting = fans[slotCapacity:]
	return line, nil
}

func (line *slotLine) run(ctx context.Context) ([]time.Duration, error) {
	var took []time.Duration
	for _, f := range line.waiting {
		begin := time.Now()
		if err := line.in.end(ctx, line.sessions[0]); err != nil {
			return took, err
		}
		if err := line.in.awaitOffer(ctx, f); err != nil {
			return took, err
		}
		took = append(took, time.Since(begin))
		session, err := line.in.claim(ctx, f)
		if err != nil {
			return took, err
		}
		line.sessions = append(line.sessions[1:], session)
	}
	return took, nil
}

// awaitOffer polls until a fan has an offer.
func (in *installation) awaitOffer(ctx context.Context, f fan) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	again := time.NewTicker(slotPollEvery)
	defer again.Stop()
	for {
		status, answer, err := ask(ctx, http.MethodGet, "http://"+in.edge+"/tickets/"+f.id, "", bearer(f.token))
		if err != nil || status != http.StatusOK {
			return fmt.Errorf("poll: status %d %s %w", status, answer, err)
		}
		if bytes.Contains(answer, []byte(`"state":"admitted"`)) {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for an offer: %w", ctx.Err())
		}
	}
}
