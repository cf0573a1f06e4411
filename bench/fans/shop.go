package fans

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// callWithin bounds one request of a fan or of the shop. A machine with all its cores in use by the
// crowd and the edges is slow, and that is no fault.
const callWithin = 30 * time.Second

// callers is how many requests of fans and of the shop run at once.
const callers = 16

// callTries is how often a request is tried that was turned away or got no answer.
const callTries = 8

// shop sends what fans and the shop ask for besides the live connections.
type shop struct {
	config Config
	client *http.Client
}

func newShop(config Config) (*shop, error) {
	source, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(config.Source, "0"))
	if err != nil {
		return nil, fmt.Errorf("read source address: %w", err)
	}
	dialer := &net.Dialer{LocalAddr: source, Timeout: callWithin}
	return &shop{config: config, client: &http.Client{
		Timeout: callWithin,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, MaxIdleConnsPerHost: callers, DisableCompression: true,
		},
	}}, nil
}

// newcomer is a fan who has just joined.
type newcomer struct {
	Ticket   string    `json:"ticket"`
	ID       string    `json:"ticketId"`
	Position uint64    `json:"position"`
	State    string    `json:"state"`
	ClaimBy  time.Time `json:"claimBy"`
}

// join joins the queue, as an app does.
func (s *shop) join(ctx context.Context) (newcomer, error) {
	code, answer, err := s.send(ctx, http.MethodPost, "http://"+s.config.Door+"/queues/"+s.config.Queue+"/tickets", "{}",
		http.Header{"X-Api-Key": {s.config.AppKey}, "Content-Type": {"application/json"}})
	if err != nil {
		return newcomer{}, fmt.Errorf("join: %w", err)
	}
	var n newcomer
	if code != http.StatusCreated || json.Unmarshal(answer, &n) != nil || n.Ticket == "" {
		return newcomer{}, fmt.Errorf("join: status %d %.300s", code, answer)
	}
	return n, nil
}

// claim claims a fan's offer and returns the id of the session; it is empty where the offer is over.
func (s *shop) claim(ctx context.Context, edge, id, ticket string) (session string, err error) {
	code, answer, err := s.send(ctx, http.MethodPost, "http://"+edge+"/tickets/"+id+"/session", "",
		http.Header{"Authorization": {"Bearer " + ticket}})
	if err != nil {
		return "", fmt.Errorf("claim: %w", err)
	}
	if code == http.StatusConflict || code == http.StatusGone {
		return "", nil
	}
	var claimed struct{ SessionToken string }
	if code != http.StatusOK || json.Unmarshal(answer, &claimed) != nil {
		return "", fmt.Errorf("claim: status %d %.300s", code, answer)
	}
	_, payload, _ := strings.Cut(claimed.SessionToken, ".")
	payload, _, _ = strings.Cut(payload, ".")
	claims, err := base64.RawURLEncoding.DecodeString(payload)
	var token struct{ JTI string }
	if err != nil || json.Unmarshal(claims, &token) != nil || token.JTI == "" {
		return "", errors.New("claim: the answer holds no session")
	}
	return token.JTI, nil
}

// end ends a session in which the fan has bought.
func (s *shop) end(ctx context.Context, session string) error {
	code, answer, err := s.send(ctx, http.MethodDelete, "http://"+s.config.Origin+"/sessions/"+session, "",
		http.Header{"X-Api-Key": {s.config.ShopKey}})
	if err != nil {
		return fmt.Errorf("buy: %w", err)
	}
	if code != http.StatusNoContent {
		return fmt.Errorf("buy: status %d %.300s", code, answer)
	}
	return nil
}

// send sends a request, and again after a while where it is turned away.
func (s *shop) send(ctx context.Context, method, url, body string, header http.Header) (code int, answer []byte, err error) {
	for try := 1; ; try++ {
		var retryAfter time.Duration
		code, answer, retryAfter, err = s.sendOnce(ctx, method, url, body, header)
		if try == callTries || ctx.Err() != nil || err == nil && code != http.StatusServiceUnavailable && code != http.StatusTooManyRequests {
			return code, answer, err
		}
		pause := time.NewTimer(retryAfter + rand.N(time.Second))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return code, answer, ctx.Err()
		}
	}
}

func (s *shop) sendOnce(ctx context.Context, method, url, body string, header http.Header) (code int, answer []byte, retryAfter time.Duration, err error) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, 0, err
	}
	r.Header = header
	response, err := s.client.Do(r)
	if err != nil {
		return 0, nil, 0, err
	}
	defer response.Body.Close()
	var all bytes.Buffer
	if _, err := io.Copy(&all, response.Body); err != nil {
		return 0, nil, 0, err
	}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
		retryAfter = time.Duration(seconds) * time.Second
	}
	return response.StatusCode, all.Bytes(), retryAfter, nil
}
