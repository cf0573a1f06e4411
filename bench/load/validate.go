package main

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/tokens"
)

// validations is how many are timed together, in every round.
const validations = 200_000

// withSessions runs what validates sessions, as a shop's backend would do it.
func (l *lab) withSessions(ctx context.Context, run func(in *installation, id queue.ID, sessions []string) (measured, error)) (measured, error) {
	in, id, err := l.installWithQueue(ctx, l.sizes.sessions+endedEarly)
	if err != nil {
		return measured{}, err
	}
	defer in.close()
	sessions, err := in.sessions(ctx, l, id, l.sizes.sessions)
	if err != nil {
		return measured{}, err
	}
	return run(in, id, sessions)
}

// validator starts a validator that has loaded, and returns what ends it.
func (in *installation) validator(ctx context.Context) (v *tokens.Validator, stop func(), err error) {
	v = &tokens.Validator{
		Issuer: in.issuer, Tenant: tenant, BaseURL: "http://" + in.edge, APIKey: in.secretKey,
		MaxStale: time.Minute, WhenStale: tokens.FailClosed,
	}
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- v.Run(running) }()
	stop = func() { cancel(); <-ended }
	ready, give := context.WithTimeout(ctx, readyWithin)
	defer give()
	if err := v.Ready(ready); err != nil {
		stop()
		return nil, nil, fmt.Errorf("start validator: %w", err)
	}
	return v, stop, nil
}

func runValidate(ctx context.Context, l *lab) (measured, error) {
	return l.withSessions(ctx, func(in *installation, id queue.ID, sessions []string) (measured, error) {
		v, stop, err := in.validator(ctx)
		if err != nil {
			return measured{}, err
		}
		defer stop()
		if _, err := validateAll(v, id, sessions, len(sessions)); err != nil {
			return measured{}, err
		}
		var micros, allocations []float64
		for range l.sizes.rounds {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			took, err := validateAll(v, id, sessions, validations)
			if err != nil {
				return measured{}, err
			}
			runtime.ReadMemStats(&after)
			micros = append(micros, float64(took)/float64(time.Microsecond)/validations)
			// Whole ones, as the testing package counts them: the fetches in the background allocate too.
			allocations = append(allocations, float64((after.Mallocs-before.Mallocs)/validations))
		}
		return measured{values: []float64{median(micros), median(allocations)}}, nil
	})
}

// validateAll validates n sessions in rotation.
func validateAll(v *tokens.Validator, id queue.ID, sessions []string, n int) (time.Duration, error) {
	begin := time.Now()
	for i := range n {
		if _, err := v.Validate(sessions[i%len(sessions)], string(id)); err != nil {
			return 0, fmt.Errorf("validate a running session: %w", err)
		}
	}
	return time.Since(begin), nil
}

// runValidateNew validates sessions that the validator has not seen, by turns with the bare
// verification of the same bytes.
func runValidateNew(ctx context.Context, l *lab) (measured, error) {
	return l.withSessions(ctx, func(in *installation, id queue.ID, sessions []string) (measured, error) {
		public, err := in.sessionKey(ctx)
		if err != nil {
			return measured{}, err
		}
		signed, signatures, err := cutSignatures(sessions)
		if err != nil {
			return measured{}, err
		}
		var o outcome
		for i := range l.sizes.rounds {
			var one round
			validate := func() error {
				v, stop, err := in.validator(ctx)
				if err != nil {
					return err
				}
				defer stop()
				took, err := validateAll(v, id, sessions, len(sessions))
				one.server = float64(len(sessions)) / took.Seconds()
				return err
			}
			verify := func() error {
				begin := time.Now()
				for i := range signed {
					if !ed25519.Verify(public, signed[i], signatures[i]) {
						return errors.New("verify a running session: the signature is wrong")
					}
				}
				one.yardstick = float64(len(signed)) / time.Since(begin).Seconds()
				return nil
			}
			order := []func() error{validate, verify}
			if i%2 == 1 {
				order[0], order[1] = order[1], order[0]
			}
			for _, half := range order {
				if err := half(); err != nil {
					return measured{}, err
				}
			}
			o.rounds = append(o.rounds, one)
			l.progress(fmt.Sprintf("round %d of %d: %.0f/s, ed25519 %.0f/s", i+1, l.sizes.rounds, one.server, one.yardstick))
		}
		if o.median, err = medianRound(o.rounds); err != nil {
			return measured{}, err
		}
		times := o.median.yardstick / o.median.server // how much longer it takes
		return measured{values: []float64{times}, race: &o, ratio: times}, nil
	})
}

// sessionKey reads the public key of sessions as a backend finds it.
func (in *installation) sessionKey(ctx context.Context) (ed25519.PublicKey, error) {
	_, answer, err := ask(ctx, http.MethodGet, "http://"+in.edge+"/.well-known/jwks.json", "", nil)
	if err != nil {
		return nil, fmt.Errorf("read session key: %w", err)
	}
	var set struct {
		Keys []struct {
			X string `json:"x"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(answer, &set); err != nil || len(set.Keys) != 1 {
		return nil, fmt.Errorf("read session key: %d keys: %w", len(set.Keys), err)
	}
	key, err := base64.RawURLEncoding.DecodeString(set.Keys[0].X)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("read session key: %d bytes: %w", len(key), err)
	}
	return key, nil
}

// cutSignatures parts tokens into what is signed and the signatures.
func cutSignatures(sessions []string) (signed, signatures [][]byte, err error) {
	for _, token := range sessions {
		dot := strings.LastIndexByte(token, '.')
		signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
		if err != nil {
			return nil, nil, fmt.Errorf("read signature: %w", err)
		}
		signed, signatures = append(signed, []byte(token[:max(dot, 0)])), append(signatures, signature)
	}
	return signed, signatures, nil
}
