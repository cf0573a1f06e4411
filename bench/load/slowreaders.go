package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"waitingroom/bench/fans"
)

// runSlowReaders has fans watch at one edge a line that moves fast, by turns alone and with others who
// read too slowly or not at all, and compares how late those are told who read well.
func runSlowReaders(ctx context.Context, l *lab) (measured, error) {
	sizes := l.sizes.live
	in, edges, err := l.liveInstallation(ctx, 1)
	if err != nil {
		return measured{}, err
	}
	defer in.close()
	// A long hold has long turns, so that those in front, who joined once, count as present throughout.
	id, err := in.createQueueWith(ctx, "final", fmt.Sprintf(
		`"capacity":0,"maxPerMinute":%d,"holdSeconds":18000,"claimSeconds":3600`, sizes.slowPerMinute))
	if err != nil {
		return measured{}, err
	}
	if _, err := in.fans(ctx, id, sizes.passersBy); err != nil {
		return measured{}, err
	}
	good, err := l.gather(ctx, in, id, edges, time.Hour, []seat{{0, sizes.slowFans}})
	if err != nil {
		return measured{}, err
	}
	defer good.close()
	bad, err := l.gather(ctx, in, id, edges, time.Hour, []seat{{0, sizes.slowReaders}})
	if err != nil {
		return measured{}, err
	}
	defer bad.close()
	if err := good.watch(ctx, l, func(int) fans.Connect { return fans.Connect{Kind: fans.Mixed, PerSecond: sizes.perSecond} }); err != nil {
		return measured{}, err
	}
	if err := in.patchQueue(ctx, id, `{"capacity":10000000}`); err != nil {
		return measured{}, err
	}
	if err := good.listenFor(ctx, l, "warming up", sizes.slowHalf/2); err != nil {
		return measured{}, err
	}
	var ratios, with, without, grown []float64
	drops := map[string]float64{} // of bad readers, while they were there
	before, err := measureUsage(edges)
	if err != nil {
		return measured{}, err
	}
	for r := range sizes.slowRounds {
		order := []bool{false, true}
		if r%2 == 1 {
			order = []bool{true, false}
		}
		var p99 [2]float64
		for _, withBad := range order {
			half := 0
			start, err := sumDropped(ctx, edges)
			if err != nil {
				return measured{}, err
			}
			if withBad {
				half = 1
				if err := bad.readBadly(ctx, l, edges); err != nil {
					return measured{}, err
				}
			}
			if p99[half], err = good.eventsP99(ctx, l, sizes.slowHalf); err != nil {
				return measured{}, err
			}
			if !withBad {
				continue
			}
			after, err := measureUsage(edges)
			if err != nil {
				return measured{}, err
			}
			end, err := sumDropped(ctx, edges)
			if err != nil {
				return measured{}, err
			}
			for reason := range end {
				drops[reason] += end[reason] - start[reason]
			}
			grown = append(grown, after.kibSince(before, 0, 1, sizes.slowReaders))
			if err := bad.tell(ctx, "Unwatch", struct{}{}); err != nil {
				return measured{}, err
			}
			if _, err := bad.listen(ctx); err != nil {
				return measured{}, err
			}
		}
		without, with = append(without, p99[0]), append(with, p99[1])
		ratios = append(ratios, p99[1]/max(p99[0], 0.001))
	}
	lost := good.total.Fans - good.total.Connected() + good.total.dropped()
	m := measured{
		values: []float64{
			median(ratios), slices.Max(grown),
			float64(lost), float64(good.total.Wrong + bad.total.Wrong),
		},
		notes: append(good.notes(), bad.total.Samples...),
		seen: []observation{
			{"p99 without", median(without), "ms"}, {"p99 with", median(with), "ms"},
			{"events", float64(good.total.events.TotalCount()), "events"},
			{"memory before", float64(before.resident[0]) / (1 << 20), "MiB"},
			{"memory in the first round", grown[0], "KiB/reader"},
			{"memory in the last round", grown[len(grown)-1], "KiB/reader"},
		},
	}
	m.seen = append(m.seen, endings(drops)...)
	return m, nil
}

// readBadly lets everybody watch and then read badly, and waits until that has filled what the system
// keeps for them and the edge has begun to drop them: from then on it is as bad as it gets. They come
// back as others do, and go on reading badly.
func (a *audience) readBadly(ctx context.Context, l *lab, edges []edge) error {
	before, err := ended(ctx, edges)
	if err != nil {
		return err
	}
	if err := a.tell(ctx, "Watch", fans.Connect{Kind: fans.Mixed, PerSecond: l.sizes.live.perSecond, Bad: true}); err != nil {
		return err
	}
	var failed error
	err = a.listenUntil(ctx, l, "bad readers fill their buffers", l.sizes.live.slowSoak, func(t *told) bool {
		now, err := ended(ctx, edges)
		failed = errors.Join(failed, err)
		return int(now-before) >= max(t.Fans/20, 1)
	})
	return errors.Join(err, failed)
}

// eventsP99 is within what time 99 % of the events of a while were told, in milliseconds.
func (a *audience) eventsP99(ctx context.Context, l *lab, d time.Duration) (float64, error) {
	if _, err := a.listen(ctx); err != nil {
		return 0, err
	}
	earlier := a.total
	a.total = newTold()
	err := a.listenFor(ctx, l, "the line moves", d)
	half := a.total
	a.total = earlier
	a.total.follow(half)
	return micros(half.events, 99), err
}
