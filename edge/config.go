package edge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
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
	// ClusterSecret is where the secret shared with the origins comes from: exactly one of file
	// and env. Required.
	ClusterSecret tokens.Source `yaml:"clusterSecret"`
	// TrustedProxies are the networks (CIDR) whose X-Forwarded-For is believed where something goes
	// by a client's address; nothing does yet. Default: none.
	TrustedProxies []string `yaml:"trustedProxies"`
	// MaxStaleSeconds is how old the list of revocations may be before WhenStale applies, in
	// seconds. 1 to 86400; default 60.
	MaxStaleSeconds int `yaml:"maxStaleSeconds"`
	// WhenStale is what /access does beyond MaxStaleSeconds: fail-open or fail-closed. Required,
	// because only the operator can weigh a shop shut against a revoked fan let in.
	WhenStale string `yaml:"whenStale"`
	// DrainSeconds is how long /readyz answers 503 at a stop before the listener closes, so that
	// a load balancer can turn away, in seconds. 0 to 300; default 0.
	DrainSeconds int `yaml:"drainSeconds"`
	// Limits bound what anybody can make this edge hold.
	Limits Limits `yaml:"limits"`
	// TLS is the certificate to serve with. Default: plain http, behind a proxy that ends TLS.
	TLS *TLS `yaml:"tls"`
}

// Limits of an edge.
type Limits struct {
	// Connections is the number of connections served at once. 1 to 1000000; default 200000.
	Connections int `yaml:"connections"`
	// BodyBytes is the largest request body. 1024 to 1048576; default 16384.
	BodyBytes int `yaml:"bodyBytes"`
	// HeaderBytes is the largest request header, with its cookies. 4096 to 65536; default 16384.
	HeaderBytes int `yaml:"headerBytes"`
	// GatheredJoins is how many joins of one queue may wait for the origin; further ones are
	// turned away with 503. 1 to 1000000; default 8192.
	GatheredJoins int `yaml:"gatheredJoins"`
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

// TLS names a certificate.
type TLS struct {
	// CertFile and KeyFile are PEM files. Both required.
	CertFile string `yaml:"certFile"`
	KeyFile  string `yaml:"keyFile"`
}

// ParseConfig reads a configuration file, fills in defaults and reports all problems together.
func ParseConfig(data []byte) (Config, error) {
	var c Config
	if err := yaml.UnmarshalWithOptions(data, &c, yaml.Strict()); err != nil {
		return Config{}, fmt.Errorf("parse config: %s", yaml.FormatError(err, false, false))
	}
	problems := c.check()
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
	if c.WhenStale != FailOpen && c.WhenStale != FailClosed {
		report("whenStale: %s or %s is required", FailOpen, FailClosed)
	}
	within("maxStaleSeconds", &c.MaxStaleSeconds, 60, 1, 86_400)
	within("drainSeconds", &c.DrainSeconds, 0, 0, 300)
	within("limits.connections", &c.Limits.Connections, 200_000, 1, 1_000_000)
	within("limits.bodyBytes", &c.Limits.BodyBytes, 16_384, 1024, 1<<20)
	within("limits.headerBytes", &c.Limits.HeaderBytes, 16_384, 4096, 1<<16)
	within("limits.gatheredJoins", &c.Limits.GatheredJoins, 8192, 1, 1_000_000)
	within("limits.originCalls", &c.Limits.OriginCalls, 512, 1, 100_000)
	within("limits.rememberedTokens", &c.Limits.RememberedTokens, 131_072, 1024, 10_000_000)
	within("limits.keptSightings", &c.Limits.KeptSightings, 2_000_000, 1024, 100_000_000)
	if c.TLS != nil && (c.TLS.CertFile == "" || c.TLS.KeyFile == "") {
		report("tls: both certFile and keyFile are required")
	}
	return problems
}

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
		return errors.New("https://host[:port] in lower case, without a path or the default port, is required")
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
