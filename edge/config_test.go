package edge

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExampleConfig(t *testing.T) {
	data, err := os.ReadFile("../deploy/edge.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	example, err := ParseConfig(data)
	if err != nil {
		t.Fatal(err)
	}
	// What the example shows as defaults are the defaults.
	least, err := ParseConfig([]byte("listen: 127.0.0.1:0\norigins: [http://localhost:1]\nclusterSecret: {env: X}\nwhenStale: fail-open\n"))
	if err != nil {
		t.Fatal(err)
	}
	if example.Limits != least.Limits || example.MaxStaleSeconds != least.MaxStaleSeconds || example.Polling != least.Polling {
		t.Errorf("example: got %+v, want the defaults %+v", example.Limits, least.Limits)
	}
}

func TestFileNamesAreTakenFromTheConfigsDirectory(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "edge.yaml")
	const text = "listen: 127.0.0.1:0\norigins: [https://o.example]\nwhenStale: fail-open\n" +
		"clusterSecret: {file: keys/cluster.secret}\ntls: {certFile: tls/edge.crt, keyFile: /etc/edge.key}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := LoadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string][2]string{
		"clusterSecret": {c.ClusterSecret.File, filepath.Join(dir, "keys/cluster.secret")},
		"certFile":      {c.TLS.CertFile, filepath.Join(dir, "tls/edge.crt")},
		"keyFile":       {c.TLS.KeyFile, "/etc/edge.key"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: got %q, want %q", what, got[0], got[1])
		}
	}
}

func TestConfigReportsAllProblemsTogether(t *testing.T) {
	_, err := ParseConfig([]byte(`
listen: "8080"
adminListen: ":9090"
publicURL: http://wait.example
origins: ["http://origin.example", "https://user@origin.example", "origin"]
clusterSecret: {file: a, env: b}
trustedProxies: ["10.0.0.1"]
whenStale: maybe
polling: often
maxStaleSeconds: -1
drainSeconds: 1000
moveSeconds: 301
limits: {liveConnections: -1, liveUpgradesPerSecond: 1000001, joinWaitMillis: 2501, addressBitsIPv4: 33, addressBitsIPv6: 15, rememberedAddresses: 1, readSeconds: 301, writeSeconds: -1, idleSeconds: 3601, joinsPerAddress: {off: true, burst: 1}, joinsPerPublishableKey: {perSecond: 1000001}, joinsPerSecretKey: {burst: 5}, connections: -1, bodyBytes: 1, headerBytes: 1, gatheredJoins: -1, originCalls: -1, rememberedTokens: 1, keptSightings: 1}
tls: {certFile: a}
`))
	if err == nil {
		t.Fatal("got no error")
	}
	for _, want := range []string{
		"listen:", "adminListen:", "publicURL:", "origins[0]:", "origins[1]:", "origins[2]:", "clusterSecret:",
		"trustedProxies[0]:", "whenStale:", "polling:", "maxStaleSeconds:", "drainSeconds:", "moveSeconds:", "limits.liveConnections:", "limits.liveUpgradesPerSecond:", "limits.connections:", "limits.bodyBytes:",
		"limits.headerBytes:", "limits.gatheredJoins:", "limits.originCalls:", "limits.rememberedTokens:",
		"limits.keptSightings:", "tls:", "limits.joinWaitMillis:", "limits.addressBitsIPv4:", "limits.addressBitsIPv6:",
		"limits.rememberedAddresses:", "limits.readSeconds:", "limits.writeSeconds:", "limits.idleSeconds:",
		"limits.joinsPerAddress: off", "limits.joinsPerPublishableKey.perSecond:", "limits.joinsPerSecretKey.perSecond:",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %s\n%v", want, err)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	const good = "listen: 127.0.0.1:0\norigins: [https://o.example]\nclusterSecret: {env: X}\nwhenStale: fail-open\n"
	if _, err := ParseConfig([]byte(good)); err != nil {
		t.Fatalf("the least config: %v", err)
	}
	for name, text := range map[string]string{
		"unknown key":          good + "vip: true\n",
		"unknown limit":        good + "limits: {vip: 1}\n",
		"key twice":            good + "listen: 127.0.0.1:1\n",
		"wrong type":           good + "maxStaleSeconds: soon\n",
		"nothing":              "",
		"missing whenStale":    strings.Replace(good, "whenStale: fail-open\n", "", 1),
		"missing secret":       strings.Replace(good, "clusterSecret: {env: X}\n", "", 1),
		"missing origins":      strings.Replace(good, "origins: [https://o.example]\n", "", 1),
		"no publicURL":         strings.Replace(good, "127.0.0.1:0", "0.0.0.0:0", 1),
		"publicURL with path":  good + "publicURL: https://wait.example/\n",
		"publicURL with port":  good + "publicURL: https://wait.example:443\n",
		"publicURL upper case": good + "publicURL: https://Wait.example\n",
	} {
		if _, err := ParseConfig([]byte(text)); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	for _, url := range []string{"http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:8080", "https://wait.example:8443"} {
		if _, err := ParseConfig([]byte(good + "publicURL: " + url + "\n")); err != nil {
			t.Errorf("publicURL %s: %v", url, err)
		}
	}
}
