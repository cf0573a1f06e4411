package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/sync/errgroup"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
)

const (
	claimers = 32
	// endedEarly is how many sessions are revoked, so that there is a list to be looked into.
	endedEarly = 100
)

var errNoAccess = errors.New("the answer lets nobody in")

func checkAccess(body []byte) error {
	if !bytes.Contains(body, []byte(`"expiresAt":`)) {
		return errNoAccess
	}
	return nil
}

func runAccess(ctx context.Context, l *lab) (measured, error) {
	in, id, err := l.installWithQueue(ctx, l.sizes.sessions+endedEarly)
	if err != nil {
		return measured{}, err
	}
	defer in.close()
	sessions, err := in.sessions(ctx, l, id, l.sizes.sessions)
	if err != nil {
		return measured{}, err
	}
	list := &requests{}
	for _, session := range sessions {
		list.add("GET /access?queue=", string(id), " HTTP/1.1\r\nHost: wait.example.com\r\nAuthorization: Bearer ", session, "\r\n\r\n")
	}
	return l.race(ctx, in, "access", racer{
		connections: l.sizes.connections, status: 200, check: checkAccess, seen: true,
		requests: func(int) (*requests, error) { return list, nil },
	})
}

// sessions claims that many sessions, after some that are ended early again.
func (in *installation) sessions(ctx context.Context, l *lab, id queue.ID, n int) ([]string, error) {
	l.progress(fmt.Sprintf("claiming %d sessions", n+endedEarly))
	fans, err := in.fans(ctx, id, n+endedEarly)
	if err != nil {
		return nil, err
	}
	last := fans[len(fans)-1]
	if err := until(ctx, "all have an offer", func(ctx context.Context) bool {
		_, answer, err := ask(ctx, http.MethodGet, "http://"+in.edge+"/tickets/"+last.id, "", bearer(last.token))
		return err == nil && bytes.Contains(answer, []byte(`"state":"admitted"`))
	}); err != nil {
		return nil, err
	}
	tokens := make([]string, len(fans))
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(claimers)
	for i, f := range fans {
		group.Go(func() error {
			var err error
			tokens[i], err = in.claim(working, f)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, token := range tokens[:endedEarly] {
		if err := in.end(ctx, token); err != nil {
			return nil, err
		}
	}
	return tokens[endedEarly:], until(ctx, "the edge knows who was ended early", func(ctx context.Context) bool {
		status, _, err := ask(ctx, http.MethodGet, "http://"+in.edge+"/access", "", bearer(tokens[endedEarly-1]))
		return err == nil && status == http.StatusGone
	})
}

// claim turns a fan's offer into a session and returns its token.
func (in *installation) claim(ctx context.Context, f fan) (string, error) {
	answer, err := in.wire.Claim(ctx, wire.ClaimRequest{Ticket: f.token})
	if err != nil {
		return "", err
	}
	if answer.Error != "" {
		return "", fmt.Errorf("claim: %s", answer.Error)
	}
	return answer.SessionToken, nil
}

// end ends a session as a shop does.
func (in *installation) end(ctx context.Context, token string) error {
	id, err := sessionID(token)
	if err != nil {
		return err
	}
	status, answer, err := ask(ctx, http.MethodDelete, "http://"+in.origin+"/sessions/"+id, "", http.Header{"X-Api-Key": {in.secretKey}})
	if err == nil && status != http.StatusNoContent {
		err = fmt.Errorf("status %d %s", status, answer)
	}
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	return nil
}

// sessionID reads the id of a session token that the origin has just given.
func sessionID(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errors.New("read session: it has not three parts")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", fmt.Errorf("read session: %w", err)
	}
	var claims struct {
		ID string `json:"jti"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil || claims.ID == "" {
		return "", fmt.Errorf("read session: no id: %w", err)
	}
	return claims.ID, nil
}
