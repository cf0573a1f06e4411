package tokens

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// inVirtualTime runs a test with a room and a Validator that has loaded from it.
func inVirtualTime(t *testing.T, rule StaleRule, test func(t *testing.T, m *room, v *Validator)) {
	t.Helper()
	set := mustGenerate(t, GenerateSessionKeys)
	synctest.Test(t, func(t *testing.T) {
		m := newRoom(t, set)
		v := m.validator(rule)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- v.Run(ctx) }()
		if err := v.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		test(t, m, v)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v, want %v", err, context.Canceled)
		}
	})
}

// later lets virtual time pass.
func later(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func wantVerdict(t *testing.T, v *Validator, when, token, queue string, want error) {
	t.Helper()
	// The second time it comes from memory, and must not differ.
	for _, which := range []string{"first", "again"} {
		s, err := v.Validate(token, queue)
		if !errors.Is(err, want) {
			t.Errorf("%s (%s): got %v, want %v", when, which, err, want)
		}
		if (err == nil) != (s.ID != "") {
			t.Errorf("%s (%s): got session %+v with error %v", when, which, s, err)
		}
	}
}

func TestValidatorJudgesSessions(t *testing.T) {
	inVirtualTime(t, FailClosed, func(t *testing.T, m *room, v *Validator) {
		s, token := m.sign(t, "R1", 10*time.Minute)
		_, short := m.sign(t, "R2", 30*time.Second)
		if got, err := v.Validate(token, testQueue); err != nil || got != s {
			t.Errorf("got %+v, %v; want %+v", got, err, s)
		}
		wantVerdict(t, v, "in its queue", token, testQueue, nil)
		wantVerdict(t, v, "in another queue", token, "club.other", errQueue)
		wantVerdict(t, v, "in no queue", token, "", errQueue)
		wantVerdict(t, v, "cut", token[:len(token)-1], testQueue, ErrInvalid)
		wantVerdict(t, v, "no token", "", testQueue, ErrInvalid)
		wantVerdict(t, v, "far too long", strings.Repeat("x", 1<<20), testQueue, ErrInvalid)

		wantVerdict(t, v, "another session before its expiry", short, testQueue, nil)
		m.revoke(s)
		later(2 * time.Second)
		wantVerdict(t, v, "2 s after it was revoked", token, testQueue, ErrRevoked)
		wantVerdict(t, v, "revoked, in another queue", token, "club.other", errQueue)
		later(28 * time.Second)
		wantVerdict(t, v, "another session at its expiry", short, testQueue, ErrExpired)
		wantVerdict(t, v, "expired, in another queue", short, "club.other", errQueue)
		_, late := m.sign(t, "R3", time.Minute)
		later(2 * time.Minute)
		wantVerdict(t, v, "seen for the first time after its expiry", late, testQueue, ErrExpired)
		wantVerdict(t, v, "likewise, in another queue", late, "club.other", errQueue)
	})
}

func TestValidatorWhileTheRoomIsDown(t *testing.T) {
	for rule, staleVerdict := range map[StaleRule]error{FailOpen: nil, FailClosed: ErrStale} {
		inVirtualTime(t, rule, func(t *testing.T, m *room, v *Validator) {
			gone, goneToken := m.sign(t, "gone", 10*time.Minute)
			_, token := m.sign(t, "R1", 10*time.Minute)
			_, short := m.sign(t, "R2", time.Minute)
			m.revoke(gone)
			later(2 * time.Second)
			m.change(func() { m.down = true })
			later(17 * time.Second)
			wantVerdict(t, v, "down for less than MaxStale", token, testQueue, nil)
			later(5 * time.Second)
			wantVerdict(t, v, "down for longer than MaxStale", token, testQueue, staleVerdict)
			// What is known for sure is not taken back.
			wantVerdict(t, v, "revoked before", goneToken, testQueue, ErrRevoked)
			wantVerdict(t, v, "never valid", token+"A", testQueue, ErrInvalid)
			later(40 * time.Second)
			wantVerdict(t, v, "expired meanwhile", short, testQueue, ErrExpired)
			// Keys are kept for as long as it takes.
			later(5 * time.Minute)
			m.change(func() { m.down = false })
			later(2 * time.Second)
			wantVerdict(t, v, "up again", token, testQueue, nil)
			wantVerdict(t, v, "revoked before, up again", goneToken, testQueue, ErrRevoked)
		})
	}
}

// TestValidatorBeforeTheFirstList: with keys but no list yet the list is stale; without keys
// nothing can be said, whatever the rule.
func TestValidatorBeforeTheFirstList(t *testing.T) {
	set := mustGenerate(t, GenerateSessionKeys)
	for rule, verdict := range map[StaleRule]error{FailOpen: nil, FailClosed: ErrStale} {
		synctest.Test(t, func(t *testing.T) {
			m := newRoom(t, set)
			m.override["/revocations"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }
			m.down = true
			v := m.validator(rule)
			var told atomic.Pointer[string]
			v.OnError = func(err error) { text := err.Error(); told.Store(&text) }
			_, token := m.sign(t, "R1", 10*time.Minute)
			if _, err := v.Validate(token, testQueue); !errors.Is(err, ErrStale) {
				t.Errorf("before Run: got %v, want %v", err, ErrStale)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var running sync.WaitGroup
			running.Go(func() { _ = v.Run(ctx) })
			synctest.Wait()
			if _, err := v.Validate(token, testQueue); !errors.Is(err, ErrStale) {
				t.Errorf("before the first keys: got %v, want %v", err, ErrStale)
			}
			m.change(func() { m.down = false })
			later(2 * time.Second)
			wantVerdict(t, v, "before the first list", token, testQueue, verdict)
			if err := v.Ready(ctx); err == nil || !strings.Contains(err.Error(), "401") {
				t.Errorf("Ready: got %v, want the reason, which is 401", err)
			}
			if text := told.Load(); text == nil || !strings.Contains(*text, "401") || strings.Contains(*text, testAPIKey) {
				t.Errorf("OnError was told %v, want 401 without the key", text)
			}
			running.Wait()
		})
	}
}

// TestValidatorFollowsRotations: a key that was published in time is known; one that was not is
// fetched when a token names it; one that is withdrawn ends what it signed, remembered or not.
// signWithSet signs with other keys than the room's.
// TestUnknownKeysCauseFewFetches: anybody can name a key.
// TestValidatorReadsOnFromItsCursor: the list comes whole once, and after that in pieces; when the
// room has forgotten the cursor, nothing that was revoked comes alive.
// TestRevocationsAreForgottenAfterTheirSession keeps the memory of a long-lived backend flat.
// TestBadAnswersChangeNothing: what the room says wrongly is reported, and what is known stays.
// TestRedirectDoesNotCarryTheAPIKey over real sockets: the usual client would follow and send it.
func TestValidatorFields(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Validator)
		want   string
	}{
		{"no issuer", func(v *Validator) { v.Issuer = "" }, "Issuer"},
		{"no tenant", func(v *Validator) { v.Tenant = "" }, "Tenant"},
		{"no key", func(v *Validator) { v.APIKey = "" }, "APIKey"},
		{"no rule", func(v *Validator) { v.WhenStale = 0 }, "WhenStale"},
		{"no bound", func(v *Validator) { v.MaxStale = 0 }, "MaxStale"},
		{"bound below refresh", func(v *Validator) { v.MaxStale = 2 * time.Second }, "MaxStale"},
		{"refresh too short", func(v *Validator) { v.Refresh = 999 * time.Millisecond }, "Refresh"},
		{"refresh too long", func(v *Validator) { v.Refresh = 6 * time.Second }, "Refresh"},
		{"negative cache", func(v *Validator) { v.CacheSize = -1 }, "CacheSize"},
		{"no address", func(v *Validator) { v.BaseURL = "" }, "BaseURL"},
		{"relative address", func(v *Validator) { v.BaseURL = "wait.example.org" }, "BaseURL"},
		{"plain http elsewhere", func(v *Validator) { v.BaseURL = "http://wait.example.org" }, "BaseURL"},
		{"plain http to a name like loopback", func(v *Validator) { v.BaseURL = "http://127.0.0.1.example.org" }, "BaseURL"},
		{"password in the address", func(v *Validator) { v.BaseURL = "https://a:b@wait.example.org" }, "BaseURL"},
		{"query in the address", func(v *Validator) { v.BaseURL = "https://wait.example.org?x" }, "BaseURL"},
		{"other scheme", func(v *Validator) { v.BaseURL = "ftp://wait.example.org" }, "BaseURL"},
	} {
		v := newRoom(t, mustGenerate(t, GenerateSessionKeys)).validator(FailClosed)
		c.change(v)
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // a Validator that starts all the same ends at once
		if err := v.Run(ctx); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error that names %s", c.name, err, c.want)
		}
	}
	for _, address := range []string{"http://localhost:8080", "http://shop.localhost", "http://127.0.0.9", "http://[::1]:80", "https://x/y"} {
		if err := checkBaseURL(address, false); err != nil {
			t.Errorf("%s: got %v, want it accepted", address, err)
		}
	}
	if err := checkBaseURL("http://edge:8080", true); err != nil {
		t.Errorf("plain http where it is permitted: got %v, want it accepted", err)
	}
}

func TestValidatorRunsOnce(t *testing.T) {
	inVirtualTime(t, FailClosed, func(t *testing.T, _ *room, v *Validator) {
		if err := v.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "runs already") {
			t.Errorf("a second Run: got %v, want an error", err)
		}
	})
}

// TestValidateConcurrently is for the race detector: many requests while keys rotate, sessions are
// revoked and the memory is too small for all tokens.
func TestValidateConcurrently(t *testing.T) {
	sets := [][]byte{mustGenerate(t, GenerateSessionKeys), mustGenerate(t, GenerateSessionKeys)}
	synctest.Test(t, func(t *testing.T) {
		m := newRoom(t, join(t, sets...))
		v := m.validator(FailClosed)
		v.CacheSize = 8
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = v.Run(ctx) })
		if err := v.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		var sessions []Session
		var texts []string
		for i := range 16 {
			s, token := m.sign(t, fmt.Sprint("R", i), time.Hour)
			sessions, texts = append(sessions, s), append(texts, token)
		}
		for worker := range 4 {
			running.Go(func() {
				for i := range 60 {
					which := (i*7 + worker) % len(texts)
					s, err := v.Validate(texts[which], testQueue)
					if err != nil && !errors.Is(err, ErrRevoked) || err == nil && s != sessions[which] {
						t.Errorf("got %+v, %v; want %+v, alive or revoked", s, err, sessions[which])
					}
					<-time.After(time.Second)
				}
			})
		}
		for _, s := range sessions[:8] {
			m.revoke(s)
			<-time.After(3 * time.Second)
		}
		later(time.Minute)
		for i, token := range texts {
			want := error(nil)
			if i < 8 {
				want = ErrRevoked
			}
			wantVerdict(t, v, sessions[i].ID, token, testQueue, want)
		}
		cancel()
		running.Wait()
	})
}

func TestValidateAllocatesNothingForASeenToken(t *testing.T) {
	inVirtualTime(t, FailClosed, func(t *testing.T, m *room, v *Validator) {
		_, token := m.sign(t, "R1", time.Hour)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := v.Validate(token, testQueue); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations, want 0", n)
		}
	})
}
