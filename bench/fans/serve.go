//go:build linux

package fans

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/rpc"
	"sync"
	"time"
)

// Service is what a crowd can be told to do. Its methods are called through net/rpc.
type Service struct {
	ctx   context.Context
	crowd *crowd
	begun func(*crowd)
}

// Serve runs a crowd until in ends.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var working sync.WaitGroup
	defer working.Wait()
	stop := make(chan struct{})
	defer close(stop)
	s := &Service{ctx: ctx, begun: func(c *crowd) {
		working.Go(func() { _ = c.run(stop) })
		for range callers {
			working.Go(func() { c.call(ctx) })
		}
	}}
	server := rpc.NewServer()
	if err := server.RegisterName("Fans", s); err != nil {
		return fmt.Errorf("register calls: %w", err)
	}
	server.ServeConn(duplex{in, out}) // until in ends
	cancel()
	return nil
}

// call sends requests for the loop.
func (c *crowd) call(ctx context.Context) {
	for {
		select {
		case j := <-c.jobs:
			c.post(j(ctx))
		case <-ctx.Done():
			return
		}
	}
}

// do has the loop do something and waits until it has.
func (s *Service) do(call func() error) error {
	if s.crowd == nil {
		return errors.New("the crowd has not begun")
	}
	result := make(chan error, 1)
	s.crowd.post(func() { result <- call() })
	select {
	case err := <-result:
		return err
	case <-s.crowd.ended:
		return errors.New("the crowd has ended")
	}
}

// Begin is the first call.
func (s *Service) Begin(config Config, _ *struct{}) error {
	if s.crowd != nil {
		return errors.New("the crowd has begun already")
	}
	shop, err := newShop(config)
	if err != nil {
		return err
	}
	p, err := newPoller(config)
	if err != nil {
		return err
	}
	now := time.Now()
	c := &crowd{
		config: config, shop: shop, random: rand.New(rand.NewPCG(config.Seed, uint64(config.Home))),
		tally: newTally(), paced: now, swept: now,
		jobs: make(chan job, mostFans), calls: make(chan func(), 64), ended: make(chan struct{}),
		poller: p,
	}
	s.crowd = c
	s.begun(c)
	return nil
}

// Join lets so many fans join, through the edge, each with a request of their own.
func (s *Service) Join(n int, _ *struct{}) error {
	c := s.crowd
	if c == nil || n < 0 {
		return errors.New("the crowd has not begun")
	}
	list := make([]newcomer, n)
	next := make(chan int)
	failed := make(chan error, callers)
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	for range callers {
		group.Go(func() {
			for i := range next {
				var err error
				if list[i], err = c.shop.join(ctx); err != nil {
					failed <- err
					cancel()
					return
				}
			}
		})
	}
	for i := range n {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	group.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	return s.do(func() error {
		if len(c.fans)+n > mostFans {
			return fmt.Errorf("a crowd holds at most %d fans", mostFans)
		}
		for _, joined := range list {
			c.fans = append(c.fans, c.seat(joined))
			if i := int32(len(c.fans) - 1); c.fans[i].state == admitted {
				c.decide(i)
			}
		}
		return nil
	})
}

// Watch lets all fans who are not connected begin to watch.
func (s *Service) Watch(how Connect, _ *struct{}) error {
	return s.do(func() error {
		c := s.crowd
		if how.PerSecond < 1 {
			return errors.New("watch: the pace is at least one a second")
		}
		c.perSecond = how.PerSecond
		for i := range c.fans {
			f := &c.fans[i]
			if f.phase != away {
				continue
			}
			f.socket = how.Kind == WebSocket || how.Kind == Mixed && i%2 == 0
			if how.Bad {
				f.reading = []reading{slowly, slowly, never, never}[i%4] // half of either kind
			}
			f.phase = queued
			c.queue = append(c.queue, int32(i))
		}
		return nil
	})
}

// Unwatch ends all live connections, and nobody comes back until told to watch.
func (s *Service) Unwatch(_ struct{}, _ *struct{}) error {
	return s.do(func() error {
		c := s.crowd
		c.queue = nil
		for i := range c.fans {
			if f := &c.fans[i]; f.phase != done {
				c.hangUp(f)
				f.serial++
				f.rest, f.line, f.returns, f.phase = nil, nil, true, away
				f.edge = int16(c.config.Home)
			}
		}
		return nil
	})
}

// Behave sets what fans do who are let in from now on.
func (s *Service) Behave(b Behaviour, _ *struct{}) error {
	return s.do(func() error {
		s.crowd.behaviour = b
		return nil
	})
}

// Buy lets everybody buy who has claimed, within a time.
func (s *Service) Buy(within time.Duration, _ *struct{}) error {
	return s.do(func() error {
		c := s.crowd
		for i := range c.fans {
			if f := &c.fans[i]; f.state == active && f.session != "" {
				c.after(int32(i), toBuy, time.Duration(c.random.Float64()*float64(within)))
			}
		}
		return nil
	})
}

// Closing announces the moment at which the queue begins to close.
func (s *Service) Closing(at time.Time, _ *struct{}) error {
	return s.do(func() error {
		s.crowd.closing = at
		return nil
	})
}

// Report tells what happened since the report before.
func (s *Service) Report(_ struct{}, r *Report) error {
	return s.do(func() error {
		var err error
		if *r, err = s.crowd.tally.take(); err != nil {
			return err
		}
		r.Fans = len(s.crowd.fans)
		for i := range s.crowd.fans {
			f := &s.crowd.fans[i]
			switch {
			case f.phase == live && !f.first && f.socket:
				r.WebSockets++
			case f.phase == live && !f.first:
				r.Streams++
			case f.phase == pausing:
				r.Pausing++
			case f.phase == done:
				r.Out++
			}
			switch f.state {
			case waiting, scheduled:
				r.Waiting++
			case admitted:
				r.Admitted++
			case active:
				r.Active++
			}
		}
		return nil
	})
}
