package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nginxMain is what a machine's own nginx.conf says around the configuration that we ship.
const nginxMain = `%s
worker_processes 2;
worker_rlimit_nofile 8192;
pid %[2]s/nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
    access_log off;
    client_body_temp_path %[2]s/body;
    proxy_temp_path %[2]s/proxy;
    fastcgi_temp_path %[2]s/fastcgi;
    uwsgi_temp_path %[2]s/uwsgi;
    scgi_temp_path %[2]s/scgi;
    include %[2]s/waitingroom.conf;
}
`

// behindNginx is an installation whose edges have a real nginx in front, as deploy/nginx configures it.
func behindNginx(t *testing.T, as setup) (in *installation, front string, nginx *program) {
	t.Helper()
	address := freePorts(t, 1)[0]
	front = "http://" + address
	as.edgeConfig += fmt.Sprintf("publicURL: %s\ntrustedProxies: [127.0.0.1/32]\n", front)
	in = as.install(t)
	dir := filepath.Join(in.dir, "nginx")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	shipped, err := os.ReadFile("nginx/waitingroom.conf")
	if err != nil {
		t.Fatal(err)
	}
	text := string(shipped)
	for old, replacement := range map[string]string{
		"    listen 80;\n":             "    listen " + address + ";\n",
		"    server 127.0.0.1:8080;\n": "    server " + strings.TrimPrefix(in.url.edges[0], "http://") + ";\n    server " + strings.TrimPrefix(in.url.edges[1], "http://") + ";\n",
		"/var/cache/nginx/waitingroom": dir + "/cache",
	} {
		if n := strings.Count(text, old); n != 1 {
			t.Fatalf("nginx/waitingroom.conf has %q %d times, want once", old, n)
		}
		text = strings.Replace(text, old, replacement, 1)
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root root;" // who else could write in the directory of a test
	}
	in.write("nginx/waitingroom.conf", text)
	in.write("nginx/nginx.conf", fmt.Sprintf(nginxMain, user, dir))

	path, err := exec.LookPath("nginx")
	if err != nil {
		path = "/usr/sbin/nginx" // where Debian puts it, and not every shell looks
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal("nginx is missing: install the Debian package `nginx`, or run `make test`, which does")
	}
	nginx = &program{t: t, path: path, log: &lockedBuffer{}, args: []string{
		"-p", dir, "-e", "stderr", "-g", "daemon off;", "-c", filepath.Join(dir, "nginx.conf"),
	}}
	nginx.start()
	t.Cleanup(func() {
		nginx.stop()
		if t.Failed() {
			t.Logf("log of nginx:\n%s", nginx.log.String())
		}
	})
	in.eventually(10*time.Second, "nginx answers", func() bool {
		select {
		case <-nginx.done:
			t.Fatal("nginx has ended")
		default:
		}
		return in.request("GET", front+"/readyz", "", nil).status == 200
	})
	return in, front, nginx
}

// within is the same installation for a part of the test.
func (in *installation) within(t *testing.T) *installation {
	part := *in
	part.t = t
	return &part
}

// requests counts what the edges have answered on a route.
func (in *installation) requests(route string) (n int) {
	in.t.Helper()
	for i := range in.edges {
		for class := 1; class <= 5; class++ {
			n += int(in.watchedEdge(i).metric(fmt.Sprintf(`waitingroom_edge_requests_total{route="%s",status="%dxx"}`, route, class)))
		}
	}
	return n
}
