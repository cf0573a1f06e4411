package deploy_test

import (
	"net/http"
	"slices"
	"strings"
)

// newUser is the user of joins that must not succeed.
const newUser = "user-who-never-joined"

// edgeEndpoints are the addresses of an edge.
func (b *besieged) edgeEndpoints() []endpoint {
	get := func(name, target string, fields ...field) endpoint {
		return endpoint{name, b.edge, message{method: "GET", target: target}, http.StatusOK, fields}
	}
	list := []endpoint{
		get("page", "/wait/shop.match?return="+escape(shopOrigin+"/cart"),
			b.path("queue", "/wait/", "shop.match", "?return="+escape(shopOrigin), "404 queue_not_found"), returns()),
		get("asset", "/assets/wait.mjs", b.path("name", "/assets/", "wait.mjs", "", "404 not_found")),
		get("description", "/queues/shop.match", b.path("queue", "/queues/", "shop.match", "", "404 queue_not_found")),
		get("state", "/queues/shop.match/state", b.path("queue", "/queues/", "shop.match", "/state", "404 queue_not_found")),
		get("public keys", "/.well-known/jwks.json"),
		get("health", "/healthz"), get("readiness", "/readyz"),
		b.access(), b.revocationList(),
		b.joinWithKey(), b.joinOfPage(),
	}
	for _, one := range []struct {
		name, method, under string
		holder              held
		good                int
	}{
		{"status", "GET", "", b.waiting, http.StatusOK},
		{"handover", "POST", "/handover", b.waiting, http.StatusNoContent},
		{"claim", "POST", "/session", b.offered, http.StatusOK},
		{"leave", "DELETE", "", b.waiting, http.StatusNoContent},
	} {
		list = append(list, b.withBearer(one.name, one.method, one.under, one.holder, one.good))
		if one.name != "leave" { // which the one before has done
			list = append(list, b.withCookie(one.name, one.method, one.under, one.holder))
		}
	}
	return list
}

func escape(s string) string {
	return strings.NewReplacer(":", "%3A", "/", "%2F", "\\", "%5C", "@", "%40", " ", "%20", "#", "%23").Replace(s)
}

// path spoils a part of the path. What is another spelling of an address, or another address, is
// not found at all; what is one segment is looked for.
func (b *besieged) path(name, before, good, after, unknown string) field {
	tricks := each("", "404 not_found", notSegments(good), func(m message, value string) message {
		m.target = before + value + after
		return m
	})
	return field{"path " + name, but(tricks, unknown,
		"another", "one letter less", "upper case", "a wildcard", "braces", "a semicolon", "3,000 bytes", "__proto__",
		"a backslash", "half an escape", "a wrong escape", "raw bad UTF-8")}
}

// returns are URLs that lead somewhere else than to the shop, or that could be read so.
func returns() field {
	f := field{name: "query return"}
	for _, one := range []text{
		{"another host", "https://evil.example.com/", ""}, {"empty", "", ""}, {"a path", "/cart", ""}, {"no scheme", "//shop.example.com/", ""},
		{"http", "http://shop.example.com/", ""}, {"a port", "https://shop.example.com:443/", ""}, {"upper case", "HTTPS://SHOP.EXAMPLE.COM/", ""},
		{"user info", "https://x@shop.example.com/", ""}, {"the shop as user info", "https://shop.example.com@evil.example.com/", ""},
		{"a longer host", "https://shop.example.com.evil.example.com/", ""}, {"a backslash", shopOrigin + `\@evil.example.com/`, ""},
		{"a script", "javascript:alert(1)//" + shopOrigin, ""}, {"data", "data:text/html,x", ""}, {"a NUL", shopOrigin + "/%00", ""},
		{"a line end", shopOrigin + "/%0d%0aSet-Cookie:x", ""}, {"a tab", shopOrigin + "/%09", ""}, {"bad UTF-8", shopOrigin + "/%ff", ""},
		{"a blank before", " " + shopOrigin, ""}, {"encoded twice", "https%253A%252F%252Fshop.example.com", ""},
		{"an encoded dot", "https://shop%252eexample.com/", ""}, {"a dot behind", "https://shop.example.com./", ""},
		{"3,000 bytes", shopOrigin + "/" + strings.Repeat("a", 3000), ""}, {"a wrong escape", shopOrigin + "/%25zz", ""},
	} {
		value := one.value
		if !strings.Contains(value, "%") {
			value = escape(value)
		}
		f.tricks = append(f.tricks, trick{one.name, func(m message) message {
			m.target = "/wait/shop.match?return=" + value
			return m
		}, "400 invalid_return"})
	}
	query := func(name, query string) {
		f.tricks = append(f.tricks, one(name, "400 duplicate_parameter", func(m message) message { m.target = "/wait/shop.match?" + query; return m }))
	}
	query("twice", "return="+escape(shopOrigin)+"&return="+escape(shopOrigin))
	query("twice, differing", "return="+escape(shopOrigin)+"&return=https://evil.example.com")
	query("twice, once encoded", "return="+escape(shopOrigin)+"&%72eturn=https://evil.example.com")
	return f
}

// access is asked with a session token.
func (b *besieged) access() endpoint {
	base := message{method: "GET", target: "/access?queue=shop.match", headers: []string{"Authorization: Bearer " + b.session}}
	query := func(name, want string, list []text, before string) field {
		return field{"query " + name, each("", want, list, func(m message, value string) message {
			m.target = before + value
			return m
		})}
	}
	queues := append(notSegments("shop.match"), text{"empty", "", "400 invalid_parameter"}, text{"twice", "shop.match&queue=shop.match", "400 duplicate_parameter"},
		text{"twice, differing", "shop.match&queue=rival.match", "400 duplicate_parameter"}, text{"twice, once encoded", "shop.match&%71ueue=rival.match", "400 duplicate_parameter"},
		text{"a list", "shop.match,shop.members", ""}, text{"another of the tenant", "shop.members", ""})
	gones := []text{
		{"empty", "", ""}, {"410", "410", ""}, {"200", "200", ""}, {"4010", "4010", ""}, {"a sign", "%2B401", ""}, {"a point", "401.0", ""}, {"an exponent", "4.01e2", ""},
		{"1e400", "1e400", ""}, {"-0", "-0", ""}, {"2^63", "9223372036854775808", ""}, {"NaN", "NaN", ""}, {"true", "true", ""}, {"a blank", "401%20", ""},
		{"a NUL", "401%00", ""}, {"bad UTF-8", "%ff", ""}, {"hexadecimal", "0x191", ""}, {"a list", "401,410", ""}, {"3,000 bytes", strings.Repeat("4", 3000), ""},
		{"twice", "401&gone=401", "400 duplicate_parameter"}, {"twice, differing", "401&gone=200", "400 duplicate_parameter"},
	}
	return endpoint{"access", b.edge, base, http.StatusOK, []field{
		b.bearerField("session_required", "invalid_session", append(spoiled(b.session, ""),
			text{"a ticket", b.active.token, ""}, text{"an operator's token", b.operator, ""})),
		query("queue", "401 invalid_session", queues, "/access?queue="),
		query("gone", "400 invalid_parameter", gones, "/access?queue=shop.match&gone="),
	}}
}

func leaveOut(list []text, names ...string) []text {
	return slices.DeleteFunc(slices.Clone(list), func(t text) bool { return slices.Contains(names, t.name) })
}

// bearerField spoils the Authorization header; forms are tokens that are no good here.
func (b *besieged) bearerField(required, invalid string, forms []text) field {
	set := func(m message, value string) message { return m.set("Authorization", value) }
	f := field{name: "Authorization", tricks: each("", "", notCredentials("400 malformed_authorization", "401 "+invalid), set)}
	f.tricks = append(f.tricks, each("", "401 "+invalid, forms, func(m message, value string) message { return set(m, "Bearer "+value) })...)
	f.tricks = append(f.tricks,
		one("missing", "401 "+required, func(m message) message { return m.without("Authorization") }),
		one("twice", "400 duplicate_credentials", func(m message) message { return m.with(m.authorization()) }),
		one("twice, in other letters", "400 duplicate_credentials", func(m message) message {
			return m.with(strings.ToUpper(m.authorization()[:13]) + m.authorization()[13:])
		}),
		one("twice, differing", "400 duplicate_credentials", func(m message) message { return m.with("Authorization: Bearer x") }),
		one("in the query", "401 "+required, func(m message) message {
			token := m.authorization()[len("Authorization: Bearer "):]
			m = m.without("Authorization")
			m.target += map[bool]string{true: "&", false: "?"}[strings.Contains(m.target, "?")] + "access_token=" + token
			return m
		}))
	return f
}

// authorization is the line of that header.
func (m message) authorization() string {
	i := slices.IndexFunc(m.headers, func(line string) bool { return strings.HasPrefix(line, "Authorization: ") })
	return m.headers[i]
}

// keyField spoils X-API-Key.
func keyField(good, required, invalid string, more ...trick) field {
	f := field{name: "X-API-Key", tricks: each("", "", notKeys(good, invalid), func(m message, value string) message { return m.set("X-API-Key", value) })}
	f.tricks = append(f.tricks,
		one("missing", required, func(m message) message { return m.without("X-API-Key") }),
		one("twice", "400 duplicate_credentials", func(m message) message { return m.with("X-API-Key: " + good) }),
		one("twice, differing", "400 duplicate_credentials", func(m message) message { return m.with("x-api-key: another") }))
	f.tricks = append(f.tricks, more...)
	return f
}

// revocationList is asked with the secret key. A cursor cannot be wrong: one that is not known gets
// the whole list, as TestOddButHarmless shows.
func (b *besieged) revocationList() endpoint {
	base := message{method: "GET", target: "/revocations?after=1", headers: []string{"X-API-Key: " + b.secretKey}}
	return endpoint{"revocations", b.edge, base, http.StatusOK, []field{
		keyField(b.secretKey, "401 api_key_required", "401 invalid_api_key",
			one("a publishable one", "403 secret_key_required", func(m message) message { return m.set("X-API-Key", b.publishable) }),
			one("as a bearer token", "401 api_key_required", func(m message) message {
				return m.without("X-API-Key").with("Authorization: Bearer " + b.secretKey)
			})),
	}}
}

// joinWithKey is a join by a backend.
func (b *besieged) joinWithKey() endpoint {
	base := message{
		method: "POST", target: "/queues/shop.match/tickets", body: `{"userId":"` + newUser + `"}`,
		headers: []string{"X-API-Key: " + b.secretKey, "Content-Type: application/json"},
	}
	body := func(m message, value string) message { m.body = value; return m }
	member := func(name string, want string, list []text) []trick {
		return each(name+" ", want, list, func(m message, value string) message { return body(m, `{"`+name+`":`+value+`}`) })
	}
	const bad = "400 invalid_body"
	users := append(member("userId", bad, notStrings()),
		one("empty", "400 invalid_user_id", func(m message) message { return body(m, `{"userId":""}`) }),
		one("129 bytes", "400 invalid_user_id", func(m message) message { return body(m, `{"userId":"`+strings.Repeat("u", 129)+`"}`) }),
		one("43 letters of three bytes", "400 invalid_user_id", func(m message) message { return body(m, `{"userId":"`+strings.Repeat("€", 43)+`"}`) }),
		one("15,000 bytes", "400 invalid_user_id", func(m message) message { return body(m, `{"userId":"`+strings.Repeat("u", 15_000)+`"}`) }),
		one("20,000 bytes", "413 body_too_large", func(m message) message { return body(m, `{"userId":"`+strings.Repeat("u", 20_000)+`"}`) }),
		one("5,000,000 bytes", "413 body_too_large", func(m message) message { return body(m, `{"userId":"`+strings.Repeat("u", 5_000_000)+`"}`) }),
		one("twice", bad, func(m message) message { return body(m, `{"userId":"`+newUser+`","userId":"`+newUser+`"}`) }),
		one("twice, once with an escape", bad, func(m message) message { return body(m, `{"userId":"`+newUser+`","user\u0049d":"x"}`) }),
		one("with a publishable key", "403 secret_key_required", func(m message) message { return m.set("X-API-Key", b.publishable) }))
	names := []trick{}
	for _, name := range []string{
		"userid", "USERID", "user_id", "userId ", " userId", "userId\\u0000", "UserId", "user", "id", "position", "vip", "priority", "__proto__",
		"constructor", "", "tenant", "queue", "userID", "useriⅾ",
	} {
		names = append(names, one("member "+name, bad, func(m message) message { return body(m, `{"`+name+`":"x"}`) }))
	}
	return endpoint{"join with a key", b.edge, base, http.StatusCreated, []field{
		b.path("queue", "/queues/", "shop.match", "/tickets", "404 queue_not_found"),
		keyField(b.secretKey, "401 api_key_required", "401 invalid_api_key",
			one("another tenant's", "404 queue_not_found", func(m message) message { return m.set("X-API-Key", b.rivalKey) }),
			one("for a closed queue", "410 queue_closed", func(m message) message { m.target = "/queues/shop.closed/tickets"; return m }),
			one("in the query", "401 api_key_required", func(m message) message { m.target += "?X-API-Key=" + b.secretKey; return m.without("X-API-Key") })),
		contentType("application/json", "415 unsupported_media_type", "400 duplicate_header"),
		{"body", each("", bad, notObjects(), body)},
		{"body userId", users},
		{"body userToken", append(member("userToken", bad, notStrings()),
			one("beside userId", bad, func(m message) message { return body(m, `{"userId":"a","userToken":"b"}`) }),
			one("empty", bad, func(m message) message { return body(m, `{"userToken":""}`) }),
			one("without a provider", "400 user_token_not_accepted", func(m message) message { return body(m, `{"userToken":"a.b.c"}`) }))},
		{"body, other members", names},
		{"body, for a queue of signed-in users", append(each("", bad, notObjects(), func(m message, value string) message {
			m.target = "/queues/shop.members/tickets"
			return body(m, value)
		}), one("anonymous", "403 identity_required", func(m message) message {
			m.target = "/queues/shop.members/tickets"
			return body(m, `{}`)
		}))},
	}}
}

// contentType spoils Content-Type and Content-Encoding of a request with a body.
func contentType(json, want, twice string) field {
	set := func(m message, value string) message { return m.set("Content-Type", value) }
	f := field{"Content-Type", each("", want, mediaTypes(json), set)}
	for _, coding := range []string{"gzip", "deflate", "br", "x", "gzip, gzip"} {
		f.tricks = append(f.tricks, one("Content-Encoding "+coding, want, func(m message) message { return m.with("Content-Encoding: " + coding) }))
	}
	f.tricks = append(f.tricks,
		one("missing", want, func(m message) message { return m.without("Content-Type") }),
		one("twice", twice, func(m message) message { return m.with("Content-Type: " + json) }),
		one("twice, differing", twice, func(m message) message { return m.with("content-type: text/plain") }))
	return f
}

// joinOfPage is a join by the waiting page, which shows by its Origin that it is that.
func (b *besieged) joinOfPage() endpoint {
	base := message{
		method: "POST", target: "/queues/shop.match/tickets", body: `{}`,
		headers: []string{"Origin: " + b.edgeURL, "Content-Type: application/json"},
	}
	return endpoint{"join of the page", b.edge, base, http.StatusCreated, []field{
		b.originField("401 api_key_required"),
		{"body userId", each("", "400 invalid_body", notStrings(), func(m message, value string) message {
			m.body = `{"userId":` + value + `}`
			return m
		})},
	}}
}

// originField spoils the Origin of a request of the page's.
func (b *besieged) originField(missing string) field {
	const forbidden = "403 origin_forbidden"
	f := field{"Origin", each("", forbidden, foreignOrigins(b.edgeURL), func(m message, value string) message { return m.set("Origin", value) })}
	f.tricks = but(f.tricks, missing, "empty")
	f.tricks = append(f.tricks,
		one("missing", missing, func(m message) message { return m.without("Origin") }),
		one("twice", forbidden, func(m message) message { return m.with("Origin: " + b.edgeURL) }),
		one("twice, differing", forbidden, func(m message) message { return m.with("Origin: https://evil.example.com") }))
	return f
}

// withBearer are the addresses of a ticket, asked by an app.
func (b *besieged) withBearer(name, method, under string, h held, good int) endpoint {
	base := message{method: method, target: "/tickets/" + h.id + under, headers: []string{"Authorization: Bearer " + h.token}}
	if name == "handover" {
		base = base.with("Origin: " + b.edgeURL)
	}
	tickets := append(spoiled(h.token, ""),
		text{"a session token", b.session, ""}, text{"an operator's token", b.operator, ""},
		text{"another fan's ticket", b.active.token, ""}, text{"a ticket of another tenant", b.rival.token, ""})
	ids := b.path("id", "/tickets/", h.id, under, "401 invalid_ticket")
	ids.tricks = append(ids.tricks,
		one("another fan's", "401 invalid_ticket", func(m message) message { m.target = "/tickets/" + b.active.id + under; return m }),
		one("of another tenant", "401 invalid_ticket", func(m message) message { m.target = "/tickets/" + b.rival.id + under; return m }),
		one("another position", "401 invalid_ticket", func(m message) message { m.target = "/tickets/" + h.id + "0" + under; return m }),
		one("position -0", "401 invalid_ticket", func(m message) message { m.target = "/tickets/" + h.id[:17] + "-0" + under; return m }))
	e := endpoint{name + " with a bearer", b.edge, base, good, []field{ids, b.bearerField("ticket_required", "invalid_ticket", tickets)}}
	if name == "handover" {
		e.fields = append(e.fields, b.originField("403 origin_forbidden"))
	}
	if method == "POST" {
		e.fields = append(e.fields, b.emptyBody())
	}
	return e
}

// emptyBody is that of a request whose body says nothing: none, or {}.
func (b *besieged) emptyBody() field {
	tricks := each("", "400 invalid_body", leaveOut(notObjects(), "nothing"), func(m message, value string) message {
		m.body = value
		return m.with("Content-Type: application/json")
	})
	return field{"body", append(tricks,
		one("a member", "400 invalid_body", func(m message) message { m.body = `{"a":1}`; return m.with("Content-Type: application/json") }),
		one("without a type", "415 unsupported_media_type", func(m message) message { m.body = `{}`; return m }),
		one("as text", "415 unsupported_media_type", func(m message) message { m.body = `{}`; return m.with("Content-Type: text/plain") }),
		one("20,000 bytes", "413 body_too_large", func(m message) message {
			m.body = `{` + strings.Repeat(" ", 20_000) + `}`
			return m.with("Content-Type: application/json")
		}))}
}

// withCookie are the same addresses, asked by the waiting page.
func (b *besieged) withCookie(name, method, under string, h held) endpoint {
	const cookie = "wr_ticket_shop.match="
	base := message{method: method, target: "/tickets/" + h.id + under, headers: []string{"Cookie: " + cookie + h.token}}
	good := http.StatusOK
	if method != "GET" {
		base = base.with("Origin: " + b.edgeURL)
	}
	const invalid, required = "401 invalid_ticket", "401 ticket_required"
	set := func(m message, value string) message { return m.set("Cookie", value) }
	cookies := append(each("", invalid, leaveOut(spoiled(h.token, ""), "a blank before", "padding"), func(m message, value string) message { return set(m, cookie+value) }),
		each("", invalid, []text{
			{"empty", cookie, ""}, {"of another queue", "wr_ticket_shop.members=" + h.token, ""}, {"another fan's", cookie + b.active.token, ""},
			{"a session", cookie + b.session, ""}, {"another tenant's", "wr_ticket_rival.match=" + b.rival.token, ""},
			{"of a queue in upper case", "wr_ticket_SHOP.MATCH=" + h.token, ""}, {"of no queue", "wr_ticket_=" + h.token, ""},
			{"bad UTF-8", cookie + "\xff\xfe", ""}, {"a percent sign", cookie + strings.Replace(h.token, ".", "%2E", 1), ""}, {"8,000 bytes", cookie + strings.Repeat("a", 8000), ""},
			{"with the prefix of https", "__Host-" + cookie + h.token, required}, {"a name in upper case", "WR_TICKET_shop.match=" + h.token, required},
			{"another name", "ticket=" + h.token, required}, {"no name", h.token, required}, {"semicolons", ";;;", required}, {"an equals sign", "=", required},
			{"twice in one header", cookie + h.token + "; " + cookie + h.token, "400 duplicate_credentials"},
			{"twice, differing", cookie + h.token + "; " + cookie + "x", "400 duplicate_credentials"},
			{"a NUL", cookie + h.token + "\x00", plain}, {"20,000 bytes", cookie + strings.Repeat("a", 20_000), plain},
		}, set)...)
	cookies = append(cookies,
		one("missing", required, func(m message) message { return m.without("Cookie") }),
		one("two headers", "400 duplicate_credentials", func(m message) message { return m.with("Cookie: " + cookie + h.token) }),
		one("two headers, differing", "400 duplicate_credentials", func(m message) message { return m.with("cookie: " + cookie + "x") }),
		one("beside a bad bearer", invalid, func(m message) message { return m.with("Authorization: Bearer x") }),
		one("beside an empty bearer", "400 malformed_authorization", func(m message) message { return m.with("Authorization: ") }))
	e := endpoint{name + " with the cookie", b.edge, base, good, []field{{"Cookie", cookies}}}
	if method != "GET" {
		e.fields = append(e.fields, b.originField("403 origin_forbidden"))
	}
	return e
}
