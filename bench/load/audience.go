package main

import (
	"context"
	"fmt"
	"os/exec"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"

	"waitingroom/bench/fans"
	"waitingroom/origin/queue"
)

// patience is how long a condition is waited for that holds soon on a machine that has nothing else
// to do. What is measured has budgets; this only ends a run that hangs.
const patience = 3 * time.Minute

// audience is the fans of all client processes.
type audience struct {
	crowds []*fans.Process
	total  told
	begun  time.Time
	series []second // since the last call of restart
}

// told is what the reports of several crowds, or of some time, come to.
type told struct {
	fans.Report
	events, offers, closing *hdr.Histogram
}

func newTold() told {
	return told{
		Report: fans.Report{Ticks: map[int64]int{}, Ended: map[string]int{}},
		events: fans.NewHistogram(), offers: fans.NewHistogram(), closing: fans.NewHistogram(),
	}
}

// add adds another crowd's report of the same time.
func (t *told) add(r *fans.Report) error {
	t.Fans += r.Fans
	t.WebSockets += r.WebSockets
	t.Streams += r.Streams
	t.Pausing += r.Pausing
	t.Out += r.Out
	t.Waiting += r.Waiting
	t.Admitted += r.Admitted
	t.Active += r.Active
	t.count(r)
	for _, h := range []struct {
		to   *hdr.Histogram
		from []byte
	}{{t.events, r.Told}, {t.offers, r.Offers}, {t.closing, r.Closing}} {
		decoded, err := hdr.Decode(h.from)
		if err != nil {
			return fmt.Errorf("read report: %w", err)
		}
		h.to.Merge(decoded)
	}
	return nil
}

// count adds what is counted.
func (t *told) count(r *fans.Report) {
	t.Statuses += r.Statuses
	t.Signs += r.Signs
	t.Bytes += r.Bytes
	t.Offered += r.Offered
	t.OfferedLive += r.OfferedLive
	t.Closed += r.Closed
	t.Claimed += r.Claimed
	t.Bought += r.Bought
	t.Passed += r.Passed
	t.Late += r.Late
	t.Refused += r.Refused
	t.Older += r.Older
	t.Wrong += r.Wrong
	t.Back = append(t.Back, r.Back...)
	t.Samples = append(t.Samples, r.Samples...)
	for tick, n := range r.Ticks {
		t.Ticks[tick] += n
	}
	for how, n := range r.Ended {
		t.Ended[how] += n
	}
}

// follow adds what happened after it: counts add up, what is as of now is replaced.
func (t *told) follow(next told) {
	before := *t
	*t = next
	t.Report = fans.Report{
		Fans: next.Fans, WebSockets: next.WebSockets, Streams: next.Streams, Pausing: next.Pausing, Out: next.Out,
		Waiting: next.Waiting, Admitted: next.Admitted, Active: next.Active,
		Ticks: map[int64]int{}, Ended: map[string]int{},
	}
	t.events, t.offers, t.closing = before.events, before.offers, before.closing
	t.count(&before.Report)
	t.count(&next.Report)
	t.events.Merge(next.events)
	t.offers.Merge(next.offers)
	t.closing.Merge(next.closing)
}

// clone is a copy that does not change any more.
func (t *told) clone() told {
	c := newTold()
	c.follow(*t)
	return c
}

// dropped is how many connections ended though the ticket was not out.
func (t *told) dropped() int {
	n := 0
	for _, count := range t.Ended {
		n += count
	}
	return n
}

// second is a point of a plot.
type second struct {
	at            time.Duration
	events        uint64
	p50, p99, max float64 // of the events, in milliseconds
	connected     int
}

// seat says how many fans watch by which edge.
type seat struct {
	home int
	fans int
}

// gather starts a process for each seat, and all fans join through the door.
func (l *lab) gather(ctx context.Context, in *installation, id queue.ID, edges []edge, claim time.Duration, seats []seat) (a *audience, err error) {
	a = &audience{total: newTold(), begun: time.Now()}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	config := fans.Config{
		Door: in.edge, Origin: in.origin, Queue: string(id), Claim: claim,
		AppKey: in.publishableKey, ShopKey: in.secretKey, Seed: uint64(time.Now().UnixNano()),
	}
	for _, e := range edges {
		config.Edges = append(config.Edges, e.address)
	}
	for _, s := range seats {
		config.Home = s.home
		// Each crowd has a source address of its own, with 28,000 ports for each edge: more than the
		// files that its process may open.
		in.sources++
		config.Source = fmt.Sprintf("127.0.0.%d", 1+in.sources)
		p, err := fans.Start(config, func(cmd *exec.Cmd) { cmd.SysProcAttr = endWithParent() })
		if err != nil {
			return a, err
		}
		a.crowds = append(a.crowds, p)
	}
	l.progress("joining")
	return a, a.each(ctx, func(ctx context.Context, i int, p *fans.Process) error {
		return p.Call(ctx, "Join", seats[i].fans, &struct{}{})
	})
}

func (a *audience) close() {
	for _, p := range a.crowds {
		_ = p.Close()
	}
}

// each calls f for all crowds at once.
func (a *audience) each(ctx context.Context, f func(ctx context.Context, i int, p *fans.Process) error) error {
	group, working := errgroup.WithContext(ctx)
	for i, p := range a.crowds {
		group.Go(func() error { return f(working, i, p) })
	}
	return group.Wait()
}

// tell calls a method of all crowds with the same argument.
func (a *audience) tell(ctx context.Context, method string, argument any) error {
	return a.each(ctx, func(ctx context.Context, _ int, p *fans.Process) error {
		return p.Call(ctx, method, argument, &struct{}{})
	})
}

// reports asks all crowds what happened since they were asked last.
func (a *audience) reports(ctx context.Context) ([]fans.Report, error) {
	list := make([]fans.Report, len(a.crowds))
	return list, a.each(ctx, func(ctx context.Context, i int, p *fans.Process) error {
		return p.Call(ctx, "Report", struct{}{}, &list[i])
	})
}

// listen adds what happened since the last call to the total, and returns it.
func (a *audience) listen(ctx context.Context) (told, error) {
	now := newTold()
	list, err := a.reports(ctx)
	if err != nil {
		return now, err
	}
	for i := range list {
		if err := now.add(&list[i]); err != nil {
			return now, err
		}
	}
	a.total.follow(now)
	a.series = append(a.series, second{
		at: time.Since(a.begun), events: now.Statuses, connected: now.Connected(),
		p50: micros(now.events, 50), p99: micros(now.events, 99), max: micros(now.events, 100),
	})
	return now, nil
}

// restart begins the total and the series anew; what is as of now stays.
func (a *audience) restart() {
	old := a.total
	a.total = newTold()
	a.total.Samples, a.total.Wrong = old.Samples, old.Wrong
	a.begun, a.series = time.Now(), nil
}

// listenFor listens for a while.
func (a *audience) listenFor(ctx context.Context, l *lab, what string, d time.Duration) error {
	end := time.Now().Add(d)
	return a.listenUntil(ctx, l, what, d+patience, func(*told) bool { return !time.Now().Before(end) })
}

// listenUntil listens until a condition holds of the total, at most so long; that it does not hold
// then is no error, for what is missing is counted by the caller.
func (a *audience) listenUntil(ctx context.Context, l *lab, what string, atMost time.Duration, holds func(*told) bool) error {
	end := time.Now().Add(atMost)
	again := time.NewTicker(l.sizes.live.reportEvery)
	defer again.Stop()
	for {
		now, err := a.listen(ctx)
		if err != nil {
			return err
		}
		l.progress(fmt.Sprintf("%s: %d connected, %d pausing, %d statuses in %.1f s, p99 %.0f ms, %d offered",
			what, now.Connected(), now.Pausing, now.Statuses, time.Since(a.begun).Seconds(), micros(now.events, 99), a.total.Offered))
		if holds(&a.total) || time.Now().After(end) {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		}
	}
}

// watch lets everybody watch, those of each crowd by a kind of connection of their own, and waits
// until all have a status.
func (a *audience) watch(ctx context.Context, l *lab, how func(i int) fans.Connect) error {
	err := a.each(ctx, func(ctx context.Context, i int, p *fans.Process) error {
		return p.Call(ctx, "Watch", how(i), &struct{}{})
	})
	if err != nil {
		return err
	}
	if err := a.listenUntil(ctx, l, "connecting", patience, func(t *told) bool { return t.Connected()+t.Out == t.Fans }); err != nil {
		return err
	}
	if t := &a.total; t.Connected()+t.Out != t.Fans {
		return fmt.Errorf("connect: %d of %d fans have no status after %v; refused %d, ended %v, wrong %v",
			t.Fans-t.Out-t.Connected(), t.Fans, patience, t.Refused, t.Ended, t.Samples)
	}
	return nil
}

// closeQueue closes the queue, waits until all in line were told, and returns how many were not. A
// session that runs goes on, and its fan is not in line.
func (a *audience) closeQueue(ctx context.Context, l *lab, in *installation, id queue.ID) (untold int, err error) {
	inLine := func(t *told) int { return t.Waiting + t.Admitted }
	if err := a.tell(ctx, "Closing", time.Now()); err != nil {
		return 0, err
	}
	if err := in.patchQueue(ctx, id, `{"state":"closed"}`); err != nil {
		return 0, err
	}
	err = a.listenUntil(ctx, l, "closing", time.Minute, func(t *told) bool { return inLine(t) == 0 })
	return inLine(&a.total), err
}

// untold waits until everybody was told of every offer that was made, and returns how many were not.
// No offer may be made meanwhile.
func (a *audience) untoldOffers(ctx context.Context, l *lab, in *installation, id queue.ID) (int, error) {
	made := -1
	for {
		now, err := in.offersMade(ctx, id)
		if err != nil {
			return 0, err
		}
		if now == made {
			break
		}
		made = now
		if err := a.listenFor(ctx, l, "waiting for the last offers", 2*tickEvery); err != nil {
			return 0, err
		}
	}
	err := a.listenUntil(ctx, l, "waiting for the last offers", 30*time.Second, func(t *told) bool { return t.Offered >= made })
	return max(made-a.total.Offered, a.total.Offered-made), err
}

// micros is a percentile of a histogram, in milliseconds; 0 where it is empty.
func micros(h *hdr.Histogram, percent float64) float64 {
	if h.TotalCount() == 0 {
		return 0
	}
	return float64(h.ValueAtPercentile(percent)) / 1000
}

// endings tells how connections ended that should not have.
func (t *told) endings() []string {
	var list []string
	for how, n := range t.Ended {
		list = append(list, fmt.Sprintf("%d connections ended: %s", n, how))
	}
	return list
}
