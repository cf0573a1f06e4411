package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"waitingroom/bench/fans"
)

// runEdgeDeath kills an edge with live connections. Those whom it held come back to two others, which
// have fans of their own, by the rules that the waiting page and the streams of events go by.
func runEdgeDeath(ctx context.Context, l *lab) (measured, error) {
	sizes := l.sizes.live
	in, edges, err := l.liveInstallation(ctx, 3)
	if err != nil {
		return measured{}, err
	}
	defer in.close()
	id, err := in.createQueueWith(ctx, "final", `"capacity":0`)
	if err != nil {
		return measured{}, err
	}
	a, err := l.gather(ctx, in, id, edges, claimTime, []seat{{0, sizes.killedFans}, {1, sizes.otherFans}, {2, sizes.otherFans}})
	if err != nil {
		return measured{}, err
	}
	defer a.close()
	if err := a.watch(ctx, l, func(int) fans.Connect { return fans.Connect{Kind: fans.Mixed, PerSecond: sizes.perSecond} }); err != nil {
		return measured{}, err
	}
	a.restart()
	killed := time.Now()
	if err := edges[0].process.cmd.Process.Kill(); err != nil {
		return measured{}, fmt.Errorf("kill edge: %w", err)
	}
	if err := a.listenUntil(ctx, l, "coming back", time.Minute, func(t *told) bool { return len(t.Back) >= sizes.killedFans }); err != nil {
		return measured{}, err
	}
	t := a.total.clone()
	neighbours := t.dropped() - sizes.killedFans // connections that ended beyond those of the killed edge
	slices.Sort(t.Back)
	var last time.Duration
	if len(t.Back) > 0 {
		last = time.UnixMicro(t.Back[len(t.Back)-1]).Sub(killed)
	}
	lost := t.Fans - t.Connected() + max(neighbours, 0)
	// That the places are kept is what every fan checks: the position, that nobody is put in front,
	// and that no status is older. Closing the queue shows that all are really heard of.
	untold, err := a.closeQueue(ctx, l, in, id)
	if err != nil {
		return measured{}, err
	}
	drops, err := dropped(ctx, edges[1:])
	if err != nil {
		return measured{}, err
	}
	return measured{
		values: []float64{last.Seconds(), float64(mostInASecond(t.Back)), float64(lost + untold), float64(a.total.Wrong)},
		notes:  a.total.Samples,
		seen: append([]observation{
			{"back p50", backPercentile(t.Back, killed, 50), "s"}, {"back p99", backPercentile(t.Back, killed, 99), "s"},
			{"turned away", float64(t.Refused), "requests"}, {"older statuses ignored", float64(t.Older), "events"},
		}, drops...),
	}, nil
}

// mostInASecond is the most of the moments, which are sorted microseconds, in any second.
func mostInASecond(moments []int64) int {
	most, first := 0, 0
	for i, at := range moments {
		for at-moments[first] >= time.Second.Microseconds() {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// backPercentile is after how many seconds so many percent were back.
func backPercentile(moments []int64, since time.Time, percent float64) float64 {
	list := make([]time.Duration, len(moments))
	for i, at := range moments {
		list[i] = time.UnixMicro(at).Sub(since)
	}
	return percentile(list, percent).Seconds()
}
