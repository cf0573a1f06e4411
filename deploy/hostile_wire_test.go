package deploy_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

const badRequest = "400 bad_request"

// isJSON reports whether a text is JSON (RFC 8259) in UTF-8, of a nesting that can be read.
func isJSON(text string) bool {
	return text != deep && jsontext.Value(text).IsValid()
}

func hex(c byte) string { return fmt.Sprintf("%02x", c) }

// wireEndpoints are the origin's addresses for edges. Their messages may hold members that an older
// origin does not know, so unknown ones are no mistake.
func (b *besieged) wireEndpoints() []endpoint {
	post := func(name, body string, good int, members ...field) endpoint {
		base := message{
			method: "POST", target: "/edge/" + name, body: body,
			headers: []string{"Authorization: Bearer " + hostileCluster, "Content-Type: application/json"},
		}
		set := func(m message, value string) message { m.body = value; return m }
		fields := append([]field{
			b.clusterField(), contentType("application/json", "415 bad_request", "415 bad_request"), {"body", tooLarge(name, each("", badRequest, notObjects(), set))},
		}, members...)
		return endpoint{"edge " + name, b.origin, base, good, fields}
	}
	const edge = "00112233445566778899aabbccddeeff"
	join := map[string]string{"queue": `"shop.match"`, "edge": `"` + edge + `"`, "seq": `1`, "floor": `0`, "floorOf": `""`, "users": `["` + newUser + `"]`}
	const tooLong = "an array in thousands" // for a short message
	userKey := map[string]string{"tenant": `"shop"`, "keyId": `"k"`}
	seen := map[string]string{"queue": `"shop.match"`, "incarnation": `"none"`, "turn": `1`, "positions": `"1"`, "complete": `true`, "leaving": `false`}
	sightings := func(members map[string]string) string {
		return `{"edge":"` + edge + `","queues":[` + object(members) + `]}`
	}
	return []endpoint{
		post("join", object(join), http.StatusOK,
			member("queue", join, object, queueNames()), member("edge", join, object, edgeNames()),
			member("seq", join, object, append(notCounts(), text{"0", "0", ""}, text{"-0", "-0", ""}), "2^63", "2^53+1"),
			member("floor", join, object, notCounts(), "2^63", "2^53+1"),
			member("floorOf", join, object, leaveOut(notStrings(), "null")),
			member("users", join, object, append(leaveOut(notStrings(), "an array of one"),
				text{"a text", `"x"`, ""}, text{"one of 129 bytes", `["` + strings.Repeat("u", 129) + `"]`, ""}, text{"a number inside", `[1]`, ""},
				text{"an array inside", `[[""]]`, ""}, text{"half a pair inside", `["\ud800"]`, ""},
				text{"4,097", `[` + strings.TrimSuffix(strings.Repeat(`"",`, 4097), ",") + `]`, ""}))),
		post("sightings", sightings(seen), http.StatusOK,
			member("edge", map[string]string{"edge": `"` + edge + `"`, "queues": "[]"}, object, edgeNames()),
			member("queues", map[string]string{"edge": `"` + edge + `"`, "queues": "[]"}, object, append(leaveOut(notStrings(), "null", "an array"),
				text{"a text", `"x"`, ""}, text{"a number inside", "[1]", ""}, text{"an array inside", "[[]]", ""}, text{"a text inside", `["x"]`, ""},
				text{"an empty one", `[{}]`, ""})),
			member("queue", seen, sightings, queueNames()),
			member("incarnation", seen, sightings, leaveOut(notStrings(), "null")),
			member("turn", seen, sightings, notCounts(), "2^63", "2^53+1"),
			member("positions", seen, sightings, append(leaveOut(notStrings(), "null"), notPositions()...)),
			member("complete", seen, sightings, append(leaveOut(notStrings(), "null", "true"), text{"a text", `"true"`, ""}, text{"1", "1", ""})),
			member("leaving", seen, sightings, append(leaveOut(notStrings(), "null", "true"), text{"a text", `"true"`, ""}, text{"0", "0", ""}))),
		post("claim", `{"ticket":"`+b.offered.token+`"}`, http.StatusOK,
			b.wireTicket(b.offered.token, "200 invalid_ticket")),
		post("leave", `{"ticket":"`+b.waiting.token+`"}`, http.StatusNoContent,
			b.wireTicket(b.waiting.token, "401 invalid_ticket")),
		post("user-key", object(userKey), http.StatusOK,
			member("tenant", userKey, object, append(leaveOut(notStrings(), tooLong), text{"empty", `""`, ""}, text{"unknown", `"nobody"`, ""}, text{"a queue", `"shop.match"`, ""})),
			member("keyId", userKey, object, append(leaveOut(notStrings(), tooLong), text{"empty", `""`, ""}, text{"129 letters", `"` + strings.Repeat("k", 129) + `"`, ""}))),
		{"feed", b.origin, message{method: "GET", target: "/edge/feed?edge=" + edge, headers: []string{"Authorization: Bearer " + hostileCluster}},
			feeds, []field{b.clusterField(), {"query edge", each("", badRequest, []text{
				{"empty", "", ""}, {"upper case", "ABC", ""}, {"a dot", "a.b", ""}, {"a slash", "a/b", ""}, {"an underscore", "a_b", ""}, {"a colon", "a:b", ""},
				{"a brace", "a}b", ""}, {"a star", "*", ""}, {"65 letters", strings.Repeat("a", 65), ""}, {"3,000 letters", strings.Repeat("a", 3000), ""},
				{"an encoded NUL", "a%00", ""}, {"an encoded line end", "a%0d%0a", ""}, {"bad UTF-8", "%ff", ""}, {"an emoji", "%F0%9F%8E%AB", ""},
				{"a blank", "a%20b", ""}, {"encoded twice", "a%2561", ""}, {"a wrong escape", "a%zz", ""}, {"a semicolon", "a;edge=b", ""},
				{"twice", "a&edge=a", ""}, {"twice, differing", "a&edge=b", ""},
			}, func(m message, value string) message { m.target = "/edge/feed?edge=" + value; return m })}}},
	}
}

// object writes members as one JSON object.
func object(members map[string]string) string {
	var list []string
	for name, value := range members {
		list = append(list, `"`+name+`":`+value)
	}
	return "{" + strings.Join(list, ",") + "}"
}

// member spoils a member of a message; good are the bad values that are none here.
func member(name string, message_ map[string]string, write func(map[string]string) string, list []text, good ...string) field {
	return field{"body " + name, each("", badRequest, leaveOut(list, good...), func(m message, value string) message {
		spoiled := map[string]string{name: value}
		for other, right := range message_ {
			if other != name {
				spoiled[other] = right
			}
		}
		m.body = write(spoiled)
		return m
	})}
}

func queueNames() []text {
	return append(notStrings(), text{"empty", `""`, ""}, text{"no dot", `"shop"`, ""}, text{"upper case", `"SHOP.match"`, ""}, text{"two dots", `"shop.a.b"`, ""},
		text{"a hash tag", `"shop.}{"`, ""}, text{"a NUL", `"shop.\u0000"`, ""}, text{"64 letters", `"shop.` + strings.Repeat("a", 64) + `"`, ""})
}

func edgeNames() []text {
	return append(notStrings(), text{"empty", `""`, ""}, text{"upper case", `"ABC"`, ""}, text{"65 letters", `"` + strings.Repeat("a", 65) + `"`, ""},
		text{"a colon", `"a:b"`, ""}, text{"a NUL", `"a\u0000"`, ""}, text{"a brace", `"a}"`, ""})
}

// notPositions are texts that are no ascending list of positions.
func notPositions() []text {
	return []text{
		{"0", `"0"`, ""}, {"-1", `"-1"`, ""}, {"-0", `"-0"`, ""}, {"1.5", `"1.5"`, ""}, {"1e400", `"1e400"`, ""}, {"2^63", `"9223372036854775808"`, ""},
		{"NaN", `"NaN"`, ""}, {"descending", `"2,1"`, ""}, {"twice", `"1,1"`, ""}, {"a run backwards", `"5-1"`, ""}, {"a run of a run", `"1-2-3"`, ""},
		{"half a run", `"1-"`, ""}, {"a comma behind", `"1,"`, ""}, {"a blank", `"1, 2"`, ""}, {"a plus", `"+1"`, ""},
		{"a run without bound", `"1-9223372036854775807"`, ""}, {"a run that is too long", `"1-10000001"`, ""},
		{"runs that are too long together", `"1-9000000,9000002-18000000"`, ""},
	}
}

// wireTicket spoils the ticket in a claim or a leave.
func (b *besieged) wireTicket(good, invalid string) field {
	set := func(m message, value string) message { m.body = `{"ticket":` + value + `}`; return m }
	tricks := each("", badRequest, leaveOut(notStrings(), "null"), set)
	tricks = append(tricks, each("", invalid, append(spoiled(good, ""),
		text{"empty", "", ""}, text{"a session", b.session, ""}, text{"an operator's token", b.operator, ""}, text{"dots", "..", ""}, text{"an escaped NUL", `a.b.\u0000`, ""},
		text{"8,000 bytes", strings.Repeat("a", 8000), ""},
	), func(m message, value string) message { return set(m, `"`+value+`"`) })...)
	return field{"body ticket", tooLarge("claim", append(tricks,
		one("null", invalid, func(m message) message { return set(m, "null") }),
		one("missing", invalid, func(m message) message { m.body = `{}`; return m }),
		one("twice", badRequest, func(m message) message { return set(m, `"`+good+`","ticket":"`+good+`"`) }),
		one("9,000 bytes", badRequest, func(m message) message { return set(m, `"`+strings.Repeat("a", 9000)+`"`) })))}
}

// tooLarge gives the answer that the endpoints of short messages give to bodies over 8 KiB.
func tooLarge(name string, tricks []trick) []trick {
	if name != "claim" && name != "leave" && name != "user-key" {
		return tricks
	}
	tricks = slices.Clone(tricks)
	for i := range tricks {
		if len(tricks[i].change(message{}).body) > 8<<10 {
			tricks[i].want = "413 bad_request"
		}
	}
	return tricks
}

// clusterField spoils the cluster secret.
func (b *besieged) clusterField() field {
	set := func(m message, value string) message { return m.set("Authorization", value) }
	const invalid = "401 unauthorized"
	tricks := each("", "", notCredentials(invalid, invalid), set)
	tricks = append(tricks, each("", invalid, []text{
		{"an operator's token", b.operator, ""}, {"a key", b.secretKey, ""}, {"a ticket", b.active.token, ""}, {"a prefix", hostileCluster[:20], ""},
		{"one letter more", hostileCluster + "x", ""}, {"upper case", strings.ToUpper(hostileCluster), ""}, {"a blank before", " " + hostileCluster, ""},
	}, func(m message, value string) message { return set(m, "Bearer "+value) })...)
	return field{"Authorization", append(tricks,
		one("missing", invalid, func(m message) message { return m.without("Authorization") }),
		one("twice", badRequest, func(m message) message { return m.with("Authorization: Bearer " + hostileCluster) }),
		one("twice, differing", badRequest, func(m message) message { return m.with("Authorization: Bearer x") }),
		one("beside a key", badRequest, func(m message) message { return m.with("X-API-Key: " + b.secretKey) }),
		one("as a key", invalid, func(m message) message { return m.without("Authorization").with("X-API-Key: " + hostileCluster) }))}
}
