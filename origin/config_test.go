package origin

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const goodConfig = `
listen: 127.0.0.1:0
publicURL: https://origin.example.com
issuer: https://wait.example.com
clusterSecret: {env: CLUSTER}
sessionKeys: {file: keys/session.json}
userHashKey: {file: /etc/user.key}
tenants:
  - id: shop
    ticketKeys: {file: keys/tickets.json}
    operatorKeys: {file: keys/operator.json}
`

func TestConfigHasDefaultsAndTakesFilesFromItsDirectory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "origin.yaml")
	must(t, os.WriteFile(path, []byte(goodConfig), 0o600))
	c, err := LoadConfig(path)
	must(t, err)
	if c.TickEvery != 250*time.Millisecond || c.LeaseTTL != 3*time.Second || c.AdminListen != "127.0.0.1:9081" {
		t.Errorf("defaults: got tick %v lease %v admin %q, want 250ms, 3s and 127.0.0.1:9081", c.TickEvery, c.LeaseTTL, c.AdminListen)
	}
	if got, want := c.SessionKeys.File, filepath.Join(filepath.Dir(path), "keys/session.json"); got != want {
		t.Errorf("a relative file: got %q, want %q", got, want)
	}
	if got, want := c.Tenants[0].TicketKeys.File, filepath.Join(filepath.Dir(path), "keys/tickets.json"); got != want {
		t.Errorf("a tenant's relative file: got %q, want %q", got, want)
	}
	if c.UserHashKey.File != "/etc/user.key" || c.ClusterSecret.Env != "CLUSTER" {
		t.Errorf("other sources: got %+v %+v, want them as they are", c.UserHashKey, c.ClusterSecret)
	}
}

func TestConfigReportsAllProblemsTogether(t *testing.T) {
	_, err := ParseConfig([]byte(`
listen: 0.0.0.0:8081
adminListen: nowhere
publicURL: origin.example.com
issuer: https://wait.example.com/
clusterSecret: {file: a, env: B}
tickEvery: 5s
leaseTTL: 1s
vip: true
redis: {adresses: [x], masterName: m, cluster: true, caFile: ca.pem, replicas: -1, replicaTimeout: 5s}
tls: {certFile: c.pem}
tenants:
  - id: Shop
    ticketKeys: {file: t, path: u}
    apiKeys:
      - {id: a, kind: public, sha256: abc}
      - {id: a, kind: secret, sha256: 0000000000000000000000000000000000000000000000000000000000000000}
  - id: twin
  - id: twin
`))
	var all *ConfigError
	if !errors.As(err, &all) {
		t.Fatalf("got %v, want a *ConfigError", err)
	}
	for _, want := range []string{
		"vip: unknown key", "redis.adresses: unknown key", "tenants[0].ticketKeys.path: unknown key",
		"tls: certFile and keyFile", "adminListen: host:port", "publicURL: ", "issuer: ", "tickEvery: ", "leaseTTL: ",
		"clusterSecret: exactly one", "sessionKeys: exactly one", "userHashKey: exactly one",
		"redis.cluster: excluded", "redis.caFile: needs tls", "redis.replicas: 0 to 16", "redis.replicaTimeout: 10ms to 1s",
		"tenants[0].id: ", "tenants[0].operatorKeys: exactly one", "tenants[2].id: twin is there twice",
		"tenants[0].apiKeys[0].kind: ", "tenants[0].apiKeys[0].sha256: ", "tenants[0].apiKeys[1].id: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("problems: got\n%v\nwant among them %q", err, want)
		}
	}
}

func TestConfigThatIsNone(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "a list": "- a", "text": "a", "no YAML": "a: [", "a key twice": goodConfig + "\nlisten: 127.0.0.1:1\n",
		"a wrong type": strings.Replace(goodConfig, "listen: 127.0.0.1:0", "listen: [1, 2]", 1),
		"no duration":  goodConfig + "\ntickEvery: soon\n",
		"plain HTTP":   strings.Replace(goodConfig, "127.0.0.1:0", ":8081", 1),
		"both":         goodConfig + "\nallowPlainHTTP: true\ntls: {certFile: a, keyFile: b}\n",
	} {
		var all *ConfigError
		if _, err := ParseConfig([]byte(text)); !errors.As(err, &all) || len(all.Problems) == 0 {
			t.Errorf("%s: got %v, want a *ConfigError with problems", name, err)
		}
	}
	if _, err := ParseConfig([]byte(strings.Replace(goodConfig, "127.0.0.1:0", ":8081", 1) + "\nallowPlainHTTP: true\n")); err != nil {
		t.Errorf("plain HTTP that is asked for: got %v, want none", err)
	}
}

func TestBadSecretsAreNamedAndNotShown(t *testing.T) {
	creds := newCredentials(t)
	s := creds.secrets
	s.ClusterSecret, s.UserHashKey = []byte("tiny-secret"), nil
	s.SessionKeys = []byte(`{"keys":[{"kty":"OKP","d":"private-half"}]}`)
	s.Tenants = map[string]TenantSecrets{"shop": {TicketKeys: []byte("ticket-half"), OperatorKeys: []byte("operator-half")}}
	_, err := makeKeys(creds.config, s)
	if err == nil {
		t.Fatal("got no error, want one")
	}
	for _, want := range []string{"clusterSecret", "userHashKey", "sessionKeys", "ticketKeys of shop", "operatorKeys of shop", "ticketKeys of other"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want it to name %s", err, want)
		}
	}
	for _, secret := range []string{"tiny-secret", "private-half", "ticket-half", "operator-half"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("got %q, which shows %s", err, secret)
		}
	}
}
