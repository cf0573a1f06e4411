package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"waitingroom/edge"
	"waitingroom/origin"
	"waitingroom/origin/store/memory"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

// Options are what the flags set.
type Options struct {
	Edge, Origin, Shop, OtherShop string // addresses, host:port
	Polling                       string // the edge's setting

	Crowd          int
	Shopping, Away time.Duration

	Capacity        int // 0: an eighth of the crowd, at least 3
	MaxPerMinute    int // 0: no limit
	PurchaseWindow  time.Duration
	Hold            time.Duration
	Claim           time.Duration
	MaxMissedOffers int
	OpensIn         time.Duration // 0: the sale is open from the start
}

// DefaultOptions let a newcomer among a crowd wait for about a minute.
func DefaultOptions() Options {
	return Options{
		Edge: "127.0.0.1:8080", Origin: "127.0.0.1:8081", Shop: "127.0.0.1:8082", OtherShop: "127.0.0.1:0",
		Polling: edge.PollingDirect, Shopping: 5 * time.Second, Away: 22 * time.Second,
		PurchaseWindow: 20 * time.Minute, Hold: 5 * time.Minute, Claim: time.Minute, MaxMissedOffers: 2,
	}
}

// check reports what the queue's own settings could not tell apart.
func (o Options) check() error {
	var problems []error
	for name, n := range map[string]int{"crowd": o.Crowd, "capacity": o.Capacity, "max-per-minute": o.MaxPerMinute} {
		if n < 0 {
			problems = append(problems, fmt.Errorf("-%s: must not be below 0", name))
		}
	}
	for name, d := range map[string]time.Duration{"purchase-window": o.PurchaseWindow, "hold": o.Hold, "claim": o.Claim} {
		if d < time.Second || d%time.Second != 0 {
			problems = append(problems, fmt.Errorf("-%s: whole seconds, at least one", name))
		}
	}
	if o.OpensIn < 0 {
		problems = append(problems, errors.New("-opens-in: must not be below 0"))
	}
	return errors.Join(problems...)
}

func (o Options) settings(shop, name string, now time.Time) map[string]any {
	capacity := o.Capacity
	if capacity == 0 {
		capacity = max(o.Crowd/8, 3)
	}
	settings := map[string]any{
		"capacity": capacity, "maxPerMinute": o.MaxPerMinute,
		"purchaseWindowSeconds": int(o.PurchaseWindow.Seconds()),
		"holdSeconds":           int(o.Hold.Seconds()),
		"claimSeconds":          int(o.Claim.Seconds()),
		"maxMissedOffers":       o.MaxMissedOffers,
		"returnOrigins":         []string{shop},
		"branding":              map[string]any{"name": name},
	}
	if o.OpensIn > 0 {
		settings["opensAt"] = now.Add(o.OpensIn)
	}
	return settings
}

// Demo is the whole waiting room with two tenants and their shops.
type Demo struct {
	options Options
	client  *http.Client
	tenants [2]tenant
	access  [2]Access
	edge    *edge.Server
	origin  *origin.Server
	shops   [2]shopServer
}

// NewDemo makes the keys, opens all addresses and composes the parts.
func NewDemo(o Options, logger *slog.Logger) (*Demo, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	d := &Demo{options: o, client: &http.Client{Timeout: 10 * time.Second}}
	var err error
	if d.tenants[0], err = newTenant("demo", "final", "FC Demo"); err != nil {
		return nil, err
	}
	if d.tenants[1], err = newTenant("other", "concert", "Other Hall"); err != nil {
		return nil, err
	}
	// The tokens name edge and origin, so their ports must be known before the keys are used.
	listeners, err := listen(o.Origin, o.Shop, o.OtherShop)
	if err != nil {
		return nil, err
	}
	if err := d.compose(listeners, logger); err != nil {
		for _, l := range listeners {
			_ = l.Close()
		}
		return nil, err
	}
	return d, nil
}

func (d *Demo) compose(listeners []net.Listener, logger *slog.Logger) error {
	originURL := baseURL(listeners[0].Addr().String())
	sessionKeys, err := tokens.GenerateSessionKeys()
	if err != nil {
		return err
	}
	clusterSecret, userHashKey := rand.Text()+rand.Text(), rand.Text()+rand.Text()
	d.edge = &edge.Server{
		Config: edge.Config{Listen: d.options.Edge, WhenStale: edge.FailClosed, MoveSeconds: 1, Polling: d.options.Polling},
		Origin: &wire.Client{Origins: []string{originURL}, Secret: clusterSecret},
		Logger: logger.With("part", "edge"),
	}
	if public := baseURL(d.options.Edge); public != "http://"+d.options.Edge {
		d.edge.Config.PublicURL = public
	}
	if err := d.edge.Listen(); err != nil {
		return addressError(err)
	}
	secrets := origin.Secrets{
		ClusterSecret: []byte(clusterSecret), SessionKeys: sessionKeys, UserHashKey: []byte(userHashKey),
		Tenants: make(map[string]origin.TenantSecrets),
	}
	config := origin.DefaultConfig()
	config.Listen, config.AdminListen = d.options.Origin, "off"
	config.AllowPlainHTTP = true // for trying out; edges still need loopback
	config.PublicURL, config.Issuer = originURL, d.edge.PublicURL()
	for i, t := range d.tenants {
		config.Tenants = append(config.Tenants, t.config())
		secrets.Tenants[t.id] = t.secrets()
		shop := listeners[1+i]
		if d.access[i], err = t.access(d.edge.PublicURL(), originURL, baseURL(shop.Addr().String())); err != nil {
			return err
		}
		d.shops[i] = newShopServer(shop, t, d.access[i], d.client)
	}
	d.access[0].Other = &d.access[1]
	d.origin = &origin.Server{
		Config: config, Store: &memory.Store{}, Logger: logger.With("part", "origin"), Listener: listeners[0],
		Secrets: func() (origin.Secrets, error) { return secrets, nil },
	}
	return d.origin.Listen()
}

// Run serves until ctx ends. Once a fan could come, it calls ready; say is told now and then how
// the crowd fares.
func (d *Demo) Run(ctx context.Context, ready func(context.Context, Access) error, say func(string)) error {
	return runInOrder(ctx,
		d.origin.Run,
		func(ctx context.Context) error {
			if err := d.waitFor(ctx, d.access[0].Origin+"/readyz"); err != nil {
				return err
			}
			return d.edge.Run(ctx)
		},
		d.shops[0].Run,
		d.shops[1].Run,
		func(ctx context.Context) error {
			if err := d.open(ctx); err != nil {
				return err
			}
			if err := ready(ctx, d.access[0]); err != nil {
				return fmt.Errorf("announce: %w", err)
			}
			return d.runCrowd(ctx, say)
		},
	)
}

// open provisions the queues and waits until shops and edge know of them.
func (d *Demo) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := d.waitFor(ctx, d.access[0].Edge+"/readyz"); err != nil {
		return err
	}
	for i, t := range d.tenants {
		settings := d.options.settings(d.access[i].Shop, t.shopName, time.Now())
		if err := createQueue(ctx, d.client, d.access[i], t.slug, settings); err != nil {
			return err
		}
		if err := d.waitFor(ctx, d.access[i].Edge+"/queues/"+t.queue()); err != nil {
			return err
		}
		if err := d.shops[i].validator.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// waitFor asks until the answer is 200.
func (d *Demo) waitFor(ctx context.Context, url string) error {
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := d.client.Do(request)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(response.Status)
		}
		if !rest(ctx, 20*time.Millisecond) {
			return fmt.Errorf("wait for %s: %w (%w)", url, ctx.Err(), err)
		}
	}
}

// runInOrder runs parts of which each speaks to the ones before it. When ctx ends, or one fails,
// they are stopped in the reverse order, each after those that speak to it have returned.
func runInOrder(ctx context.Context, parts ...func(context.Context) error) error {
	type part struct {
		stop context.CancelFunc
		done chan struct{}
	}
	var running []part
	failed := make(chan error, len(parts))
	for _, run := range parts {
		own, stop := context.WithCancel(context.WithoutCancel(ctx))
		p := part{stop, make(chan struct{})}
		running = append(running, p)
		go func() {
			defer close(p.done)
			if err := run(own); err != nil && own.Err() == nil {
				failed <- err
			}
		}()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	for _, p := range slices.Backward(running) {
		p.stop()
		<-p.done
	}
	return err
}

func listen(addresses ...string) ([]net.Listener, error) {
	var list []net.Listener
	var problems []error
	for _, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		list = append(list, l)
	}
	if problems == nil {
		return list, nil
	}
	for _, l := range list {
		_ = l.Close()
	}
	return nil, addressError(errors.Join(problems...))
}

func addressError(err error) error {
	return fmt.Errorf("open addresses (choose others with -edge, -origin, -shop, -other-shop): %w", err)
}

// baseURL is how a browser on this machine reaches an address.
func baseURL(address string) string {
	host, port, _ := net.SplitHostPort(address)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}
