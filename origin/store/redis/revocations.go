package redis

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"waitingroom/origin/store"
)

// Revoke implements store.Revocations.
func (s *Store) Revoke(ctx context.Context, tenant string, revocation store.Revocation, now time.Time) error {
	if err := revocation.Check(); err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	err := s.simple(ctx, revokeScript, revocationKeys(tenant),
		millis(now), revocation.ID, millis(revocation.ExpiresAt), rand.Text(), tenant)
	if err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	return nil
}

// Revoked implements store.Revocations.
func (s *Store) Revoked(ctx context.Context, tenant, cursor string, now time.Time) ([]store.Revocation, string, bool, error) {
	era, after := parseCursor(cursor)
	var raw []any
	err := s.try(ctx, func(ctx context.Context) (err error) {
		raw, err = s.eval(ctx, revokedScript, revocationKeys(tenant), []any{millis(now), era, after})
		return err
	})
	if err != nil {
		return nil, "", false, fmt.Errorf("read revocations: %w", err)
	}
	r := &reply{rest: raw}
	r.text()
	era, last, reset := r.text(), r.uint(), r.int() == 1
	var list []store.Revocation
	for _, item := range r.list() {
		fields, _ := item.([]any)
		item := &reply{rest: fields}
		revocation := store.Revocation{ID: item.text(), ExpiresAt: item.time()}
		if item.err != nil {
			r.fail(item.err)
			break
		}
		if revocation.ExpiresAt.Add(store.RevocationLeeway).After(now) {
			list = append(list, revocation)
		}
	}
	if r.err != nil {
		return nil, "", false, fmt.Errorf("read revocations: %w", r.err)
	}
	next := ""
	if era != "" {
		next = era + "-" + strconv.FormatUint(last, 10)
	}
	return list, next, reset, nil
}

// parseCursor splits a cursor. One that no list can have made comes out as of an era that never
// was.
func parseCursor(cursor string) (era string, after uint64) {
	if cursor == "" {
		return "", 0
	}
	era, number, _ := strings.Cut(cursor, "-")
	after, err := strconv.ParseUint(number, 10, 53)
	if err != nil || era == "" {
		return "none", 0
	}
	return era, after
}
