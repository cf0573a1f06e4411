package queue_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"waitingroom/origin/queue"
)

func TestDecodeSettingsDefaults(t *testing.T) {
	want := queue.Settings{
		Capacity: 10, PurchaseWindowSeconds: 1200, HoldSeconds: 1800, ClaimSeconds: 300,
		MaxMissedOffers: 2, RetentionSeconds: 604800, State: queue.Open,
		Identity: queue.IdentityOptional, ReturnOrigins: []string{}, Locale: "en",
	}
	for _, body := range []string{
		`{"capacity": 10}`,
		`{"capacity": 10, "maxPerMinute": null, "purchaseWindowSeconds": null, "holdSeconds": null,
		  "claimSeconds": null, "maxMissedOffers": null, "retentionSeconds": null, "state": null,
		  "identity": null, "returnOrigins": null, "branding": null, "locale": null}`,
		`{"capacity": 10, "branding": {"name": null}}`,
	} {
		got, err := queue.DecodeSettings([]byte(body), noon)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, error %v, want %+v", body, got, err, want)
		}
	}
}

func TestDecodeSettings(t *testing.T) {
	got, err := queue.DecodeSettings([]byte(`{
		"capacity": 0, "maxPerMinute": 600, "purchaseWindowSeconds": 1, "holdSeconds": 1, "claimSeconds": 1,
		"maxMissedOffers": 1, "retentionSeconds": 1, "state": "paused", "identity": "required",
		"returnOrigins": ["https://shop.example", "http://127.0.0.1:8082", "http://[::1]:80801", "https://xn--abac-lya.hr"],
		"branding": {"name": "Žabac"}, "locale": "hr"}`), noon)
	if err == nil {
		t.Fatalf("a port above 65535 was accepted: %+v", got)
	}
	got, err = queue.DecodeSettings([]byte(`{
		"capacity": 0, "maxPerMinute": 600, "purchaseWindowSeconds": 1, "holdSeconds": 1, "claimSeconds": 1,
		"maxMissedOffers": 1, "retentionSeconds": 1, "state": "paused", "identity": "required",
		"returnOrigins": ["https://shop.example", "http://127.0.0.1:8082", "http://[::1]:8080", "https://xn--abac-lya.hr"],
		"branding": {"name": "Žabac"}, "locale": "hr"}`), noon)
	want := queue.Settings{
		MaxPerMinute: 600, PurchaseWindowSeconds: 1, HoldSeconds: 1, ClaimSeconds: 1, MaxMissedOffers: 1,
		RetentionSeconds: 1, State: queue.Paused, Identity: queue.IdentityRequired,
		ReturnOrigins: []string{"https://shop.example", "http://127.0.0.1:8082", "http://[::1]:8080", "https://xn--abac-lya.hr"},
		Branding:      queue.Branding{Name: "Žabac"}, Locale: "hr",
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, error %v, want %+v", got, err, want)
	}
}

func TestDecodeSettingsRefused(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat(`"https://a.example",`, 33), ",")
	for _, c := range []struct{ body, problem string }{
		{`{}`, "capacity is required"},
		{`{"capacity": null}`, "capacity is required"},
		{`{"capacity": -1}`, "capacity"},
		{`{"capacity": 10000001}`, "capacity"},
		{`{"capacity": 1.5}`, "capacity"},
		{`{"capacity": "1"}`, "capacity"},
		{`{"capacity": true}`, "capacity"},
		{`{"capacity": [1]}`, "capacity"},
		{`{"capacity": 99999999999999999999}`, "capacity"},
		{`{"capacity": 1, "maxPerMinute": -1}`, "maxPerMinute"},
		{`{"capacity": 1, "purchaseWindowSeconds": 0}`, "purchaseWindowSeconds"},
		{`{"capacity": 1, "purchaseWindowSeconds": 604801}`, "purchaseWindowSeconds"},
		{`{"capacity": 1, "holdSeconds": 0}`, "holdSeconds"},
		{`{"capacity": 1, "holdSeconds": 604801}`, "holdSeconds"},
		{`{"capacity": 1, "claimSeconds": 0}`, "claimSeconds"},
		{`{"capacity": 1, "maxMissedOffers": 0}`, "maxMissedOffers"},
		{`{"capacity": 1, "maxMissedOffers": 101}`, "maxMissedOffers"},
		{`{"capacity": 1, "retentionSeconds": 0}`, "retentionSeconds"},
		{`{"capacity": 1, "state": "opened"}`, "state"},
		{`{"capacity": 1, "state": "scheduled"}`, "state"},
		{`{"capacity": 1, "state": ""}`, "state"},
		{`{"capacity": 1, "state": "scheduled", "opensAt": "2026-03-01T12:00:00Z"}`, "opensAt in the future"},
		{`{"capacity": 1, "state": "open", "opensAt": "2026-03-01T12:00:01Z"}`, "state: leave it out"},
		{`{"capacity": 1, "state": "closed", "opensAt": "2026-03-01T12:00:01Z"}`, "state: leave it out"},
		{`{"capacity": 1, "opensAt": "9999-12-31T23:59:59Z"}`, "opensAt: from 1970 to 2199"},
		{`{"capacity": 1, "opensAt": "9999-12-31T23:59:59-05:00"}`, "opensAt: from 1970 to 2199"},
		{`{"capacity": 1, "opensAt": "2199-12-31T23:59:59-05:00"}`, "opensAt: from 1970 to 2199"},
		{`{"capacity": 1, "opensAt": "0000-01-01T00:00:00+23:59"}`, "opensAt: from 1970 to 2199"},
		{`{"capacity": 1, "opensAt": "tomorrow"}`, "opensAt: a time such as"},
		{`{"capacity": 1, "opensAt": 1772366400}`, "opensAt: a time such as"},
		{`{"capacity": 1, "opensAt": "2026-03-01T12:00:00"}`, "opensAt: a time such as"},
		{`{"capacity": 1, "remaining": -1}`, "remaining: 0 to 1000000000"},
		{`{"capacity": 1, "remaining": 1000000001}`, "remaining"},
		{`{"capacity": 1, "remaining": 1.5}`, "remaining"},
		{`{"capacity": 1, "remaining": "5"}`, "remaining"},
		{`{"capacity": 1, "notes": {}}`, "unknown field /notes"},
		{`{"capacity": 1, "notes": null}`, "unknown field /notes"},
		{`{"capacity": 1, "state": 1}`, "state"},
		{`{"capacity": 1, "identity": "none"}`, "identity"},
		{`{"capacity": 1, "locale": "de"}`, "locale"},
		{`{"capacity": 1, "branding": {"name": "` + strings.Repeat("x", 101) + `"}}`, "branding.name"},
		{`{"capacity": 1, "branding": {"logo": "x"}}`, "branding/logo"},
		{`{"capacity": 1, "branding": "x"}`, "branding"},
		{`{"capacity": 1, "returnOrigins": "https://a.example"}`, "returnOrigins"},
		{`{"capacity": 1, "returnOrigins": [` + many + `]}`, "returnOrigins"},
		{`{"capacity": 1, "slug": "x"}`, "slug"},
		{`{"capacity": 1, "slug": null}`, "slug"},
		{`{"capacity": 1, "Capacity": 2}`, "Capacity"},
		{`{"capacity": 1, "capacity": 2}`, "distinct"},
		{`{"capacity": 1, "branding": {"name": "a", "name": "b"}}`, "distinct"},
		{`{"capacity": 1, "locale": "` + "\xff" + `"}`, "well-formed"},
		{`{"capacity": 1} {}`, "well-formed"},
		{`{"capacity": 1`, "well-formed"},
		{``, "well-formed"},
		{`null`, "a JSON object is required"},
		{`[]`, "a JSON object is required"},
		{`"capacity"`, "a JSON object is required"},
	} {
		got, err := queue.DecodeSettings([]byte(c.body), noon)
		var problems *queue.SettingsError
		if !errors.As(err, &problems) || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: error %v, want one that names %q", c.body, err, c.problem)
		}
		if !reflect.DeepEqual(got, queue.Settings{}) {
			t.Errorf("%s: refused, but returned %+v", c.body, got)
		}
	}
}

func TestReturnOriginsRefused(t *testing.T) {
	for _, origin := range []string{
		"", "shop.example", "//shop.example", "https://", "https:", "ftp://shop.example", "javascript:alert(1)",
		"https://shop.example/", "https://shop.example/x", "https://shop.example?x", "https://shop.example#x",
		"https://user@shop.example", "https://user:pass@shop.example", "https://Shop.example", "HTTPS://shop.example",
		"https://shop.example:443", "http://shop.example:80", "https://shop.example:", "https://shop.example:0443",
		"https://shop.example:99999", "https://shop.example:x", "https://*", "https://*.example", "https://šop.example",
		"https://shop.example\\@evil.example", "https://shop .example", "https://shop.example\n", "null",
	} {
		_, err := queue.DecodeSettings(fmt.Appendf(nil, `{"capacity": 1, "returnOrigins": ["https://a.example", %q]}`, origin), noon)
		if err == nil || !strings.Contains(err.Error(), "returnOrigins[1]") && !strings.Contains(err.Error(), "well-formed") {
			t.Errorf("origin %q: error %v, want one that names returnOrigins[1]", origin, err)
		}
	}
}

func TestSettingsProblemsAreReportedTogether(t *testing.T) {
	_, err := queue.DecodeSettings([]byte(`{"holdSeconds": 0, "locale": "x", "claimSeconds": -5}`), noon)
	var problems *queue.SettingsError
	if !errors.As(err, &problems) || len(problems.Problems) != 4 {
		t.Errorf("error %v, want the four problems", err)
	}
}

func TestPatch(t *testing.T) {
	base, err := queue.DecodeSettings([]byte(`{"capacity": 10, "holdSeconds": 60, "returnOrigins": ["https://a.example"], "branding": {"name": "A"}}`), noon)
	if err != nil {
		t.Fatalf("decode: %v", err)
	}
	for _, c := range []struct {
		patch  string
		change func(*queue.Settings)
	}{
		{`{}`, func(*queue.Settings) {}},
		{`{"capacity": 20}`, func(s *queue.Settings) { s.Capacity = 20 }},
		{`{"capacity": 0}`, func(s *queue.Settings) { s.Capacity = 0 }},
		{`{"holdSeconds": null}`, func(s *queue.Settings) { s.HoldSeconds = 1800 }},
		{`{"returnOrigins": ["https://b.example"]}`, func(s *queue.Settings) { s.ReturnOrigins = []string{"https://b.example"} }},
		{`{"returnOrigins": null}`, func(s *queue.Settings) { s.ReturnOrigins = []string{} }},
		{`{"branding": {}}`, func(*queue.Settings) {}},
		{`{"branding": {"name": null}}`, func(s *queue.Settings) { s.Branding.Name = "" }},
		{`{"branding": null, "state": "closed"}`, func(s *queue.Settings) { s.Branding.Name = ""; s.State = queue.Closed; s.Notes.ClosedAt = noon }},
		{`{"remaining": 7}`, func(s *queue.Settings) { s.Remaining = new(7) }},
		{`{"remaining": null}`, func(*queue.Settings) {}},
	} {
		want := base
		c.change(&want)
		got, err := base.Patch([]byte(c.patch), noon)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("patch %s: %+v, error %v, want %+v", c.patch, got, err, want)
		}
	}
	for _, patch := range []string{
		`{"capacity": null}`, `{"capacity": -1}`, `{"x": 1}`, `{"x": null}`, `{"branding": {"x": null}}`, `[]`, `null`, ``, `{"capacity": 1, "capacity": 2}`,
	} {
		var problems *queue.SettingsError
		if got, err := base.Patch([]byte(patch), noon); !errors.As(err, &problems) {
			t.Errorf("patch %s: %+v, error %v, want a SettingsError", patch, got, err)
		}
	}
}

func TestPatchClosedIsFinal(t *testing.T) {
	closed := queue.DefaultSettings()
	closed.State = queue.Closed
	for _, state := range []string{`"open"`, `"paused"`, `"sold_out"`, `null`} {
		if got, err := closed.Patch([]byte(`{"state": `+state+`}`), noon); err == nil {
			t.Errorf("state %s after closed: %+v, want an error", state, got.State)
		}
	}
	if got, err := closed.Patch([]byte(`{"capacity": 5}`), noon); err != nil || got.State != queue.Closed {
		t.Errorf("another setting of a closed queue: state %s, error %v", got.State, err)
	}
}
