package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"waitingroom/origin"
	"waitingroom/tokens"
)

// tenant is a demo tenant with its keys, made anew at each start.
type tenant struct {
	id, slug, shopName              string
	ticketKeys                      []byte
	operatorPrivate, operatorPublic []byte
	publishableKey, secretKey       string
	// The shop is its own identity provider: users mints what userKeys verify.
	users    *tokens.UserSigner
	userKeys []byte
}

// userIssuer is the iss of the shop's user tokens.
func userIssuer(id string) string { return "https://" + id + ".example" }

const userAudience = "waitingroom"

func newTenant(id, slug, shopName string) (tenant, error) {
	t := tenant{id: id, slug: slug, shopName: shopName}
	var err error
	make := func(what string, make func() error) {
		if err == nil {
			if err = make(); err != nil {
				err = fmt.Errorf("make %s of %s: %w", what, id, err)
			}
		}
	}
	make("ticket keys", func() (err error) { t.ticketKeys, err = tokens.GenerateTicketKeys(); return })
	make("operator keys", func() (err error) { t.operatorPrivate, t.operatorPublic, err = tokens.GenerateOperatorKeys(); return })
	make("publishable key", func() (err error) { t.publishableKey, err = tokens.NewAPIKey(false); return })
	make("secret key", func() (err error) { t.secretKey, err = tokens.NewAPIKey(true); return })
	make("user keys", func() error {
		private, public, err := tokens.GenerateUserKeys()
		if err != nil {
			return err
		}
		t.userKeys = public
		t.users, err = tokens.NewUserSigner(private, userIssuer(id), userAudience)
		return err
	})
	return t, err
}

func (t tenant) queue() string { return t.id + "." + t.slug }

// config and secrets are what the origin is told of the tenant.
func (t tenant) config() origin.TenantConfig {
	return origin.TenantConfig{
		ID: t.id,
		APIKeys: []origin.APIKeyConfig{
			{ID: "app", Kind: origin.PublishableKey, SHA256: tokens.HashAPIKey(t.publishableKey)},
			{ID: "shop", Kind: origin.SecretKey, SHA256: tokens.HashAPIKey(t.secretKey)},
		},
		UserTokens: origin.UserTokensConfig{Issuer: userIssuer(t.id), Audience: userAudience},
	}
}

func (t tenant) secrets() origin.TenantSecrets {
	return origin.TenantSecrets{TicketKeys: t.ticketKeys, OperatorKeys: t.operatorPublic, UserKeys: t.userKeys}
}

// Access is what somebody needs to try the room out as a fan, a shop or an operator.
type Access struct {
	Edge           string  `json:"edge"`
	Origin         string  `json:"origin"`
	Shop           string  `json:"shop"`
	Queue          string  `json:"queue"`
	PublishableKey string  `json:"publishableKey"`
	SecretKey      string  `json:"secretKey"`
	OperatorToken  string  `json:"operatorToken"`
	ViewerToken    string  `json:"viewerToken"`
	Other          *Access `json:"other,omitempty"`
}

// access describes the tenant; the operator tokens run for a day, as long as they may.
func (t tenant) access(edge, origin, shop string) (Access, error) {
	a := Access{
		Edge: edge, Origin: origin, Shop: shop, Queue: t.queue(),
		PublishableKey: t.publishableKey, SecretKey: t.secretKey,
	}
	now := time.Now()
	for role, token := range map[tokens.Role]*string{tokens.RoleOperator: &a.OperatorToken, tokens.RoleViewer: &a.ViewerToken} {
		var err error
		*token, err = tokens.SignOperator(t.operatorPrivate, tokens.Operator{
			Tenant: t.id, Subject: "demo-" + string(role), Role: role,
			IssuedAt: now, ExpiresAt: now.Add(24 * time.Hour),
		}, origin)
		if err != nil {
			return Access{}, fmt.Errorf("sign token of %s: %w", role, err)
		}
	}
	return a, nil
}

// createQueue provisions the tenant's queue as its operator would.
func createQueue(ctx context.Context, client *http.Client, a Access, slug string, settings map[string]any) error {
	settings["slug"] = slug
	body, err := json.Marshal(settings)
	if err != nil {
		return fmt.Errorf("create queue: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.Origin+"/queues", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("create queue: %w", err)
	}
	request.Header = bearer(a.OperatorToken)
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("create queue: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		return fmt.Errorf("create queue %s: %s: %s", a.Queue, response.Status, bytes.TrimSpace(text))
	}
	return nil
}
