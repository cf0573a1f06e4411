package main

import (
	"context"
	"fmt"
	"time"

	"waitingroom/bench/fans"
	"waitingroom/origin/queue"
)

// runLive lets many fans in at one tick, while all the others are told that the line has moved, and
// again; and then closes the queue. The time from the tick is that from the moment at which the
// coordinator began it: see where the fans take it from the offer.
func runLive(ctx context.Context, l *lab) (measured, error) {
	sizes := l.sizes.live
	in, edges, err := l.liveInstallation(ctx, sizes.edges)
	if err != nil {
		return measured{}, err
	}
	defer in.close()
	const claim = time.Hour
	id, err := in.createQueueWith(ctx, "final", `"capacity":0,"claimSeconds":3600,"purchaseWindowSeconds":3600`)
	if err != nil {
		return measured{}, err
	}
	a, err := l.gather(ctx, in, id, edges, claim, seats(sizes.fans, len(edges)))
	if err != nil {
		return measured{}, err
	}
	defer a.close()
	if err := a.watch(ctx, l, func(int) fans.Connect { return fans.Connect{Kind: fans.Mixed, PerSecond: sizes.perSecond} }); err != nil {
		return measured{}, err
	}
	if err := a.listenFor(ctx, l, "idle", sizes.idle/4); err != nil {
		return measured{}, err
	}
	if err := a.tell(ctx, "Behave", fans.Behaviour{Claims: 1, Think: sizes.think}); err != nil {
		return measured{}, err
	}
	a.restart()
	begin, err := measureUsage(edges)
	if err != nil {
		return measured{}, err
	}
	stop := l.profileEdges(ctx, edges, "live", time.Duration(sizes.rounds)*5*time.Second)
	var rounds []told
	var p99 []float64
	for r := range sizes.rounds {
		one, err := a.admit(ctx, l, in, id, (r+1)*sizes.atOnce, sizes.atOnce)
		if err != nil {
			return measured{}, err
		}
		rounds, p99 = append(rounds, one), append(p99, micros(one.offers, 99))
	}
	end, err := measureUsage(edges)
	if err != nil {
		return measured{}, err
	}
	stop()
	before := a.total.clone()
	if err := a.renewAll(ctx, l, in, id); err != nil {
		return measured{}, err
	}
	stop = l.profileEdges(ctx, edges, "closing", sizes.settle+3*time.Second)
	lost, err := a.finish(ctx, l, in, id)
	if err != nil {
		return measured{}, err
	}
	stop()
	all := &a.total
	m := measured{
		// Of the rounds' percentiles the median counts, as in the other rows.
		values: []float64{median(p99), micros(all.closing, 100) / 1000, float64(lost), float64(all.Wrong)},
		notes:  a.notes(),
		plots:  map[string]string{"live.svg": plotLive(rounds, all)},
		seen: []observation{
			{"told in the worst round, p99", maxOf(p99), "ms"},
			{"told p50", micros(before.offers, 50), "ms"}, {"told max", micros(before.offers, 100), "ms"},
			{"others told p50", micros(before.events, 50), "ms"}, {"others told p99", micros(before.events, 99), "ms"},
			{"events", float64(before.events.TotalCount()), "events"},
			{"edges", end.coresSince(begin), "cores"},
			{"told of the closing p50", micros(all.closing, 50) / 1000, "s"},
			{"told of the closing", float64(all.closing.TotalCount()), "fans"},
		},
	}
	drops, err := dropped(ctx, edges)
	m.seen = append(m.seen, drops...)
	return m, err
}

// renewAll lets everybody buy who has claimed, and a new fan come for each, so that all are in line.
func (a *audience) renewAll(ctx context.Context, l *lab, in *installation, id queue.ID) error {
	if err := in.patchQueue(ctx, id, `{"capacity":0}`); err != nil {
		return err
	}
	if err := a.tell(ctx, "Behave", fans.Behaviour{Renews: true}); err != nil {
		return err
	}
	if err := a.tell(ctx, "Buy", 2*l.sizes.live.settle); err != nil {
		return err
	}
	return a.listenUntil(ctx, l, "new fans come", patience, func(t *told) bool {
		return t.Waiting == t.Fans && t.Connected() == t.Fans
	})
}

// admit raises the capacity, so that so many fans are let in at one tick, waits until they were told
// and the line is quiet again, and returns what was heard.
func (a *audience) admit(ctx context.Context, l *lab, in *installation, id queue.ID, capacity, n int) (told, error) {
	earlier := a.total
	a.total = newTold()
	if err := in.patchQueue(ctx, id, fmt.Sprintf(`{"capacity":%d}`, capacity)); err != nil {
		return told{}, err
	}
	what := fmt.Sprintf("letting in number %d", capacity)
	claimed := func(t *told) bool { return t.OfferedLive >= n && t.Claimed+t.Late >= n }
	if err := a.listenUntil(ctx, l, what, time.Minute, claimed); err != nil {
		return told{}, err
	}
	if err := a.listenFor(ctx, l, what, l.sizes.live.settle); err != nil {
		return told{}, err
	}
	one := a.total
	a.total = earlier
	a.total.follow(one)
	if most := mostAtOneTick(one.Ticks); most < n && one.OfferedLive == n {
		return told{}, fmt.Errorf("%d were let in, at most %d of them at one tick", n, most)
	}
	return one, nil
}

// mostAtOneTick is how many offers one tick made.
func mostAtOneTick(ticks map[int64]int) int {
	most := 0
	for _, n := range ticks {
		most = max(most, n)
	}
	return most
}

func maxOf(values []float64) float64 {
	most := 0.0
	for _, v := range values {
		most = max(most, v)
	}
	return most
}
