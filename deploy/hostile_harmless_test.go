package deploy_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestOddButHarmless: what the interface promises to take whatever it says is taken, gives nothing
// away and changes nothing.
func TestOddButHarmless(t *testing.T) {
	t.Parallel()
	b := newBesieged(t)
	before := b.settled()

	// A cursor that is not known gets the whole list.
	whole := b.send(b.edge, "GET", "/revocations", "", "X-API-Key: "+b.secretKey)
	if whole.status != http.StatusOK || whole.body["reset"] != true || len(whole.body["revocations"].([]any)) != 1 {
		t.Fatalf("the list of revocations: got %d %s, want one, with reset", whole.status, whole.raw)
	}
	for _, cursor := range []string{
		"", "0", "-0", "-1", "1.5", "1e400", "9223372036854775808", "NaN", "null", "%00", "%ff", "%ed%a0%80", "..", "%2e%2e", "%252e", "a;after=b",
		"%zz", "*", "-", "+", "0-0", "1-0", "%0d%0aX:y", strings.Repeat("9", 3000), "[]", "{}", "%F0%9F%8E%AB",
	} {
		got := b.send(b.edge, "GET", "/revocations?after="+cursor, "", "X-API-Key: "+b.secretKey)
		if got.status != http.StatusOK || got.raw != whole.raw {
			t.Errorf("revocations after %.50q: got %d %s, want the whole list", cursor, got.status, got.raw)
		}
	}
	for _, query := range []string{"after=1&after=1", "after=1&after=2", "after&after", "%61fter=1&after=2"} {
		if got := b.send(b.edge, "GET", "/revocations?"+query, "", "X-API-Key: "+b.secretKey); got.status != http.StatusBadRequest || got.text("code") != "duplicate_parameter" {
			t.Errorf("revocations?%s: got %d %s, want 400 duplicate_parameter", query, got.status, got.raw)
		}
	}

	// Entity tags are compared and never read.
	for _, tag := range []string{
		"", "*x", `"`, `""`, `W/`, `W/""`, ",", ",,,,", `"a", "b`, "\xff\xfe", `"🎫"`, "null", "-0", "1e400", strings.Repeat(",", 5000), strings.Repeat(`W/"a",`, 1000),
	} {
		for _, path := range []string{"/wait/shop.match", "/queues/shop.match/state", "/.well-known/jwks.json", "/assets/wait.mjs"} {
			if got := b.send(b.edge, "GET", path, "", "If-None-Match: "+tag); got.status != http.StatusOK {
				t.Errorf("%s with the tag %.50q: got %d, want 200", path, tag, got.status)
			}
		}
	}

	// A preflight of a foreign page is answered, and allows nothing.
	for _, origin := range foreignOrigins(b.edgeURL) {
		if origin.want == plain || origin.value == shopOrigin {
			continue
		}
		got := b.send(b.edge, "OPTIONS", "/tickets/"+b.waiting.id, "", "Origin: "+origin.value, "Access-Control-Request-Method: DELETE")
		if got.status != http.StatusNoContent || got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("preflight of %q: got %d, allowed %q, want 204 and nothing allowed", origin.value, got.status, got.header.Get("Access-Control-Allow-Origin"))
		}
		// The fan's own request is answered, and a foreign script may not read that.
		got = b.send(b.edge, "GET", "/tickets/"+b.active.id, "", "Origin: "+origin.value, "Authorization: Bearer "+b.active.token)
		if got.status != http.StatusOK || got.header.Get("Access-Control-Allow-Origin") != "" || got.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("status for %q: got %d, allowed %q, want 200 and nothing allowed", origin.value, got.status, got.header.Get("Access-Control-Allow-Origin"))
		}
	}
	for _, second := range []string{shopOrigin, "https://evil.example.com", "null"} {
		got := b.send(b.edge, "GET", "/tickets/"+b.active.id, "", "Origin: "+shopOrigin, "Origin: "+second, "Authorization: Bearer "+b.active.token)
		if got.status != http.StatusBadRequest || got.text("code") != "duplicate_header" {
			t.Errorf("status for two Origins: got %d %s, want 400 duplicate_header", got.status, got.raw)
		}
	}

	// Members that an origin does not know are those of a newer edge.
	message := `{"edge":"e","queues":[{"queue":"shop.match","incarnation":"none","turn":1,"positions":"1-3","newer":true}],"newer":{"a":[1]}}`
	got := b.send(b.origin, "POST", "/edge/sightings", message, "Authorization: Bearer "+hostileCluster)
	if got.status != http.StatusOK {
		t.Errorf("sightings with unknown members: got %d %s, want 200", got.status, got.raw)
	}
	// Sightings of positions that were never issued count for nobody; those of a turn that
	// is still to come count for the running one, in which the fan was seen already.
	incarnation := b.waiting.id[:strings.LastIndexByte(b.waiting.id, '-')]
	for _, one := range []string{
		`"turn":18446744073709551615,"positions":"4"`, `"turn":9223372036854775808,"positions":"4"`,
		`"turn":3,"positions":"5-90000"`, `"turn":3,"positions":"9223372036854775806-9223372036854775807"`,
	} {
		got := b.send(b.origin, "POST", "/edge/sightings", `{"edge":"e","queues":[{"queue":"shop.match","incarnation":"`+incarnation+`",`+one+`}]}`,
			"Authorization: Bearer "+hostileCluster)
		if got.status != http.StatusOK || !slices.Contains([]string{`{}`}, got.raw) {
			t.Errorf("sightings with %s: got %d %s, want 200 {}", one, got.status, got.raw)
		}
	}
	if list := differences(before, b.dump()); len(list) > 0 {
		t.Errorf("it changed what Redis holds:\n%.3000s", strings.Join(list, "\n"))
	}
	b.finish(before)
}
