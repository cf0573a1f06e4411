package origin

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"waitingroom/origin/store"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

// Secrets are the contents of all sources that a Config names.
type Secrets struct {
	ClusterSecret, SessionKeys, UserHashKey []byte
	Tenants                                 map[string]TenantSecrets // by id
}

// TenantSecrets are one tenant's. UserKeys are given where its UserTokens have no KeysURL.
type TenantSecrets struct{ TicketKeys, OperatorKeys, UserKeys []byte }

// ReadSecrets reads all sources; the error lists every one that cannot be read.
func (c Config) ReadSecrets() (Secrets, error) {
	var problems []error
	read := func(name string, source tokens.Source) []byte {
		data, err := source.Load()
		if err != nil {
			problems = append(problems, fmt.Errorf("read %s: %w", name, err))
		}
		return data
	}
	s := Secrets{
		ClusterSecret: read("clusterSecret", c.ClusterSecret),
		SessionKeys:   read("sessionKeys", c.SessionKeys),
		UserHashKey:   read("userHashKey", c.UserHashKey),
		Tenants:       make(map[string]TenantSecrets),
	}
	for _, t := range c.Tenants {
		own := TenantSecrets{
			TicketKeys:   read("ticketKeys of "+t.ID, t.TicketKeys),
			OperatorKeys: read("operatorKeys of "+t.ID, t.OperatorKeys),
		}
		if t.UserTokens.given() && t.UserTokens.KeysURL == "" {
			own.UserKeys = read("userTokens.keys of "+t.ID, t.UserTokens.Keys)
		}
		s.Tenants[t.ID] = own
	}
	return s, errors.Join(problems...)
}

// CheckSecrets reads and parses all secrets and the certificate, and says what is wrong with them.
func (c Config) CheckSecrets() error {
	_, _, err := c.readKeys(c.ReadSecrets)
	return err
}

// readKeys reads and parses everything that a reload renews.
func (c Config) readKeys(read func() (Secrets, error)) (*keys, *tls.Certificate, error) {
	secrets, err := read()
	if err != nil {
		return nil, nil, fmt.Errorf("read secrets: %w", err)
	}
	k, err := makeKeys(c, secrets)
	if err != nil {
		return nil, nil, err
	}
	if c.TLS.CertFile == "" {
		return k, nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(c.TLS.CertFile, c.TLS.KeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read certificate: %w", err)
	}
	return k, &certificate, nil
}

// keys are the secrets in the form in which requests use them. Immutable: a reload makes new ones.
type keys struct {
	clusterHash [sha256.Size]byte
	sessions    *tokens.SessionKeys
	tickets     *tokens.Tickets
	userHashKey []byte
	tenants     map[string]*tenantKeys
	feed        []wire.Tenant // in the order of the config
}

type tenantKeys struct {
	operators *tokens.OperatorKeys
	apiKeys   []apiKey
}

type apiKey struct {
	hash   []byte
	secret bool
}

// minSecret is the least length of the user hash key, in bytes; the cluster secret's is as long.
const minSecret = wire.LeastSecret

// makeKeys parses secrets; the error lists everything that is wrong and repeats nothing secret.
func makeKeys(c Config, s Secrets) (*keys, error) {
	var problems []error
	wrong := func(name string, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("parse %s: %w", name, err))
		}
	}
	errShort := fmt.Errorf("at least %d bytes are required", minSecret)
	if len(s.ClusterSecret) < minSecret {
		wrong("clusterSecret", errShort)
	}
	if len(s.UserHashKey) < minSecret {
		wrong("userHashKey", errShort)
	}
	k := &keys{
		clusterHash: sha256.Sum256(s.ClusterSecret),
		userHashKey: slices.Clone(s.UserHashKey),
		tickets:     &tokens.Tickets{Issuer: c.Issuer, Rings: make(map[string]*tokens.KeyRing)},
		tenants:     make(map[string]*tenantKeys),
	}
	var err error
	k.sessions, err = tokens.ParseSessionKeys(s.SessionKeys)
	wrong("sessionKeys", err)
	for _, t := range c.Tenants {
		secrets := s.Tenants[t.ID]
		k.tickets.Rings[t.ID], err = tokens.ParseKeyRing(secrets.TicketKeys)
		wrong("ticketKeys of "+t.ID, err)
		own := &tenantKeys{}
		own.operators, err = tokens.ParseOperatorKeys(secrets.OperatorKeys)
		wrong("operatorKeys of "+t.ID, err)
		told := wire.Tenant{ID: t.ID, TicketKeys: json.RawMessage(secrets.TicketKeys)}
		for _, key := range t.APIKeys {
			hash, err := hex.DecodeString(key.SHA256)
			wrong("apiKeys of "+t.ID, err)
			own.apiKeys = append(own.apiKeys, apiKey{hash: hash, secret: key.Kind == SecretKey})
			told.APIKeys = append(told.APIKeys, wire.APIKey{ID: key.ID, Secret: key.Kind == SecretKey, SHA256: key.SHA256})
		}
		told.UserTokens, err = t.UserTokens.told(secrets.UserKeys)
		wrong("userTokens.keys of "+t.ID, err)
		k.tenants[t.ID] = own
		k.feed = append(k.feed, told)
	}
	if problems != nil {
		return nil, errors.Join(problems...)
	}
	return k, nil
}

// told is what edges are told of an identity provider, but for keys that are fetched; nil where there
// is none.
func (u UserTokensConfig) told(keys []byte) (*wire.UserTokens, error) {
	if !u.given() {
		return nil, nil
	}
	told := &wire.UserTokens{Issuer: u.Issuer, Audience: u.Audience, Fetched: u.KeysURL != ""}
	if told.Fetched {
		return told, nil
	}
	parsed, err := tokens.ParseUserKeys(keys)
	if err != nil {
		return nil, err
	}
	told.Keys, err = parsed.Public()
	return told, err
}

// isClusterSecret compares hashes, so that the time tells neither the secret nor its length.
func (k *keys) isClusterSecret(secret string) bool {
	hash := sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(hash[:], k.clusterHash[:]) == 1
}

// findAPIKey finds whose key it is. Every key is compared, so that the time tells nothing.
func (k *keys) findAPIKey(key string) (tenant string, secret, found bool) {
	hash := sha256.Sum256([]byte(key))
	for id, t := range k.tenants {
		for _, known := range t.apiKeys {
			if subtle.ConstantTimeCompare(hash[:], known.hash) == 1 {
				tenant, secret, found = id, known.secret, true
			}
		}
	}
	return tenant, secret, found
}

// hashUser makes the key under which the store knows a user, or the subject of a ticket. It does
// not depend on the queue's incarnation.
func (k *keys) hashUser(tenant, user string) store.Key {
	mac := hmac.New(sha256.New, k.userHashKey)
	mac.Write([]byte(tenant))
	mac.Write([]byte{0}) // no tenant's name holds it, so no two pairs run together
	mac.Write([]byte(user))
	return store.Key(mac.Sum(nil)[:len(store.Key{})])
}

// tenantsFrame is what edges are told of the keys; fetched are those of identity providers that
// publish them, by tenant.
func (k *keys) tenantsFrame(issuer string, fetched func(tenant string) []byte, now time.Time) (*wire.Tenants, error) {
	jwks, err := k.sessions.Public(now)
	if err != nil {
		return nil, fmt.Errorf("publish session keys: %w", err)
	}
	frame := &wire.Tenants{Issuer: issuer, JWKS: jwks, Tenants: slices.Clone(k.feed)}
	for i := range frame.Tenants {
		if t := &frame.Tenants[i]; t.UserTokens != nil && t.UserTokens.Fetched {
			told := *t.UserTokens
			told.Keys = fetched(t.ID)
			t.UserTokens = &told
		}
	}
	return frame, nil
}
