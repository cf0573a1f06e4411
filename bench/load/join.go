package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
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
	all := func(int) (*requests, error) { return list, nil }
	m, err := l.race(ctx, in, "join", racer{
		connections: l.sizes.joinConnections, status: 201, check: checkTicket, requests: all,
	})
	if err != nil {
		return measured{}, err
	}
	commands, err := l.commandsPerJoin(ctx, in, list)
	if err != nil {
		return measured{}, err
	}
	// Of the rounds' percentiles the median counts, as of their ratios.
	m.values = append(m.values, median(m.race.p99), commands)
	return m, nil
}

// commandsPerJoin drives the edge once more while Redis tells every command that it is sent. That
// slows Redis down, so nothing else is taken from this drive.
func (l *lab) commandsPerJoin(ctx context.Context, in *installation, list *requests) (float64, error) {
	l.progress("counting commands")
	edge, err := dial(ctx, "edge", in.edge, l.sizes.joinConnections, 201, checkTicket)
	if err != nil {
		return 0, err
	}
	defer edge.close()
	m, err := startMonitor(ctx, in.redisAddress)
	if err != nil {
		return 0, err
	}
	defer m.connection.Close()
	p, err := edge.drive(ctx, list, l.sizes.duration, false)
	if err != nil {
		return 0, err
	}
	sent, err := m.stop()
	if err != nil {
		return 0, err
	}
	return float64(sent) / float64(p.answers), nil
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

// runJoinUserToken joins with the token of a user whom nobody has joined before, signed with EdDSA.
func runJoinUserToken(ctx context.Context, l *lab) (measured, error) {
	in, id, err := l.installWithQueue(ctx, 0)
	if err != nil {
		return measured{}, err
	}
	defer in.close()
	user := 0
	return l.race(ctx, in, "join-user-token", racer{
		connections: l.sizes.joinConnections, status: 201, check: checkTicket, once: true,
		requests: func(int) (*requests, error) {
			l.progress("minting user tokens")
			now := time.Now()
			list := &requests{}
			for range l.sizes.unseen {
				user++
				token, err := in.users.Sign(fmt.Sprintf("customer-%09d", user), now, now.Add(time.Hour))
				if err != nil {
					return nil, err
				}
				addJoin(list, string(id), in.publishableKey, `{"userToken":"`+token+`"}`)
			}
			return list, nil
		},
	})
}
