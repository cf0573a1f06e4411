package main

import (
	"bytes"
	"context"
	"errors"

	"waitingroom/origin/queue"
)

var errNotWaiting = errors.New("the answer does not say that the fan waits")

func checkWaiting(body []byte) error {
	if !bytes.Contains(body, []byte(`"state":"waiting"`)) || !bytes.Contains(body, []byte(`"ahead":`)) {
		return errNotWaiting
	}
	return nil
}

// addPoll adds what an app sends to ask for its status.
func addPoll(r *requests, f fan) {
	r.add("GET /tickets/", f.id, " HTTP/1.1\r\nHost: wait.example.com\r\nAuthorization: Bearer ", f.token, "\r\n\r\n")
}

// runPoll polls with tickets that the edge has seen.
func runPoll(ctx context.Context, l *lab) (measured, error) {
	in, id, err := l.installWithQueue(ctx, 0)
	if err != nil {
		return measured{}, err
	}
	defer in.close()
	list, err := in.polls(ctx, id, l.sizes.tickets)
	if err != nil {
		return measured{}, err
	}
	return l.race(ctx, in, "poll", racer{
		connections: l.sizes.connections, status: 200, check: checkWaiting, seen: true,
		requests: func(int) (*requests, error) { return list, nil },
	})
}

// runFirstPoll polls with tickets each of which is sent once.
func runFirstPoll(ctx context.Context, l *lab) (measured, error) {
	in, id, err := l.installWithQueue(ctx, 0)
	if err != nil {
		return measured{}, err
	}
	defer in.close()
	return l.race(ctx, in, "first-poll", racer{
		connections: l.sizes.connections, status: 200, check: checkWaiting, once: true,
		requests: func(int) (*requests, error) { return in.polls(ctx, id, l.sizes.unseen) },
	})
}

// polls joins fans and makes their requests.
func (in *installation) polls(ctx context.Context, id queue.ID, n int) (*requests, error) {
	fans, err := in.fans(ctx, id, n)
	if err != nil {
		return nil, err
	}
	list := &requests{}
	for _, f := range fans {
		addPoll(list, f)
	}
	return list, nil
}

// installWithQueue starts an installation with one open queue.
func (l *lab) installWithQueue(ctx context.Context, capacity int) (*installation, queue.ID, error) {
	in, err := l.install(ctx)
	if err != nil {
		return nil, "", err
	}
	id, err := in.createQueue(ctx, "final", capacity)
	if err != nil {
		in.close()
		return nil, "", err
	}
	return in, id, nil
}

// racer is how an edge is raced against the yardstick.
type racer struct {
	connections int
	status      int
	check       func(body []byte) error
	requests    func(round int) (*requests, error)
	once        bool // no request is sent to the edge twice
	seen        bool // every request is sent once before the rounds
}

// race runs a racer; the ratio is the first value.
func (l *lab) race(ctx context.Context, in *installation, name string, r racer) (measured, error) {
	edge, err := dial(ctx, "edge", in.edge, r.connections, r.status, r.check)
	if err != nil {
		return measured{}, err
	}
	defer edge.close()
	hello, err := dial(ctx, "hello", in.hello, r.connections, 200, nil)
	if err != nil {
		return measured{}, err
	}
	defer hello.close()
	if r.seen {
		list, err := r.requests(0)
		if err != nil {
			return measured{}, err
		}
		if _, err := edge.drive(ctx, list, answerWithin, true); err != nil {
			return measured{}, err
		}
	}
	o, err := race{
		server: edge, yardstick: hello, requests: r.requests, once: r.once,
		duration: l.sizes.duration, rounds: l.sizes.rounds, around: l.profiled(ctx, in, name),
	}.run(ctx, l.progress)
	if err != nil {
		return measured{}, err
	}
	return measured{values: []float64{o.median.ratio()}, race: &o, ratio: o.median.ratio()}, nil
}
