// Package web holds the waiting page and its assets, embedded. The page is the same for every
// queue and every fan; its script finds the queue in the address and asks the edge for the rest.
// Nothing is loaded from another host.
//
// src holds what people read and change; `make web` bundles it into assets with esbuild, which is
// pinned in go.mod, and a test fails while the two differ.
package web

//go:generate go tool esbuild src/wait.mjs src/wait.css --bundle --minify --format=esm --target=es2020 --charset=utf8 --out-extension:.js=.mjs --outdir=assets --log-level=warning

import (
	"embed"
	"path"
	"strings"
)

// ContentSecurityPolicy is the value of the header that belongs on the page and its assets, of an
// edge that fans reach at publicURL (http or https, without a path). The page needs no inline
// script, no inline style and nobody else's host. It is not to be framed: a frame could trick a fan
// into leaving the line, and an app's webview is no frame. Safari did not count a WebSocket to the
// same host as 'self' before version 16 (WebKit bug 235873), so that one is named.
func ContentSecurityPolicy(publicURL string) string {
	return "default-src 'none'; script-src 'self'; style-src 'self'; " +
		"connect-src 'self' ws" + strings.TrimPrefix(publicURL, "http") + "; " +
		"img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
}

//go:embed page.html
var page []byte

//go:embed assets
var assets embed.FS

// contentTypes are fixed here because the tables of the systems that we run on differ.
var contentTypes = map[string]string{
	".mjs": "text/javascript; charset=utf-8",
	".css": "text/css; charset=utf-8",
	".svg": "image/svg+xml",
}

// Page is the waiting page, text/html in UTF-8. The caller must not change it.
func Page() []byte { return page }

// Assets are the names of all files that the page may load.
func Assets() []string {
	entries, err := assets.ReadDir("assets")
	if err != nil {
		panic("web: the embedded assets cannot be read: " + err.Error()) // the compiler has put them there
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return names
}

// Asset finds a file that the page loads from /assets/NAME.
func Asset(name string) (content []byte, contentType string, ok bool) {
	contentType, ok = contentTypes[path.Ext(name)]
	if !ok || name != path.Base(name) {
		return nil, "", false
	}
	content, err := assets.ReadFile("assets/" + name)
	return content, contentType, err == nil
}
