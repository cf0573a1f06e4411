package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	goredis "github.com/redis/go-redis/v9"
)

var errNoTicket = errors.New("the answer holds no ticket")

func checkTicket(body []byte) error {
	if !bytes.HasPrefix(body, []byte(`{"ticket":"ey`)) {
		return errNoTicket
	}
	return checkWaiting(body)
}

// addJoin adds what an app, or a backend, sends to join.
func addJoin(r *requests, queue, key, body string) {
	r.add("POST /queues/", queue, "/tickets HTTP/1.1\r\nHost: wait.example.com\r\nX-API-Key: ", key,
		"\r\nContent-Type: application/json\r\nContent-Length: ", strconv.Itoa(len(body)), "\r\n\r\n", body)
}

func runJoin(ctx context.Context, l *lab) (measured, error) {
	in, id, err := l.installWithQueue(ctx, 0)
	if err != nil {
		return measured{}, err
	}
	defer in.close()
	list := &requests{}
	addJoin(list, string(id), in.publishableKey, `{}`)
	before, err := commandsSent(ctx, in.redis)
	if err != nil {
		return measured{}, err
	}
	m, err := l.race(ctx, in, "join", racer{
		connections: l.sizes.joinConnections, status: 201, check: checkTicket,
		requests: func(int) (*requests, error) { return list, nil },
	})
	if err != nil {
		return measured{}, err
	}
	after, err := commandsSent(ctx, in.redis)
	if err != nil {
		return measured{}, err
	}
	m.values = append(m.values,
		milliseconds(percentile(m.race.latencies, 99)), float64(after-before)/float64(m.race.answers))
	return m, nil
}

// commandsSent is how many commands Redis has executed, those of ticks, of the feed and of sightings
// included, and also those that scripts call inside of the server.
func commandsSent(ctx context.Context, client *goredis.Client) (int64, error) {
	return info(ctx, client, "stats", "total_commands_processed")
}

// runJoinUser joins with a user id that nobody has joined with before.
func runJoinUser(ctx context.Context, l *lab) (measured, error) {
	in, id, err := l.installWithQueue(ctx, 0)
	if err != nil {
		return measured{}, err
	}
	defer in.close()
	user := 0
	return l.race(ctx, in, "join-user", racer{
		connections: l.sizes.joinConnections, status: 201, check: checkTicket, once: true,
		requests: func(int) (*requests, error) {
			list := &requests{}
			for range l.sizes.unseen {
				user++
				addJoin(list, string(id), in.secretKey, fmt.Sprintf(`{"userId":"customer-%09d"}`, user))
			}
			return list, nil
		},
	})
}
