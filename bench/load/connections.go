package main

import (
	"context"
	"fmt"
	"time"

	"waitingroom/bench/fans"
	"waitingroom/origin/queue"
)

// claimTime is how long an offer runs in the queues of the scenarios with live connections; those
// who let it pass free their slot after it and the grace.
const claimTime = 20 * time.Second

// liveInstallation is an installation with edges that hold live connections. Its own edge is the door:
// fans join there, so that what joins leave in memory is not counted as that of connections.
func (l *lab) liveInstallation(ctx context.Context, n int) (*installation, []edge, error) {
	in, err := l.install(ctx)
	if err != nil {
		return nil, nil, err
	}
	edges, err := in.addEdges(ctx, l.programs.edge, n)
	if err != nil {
		in.close()
		return nil, nil, err
	}
	return in, edges, nil
}

// seats spreads fans evenly over edges, one crowd for each.
func seats(n, edges int) []seat {
	list := make([]seat, edges)
	for i := range list {
		list[i] = seat{home: i, fans: n*(i+1)/edges - n*i/edges}
	}
	return list
}

// runConnections holds idle connections, WebSockets alone at the first edge, streams of events alone
// at the second and both at the others, and reads how much memory they take. Then the line moves, with
// fans who claim, buy and are followed by new ones, and all connections are held. At last the queue is
// closed, of which everybody has to be told.
func runConnections(ctx context.Context, l *lab) (measured, error) {
	sizes := l.sizes.live
	in, edges, err := l.liveInstallation(ctx, sizes.edges)
	if err != nil {
		return measured{}, err
	}
	defer in.close()
	id, err := in.createQueueWith(ctx, "final", fmt.Sprintf(
		`"capacity":0,"maxPerMinute":%d,"claimSeconds":%.0f,"purchaseWindowSeconds":40`, sizes.perMinute, claimTime.Seconds()))
	if err != nil {
		return measured{}, err
	}
	seating := seats(sizes.fans, len(edges))
	a, err := l.gather(ctx, in, id, edges, claimTime, seating)
	if err != nil {
		return measured{}, err
	}
	defer a.close()
	empty, err := measureUsage(edges)
	if err != nil {
		return measured{}, err
	}
	began := time.Now()
	kinds := func(i int) fans.Kind {
		return [...]fans.Kind{fans.WebSocket, fans.Events, fans.Mixed}[min(i, 2)]
	}
	if err := a.watch(ctx, l, func(i int) fans.Connect {
		return fans.Connect{Kind: kinds(i), PerSecond: sizes.perSecond}
	}); err != nil {
		return measured{}, err
	}
	connecting := time.Since(began)
	connected, err := measureUsage(edges)
	if err != nil {
		return measured{}, err
	}
	if err := a.listenFor(ctx, l, "idle", sizes.idle); err != nil {
		return measured{}, err
	}
	idle, err := measureUsage(edges)
	if err != nil {
		return measured{}, err
	}
	l.profileHeaps(ctx, edges[:3], "connections")
	a.restart()
	if err := a.tell(ctx, "Behave", fans.Behaviour{Claims: 0.9, Buys: 0.8, Think: sizes.think, Shop: sizes.shop, Renews: true}); err != nil {
		return measured{}, err
	}
	if err := in.patchQueue(ctx, id, fmt.Sprintf(`{"capacity":%d}`, sizes.perMinute)); err != nil {
		return measured{}, err
	}
	begin, err := measureUsage(edges)
	if err != nil {
		return measured{}, err
	}
	stop := l.profileEdges(ctx, edges, "connections", sizes.hold)
	if err := a.listenFor(ctx, l, "the line moves", sizes.hold); err != nil {
		return measured{}, err
	}
	stop()
	held, err := measureUsage(edges)
	if err != nil {
		return measured{}, err
	}
	t := a.total.clone()
	m := measured{plots: map[string]string{"connections.svg": plotConnections(a.series)}}
	lost, err := a.finish(ctx, l, in, id)
	if err != nil {
		return measured{}, err
	}
	m.values = []float64{
		idle.kibSince(empty, 0, 1, seating[0].fans), idle.kibSince(empty, 1, 2, seating[1].fans),
		float64(lost), float64(a.total.Wrong),
	}
	m.notes = a.notes()
	mixed := sizes.fans - seating[0].fans - seating[1].fans
	m.seen = []observation{
		{"mixed", idle.kibSince(empty, 2, len(edges), mixed), "KiB"},
		{"after the line moved", held.kibSince(empty, 0, len(edges), t.Connected()), "KiB"},
		{"connected in", connecting.Seconds(), "s"},
		{"held", float64(t.Connected()), "connections"},
		{"edges while idle", idle.coresSince(connected), "cores"},
		{"edges while the line moves", held.coresSince(begin), "cores"},
		{"events", float64(t.events.TotalCount()) / held.at.Sub(begin.at).Seconds(), "1/s"},
		{"event p50", micros(t.events, 50), "ms"}, {"event p99", micros(t.events, 99), "ms"}, {"event max", micros(t.events, 100), "ms"},
		{"offers", float64(t.Offered), "fans"},
		{"offer p50", micros(t.offers, 50), "ms"}, {"offer p99", micros(t.offers, 99), "ms"}, {"offer max", micros(t.offers, 100), "ms"},
		{"bought", float64(t.Bought), "fans"},
	}
	drops, err := dropped(ctx, edges)
	m.seen = append(m.seen, drops...)
	return m, err
}

// finish ends a sale in which nothing was to be lost: no offer is made any more, everybody has to have
// been told of every one that was, and then of the closing; and no connection may have ended while its
// ticket was in the line. It returns how many fans that was not true for.
func (a *audience) finish(ctx context.Context, l *lab, in *installation, id queue.ID) (lost int, err error) {
	if err := in.patchQueue(ctx, id, `{"capacity":0}`); err != nil {
		return 0, err
	}
	if err := a.tell(ctx, "Behave", fans.Behaviour{}); err != nil { // nobody new joins
		return 0, err
	}
	offers, err := a.untoldOffers(ctx, l, in, id)
	if err != nil {
		return 0, err
	}
	closing, err := a.closeQueue(ctx, l, in, id)
	if err != nil {
		return 0, err
	}
	return offers + closing + a.total.dropped(), nil
}

// notes are what went wrong, in words.
func (a *audience) notes() []string {
	const most = 10
	list := append(a.total.endings(), a.total.Samples...)
	return list[:min(len(list), most)]
}
