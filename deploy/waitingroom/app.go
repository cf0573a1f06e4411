package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// app is the tenant's mobile app as far as the waiting room sees it: it joins with the publishable
// key, polls and claims with the ticket, and buys in the shop with the session token.
type app struct {
	edge, shop string
	key        string
	http       *http.Client
}

// fan is a place in line with the last that was heard of it.
type fan struct {
	Ticket           string `json:"ticket"`
	TicketID         string `json:"ticketId"`
	State            string `json:"state"`
	Reason           string `json:"reason"`
	Position         uint64 `json:"position"`
	Ahead            *int   `json:"ahead"`
	PollAfterSeconds int    `json:"pollAfterSeconds"`
}

// refusedError is an answer that trying again does not change.
type refusedError struct {
	Status int
	Code   string
}

func (e *refusedError) Error() string { return fmt.Sprintf("refused with %d %s", e.Status, e.Code) }

func (a app) join(ctx context.Context, queue string) (fan, error) {
	var f fan
	err := a.do(ctx, http.MethodPost, a.edge+"/queues/"+queue+"/tickets", http.Header{"X-Api-Key": {a.key}}, `{}`, &f)
	return f, wrap("join queue", err)
}

func (a app) poll(ctx context.Context, f *fan) error {
	next := fan{Ticket: f.Ticket, TicketID: f.TicketID}
	err := a.do(ctx, http.MethodGet, a.edge+"/tickets/"+f.TicketID, bearer(f.Ticket), "", &next)
	if err == nil {
		*f = next
	}
	return wrap("poll ticket", err)
}

func (a app) leave(ctx context.Context, f fan) error {
	return wrap("leave line", a.do(ctx, http.MethodDelete, a.edge+"/tickets/"+f.TicketID, bearer(f.Ticket), "", nil))
}

func (a app) claim(ctx context.Context, f fan) (sessionToken string, err error) {
	var answer struct {
		SessionToken string `json:"sessionToken"`
	}
	err = a.do(ctx, http.MethodPost, a.edge+"/tickets/"+f.TicketID+"/session", bearer(f.Ticket), "", &answer)
	return answer.SessionToken, wrap("claim session", err)
}

func (a app) buy(ctx context.Context, sessionToken string) error {
	return wrap("buy", a.do(ctx, http.MethodPost, a.shop+"/buy", bearer(sessionToken), "", nil))
}

// do sends a request until there is an answer that stands: after overload and lost connections it
// waits as Retry-After says, else a second, and tries again until ctx ends.
func (a app) do(ctx context.Context, method, url string, header http.Header, body string, answer any) error {
	for {
		wait, err := a.try(ctx, method, url, header, body, answer)
		if wait == 0 {
			return err
		}
		if !rest(ctx, wait+uniform(wait/2)) {
			return ctx.Err()
		}
	}
}

// try sends it once; wait is above zero when the same may be tried again.
func (a app) try(ctx context.Context, method, url string, header http.Header, body string, answer any) (wait time.Duration, err error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewBufferString(body))
	if err != nil {
		return 0, err
	}
	request.Header = header.Clone()
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := a.http.Do(request)
	if err != nil {
		return time.Second, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return time.Second, err
	}
	switch {
	case response.StatusCode == http.StatusTooManyRequests || response.StatusCode >= 500:
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		return time.Duration(min(max(seconds, 1), 60)) * time.Second, errors.New(response.Status)
	case response.StatusCode >= 400:
		var problem struct {
			Code string `json:"code"`
		}
		_ = json.Unmarshal(text, &problem)
		return 0, &refusedError{response.StatusCode, problem.Code}
	case answer != nil:
		return 0, json.Unmarshal(text, answer)
	}
	return 0, nil
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
