package deploy_test

import (
	"fmt"
	"slices"
	"strings"
)

// trick is one way to get a request wrong, and the answer to it: "400 invalid_body", or plain.
type trick struct {
	name   string
	change func(message) message
	want   string
}

// plain is the answer to what is no HTTP: the connection is closed, after a 4xx that need not be
// a problem document.
const plain = "plain"

// field is a part of a request that takes input, with the ways to get it wrong.
type field struct {
	name   string
	tricks []trick
}

// text is a bad value, and why its answer differs from that of the others where it does.
type text struct{ name, value, want string }

var (
	deep      = strings.Repeat("[", 6000) + strings.Repeat("]", 6000)
	surrogate = `"\ud800"`
)

// notStrings are JSON texts that are no string, or no JSON.
func notStrings() []text {
	return []text{
		{"null", `null`, ""}, {"true", `true`, ""}, {"a number", `1`, ""}, {"an exponent", `1e400`, ""},
		{"an array", `[]`, ""}, {"an array of one", `["x"]`, ""}, {"an object", `{}`, ""},
		{"an array in thousands", deep, ""},
		{"the first half of a pair", surrogate, ""}, {"the second half of a pair", `"\udc00"`, ""},
		{"a pair the wrong way round", `"\udc00\ud800"`, ""}, {"half a pair before a letter", `"\ud800x"`, ""},
		{"bad UTF-8", "\"\xff\xfe\"", ""}, {"overlong UTF-8", "\"\xc0\x80\"", ""}, {"UTF-8 of a surrogate", "\"\xed\xa0\x80\"", ""},
		{"a raw NUL", "\"a\x00b\"", ""}, {"a raw line end", "\"a\nb\"", ""}, {"an unknown escape", `"\x41"`, ""},
		{"half an escape", `"\u12"`, ""}, {"no end", `"x`, ""}, {"other quotes", `'x'`, ""}, {"no quotes", `x`, ""},
		{"NaN", `NaN`, ""}, {"nothing", ``, ""}, {"undefined", `undefined`, ""},
	}
}

// notCounts are JSON texts that are no integer of a sensible size.
func notCounts() []text {
	return []text{
		{"1e400", `1e400`, ""}, {"-1e400", `-1e400`, ""}, {"1e-400", `1e-400`, ""}, {"1.5", `1.5`, ""}, {"-1", `-1`, ""},
		{"2^63", `9223372036854775808`, ""}, {"-2^63", `-9223372036854775808`, ""}, {"2^64", `18446744073709551616`, ""},
		{"2^53+1", `9007199254740993`, ""}, {"forty digits", strings.Repeat("9", 40), ""}, {"thousands of digits", strings.Repeat("9", 5000), ""},
		{"a string", `"1"`, ""}, {"an empty string", `""`, ""}, {"text NaN", `"NaN"`, ""}, {"true", `true`, ""},
		{"an array", `[1]`, ""}, {"an object", `{"a":1}`, ""}, {"an array in thousands", deep, ""},
		{"half a pair", surrogate, ""}, {"bad UTF-8", "\"\xff\"", ""},
		{"NaN", `NaN`, ""}, {"Infinity", `Infinity`, ""}, {"-Infinity", `-Infinity`, ""}, {"hexadecimal", `0x10`, ""},
		{"a leading zero", `01`, ""}, {"a plus", `+1`, ""}, {"no digit behind the point", `1.`, ""},
		{"no digit before the point", `.5`, ""}, {"half an exponent", `1e`, ""}, {"a minus alone", `-`, ""},
		{"an underscore", `1_0`, ""}, {"nothing", ``, ""}, {"a raw NUL", "\x00", ""},
	}
}

// notObjects are bodies that are not one JSON object with distinct names.
func notObjects() []text {
	return []text{
		{"nothing", "", ""}, {"blanks", " \r\n\t", ""}, {"null", `null`, ""}, {"true", `true`, ""}, {"a number", `1`, ""},
		{"a string", `"x"`, ""}, {"an array", `[]`, ""}, {"an array of objects", `[{}]`, ""}, {"an open brace", `{`, ""},
		{"a closed brace", `}`, ""}, {"two objects", `{}{}`, ""}, {"something behind", `{} x`, ""}, {"a comma behind", `{},`, ""},
		{"a name alone", `{"a"}`, ""}, {"a colon without a value", `{"a":}`, ""}, {"a comma at the end", `{"a":1,}`, ""},
		{"other quotes", `{'a':1}`, ""}, {"no quotes", `{a:1}`, ""}, {"a comment", `{/* x */}`, ""}, {"a line comment", "{}//x", ""},
		{"a byte order mark", "\ufeff{}", ""}, {"UTF-16", "\xff\xfe{\x00}\x00", ""}, {"a NUL before", "\x00{}", ""}, {"a NUL behind", "{}\x00", ""},
		{"bad UTF-8 in a name", "{\"\xff\":1}", ""}, {"half a pair in a name", `{"\ud800":1}`, ""},
		{"objects in thousands", strings.Repeat(`{"a":`, 2500) + `1` + strings.Repeat(`}`, 2500), ""},
		{"arrays in thousands", deep, ""}, {"arrays without an end", strings.Repeat("[", 10_000), ""},
		{"objects without an end", strings.Repeat(`{"a":`, 3000), ""},
		{"a name twice", `{"a":1,"a":1}`, ""}, {"a name twice, once with an escape", `{"a":1,"\u0061":1}`, ""},
		{"a form", `userId=x`, ""}, {"XML", `<x/>`, ""}, {"NaN", `NaN`, ""},
	}
}

// notCredentials are the values of an Authorization header that are no bearer token at all, for a
// server that answers malformed to what has no token.
func notCredentials(malformed, invalid string) []text {
	return []text{
		{"empty", "", malformed}, {"no token", "Bearer", malformed}, {"another scheme", "Basic dXNlcjpwYXNz", malformed},
		{"no scheme", "eyJhbGciOiJub25lIn0.e30.", malformed}, {"the scheme twice", "Bearer Bearer x", invalid},
		{"a tab for the blank", "Bearer\tx", malformed}, {"a comma", "Bearer, x", malformed}, {"an equals sign", "Bearer=x", malformed},
		{"null", "Bearer null", invalid}, {"two tokens", "Bearer a.b.c a.b.c", invalid}, {"a list", "Bearer a.b.c, Bearer a.b.c", invalid},
		{"quotes", `Bearer "a.b.c"`, invalid}, {"bad UTF-8", "Bearer \xff\xfe.\xff.\xff", invalid}, {"an emoji", "Bearer 🎫.🎫.🎫", invalid},
		{"two parts", "Bearer e30.e30", invalid}, {"four parts", "Bearer e30.e30.e30.e30", invalid}, {"dots", "Bearer ..", invalid},
		{"alg none", "Bearer eyJhbGciOiJub25lIn0.e30.", invalid}, {"3,000 bytes", "Bearer " + strings.Repeat("a", 3000), invalid},
		{"a URL", "Bearer https://evil.example.com/", invalid}, {"an operator's word", "Bearer operator", invalid},
		{"a NUL", "Bearer a\x00b", plain}, {"a control character", "Bearer a\x01b", plain}, {"DEL", "Bearer a\x7fb", plain},
		{"40,000 bytes", "Bearer " + strings.Repeat("a", 40_000), plain},
	}
}

// spoiled are bad variants of a good token, none of which is valid.
func spoiled(token, invalid string) []text {
	parts := strings.Split(token, ".")
	last := token[len(token)-1]
	other := byte('A')
	if last == other {
		other = 'B'
	}
	return []text{
		{"another signature", parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])), invalid},
		{"another last letter", token[:len(token)-1] + string(other), invalid},
		{"one letter less", token[:len(token)-1], invalid}, {"one letter more", token + "A", invalid},
		{"padding", token + "=", invalid}, {"another header", "e30." + parts[1] + "." + parts[2], invalid},
		{"other claims", parts[0] + ".e30." + parts[2], invalid}, {"no signature", parts[0] + "." + parts[1] + ".", invalid},
		{"parts changed round", parts[1] + "." + parts[0] + "." + parts[2], invalid}, {"lower case", strings.ToLower(token), invalid},
		{"a blank before", " " + token, invalid}, {"the token twice", token + "." + token, invalid},
		{"a percent sign", strings.Replace(token, ".", "%2E", 1), invalid},
	}
}

// keys are bad values of X-API-Key.
func notKeys(good, invalid string) []text {
	return []text{
		{"empty", "", invalid}, {"another", "wr_sec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", invalid}, {"one letter less", good[:len(good)-1], invalid},
		{"one letter more", good + "A", invalid}, {"upper case", strings.ToUpper(good), invalid}, {"a prefix", good[:7], invalid},
		{"a list", good + ", " + good, invalid}, {"quotes", `"` + good + `"`, invalid}, {"a scheme", "Bearer " + good, invalid},
		{"a blank inside", good[:9] + " " + good[9:], invalid}, {"bad UTF-8", "\xff\xfe", invalid}, {"an emoji", "🔑", invalid},
		{"null", "null", invalid}, {"a wildcard", "*", invalid}, {"SQL", "' OR '1'='1", invalid}, {"3,000 bytes", strings.Repeat("k", 3000), invalid},
		{"a NUL", good + "\x00", plain}, {"a control character", "a\x02", plain}, {"40,000 bytes", strings.Repeat("k", 40_000), plain},
	}
}

// notSegments are bad spellings of a part of a path, of which good is the right one.
func notSegments(good string) []text {
	return []text{
		{"another", good + "x", ""}, {"one letter less", good[:len(good)-1], ""}, {"upper case", "SHOP.MATCH-1", ""}, {"a NUL", good + "%00", ""},
		{"a NUL before", "%00" + good, ""}, {"dots", "..", ""}, {"encoded dots", "%2e%2e", ""}, {"dots encoded twice", "%252e%252e", ""},
		{"up and down", "../" + good, ""}, {"up and down, encoded", "%2e%2e/" + good, ""}, {"up and down, wholly encoded", "..%2f" + good, ""},
		{"a slash behind", good + "/", ""}, {"an encoded slash behind", good + "%2f", ""}, {"a backslash", good + "\\", ""},
		{"an encoded backslash", good + "%5c", ""}, {"a semicolon", good + ";x=1", ""}, {"an encoded question mark", good + "%3fx", ""},
		{"an encoded number sign", good + "%23x", ""}, {"an encoded line end", good + "%0d%0aX-A:%20b", ""}, {"an encoded blank", good + "%20", ""},
		{"encoded twice", strings.Replace(good, "a", "%2561", 1) + "%25", ""}, {"bad UTF-8", good + "%ff", ""}, {"overlong UTF-8", "%c0%ae%c0%ae", ""},
		{"a dot alone", ".", ""}, {"an empty one", "/" + good, ""}, {"a wildcard", "*", ""}, {"braces", "{queue}", ""}, {"an emoji", "%F0%9F%8E%AB", ""},
		{"3,000 bytes", strings.Repeat("a", 3000), ""}, {"__proto__", "__proto__", ""},
		{"half an escape", good + "%", ""}, {"a wrong escape", good + "%zz", ""}, {"raw bad UTF-8", good + "\xff", ""},
		{"a raw NUL", good + "\x00", plain}, {"a raw control character", good + "\x01", plain}, {"a raw blank", good + " x", plain},
		{"40,000 bytes", strings.Repeat("a", 40_000), plain},
	}
}

// mediaTypes are those that are not JSON, or not surely UTF-8.
func mediaTypes(json string) []text {
	return []text{
		{"empty", "", ""}, {"text", "text/plain", ""}, {"a form", "application/x-www-form-urlencoded", ""},
		{"parts", "multipart/form-data; boundary=x", ""}, {"parts without a boundary", "multipart/form-data", ""}, {"XML", "application/xml", ""},
		{"no slash", "json", ""}, {"a longer one", json + "x", ""}, {"another JSON", "application/ld+json", ""}, {"a wildcard", "*/*", ""},
		{"a list", json + ", text/plain", ""}, {"UTF-16", json + "; charset=utf-16", ""}, {"UTF-7", json + "; charset=utf-7", ""},
		{"Latin 1", json + "; charset=iso-8859-1", ""}, {"two charsets", json + "; charset=utf-8; charset=utf-16", ""},
		{"half a parameter", json + "; charset", ""}, {"quotes", `"` + json + `"`, ""}, {"a semicolon first", ";" + json, ""},
		{"bad UTF-8", "application/\xff", ""}, {"a blank inside", strings.Replace(json, "/", "/ ", 1), ""}, {"3,000 bytes", strings.Repeat("a", 3000), ""},
		{"a NUL", json + "\x00", plain},
	}
}

// foreignOrigins are Origin headers that are not the waiting page's own.
func foreignOrigins(own string) []text {
	port := own[strings.LastIndexByte(own, ':')+1:]
	return []text{
		{"empty", "", ""}, {"null", "null", ""}, {"another host", "https://evil.example.com", ""}, {"the shop", shopOrigin, ""},
		{"a slash behind", own + "/", ""}, {"a path", own + "/wait", ""}, {"upper case", strings.ToUpper(own), ""},
		{"another scheme", strings.Replace(own, "http:", "https:", 1), ""}, {"another port", own + "1", ""}, {"no port", strings.TrimSuffix(own, ":"+port), ""},
		{"user info", strings.Replace(own, "://", "://x@", 1), ""}, {"a dot behind the host", "http://127.0.0.1.:" + port, ""},
		{"the host in another form", "http://2130706433:" + port, ""}, {"the host's name", "http://localhost:" + port, ""},
		{"a longer host", own + ".evil.example.com", ""}, {"a list", own + " " + own, ""}, {"a list with a comma", own + ", https://evil.example.com", ""},
		{"a wildcard", "*", ""}, {"bad UTF-8", own + "\xff", ""}, {"file", "file://", ""}, {"a NUL", own + "\x00", plain},
	}
}

// each makes a trick of each text.
func each(prefix, want string, list []text, change func(m message, value string) message) []trick {
	var tricks []trick
	for _, one := range list {
		if one.want == "" {
			one.want = want
		}
		tricks = append(tricks, trick{prefix + one.name, func(m message) message { return change(m, one.value) }, one.want})
	}
	return tricks
}

// but changes the answers that some tricks get.
func but(tricks []trick, want string, names ...string) []trick {
	tricks = slices.Clone(tricks)
	for _, name := range names {
		i := slices.IndexFunc(tricks, func(t trick) bool { return t.name == name })
		if i < 0 {
			panic(fmt.Sprintf("no trick %q", name))
		}
		tricks[i].want = want
	}
	return tricks
}

// except leaves tricks out that are none here.
func except(tricks []trick, names ...string) []trick {
	return slices.DeleteFunc(slices.Clone(tricks), func(t trick) bool { return slices.Contains(names, t.name) })
}

func one(name, want string, change func(message) message) trick { return trick{name, change, want} }
