package edge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

// userTokens is how one tenant's user tokens are verified. Immutable.
type userTokens struct {
	tokens.UserTokens
	// fetched: the origin fetches the keys, and may find one that is not among them.
	fetched bool
}

// newUserTokens reads a Tenants frame. An origin that has not reached a provider yet tells no keys of
// it; then those stay that another origin told before.
func newUserTokens(frame wire.Tenants, old map[string]*userTokens) (map[string]*userTokens, error) {
	all := make(map[string]*userTokens)
	for _, t := range frame.Tenants {
		if t.UserTokens == nil {
			continue
		}
		u := &userTokens{
			tokens.UserTokens{Issuer: t.UserTokens.Issuer, Audience: t.UserTokens.Audience, Keys: &tokens.UserKeys{}},
			t.UserTokens.Fetched,
		}
		if len(t.UserTokens.Keys) > 0 {
			var err error
			if u.Keys, err = tokens.ParseUserKeys(t.UserTokens.Keys); err != nil {
				return nil, fmt.Errorf("read user keys of %s: %w", t.ID, err)
			}
		} else if had := old[t.ID]; had != nil && had.fetched && had.Issuer == u.Issuer && had.Audience == u.Audience {
			u.Keys = had.Keys
		}
		all[t.ID] = u
	}
	return all, nil
}

// verifyUser returns the user whom a userToken proves to the tenant. Nothing is remembered of it: a
// fan joins once.
func (s *Server) verifyUser(snap *snapshot, tenant, token string) (user string, err error) {
	u := snap.users[tenant]
	if u == nil {
		s.metrics.refusedUser(refusedUserNone)
		return "", errNoUserTokens
	}
	verified, err := u.Verify([]byte(token), s.known.clock.now())
	if errors.Is(err, tokens.ErrUnknownKey) && u.fetched {
		err = s.askForKey(tenant, verified.KeyID)
	}
	switch {
	case err == nil:
		return verified.Subject, nil
	case errors.Is(err, tokens.ErrExpired):
		s.metrics.refusedUser(refusedUserExpired)
		return "", errUserTokenExpired
	case errors.Is(err, tokens.ErrInvalid):
		s.metrics.refusedUser(refusedUserInvalid)
		return "", errUserTokenInvalid
	}
	s.metrics.refusedUser(refusedUserPending)
	return "", err
}

const (
	// keptUnknownKeys is how many absent keys of one tenant are remembered.
	keptUnknownKeys = 1024
	// askKeyTimeout bounds one question to the origins.
	askKeyTimeout = 10 * time.Second
	// askKeyAgain follows a question without an answer.
	askKeyAgain = 5 * time.Second
	// No answer of an origin keeps an edge from asking for longer than mostKeyWait, nor a fan from
	// trying again for longer than mostFanWait: the key may come over the feed any time.
	mostKeyWait, mostFanWait = time.Minute, 10 * time.Second
)

// unknownKeys are the key ids that came in user tokens and that no tenant's keys have. Of one tenant
// at most one question is under way.
type unknownKeys struct {
	mu      sync.Mutex
	tenants map[string]*tenantUnknown
}

type tenantUnknown struct {
	absent *simplelru.LRU[string, time.Time] // until when it is believed that there is no such key
	asking bool
	again  time.Time // no question before
}

func (u *unknownKeys) of(tenant string) *tenantUnknown {
	t := u.tenants[tenant]
	if t == nil {
		absent, _ := simplelru.NewLRU[string, time.Time](keptUnknownKeys, nil) // fails for no positive size
		t = &tenantUnknown{absent: absent}
		if u.tenants == nil {
			u.tenants = make(map[string]*tenantUnknown)
		}
		u.tenants[tenant] = t
	}
	return t
}

// askForKey has an origin look for a key, unless it was looked for lately. It does not wait for the
// answer: the fan is told to come back, or that there is no such key.
func (s *Server) askForKey(tenant, id string) error {
	now := time.Now()
	s.unknownKeys.mu.Lock()
	defer s.unknownKeys.mu.Unlock()
	t := s.unknownKeys.of(tenant)
	if until, known := t.absent.Get(id); known && now.Before(until) {
		return tokens.ErrUnknownKey
	}
	if s.work.Err() != nil {
		return errStopping
	}
	wait := t.again.Sub(now)
	if wait <= 0 && !t.asking {
		t.asking = true
		s.running.Go(func() { s.ask(tenant, id) })
	}
	return errUserKeysPending.after(min(max(wait, 0), mostFanWait))
}

// ask takes one question to the origins and notes the answer.
func (s *Server) ask(tenant, id string) {
	ctx, cancel := context.WithTimeout(s.work, askKeyTimeout)
	defer cancel()
	answer, err := s.Origin.UserKey(ctx, wire.UserKeyRequest{Tenant: tenant, KeyID: id})
	now := time.Now()
	s.unknownKeys.mu.Lock()
	defer s.unknownKeys.mu.Unlock()
	t := s.unknownKeys.of(tenant)
	t.asking = false
	wait := min(max(time.Duration(answer.RetrySeconds)*time.Second, time.Second), mostKeyWait)
	switch {
	case err != nil:
		t.again = now.Add(askKeyAgain)
	case answer.Key == wire.UserKeyAbsent:
		t.absent.Add(id, now.Add(wait))
	default:
		t.again = now.Add(wait)
	}
}

// refusedUserReason says why a userToken was not taken.
type refusedUserReason string

const (
	refusedUserNone    refusedUserReason = "not_accepted" // the tenant has no identity provider
	refusedUserInvalid refusedUserReason = "invalid"
	refusedUserExpired refusedUserReason = "expired"
	refusedUserPending refusedUserReason = "key_pending"
)

func (m *metrics) refusedUser(reason refusedUserReason) {
	m.userTokensRefused.WithLabelValues(string(reason)).Inc()
}
