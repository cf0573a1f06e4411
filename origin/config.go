package origin

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"waitingroom/origin/queue"
	"waitingroom/tokens"
)

// Config is what an origin is told at its start. Secrets are never in it, only where they are.
// Relative file names are taken from the directory of the config file.
type Config struct {
	// Listen is the address of the API for operators, backends and edges, as host:port; port 0
	// takes a free one. Default 127.0.0.1:8081. Off loopback it needs TLS or AllowPlainHTTP.
	Listen string `yaml:"listen"`
	// AdminListen is the address of /metrics and /debug/pprof. Default 127.0.0.1:9081; "off"
	// opens none. Neither asks for a credential, so off loopback it needs a network that only
	// operators reach.
	AdminListen string `yaml:"adminListen"`
	// TLS is the server's certificate. Default: plain HTTP.
	TLS TLSConfig `yaml:"tls"`
	// AllowPlainHTTP lets Listen be off loopback without TLS, where a proxy in front of the
	// operator API ends TLS. The feed and the endpoints of edges refuse plain HTTP off loopback
	// all the same. Default false; excludes TLS.
	AllowPlainHTTP bool `yaml:"allowPlainHTTP"`
	// PublicURL is how operators and backends reach this origin, and the aud of operator JWTs.
	// http or https, without a path. Required; all origins of an installation have the same.
	PublicURL string `yaml:"publicURL"`
	// Issuer is the public base URL of the edges, and the iss of all tickets and sessions. http
	// or https, without a trailing slash. Required; a change makes all running tokens invalid.
	Issuer string `yaml:"issuer"`

	// ClusterSecret is what edges show to the origin: at least 32 bytes. Required.
	ClusterSecret tokens.Source `yaml:"clusterSecret"`
	// SessionKeys is the JWK set of Ed25519 private keys that sign sessions. Required.
	SessionKeys tokens.Source `yaml:"sessionKeys"`
	// UserHashKey is the key under which ids of users are hashed before they are stored: at
	// least 32 bytes. Required; a change separates users from the places that they have, so that nobody
	// of them can claim: none while a queue runs.
	UserHashKey tokens.Source `yaml:"userHashKey"`

	// Redis is where the state is kept. The origin program needs it; the all-in-one program
	// keeps the state in memory.
	Redis RedisConfig `yaml:"redis"`

	// TickEvery is the time between two ticks of a queue. 10ms to 1s; default 250ms.
	TickEvery time.Duration `yaml:"tickEvery"`
	// LeaseTTL is how long a queue stays with an origin that stopped ticking. More than four
	// ticks, at most 30s; default 3s.
	LeaseTTL time.Duration `yaml:"leaseTTL"`

	// Tenants are those whom this installation serves; at least one.
	Tenants []TenantConfig `yaml:"tenants"`
}

// TLSConfig is a certificate: both files or none. They are read again on a reload.
type TLSConfig struct {
	CertFile string `yaml:"certFile"` // PEM, with the intermediate certificates
	KeyFile  string `yaml:"keyFile"`  // PEM
}

// RedisConfig says how the store is reached.
type RedisConfig struct {
	// Addresses are host:port of the one node, of some nodes of a cluster, or of the sentinels.
	// Required by the origin program.
	Addresses []string `yaml:"addresses"`
	// MasterName is the master's name where Addresses are sentinels. Default: none are.
	MasterName string `yaml:"masterName"`
	// Cluster says that a single address is that of a cluster; several are one without
	// MasterName. Default false; excludes MasterName.
	Cluster bool `yaml:"cluster"`
	// Username of an ACL user. Default: the default user.
	Username string `yaml:"username"`
	// Password of the user. Default: none is asked for.
	Password tokens.Source `yaml:"password"`
	// SentinelUsername and SentinelPassword are for the sentinels. Default: they ask for none.
	SentinelUsername string        `yaml:"sentinelUsername"`
	SentinelPassword tokens.Source `yaml:"sentinelPassword"`
	// TLS turns TLS on. Default false.
	TLS bool `yaml:"tls"`
	// CAFile holds the certificates (PEM) that sign the servers'. Default: the system's; needs TLS.
	CAFile string `yaml:"caFile"`
	// Replicas is how many replicas must have acknowledged a change before it is answered: 0 to 16,
	// default 0, which waits for none. Without it a failover can lose what was answered: places,
	// sessions, revocations. With it, name all the replicas that each master has, for any of them
	// may take over; while fewer answer, changes are refused with 503.
	Replicas int `yaml:"replicas"`
	// ReplicaTimeout is how long a change waits for them. 10ms to 1s; default 500ms.
	ReplicaTimeout time.Duration `yaml:"replicaTimeout"`
}

// TenantConfig is one tenant.
type TenantConfig struct {
	// ID is the tenant's name and the first part of its queues' ids: a-z, 0-9 and -, 1 to 63
	// long. Required; each tenant has another.
	ID string `yaml:"id"`
	// TicketKeys is the JWK set of HMAC keys that edges sign this tenant's tickets with. Required.
	TicketKeys tokens.Source `yaml:"ticketKeys"`
	// OperatorKeys are the public keys (EdDSA or ES256; JWK set or PEM) of operator JWTs. Required.
	OperatorKeys tokens.Source `yaml:"operatorKeys"`
	// APIKeys are the tenant's API keys. Default: none.
	APIKeys []APIKeyConfig `yaml:"apiKeys"`
	// UserTokens says whose word a fan's userToken is. Default: no userToken is accepted.
	UserTokens UserTokensConfig `yaml:"userTokens"`
}

// UserTokensConfig is a tenant's identity provider: whose tokens prove who a fan is. They are JWTs
// signed with EdDSA (Ed25519), ES256 or RS256, with a kid, iss, aud, sub (1 to 128 bytes, the user id
// that the backend uses too) and exp; an OpenID Connect ID token is one.
type UserTokensConfig struct {
	// Issuer is their iss, to the letter. Required, where anything of this is given.
	Issuer string `yaml:"issuer"`
	// Audience has to be their aud, or among them; no two tenants have both issuer and audience in
	// common. Required.
	Audience string `yaml:"audience"`
	// KeysURL is where the provider publishes its public keys as a JWK set: https, or http on a
	// loopback host; no redirects are followed. It is fetched every five minutes, and when a token
	// names an unknown key, for that reason at most once a minute. Excludes Keys.
	KeysURL string `yaml:"keysURL"`
	// Keys are the public keys where they are not fetched: a JWK set or PEM. Read again on a reload.
	// One of Keys and KeysURL is required.
	Keys tokens.Source `yaml:"keys"`
}

func (u UserTokensConfig) given() bool { return u != UserTokensConfig{} }

// APIKeyConfig is what is kept of an API key: never the key itself.
type APIKeyConfig struct {
	// ID names the key in logs and metrics; each key of a tenant has another. Required.
	ID string `yaml:"id"`
	// Kind is secret (for the tenant's backend) or publishable (for its app). Required.
	Kind APIKeyKind `yaml:"kind"`
	// SHA256 is the key's hash in hex, as the command api-key prints it. Required.
	SHA256 string `yaml:"sha256"`
}

// APIKeyKind is what an API key may do.
type APIKeyKind string

// The kinds of API keys.
const (
	SecretKey      APIKeyKind = "secret"      // may join for a user, end sessions, read revocations
	PublishableKey APIKeyKind = "publishable" // may join
)

// DefaultConfig holds the defaults; what is required is missing.
func DefaultConfig() Config {
	return Config{
		Listen:      "127.0.0.1:8081",
		AdminListen: "127.0.0.1:9081",
		TickEvery:   250 * time.Millisecond,
		LeaseTTL:    3 * time.Second,
		Redis:       RedisConfig{ReplicaTimeout: 500 * time.Millisecond},
	}
}

// ConfigError lists everything that is wrong with a config.
type ConfigError struct{ Problems []string }

func (e *ConfigError) Error() string {
	return "check config: " + strings.Join(e.Problems, "\n  and: ")
}

// LoadConfig reads a config file and checks it.
func LoadConfig(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read config: %w", err)
	}
	c, err := ParseConfig(data)
	if err != nil {
		return Config{}, err
	}
	c.resolve(filepath.Dir(path))
	return c, nil
}

// ParseConfig reads a config and checks it; the error is a *ConfigError that lists everything.
func ParseConfig(data []byte) (Config, error) {
	c := DefaultConfig()
	// Two readings: the first finds every unknown key, the second every value.
	var plain any
	if err := yaml.Unmarshal(data, &plain); err != nil {
		return Config{}, &ConfigError{[]string{yaml.FormatError(err, false, false)}}
	}
	problems := unknownKeys("", plain, reflect.TypeFor[Config]())
	if err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		problems = append(problems, yaml.FormatError(err, false, false))
	}
	problems = append(problems, c.problems()...)
	problems = append(problems, c.sourceProblems()...)
	if problems != nil {
		return Config{}, &ConfigError{problems}
	}
	return c, nil
}

// unknownKeys lists the keys of a document that the type has no field for.
func unknownKeys(path string, value any, t reflect.Type) []string {
	var list []string
	switch {
	case t.Kind() == reflect.Slice:
		items, _ := value.([]any)
		for i, item := range items {
			list = append(list, unknownKeys(fmt.Sprintf("%s[%d]", path, i), item, t.Elem())...)
		}
	case t.Kind() == reflect.Struct:
		members, _ := value.(map[string]any)
		known := make(map[string]reflect.Type, t.NumField())
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
			known[name] = t.Field(i).Type
		}
		for _, name := range slices.Sorted(maps.Keys(members)) {
			at := strings.TrimPrefix(path+"."+name, ".")
			if field, exists := known[name]; exists {
				list = append(list, unknownKeys(at, members[name], field)...)
			} else {
				list = append(list, at+": unknown key")
			}
		}
	}
	return list
}

// problems lists what is wrong with everything but the sources of secrets.
func (c Config) problems() []string {
	var list []string
	wrong := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	hasTLS := c.TLS.CertFile != "" || c.TLS.KeyFile != ""
	switch {
	case hasTLS && (c.TLS.CertFile == "" || c.TLS.KeyFile == ""):
		wrong("tls: certFile and keyFile go together")
	case hasTLS && c.AllowPlainHTTP:
		wrong("allowPlainHTTP: excluded by tls")
	}
	if host, _, err := net.SplitHostPort(c.Listen); err != nil {
		wrong("listen: host:port is required")
	} else if !hasTLS && !c.AllowPlainHTTP && !isLoopback(host) {
		wrong("listen: plain HTTP is served on a loopback address only; set tls, or allowPlainHTTP behind a proxy that ends TLS")
	}
	if _, _, err := net.SplitHostPort(c.AdminListen); err != nil && c.AdminListen != adminOff {
		wrong("adminListen: host:port or %s is required", adminOff)
	}
	if !isBaseURL(c.PublicURL) {
		wrong("publicURL: http or https URL without a slash at its end is required")
	}
	if !isBaseURL(c.Issuer) {
		wrong("issuer: http or https URL without a slash at its end is required")
	}
	if c.TickEvery < 10*time.Millisecond || c.TickEvery > time.Second {
		wrong("tickEvery: 10ms to 1s")
	}
	if c.LeaseTTL <= 4*c.TickEvery || c.LeaseTTL > 30*time.Second {
		wrong("leaseTTL: more than four times tickEvery, at most 30s")
	}
	if c.Redis.MasterName != "" && c.Redis.Cluster {
		wrong("redis.cluster: excluded by masterName")
	}
	if c.Redis.Replicas < 0 || c.Redis.Replicas > 16 {
		wrong("redis.replicas: 0 to 16")
	}
	if c.Redis.ReplicaTimeout < 10*time.Millisecond || c.Redis.ReplicaTimeout > time.Second {
		wrong("redis.replicaTimeout: 10ms to 1s")
	}
	if c.Redis.CAFile != "" && !c.Redis.TLS {
		wrong("redis.caFile: needs tls")
	}
	if len(c.Tenants) == 0 {
		wrong("tenants: at least one is required")
	}
	ids := make(map[string]bool)
	providers := make(map[[2]string]bool)
	for i, tenant := range c.Tenants {
		at := fmt.Sprintf("tenants[%d]", i)
		if !queue.ValidName(tenant.ID) {
			wrong("%s.id: a-z, 0-9 and -, 1 to 63 long", at)
		} else if ids[tenant.ID] {
			wrong("%s.id: %s is there twice", at, tenant.ID)
		}
		ids[tenant.ID] = true
		list = append(list, tenant.apiKeyProblems(at)...)
		list = append(list, tenant.UserTokens.problems(at+".userTokens")...)
		if u := tenant.UserTokens; u.given() && u.Issuer != "" {
			// A token for the one tenant would name a user of the other.
			if provider := [2]string{u.Issuer, u.Audience}; providers[provider] {
				wrong("%s.userTokens: another tenant has the same issuer and audience", at)
			} else {
				providers[provider] = true
			}
		}
	}
	return list
}

// problems lists what is wrong but for the source of the keys.
func (u UserTokensConfig) problems(at string) []string {
	if !u.given() {
		return nil
	}
	var list []string
	if u.Issuer == "" {
		list = append(list, at+".issuer: required")
	}
	if u.Audience == "" {
		list = append(list, at+".audience: required")
	}
	if u.KeysURL != "" {
		if u.Keys != (tokens.Source{}) {
			list = append(list, at+".keys: excluded by keysURL")
		}
		if !isKeysURL(u.KeysURL) {
			list = append(list, at+".keysURL: https URL is required, or http on a loopback host")
		}
	}
	return list
}

func isKeysURL(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())) && u.Hostname() != "" &&
		u.User == nil && u.Fragment == ""
}

func (t TenantConfig) apiKeyProblems(at string) []string {
	var list []string
	ids := make(map[string]bool)
	for i, key := range t.APIKeys {
		at := fmt.Sprintf("%s.apiKeys[%d]", at, i)
		if key.ID == "" || ids[key.ID] {
			list = append(list, at+".id: required, and another for each key")
		}
		ids[key.ID] = true
		if key.Kind != SecretKey && key.Kind != PublishableKey {
			list = append(list, at+".kind: secret or publishable")
		}
		if hash, err := hex.DecodeString(key.SHA256); err != nil || len(hash) != 32 {
			list = append(list, at+".sha256: 64 hex digits are required")
		}
	}
	return list
}

// sourceProblems lists the secrets for which no source, or two, are named.
func (c Config) sourceProblems() []string {
	var list []string
	for _, s := range c.sources() {
		set := s.source.File != "" || s.source.Env != ""
		both := s.source.File != "" && s.source.Env != ""
		if both || !set && !s.optional {
			list = append(list, s.name+": exactly one of file and env is required")
		}
	}
	return list
}

type namedSource struct {
	name     string
	source   *tokens.Source
	optional bool
}

// sources are all sources of secrets; the pointers lead into the Config's own slices and, for a
// copy, into the copy.
func (c *Config) sources() []namedSource {
	list := []namedSource{
		{"clusterSecret", &c.ClusterSecret, false},
		{"sessionKeys", &c.SessionKeys, false},
		{"userHashKey", &c.UserHashKey, false},
		{"redis.password", &c.Redis.Password, true},
		{"redis.sentinelPassword", &c.Redis.SentinelPassword, true},
	}
	for i := range c.Tenants {
		at, users := fmt.Sprintf("tenants[%d]", i), &c.Tenants[i].UserTokens
		list = append(list,
			namedSource{at + ".ticketKeys", &c.Tenants[i].TicketKeys, false},
			namedSource{at + ".operatorKeys", &c.Tenants[i].OperatorKeys, false},
			namedSource{at + ".userTokens.keys", &users.Keys, !users.given() || users.KeysURL != ""})
	}
	return list
}

// resolve takes relative file names from a directory.
func (c *Config) resolve(dir string) {
	files := []*string{&c.TLS.CertFile, &c.TLS.KeyFile, &c.Redis.CAFile}
	for _, s := range c.sources() {
		files = append(files, &s.source.File)
	}
	for _, file := range files {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(dir, *file)
		}
	}
}

const adminOff = "off"

func isBaseURL(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil &&
		u.RawQuery == "" && u.Fragment == "" && !strings.HasSuffix(address, "/")
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
