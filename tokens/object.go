package tokens

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"
)

// This file reads the one shape of JSON that tickets and session tokens are made of: a flat
// object, without white space, of a fixed set of members, each a string or an unsigned integer,
// each exactly once and in any order. Whatever it accepts, any JSON parser reads the same way.

// member is a member that must be there.
type member struct {
	name   string
	number bool // else a string
}

// value is what stands at a member: a number, or where a string's content lies in the text.
type value struct {
	from, to int
	number   uint64
	escaped  bool // the content holds escapes
	seen     bool
}

// raw is a string's content as it stands in the text, escapes and all.
func (v *value) raw(text []byte) []byte { return text[v.from:v.to] }

// in is a string's content; it shares memory with the text where no escape stands in it.
func (v *value) in(text string) string {
	if !v.escaped {
		return text[v.from:v.to]
	}
	var s string
	// The scanner has checked every escape, so this cannot fail, nor replace half a surrogate pair.
	if err := json.Unmarshal([]byte(text[v.from-1:v.to+1]), &s); err != nil {
		return ""
	}
	return s
}

// What can be said of an object.
type objectFault int

const (
	objectFine objectFault = iota
	objectMalformed
	objectUnknownName
	objectTwice
	objectLacks
)

// parseObject fills values, one for each member; it must come zeroed.
func parseObject(text []byte, members []member, values []value) objectFault {
	if len(text) < 2 || text[0] != '{' || text[len(text)-1] != '}' || !utf8.Valid(text) {
		return objectMalformed
	}
	seen := 0
	for i := 1; ; {
		var name value
		if i = scanString(text, i, &name); i < 0 || i >= len(text) || text[i] != ':' {
			return objectMalformed
		}
		i++
		which := -1
		for m := range members {
			if string(name.raw(text)) == members[m].name {
				which = m
				break
			}
		}
		if which < 0 {
			return objectUnknownName
		}
		v := &values[which]
		if v.seen {
			return objectTwice
		}
		v.seen = true
		seen++
		if members[which].number {
			i = scanNumber(text, i, v)
		} else {
			i = scanString(text, i, v)
		}
		if i < 0 || i >= len(text) {
			return objectMalformed
		}
		if text[i] == '}' && i == len(text)-1 {
			break
		}
		if text[i] != ',' {
			return objectMalformed
		}
		i++
	}
	if seen < len(members) {
		return objectLacks
	}
	return objectFine
}

// scanNumber reads an unsigned integer and returns the index after it, or -1.
func scanNumber(text []byte, i int, v *value) int {
	start := i
	var n uint64
	for ; i < len(text) && '0' <= text[i] && text[i] <= '9'; i++ {
		digit := uint64(text[i] - '0')
		if n > (1<<64-1-digit)/10 {
			return -1
		}
		n = n*10 + digit
	}
	if i == start || (text[start] == '0' && i > start+1) {
		return -1
	}
	v.number = n
	return i
}

// scanString reads a string and returns the index after it, or -1.
func scanString(text []byte, i int, v *value) int {
	if i >= len(text) || text[i] != '"' {
		return -1
	}
	i++
	v.from = i
	for i < len(text) {
		switch c := text[i]; {
		case c == '"':
			v.to = i
			return i + 1
		case c < 0x20:
			return -1
		case c == '\\':
			v.escaped = true
			if i = scanEscape(text, i); i < 0 {
				return -1
			}
		default:
			i++
		}
	}
	return -1
}

// scanEscape checks the escape at i and returns the index after it, or -1.
func scanEscape(text []byte, i int) int {
	if i+1 >= len(text) {
		return -1
	}
	switch text[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
	default:
		return -1
	}
	unit := hex4(text, i+2)
	switch {
	case unit < 0, 0xDC00 <= unit && unit <= 0xDFFF: // half a pair: parsers differ on what it means
		return -1
	case 0xD800 <= unit && unit <= 0xDBFF:
		if i+8 > len(text) || text[i+6] != '\\' || text[i+7] != 'u' {
			return -1
		}
		if low := hex4(text, i+8); low < 0xDC00 || low > 0xDFFF {
			return -1
		}
		return i + 12
	}
	return i + 6
}

func hex4(text []byte, i int) int {
	if i+4 > len(text) {
		return -1
	}
	n := 0
	for _, c := range text[i : i+4] {
		switch {
		case '0' <= c && c <= '9':
			n = n<<4 | int(c-'0')
		case 'a' <= c && c <= 'f':
			n = n<<4 | int(c-'a'+10)
		case 'A' <= c && c <= 'F':
			n = n<<4 | int(c-'A'+10)
		default:
			return -1
		}
	}
	return n
}

// appendString appends s, which is valid UTF-8, as a JSON string.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' {
			dst = append(dst, s[from:i]...)
			if c < 0x20 {
				const digits = "0123456789abcdef"
				dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			} else {
				dst = append(dst, '\\', c)
			}
			from = i + 1
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

func appendMember(dst []byte, name, s string) []byte {
	dst = append(dst, name...)
	return appendString(dst, s)
}

func appendNumber(dst []byte, name string, n uint64) []byte {
	dst = append(dst, name...)
	return strconv.AppendUint(dst, n, 10)
}
