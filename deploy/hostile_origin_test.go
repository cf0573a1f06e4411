package deploy_test

import (
	"net/http"
	"slices"
	"strings"
)

const (
	badBody     = "400 invalid_body"
	badSettings = "400 invalid_settings"
)

// originEndpoints are the addresses of an origin for operators and backends.
func (b *besieged) originEndpoints() []endpoint {
	read := func(name, target string, fields ...field) endpoint {
		base := message{method: "GET", target: target, headers: []string{"Authorization: Bearer " + b.operator}}
		return endpoint{name, b.origin, base, http.StatusOK, append(fields, b.operatorField(false))}
	}
	list := []endpoint{
		b.createQueue(), b.patchQueue(),
		read("queues", "/queues"),
		read("queue", "/queues/shop.match", b.originPath("/queues/", "")),
		read("queue stats", "/queues/shop.match/stats", b.originPath("/queues/", "/stats"), statsQuery("minutes", "10081"), statsQuery("moves", "1001"), statsQuery("after", "9223372036854775808")),
		{"queue deletion", b.origin, message{method: "DELETE", target: "/queues/shop.closed", headers: []string{"Authorization: Bearer " + b.operator}},
			http.StatusNoContent, []field{b.originPath("/queues/", ""), b.operatorField(true)}},
		b.endSessionBy("X-API-Key: "+b.secretKey, "session end by a backend"),
		b.endSessionBy("Authorization: Bearer "+b.operator, "session end by an operator"),
	}
	for _, target := range []string{"/.well-known/jwks.json", "/healthz", "/readyz"} {
		list = append(list, endpoint{"origin " + target, b.origin, message{method: "GET", target: target}, http.StatusOK, nil})
	}
	return list
}

// originPath spoils a queue's id.
func (b *besieged) originPath(before, after string) field {
	tricks := each("", "404 queue_not_found", notSegments("shop.match"), func(m message, value string) message {
		m.target = before + value + after
		return m
	})
	tricks = but(tricks, "404 not_found", "dots", "encoded dots", "up and down", "up and down, encoded", "a slash behind", "a dot alone", "an empty one",
		"up and down, wholly encoded", "an encoded slash behind")
	tricks = but(tricks, plain, "half an escape", "a wrong escape")
	return field{"path queue", append(tricks,
		one("another tenant's", "404 queue_not_found", func(m message) message { m.target = before + "rival.match" + after; return m }))}
}

// statsQuery spoils a parameter of stats, which is a number below tooMuch.
func statsQuery(name, tooMuch string) field {
	return field{"query " + name, each("", "400 invalid_parameter", []text{
		{"empty", "", ""}, {"too much", tooMuch, ""}, {"a sign", "%2B1", ""}, {"-1", "-1", ""}, {"-0", "-0", ""}, {"a point", "1.0", ""},
		{"an exponent", "1e1", ""}, {"1e400", "1e400", ""}, {"2^64", "18446744073709551616", ""}, {"NaN", "NaN", ""}, {"null", "null", ""},
		{"a blank", "1%20", ""}, {"a NUL", "1%00", ""}, {"bad UTF-8", "%ff", ""}, {"half an escape", "%f", ""}, {"hexadecimal", "0x1", ""},
		{"a list", "1,2", ""}, {"an underscore", "1_0", ""}, {"3,000 bytes", strings.Repeat("4", 3000), ""}, {"a semicolon", "1;" + name + "=1", ""},
		{"another parameter", "1&other=1", ""}, {"twice", "1&" + name + "=1", "400 duplicate_parameter"},
	}, func(m message, value string) message {
		m.target += "?" + name + "=" + value
		return m
	})}
}

// operatorField spoils the credential of an operator.
func (b *besieged) operatorField(writes bool) field {
	set := func(m message, value string) message { return m.set("Authorization", value) }
	const invalid = "401 invalid_token"
	f := field{name: "Authorization", tricks: each("", "", notCredentials(invalid, invalid), set)}
	f.tricks = append(f.tricks, each("", invalid, append(spoiled(b.operator, ""),
		text{"a ticket", b.active.token, ""}, text{"a session", b.session, ""}, text{"the cluster secret", hostileCluster, ""}, text{"a key", b.secretKey, ""},
	), func(m message, value string) message { return set(m, "Bearer "+value) })...)
	f.tricks = append(f.tricks,
		one("missing", "401 unauthorized", func(m message) message { return m.without("Authorization") }),
		one("twice", "400 duplicate_credentials", func(m message) message { return m.with(m.authorization()) }),
		one("twice, differing", "400 duplicate_credentials", func(m message) message { return m.with("authorization: Bearer x") }),
		one("beside a key", "400 duplicate_credentials", func(m message) message { return m.with("X-API-Key: " + b.secretKey) }),
		one("a key alone", invalid, func(m message) message { return m.without("Authorization").with("X-API-Key: " + b.secretKey) }))
	if writes {
		f.tricks = append(f.tricks, one("a viewer's", "403 forbidden", func(m message) message { return set(m, "Bearer "+b.viewer) }))
	}
	return f
}

// createQueue is POST /queues.
func (b *besieged) createQueue() endpoint {
	base := message{
		method: "POST", target: "/queues", body: `{"slug":"new","capacity":1}`,
		headers: []string{"Authorization: Bearer " + b.operator, "Content-Type: application/json"},
	}
	body := func(m message, value string) message { m.body = value; return m }
	slug := func(value string) string { return `{"slug":` + value + `,"capacity":1}` }
	slugs := each("", badSettings, notStrings(), func(m message, value string) message { return body(m, slug(value)) })
	slugs = malformedTexts(slugs, notStrings())
	slugs = append(slugs, each("", badSettings, []text{
		{"empty", `""`, ""}, {"upper case", `"Match"`, ""}, {"a dot", `"a.b"`, ""}, {"another tenant's", `"rival.match"`, ""}, {"a slash", `"a/b"`, ""},
		{"dots", `".."`, ""}, {"a blank", `"a b"`, ""}, {"64 letters", `"` + strings.Repeat("a", 64) + `"`, ""}, {"an underscore", `"a_b"`, ""},
		{"an escaped NUL", `"a\u0000"`, ""}, {"an accent", `"é"`, ""}, {"an emoji", `"🎫"`, ""}, {"a brace", `"a}b"`, ""}, {"a colon", `"a:b"`, ""},
		{"60,000 bytes", `"` + strings.Repeat("a", 60_000) + `"`, ""},
	}, func(m message, value string) message { return body(m, slug(value)) })...)
	slugs = append(slugs,
		one("missing", badSettings, func(m message) message { return body(m, `{"capacity":1}`) }),
		one("twice", badBody, func(m message) message { return body(m, `{"slug":"a","slug":"b","capacity":1}`) }),
		one("twice, once with an escape", badBody, func(m message) message { return body(m, `{"slug":"a","\u0073lug":"b","capacity":1}`) }),
		one("one that exists", "409 queue_exists", func(m message) message { return body(m, slug(`"match"`)) }))
	fields := []field{
		b.operatorField(true), contentType("application/json", "415 unsupported_media_type", "415 unsupported_media_type"),
		{"body", b.documents()}, {"body slug", slugs},
		{"body, no capacity", append(settingNames(`"slug":"new","capacity":1,`), one("capacity missing", badSettings, func(m message) message { return body(m, `{"slug":"new"}`) }))},
	}
	return endpoint{"queue creation", b.origin, base, http.StatusCreated, append(fields, settings(`"slug":"new",`, true)...)}
}

// patchQueue is PATCH /queues/{queue}.
func (b *besieged) patchQueue() endpoint {
	base := message{
		method: "PATCH", target: "/queues/shop.match", body: `{"capacity":2}`,
		headers: []string{"Authorization: Bearer " + b.operator, "Content-Type: application/merge-patch+json"},
	}
	types := contentType("application/merge-patch+json", "415 unsupported_media_type", "415 unsupported_media_type")
	fields := []field{
		b.operatorField(true), b.originPath("/queues/", ""), types, {"body", b.documents()}, {"body, other members", settingNames("")},
	}
	return endpoint{"queue change", b.origin, base, http.StatusOK, append(fields, settings("", false)...)}
}

// documents are bodies that are no JSON object, or too large.
func (b *besieged) documents() []trick {
	set := func(m message, value string) message { m.body = value; return m }
	return append(each("", badBody, notObjects(), set),
		one("70,000 bytes", "413 body_too_large", func(m message) message { return set(m, `{"capacity":2`+strings.Repeat(" ", 70_000)+`}`) }),
		one("5,000,000 bytes", "413 body_too_large", func(m message) message { return set(m, `{"capacity":2`+strings.Repeat(" ", 5_000_000)+`}`) }),
		one("objects seventeen deep", badBody, func(m message) message {
			return set(m, strings.Repeat(`{"branding":`, 17)+"{}"+strings.Repeat("}", 17))
		}))
}

// settingNames are members that no queue has.
func settingNames(before string) []trick {
	var tricks []trick
	for _, name := range []string{
		"Capacity", "CAPACITY", "capacity ", "capacity\\u0000", "capacıty", "max_per_minute", "id", "incarnation", "version", "watermark", "issued",
		"vip", "bypass", "priority", "__proto__", "constructor", "", "tenant", "epoch", "password",
		"notes", "opensat", "opens_at", "OpensAt", "soldOut", "closedAt", "milestones", "remaining ",
	} {
		tricks = append(tricks, one("member "+name, badSettings, func(m message) message { m.body = `{` + before + `"` + name + `":1}`; return m }))
	}
	return append(tricks,
		one("an unknown member that is null", badSettings, func(m message) message { m.body = `{` + before + `"vip":null}`; return m }),
		one("a known one in thousands of objects", badBody, func(m message) message {
			m.body = `{` + before + `"branding":` + strings.Repeat(`{"name":`, 3000) + "1" + strings.Repeat("}", 3001)
			return m
		}))
}

// malformedTexts gives those tricks another answer whose text is no JSON at all.
func malformedTexts(tricks []trick, list []text) []trick {
	tricks = slices.Clone(tricks)
	for i, one := range list {
		if !isJSON(one.value) {
			tricks[i].want = badBody
		}
	}
	return tricks
}

// settings are the fields of all settings, for the creation or the change of a queue.
func settings(before string, create bool) []field {
	var fields []field
	add := func(name string, list []text, more ...text) {
		rest := before
		if create && name != "capacity" {
			rest += `"capacity":1,`
		}
		body := func(m message, value string) message { m.body = `{` + rest + value + `}`; return m }
		f := field{"body " + name, each("", badSettings, list, func(m message, value string) message { return body(m, `"`+name+`":`+value) })}
		f.tricks = malformedTexts(f.tricks, list)
		f.tricks = append(f.tricks, each("", badSettings, more, func(m message, value string) message { return body(m, `"`+name+`":`+value) })...)
		f.tricks = append(f.tricks,
			one("twice", badBody, func(m message) message { return body(m, `"`+name+`":1,"`+name+`":1`) }),
			one("twice, once with an escape", badBody, func(m message) message { return body(m, `"`+name+`":1,"\u00`+hex(name[0])+name[1:]+`":1`) }))
		fields = append(fields, f)
	}
	// A member that is null goes back to its default (RFC 7396), but capacity has none.
	noNull := func(list []text) []text { return leaveOut(list, "null") }
	add("capacity", notCounts(), text{"null", "null", ""}, text{"beyond the bound", "10000001", ""})
	add("maxPerMinute", notCounts(), text{"beyond the bound", "10000001", ""})
	for _, name := range []string{"purchaseWindowSeconds", "holdSeconds", "claimSeconds"} {
		add(name, notCounts(), text{"0", "0", ""}, text{"-0", "-0", ""}, text{"beyond the bound", "604801", ""})
	}
	add("maxMissedOffers", notCounts(), text{"0", "0", ""}, text{"-0", "-0", ""}, text{"beyond the bound", "101", ""})
	add("retentionSeconds", notCounts(), text{"0", "0", ""}, text{"-0", "-0", ""}, text{"beyond the bound", "31622401", ""})
	add("state", noNull(notStrings()), text{"empty", `""`, ""}, text{"upper case", `"OPEN"`, ""}, text{"scheduled", `"scheduled"`, ""}, text{"another", `"vip"`, ""})
	add("remaining", noNull(notCounts()), text{"beyond the bound", "1000000001", ""}, text{"as text", `"5"`, ""}, text{"none left, as a word", `"none"`, ""})
	add("opensAt", noNull(notStrings()), text{"empty", `""`, ""}, text{"a day", `"2100-01-01"`, ""}, text{"no zone", `"2100-01-01T10:00:00"`, ""},
		text{"a zone by name", `"2100-01-01T10:00:00 CET"`, ""}, text{"small letters", `"2100-01-01t10:00:00z"`, ""}, text{"a blank", `"2100-01-01 10:00:00Z"`, ""},
		text{"month 13", `"2100-13-01T10:00:00Z"`, ""}, text{"30 February", `"2100-02-30T10:00:00Z"`, ""}, text{"hour 24", `"2100-01-01T24:00:00Z"`, ""},
		text{"a leap second", `"2100-01-01T23:59:60Z"`, ""}, text{"year 10000", `"10000-01-01T00:00:00Z"`, ""}, text{"a year below 0", `"-2100-01-01T00:00:00Z"`, ""},
		text{"a comma", `"2100-01-01T10:00:00,5Z"`, ""}, text{"an offset of a day", `"2100-01-01T10:00:00+24:00"`, ""}, text{"seconds since 1970", `4102444800`, ""},
		text{"a word", `"now"`, ""}, text{"a NUL behind", `"2100-01-01T10:00:00Z\u0000"`, ""})
	add("identity", noNull(notStrings()), text{"empty", `""`, ""}, text{"another", `"none"`, ""})
	add("locale", noNull(notStrings()), text{"empty", `""`, ""}, text{"a path", `"../en"`, ""})
	add("branding", leaveOut(noNull(notStrings()), "an object"), text{"a text", `"x"`, ""}, text{"an unknown member", `{"logo":"x"}`, ""})
	add("branding.name", nil) // a name of its own, which nobody knows
	fields[len(fields)-1].tricks = brandingNames(before, create)
	add("returnOrigins", leaveOut(noNull(notStrings()), "an array"), text{"a text", `"https://a.example"`, ""},
		text{"thirty-three", `[` + strings.TrimSuffix(strings.Repeat(`"https://a.example",`, 33), ",") + `]`, ""},
		text{"a path", `["https://a.example/"]`, ""}, text{"user info", `["https://x@a.example"]`, ""}, text{"a wildcard", `["*"]`, ""},
		text{"a wildcard host", `["https://*.example"]`, ""}, text{"null inside", `[null]`, ""}, text{"an array inside", `[["https://a.example"]]`, ""},
		text{"null as text", `["null"]`, ""}, text{"a script", `["javascript:alert(1)"]`, ""}, text{"a NUL", `["https://a.example\u0000"]`, ""},
		text{"the standard port", `["https://a.example:443"]`, ""}, text{"port 2^16", `["https://a.example:65536"]`, ""}, text{"an accent", `["https://é.example"]`, ""})
	return fields
}

// brandingNames are bad values of the one member of branding.
func brandingNames(before string, create bool) []trick {
	if create {
		before += `"capacity":1,`
	}
	set := func(m message, value string) message {
		m.body = `{` + before + `"branding":{"name":` + value + `}}`
		return m
	}
	list := leaveOut(notStrings(), "null")
	tricks := malformedTexts(each("", badSettings, list, set), list)
	return append(tricks, one("101 bytes", badSettings, func(m message) message { return set(m, `"`+strings.Repeat("n", 101)+`"`) }),
		one("60,000 bytes", badSettings, func(m message) message { return set(m, `"`+strings.Repeat("n", 60_000)+`"`) }),
		one("twice", badBody, func(m message) message { return set(m, `"a","name":"b"`) }))
}

// endSessionBy is DELETE /sessions/{id}.
func (b *besieged) endSessionBy(credential, name string) endpoint {
	base := message{method: "DELETE", target: "/sessions/" + b.sessionID, headers: []string{credential}}
	ids := each("", "404 session_not_found", notSegments(b.sessionID), func(m message, value string) message { m.target = "/sessions/" + value; return m })
	ids = but(ids, "404 not_found", "dots", "encoded dots", "up and down", "up and down, encoded", "a slash behind", "a dot alone", "an empty one", "up and down, wholly encoded", "an encoded slash behind")
	ids = but(ids, plain, "half an escape", "a wrong escape")
	ids = append(ids, each("", "404 session_not_found", []text{
		{"of another tenant", "rival.match~x", ""}, {"a queue's", "shop.match", ""}, {"no random part", "shop.match~", ""}, {"no queue", "~x", ""},
		{"two tildes", b.sessionID + "~x", ""}, {"a wildcard part", "shop.match~*", ""}, {"a queue that is not there", "shop.none~x", ""},
	}, func(m message, value string) message { m.target = "/sessions/" + value; return m })...)
	e := endpoint{name, b.origin, base, http.StatusNoContent, []field{{"path id", ids}}}
	if strings.HasPrefix(credential, "X-") {
		e.fields = append(e.fields, keyField(b.secretKey, "401 unauthorized", "401 invalid_token",
			one("a publishable one", "403 forbidden", func(m message) message { return m.set("X-API-Key", b.publishable) }),
			one("another tenant's", "404 session_not_found", func(m message) message { return m.set("X-API-Key", b.rivalKey) }),
			one("beside a token", "400 duplicate_credentials", func(m message) message { return m.with("Authorization: Bearer " + b.operator) })))
	} else {
		field := b.operatorField(true)
		field.tricks = except(field.tricks, "a key alone") // which may end sessions
		field.tricks = append(field.tricks, one("another tenant's", "404 session_not_found", func(m message) message { return m.set("Authorization", "Bearer "+b.rivalOperator) }))
		e.fields = append(e.fields, field)
	}
	return e
}
