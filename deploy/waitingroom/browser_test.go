package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// A state shown for an instant counts as well, so every change of the page is recorded by the
// page itself, from before its own script runs.
const recordStates = `
for (const kind of ['error', 'unhandledrejection', 'securitypolicyviolation']) {
  addEventListener(kind, (e) => recordState('fault: ' + kind + ' ' + (e.message || e.reason || e.violatedDirective || '')), true);
}
addEventListener('DOMContentLoaded', () => {
  const tell = () => recordState(document.body.dataset.state || document.body.dataset.page || '');
  tell();
  new MutationObserver(tell).observe(document.body, {attributes: true, attributeFilter: ['data-state']});
});`

// startBrowser starts a headless Chromium of its own for this test.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is missing: install the Debian package `chromium`, or run `make test`, which does")
	}
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.WSURLReadTimeout(time.Minute),
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	browser, closeBrowser := chromedp.NewContext(allocator)
	t.Cleanup(closeBrowser)
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return browser
}

// tab is a tab of a fan's browser, with the states that its pages showed.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu      sync.Mutex
	states  []string
	address string
}

// newFan opens the first tab of somebody with a browser profile of their own.
func newFan(t *testing.T, browser context.Context) *tab {
	t.Helper()
	return openTab(t, browser, chromedp.WithNewBrowserContext())
}

// another opens a second tab of the same fan.
func (b *tab) another() *tab {
	b.t.Helper()
	return openTab(b.t, b.ctx)
}

func openTab(t *testing.T, parent context.Context, options ...chromedp.ContextOption) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(parent, options...)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("open tab: %v", err)
	}
	err := chromedp.Listen(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventBindingCalled:
			b.states = append(b.states, e.Payload)
		case *page.EventFrameNavigated:
			if e.Frame.ParentID == "" {
				b.address = e.Frame.URL
			}
		}
	})
	if err != nil {
		t.Fatalf("listen to tab: %v", err)
	}
	call(b, network.Enable, network.EnableParams{})
	call(b, page.Enable, page.EnableParams{})
	call(b, runtime.AddBinding, runtime.AddBindingParams{Name: "recordState"})
	b.inject(recordStates)
	t.Cleanup(func() {
		for _, state := range b.shown() {
			if strings.HasPrefix(state, "fault: ") {
				t.Errorf("a page of the tab reported %q; want none", state)
			}
		}
	})
	return b
}

// inject runs a script in every page of the tab before the page's own.
func (b *tab) inject(script string) {
	b.t.Helper()
	call(b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
}

// limited bounds one conversation with the browser.
func (b *tab) limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(b.ctx, 30*time.Second)
}

func call[P, R any](b *tab, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	ctx, cancel := b.limited()
	defer cancel()
	result, err := chromedp.Call(ctx, command, params)
	b.check(err)
	return result
}

func evaluate[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := b.limited()
	defer cancel()
	result, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	b.check(err)
	return result
}

func (b *tab) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatalf("drive the browser: %v; the tab showed %q at %s", err, b.shown(), b.at())
	}
}

// close closes the tab.
func (b *tab) close() {
	b.t.Helper()
	b.check(chromedp.Cancel(b.ctx))
}

// look minimizes the tab's window, as a fan does who turns to something else, or restores it.
func (b *tab) look(shown bool) {
	b.t.Helper()
	window := call(b, browser.GetWindowForTarget, browser.GetWindowForTargetParams{}).WindowID
	bounds, want := &browser.Bounds{WindowState: browser.WindowStateMinimized}, "hidden"
	if shown {
		bounds.WindowState, want = browser.WindowStateNormal, "visible"
	}
	call(b, browser.SetWindowBounds, browser.SetWindowBoundsParams{WindowID: window, Bounds: bounds})
	b.waitFor("the tab to be "+want, fmt.Sprintf("document.visibilityState === %q", want))
}

// open goes to an address and does not wait for what becomes of it.
func (b *tab) open(address string) {
	b.t.Helper()
	call(b, page.Navigate, page.NavigateParams{URL: address})
}

func (b *tab) reload() {
	b.t.Helper()
	call(b, page.Reload, page.ReloadParams{})
}

// waitFor waits until a script's expression is true in the page. A navigation on the way, as when
// the page hands over, is no failure.
func (b *tab) waitFor(what, expression string) {
	b.t.Helper()
	b.waitForWithin(what, expression, 30*time.Second)
}

func (b *tab) waitForWithin(what, expression string, limit time.Duration) {
	b.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		ctx, cancel := context.WithDeadline(b.ctx, deadline)
		holds, err := chromedp.Run(ctx, chromedp.Poll[bool](expression,
			chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(0)))
		cancel()
		if err == nil && holds {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("wait for %s: got states %q, text %q at %s (%v)", what, b.shown(), b.text("body"), b.at(), err)
		}
	}
}

// waitState waits until the waiting page shows a state.
func (b *tab) waitState(state string) {
	b.t.Helper()
	b.waitFor("state "+state, fmt.Sprintf("document.body && document.body.dataset.state === %q", state))
}

// waitInside waits until the fan stands in the shop.
func (b *tab) waitInside() {
	b.t.Helper()
	b.waitFor("the shop", "document.getElementById('inside') !== null")
}

func (b *tab) click(id string) {
	b.t.Helper()
	b.waitFor("button "+id, fmt.Sprintf("document.getElementById(%[1]q) && !document.getElementById(%[1]q).hidden", id))
	ctx, cancel := b.limited()
	defer cancel()
	b.check(chromedp.Do(ctx, chromedp.Click(chromedp.CSS("#"+id))))
}

// text is what an element says; empty when there is none.
func (b *tab) text(selector string) string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf("(document.querySelector(%q) || {}).innerText || ''", selector)))
	return text
}

// shown are the states that the tab's pages have shown so far.
func (b *tab) shown() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.states)
}

// at is the address that the tab came to last.
func (b *tab) at() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.address
}

// ticketID is what the page keeps in its storage.
func (b *tab) ticketID(queue string) string {
	b.t.Helper()
	kept := evaluate[string](b, fmt.Sprintf("localStorage.getItem(%q) || ''", "waitingroom."+queue))
	var memory struct {
		TicketID string `json:"ticketId"`
	}
	if err := json.Unmarshal([]byte(kept), &memory); err != nil {
		b.t.Fatalf("read the page's storage %q: %v", kept, err)
	}
	return memory.TicketID
}

// checkNoToken looks for tokens where a fan could copy them from or a script could read them.
func (b *tab) checkNoToken() {
	b.t.Helper()
	var seen []string
	for _, entry := range call(b, page.GetNavigationHistory, cdp.Empty{}).Entries {
		seen = append(seen, entry.URL)
	}
	seen = append(seen, evaluate[string](b, "location.href + document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)"))
	for _, s := range seen {
		// Every token of ours is a JWT, whose header begins with {" in base64url.
		if strings.Contains(s, "eyJ") || strings.Contains(s, "wr_session") {
			b.t.Errorf("got a token in %q; want it in an HttpOnly cookie only", s)
		}
	}
}

// cookies are those that the browser would send to an address.
func (b *tab) cookies(address string) []*network.Cookie {
	b.t.Helper()
	return call(b, network.GetCookies, network.GetCookiesParams{URLs: []string{address}}).Cookies
}

// offline cuts the tab's connection, or restores it.
func (b *tab) offline(cut bool) {
	b.t.Helper()
	call(b, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{
		MatchedNetworkConditions: []*network.Conditions{{Offline: cut, DownloadThroughput: -1, UploadThroughput: -1}},
	})
	call(b, network.OverrideNetworkState, network.OverrideNetworkStateParams{
		Offline: cut, DownloadThroughput: -1, UploadThroughput: -1,
	})
}

// picture keeps pictures of the page in two widths and both colour schemes, when the tests run
// with -artifacts.
func (b *tab) picture(name string) {
	b.t.Helper()
	if f := flag.Lookup("test.artifacts"); f == nil || f.Value.String() != "true" {
		return
	}
	for _, width := range []int64{1280, 390} {
		for _, scheme := range []string{"light", "dark"} {
			call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
				Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
			})
			call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
				Width: width, Height: 800, DeviceScaleFactor: 1, Mobile: width < 500,
			})
			ctx, cancel := b.limited()
			png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
			cancel()
			b.check(err)
			file := filepath.Join(b.t.ArtifactDir(), fmt.Sprintf("%s-%d-%s.png", name, width, scheme))
			if err := os.WriteFile(file, png, 0o644); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	call(b, emulation.ClearDeviceMetricsOverride, cdp.Empty{})
}

func waitingPage(a Access, returnURL string) string {
	return a.Edge + "/wait/" + a.Queue + "?return=" + url.QueryEscape(returnURL)
}
