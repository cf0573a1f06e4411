package edge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"waitingroom/tokens"
)

// What an edge does with a session token while its list of revocations is too old.
const (
	FailOpen   = "fail-open"   // goes by the last known list
	FailClosed = "fail-closed" // answers 503
)

// How the waiting page follows the line.
const (
	// PollingDirect asks for the fan's own status every time, where no live connection tells it.
	PollingDirect = "direct"
	// PollingCached reads the queue's public state, which a cache in front of the edges can answer,
	// and asks for the own status once a turn and when the turn may have come.
	PollingCached = "cached"
)

// Config is an edge's configuration file. Unknown keys are refused.
type Config struct {
	// Listen is the address that fans and backends reach, host:port; port 0 takes a free one.
	// Required.
	Listen string `yaml:"listen"`
	// AdminListen is the address of /metrics and /debug/pprof, host:port with an explicit host.
	// What it tells is not for fans: keep it on loopback or in a network of your own. Default: no
	// such listener.
	AdminListen string `yaml:"adminListen"`
	// PublicURL is the scheme and host that fans see, as https://host[:port] without a path. It is
	// the only Origin from which cookies may change something, and it decides the cookies' form:
	// on https they carry the __Host- prefix and Secure, on http (loopback hosts only) neither.
	// Default: http:// and the listener's address, where that is loopback; required elsewhere.
	PublicURL string `yaml:"publicURL"`
	// Origins are the base URLs of the origins, tried in turn. http only to loopback. Required.
	Origins []string `yaml:"origins"`
	// ClusterSecret is where the secret shared with the origins comes from, of at least 32 bytes:
	// exactly one of file and env. Required.
	ClusterSecret tokens.Source `yaml:"clusterSecret"`
	// TrustedProxies are the networks (CIDR) of the proxies before this edge. From them, and from
	// nobody else, X-Forwarded-For is believed; each must append to it, or replace it. Default:
	// none. Without any, an edge that serves no TLS itself knows no client's address, and does
	// without limits.joinsPerAddress.
	TrustedProxies []string `yaml:"trustedProxies"`
	// Polling is how waiting pages poll: direct asks this edge for the fan's own status every time;
	// cached reads the public state of the queue, which is the same for everybody, and asks for the
	// own status once a turn and when the turn may have come, and opens no live connection. Only for
	// edges with a cache or CDN in front, which answers GET /queues/{queue}/state for a second; alike
	// on all edges. Pages learn it when they load. Default direct.
	Polling string `yaml:"polling"`
	// MaxStaleSeconds is how old the list of revocations may be before WhenStale applies, in
	// seconds. 1 to 86400; default 60.
	MaxStaleSeconds int `yaml:"maxStaleSeconds"`
	// WhenStale is what /access does beyond MaxStaleSeconds: fail-open or fail-closed. Required,
	// because only the operator can weigh a shop shut against a revoked fan let in.
	WhenStale string `yaml:"whenStale"`
	// DrainSeconds is how long /readyz answers 503 at a stop before the listener closes, so that
	// a load balancer can turn away, in seconds. 0 to 300; default 0.
	DrainSeconds int `yaml:"drainSeconds"`
	// MoveSeconds is over how long the live connections are told at a stop to go to another edge, so
	// that they do not all arrive there at once, in seconds. 1 to 300; default 10.
	MoveSeconds int `yaml:"moveSeconds"`
	// Limits bound what anybody can make this edge hold.
	Limits Limits `yaml:"limits"`
	// TLS is the certificate to serve with. Default: plain http, behind a proxy that ends TLS.
	TLS *TLS `yaml:"tls"`
}

// Limits of an edge.
type Limits struct {
	// Connections is the number of connections served at once; the last eighth takes no joins of
	// fans without a place. 1 to 1000000; default 200000.
	Connections int `yaml:"connections"`
	// LiveConnections is the number of live connections, WebSocket and Server-Sent Events, held at
	// once; each takes about 5 KiB and an open file, of which an eighth is left to everything else.
	// Further ones are turned away with 503. 1 to 1000000; default 100000, or as many as the process
	// may open files for.
	LiveConnections int `yaml:"liveConnections"`
	// LiveUpgradesPerSecond is how many of them are taken in a second; further ones are turned
	// away with 503. 1 to 1000000; default 1000.
	LiveUpgradesPerSecond int `yaml:"liveUpgradesPerSecond"`
	// ReadSeconds is how long a request may take to arrive, in seconds, from its first byte, or
	// from the opening of its connection. 1 to 300; default 10.
	ReadSeconds int `yaml:"readSeconds"`
	// WriteSeconds is how long an answer may take to be read, in seconds. 1 to 300; default 10.
	WriteSeconds int `yaml:"writeSeconds"`
	// IdleSeconds is how long a connection may wait for its next request, in seconds. 1 to 3600;
	// default 75. Behind a proxy it must exceed the proxy's own.
	IdleSeconds int `yaml:"idleSeconds"`
	// BodyBytes is the largest request body. 1024 to 1048576; default 16384.
	BodyBytes int `yaml:"bodyBytes"`
	// HeaderBytes is the largest request header, with its cookies. 4096 to 65536; default 16384.
	HeaderBytes int `yaml:"headerBytes"`
	// GatheredJoins is how many joins of one queue may wait for the origin; further ones are
	// turned away with 503. 1 to 1000000; default 8192.
	GatheredJoins int `yaml:"gatheredJoins"`
	// JoinWaitMillis is how long a join may have waited for the origin, in milliseconds, until new
	// ones are turned away with 503 at once. Joins that name a user, who may have a place, are
	// turned away at twice that. 10 to 2500; default 1500.
	JoinWaitMillis int `yaml:"joinWaitMillis"`
	// JoinsPerAddress is how often fans may join from one client address, or one prefix of
	// addresses, on this edge. It counts neither joins with a secret API key nor those of a page
	// that holds a place. Default 20 a second, 60 at once: the 128 subscribers whom a carrier puts
	// behind one IPv4 address could nearly all join within the same three seconds.
	JoinsPerAddress JoinRate `yaml:"joinsPerAddress"`
	// AddressBitsIPv4 and AddressBitsIPv6 are how many leading bits of an address one client is
	// taken to have for itself. 8 to 32, default 32; 16 to 128, default 64, which is what a
	// provider gives to the smallest customer.
	AddressBitsIPv4 int `yaml:"addressBitsIPv4"`
	AddressBitsIPv6 int `yaml:"addressBitsIPv6"`
	// RememberedAddresses is how many prefixes of addresses are remembered, those that joined last;
	// each takes about 200 bytes. 1024 to 10000000; default 65536.
	RememberedAddresses int `yaml:"rememberedAddresses"`
	// JoinsPerPublishableKey is how often fans may join with one publishable API key on this edge,
	// so that one tenant's app cannot crowd out another's. All of an app's fans share the key.
	// Default 10000 a second, 30000 at once.
	JoinsPerPublishableKey JoinRate `yaml:"joinsPerPublishableKey"`
	// JoinsPerSecretKey is the same for one secret API key. Default: off, for the shop's own
	// backend is trusted.
	JoinsPerSecretKey JoinRate `yaml:"joinsPerSecretKey"`
	// OriginCalls is how many claims and leaves may wait for the origin at once. 1 to 100000;
	// default 512.
	OriginCalls int `yaml:"originCalls"`
	// RememberedTokens is how many verified tickets, and how many verified sessions, are
	// remembered; each takes about 1 KiB. 1024 to 10000000; default 131072.
	RememberedTokens int `yaml:"rememberedTokens"`
	// KeptSightings is how many sightings wait for an origin that is away; each takes 8 bytes.
	// The oldest are dropped beyond it. 1024 to 100000000; default 2000000.
	KeptSightings int `yaml:"keptSightings"`
}

// JoinRate limits how often something may join. It is a token bucket: each join takes a token.
type JoinRate struct {
	// PerSecond is how many tokens grow back in a second. 1 to 1000000. Excludes off.
	PerSecond int `yaml:"perSecond"`
	// Burst is how many tokens there are at the most. 1 to 10000000; default three times
	// perSecond. Excludes off.
	Burst int `yaml:"burst"`
	// Off lifts the limit. Excludes the others.
	Off bool `yaml:"off"`
}

// TLS names a certificate.
type TLS struct {
	// CertFile and KeyFile are PEM files. Both required.
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
}

// LoadConfig reads a configuration file and checks it. Relative file names in it are taken from its
// own directory, wherever the program was started.
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

// resolve takes relative file names from a directory.
func (c *Config) resolve(dir string) {
	files := []*string{&c.ClusterSecret.File}
	if c.TLS != nil {
		files = append(files, &c.TLS.CertFile, &c.TLS.KeyFile)
	}
	for _, file := range files {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(dir, *file)
		}
	}
}

// ParseConfig checks the text of a configuration file, fills in defaults and reports all problems
// together.
func ParseConfig(data []byte) (Config, error) {
	var c Config
	var problems []error
	if err := yaml.UnmarshalWithOptions(data, &c, yaml.Strict()); err != nil {
		// The strict reading ends at the first unknown key; the other one tells what else is wrong.
		problems = append(problems, errors.New(yaml.FormatError(err, false, false)))
		c = Config{}
		if yaml.Unmarshal(data, &c) != nil {
			return Config{}, fmt.Errorf("parse config: %w", problems[0])
		}
	}
	problems = append(problems, c.check()...)
	if len(c.Origins) == 0 {
		problems = append(problems, errors.New("origins: at least one is required"))
	}
	for i, origin := range c.Origins {
		if err := checkOriginURL(origin); err != nil {
			problems = append(problems, fmt.Errorf("origins[%d]: %w", i, err))
		}
	}
	if (c.ClusterSecret.File == "") == (c.ClusterSecret.Env == "") {
		problems = append(problems, errors.New("clusterSecret: exactly one of file and env is required"))
	}
	if len(problems) > 0 {
		return Config{}, fmt.Errorf("check config: %w", errors.Join(problems...))
	}
	return c, nil
}

// check fills in defaults and reports what is wrong with the settings that a Server itself uses.
func (c *Config) check() []error {
	var problems []error
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	within := func(name string, value *int, otherwise, least, most int) {
		if *value == 0 {
			*value = otherwise
		}
		if *value < least || *value > most {
			report("%s: %d to %d", name, least, most)
		}
	}
	rate := func(name string, r *JoinRate, otherwise JoinRate) {
		switch {
		case r.Off && (r.PerSecond != 0 || r.Burst != 0):
			report("%s: off excludes perSecond and burst", name)
			return
		case *r == JoinRate{}:
			*r = otherwise
		}
		if r.Off {
			return
		}
		within(name+".perSecond", &r.PerSecond, otherwise.PerSecond, 1, 1_000_000)
		within(name+".burst", &r.Burst, 3*r.PerSecond, 1, 10_000_000)
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		report("listen: host:port is required")
	}
	if host, _, err := net.SplitHostPort(c.AdminListen); c.AdminListen != "" && (err != nil || host == "") {
		report("adminListen: host:port with an explicit host is required")
	}
	if c.PublicURL == "" {
		if !loopbackAddress(c.Listen) {
			report("publicURL: required where listen is not a loopback address")
		}
	} else if err := checkPublicURL(c.PublicURL); err != nil {
		report("publicURL: %w", err)
	}
	for i, proxy := range c.TrustedProxies {
		if _, err := netip.ParsePrefix(proxy); err != nil {
			report("trustedProxies[%d]: a network such as 10.0.0.0/8 is required", i)
		}
	}
	if c.Polling == "" {
		c.Polling = PollingDirect
	}
	if c.Polling != PollingDirect && c.Polling != PollingCached {
		report("polling: %s or %s is required", PollingDirect, PollingCached)
	}
	if c.WhenStale != FailOpen && c.WhenStale != FailClosed {
		report("whenStale: %s or %s is required", FailOpen, FailClosed)
	}
	within("maxStaleSeconds", &c.MaxStaleSeconds, 60, 1, 86_400)
	within("drainSeconds", &c.DrainSeconds, 0, 0, 300)
	within("moveSeconds", &c.MoveSeconds, 10, 1, 300)
	within("limits.liveConnections", &c.Limits.LiveConnections, 100_000, 1, 1_000_000)
	within("limits.liveUpgradesPerSecond", &c.Limits.LiveUpgradesPerSecond, 1000, 1, 1_000_000)
	within("limits.connections", &c.Limits.Connections, 200_000, 1, 1_000_000)
	within("limits.bodyBytes", &c.Limits.BodyBytes, 16_384, 1024, 1<<20)
	within("limits.headerBytes", &c.Limits.HeaderBytes, 16_384, 4096, 1<<16)
	within("limits.readSeconds", &c.Limits.ReadSeconds, 10, 1, 300)
	within("limits.writeSeconds", &c.Limits.WriteSeconds, 10, 1, 300)
	within("limits.idleSeconds", &c.Limits.IdleSeconds, 75, 1, 3600)
	within("limits.gatheredJoins", &c.Limits.GatheredJoins, 8192, 1, 1_000_000)
	within("limits.joinWaitMillis", &c.Limits.JoinWaitMillis, 1500, 10, int(joinDeadline/time.Millisecond)/2)
	rate("limits.joinsPerAddress", &c.Limits.JoinsPerAddress, JoinRate{PerSecond: 20, Burst: 60})
	within("limits.addressBitsIPv4", &c.Limits.AddressBitsIPv4, 32, 8, 32)
	within("limits.addressBitsIPv6", &c.Limits.AddressBitsIPv6, 64, 16, 128)
	within("limits.rememberedAddresses", &c.Limits.RememberedAddresses, 65_536, 1024, 10_000_000)
	rate("limits.joinsPerPublishableKey", &c.Limits.JoinsPerPublishableKey, JoinRate{PerSecond: 10_000, Burst: 30_000})
	rate("limits.joinsPerSecretKey", &c.Limits.JoinsPerSecretKey, JoinRate{Off: true})
	within("limits.originCalls", &c.Limits.OriginCalls, 512, 1, 100_000)
	within("limits.rememberedTokens", &c.Limits.RememberedTokens, 131_072, 1024, 10_000_000)
	within("limits.keptSightings", &c.Limits.KeptSightings, 2_000_000, 1024, 100_000_000)
	if c.TLS != nil && (c.TLS.CertFile == "" || c.TLS.KeyFile == "") {
		report("tls: both certFile and keyFile are required")
	}
	return problems
}

// knowsClients reports whether an edge can tell one client's address from another's: its peers are
// the clients, or proxies that it trusts. What stands before an edge that serves plain http can
// only be a proxy; unless it is named, all fans would seem to come from its one address.
func (c *Config) knowsClients() bool { return c.TLS != nil || len(c.TrustedProxies) > 0 }

func (c *Config) maxStale() time.Duration { return time.Duration(c.MaxStaleSeconds) * time.Second }

var errPlainHTTP = errors.New("http is for loopback hosts only; use https")

func checkOriginURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("a base URL such as https://origin.example:8443 is required")
	}
	if u.Scheme == "http" && !loopbackHost(u.Hostname()) {
		return errPlainHTTP
	}
	return nil
}

// checkPublicURL wants the URL exactly as a browser writes it in an Origin header (RFC 6454).
func checkPublicURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" ||
		s != u.Scheme+"://"+u.Host || s != strings.ToLower(s) ||
		u.Scheme == "http" && u.Port() == "80" || u.Scheme == "https" && u.Port() == "443" {
		return errors.New("https://host[:port] in lower case is required (http on loopback), without a path, a slash at the end or the default port")
	}
	if u.Scheme == "http" && !loopbackHost(u.Hostname()) {
		return errPlainHTTP
	}
	return nil
}

// loopbackHost reports whether a URL's host is this machine: there a browser treats plain http
// as secure.
func loopbackHost(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func loopbackAddress(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && loopbackHost(host)
}
