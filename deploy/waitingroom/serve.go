package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"waitingroom/tokens"
)

// shopServer is a tenant's shop with what it needs to check sessions by itself.
type shopServer struct {
	listener  net.Listener
	validator *tokens.Validator
	shop      *Shop
}

func newShopServer(listener net.Listener, t tenant, a Access, client *http.Client) shopServer {
	validator := &tokens.Validator{
		Issuer: a.Edge, Tenant: t.id, BaseURL: a.Edge, APIKey: t.secretKey,
		Refresh: time.Second, MaxStale: time.Minute, WhenStale: tokens.FailClosed,
	}
	shop := &Shop{Name: t.shopName, Origin: a.Origin, SecretKey: t.secretKey, Client: client, Users: t.users, Cookie: "user_" + t.id}
	shop.Gate = &tokens.Gate{
		Validator: validator, WaitURL: a.Edge, PublicURL: a.Shop,
		Queue: func(*http.Request) string { return t.queue() },
		User:  shop.user, UserToken: shop.userToken,
	}
	return shopServer{listener, validator, shop}
}

// Run serves the shop until ctx ends.
func (s shopServer) Run(ctx context.Context) error {
	if err := s.shop.Gate.Check(); err != nil {
		return err
	}
	server := &http.Server{
		Handler: s.shop.Handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 20 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10,
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.validator.Run(ctx) })
	group.Go(func() error {
		if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve shop: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if server.Shutdown(patience) != nil {
			return server.Close()
		}
		return nil
	})
	return group.Wait()
}

// runCrowd keeps the simulated fans coming and tells every ten seconds how they fare.
func (d *Demo) runCrowd(ctx context.Context, say func(string)) error {
	if d.options.Crowd == 0 {
		return nil
	}
	crowd := &Crowd{
		Edge: d.access[0].Edge, Shop: d.access[0].Shop, Queue: d.access[0].Queue, Key: d.access[0].PublishableKey,
		Fans: d.options.Crowd, Shopping: d.options.Shopping, Away: d.options.Away,
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return crowd.Run(ctx) })
	group.Go(func() error {
		for rest(ctx, 10*time.Second) {
			waiting, err := d.waiting(ctx)
			if err != nil {
				continue // it says so itself
			}
			c := &crowd.counts
			say(fmt.Sprintf("%d in line; so far %d joined, %d bought, %d left, %d went silent, %d missed their turn",
				waiting, c.Joined.Load(), c.Bought.Load(), c.Left.Load(), c.Silent.Load(), c.Lapsed.Load()))
		}
		return nil
	})
	return group.Wait()
}

func (d *Demo) waiting(ctx context.Context) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.access[0].Edge+"/queues/"+d.access[0].Queue+"/state", nil)
	if err != nil {
		return 0, err
	}
	response, err := d.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	var state struct {
		Waiting int `json:"waiting"`
	}
	return state.Waiting, json.NewDecoder(response.Body).Decode(&state)
}
