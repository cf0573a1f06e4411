package tokens

import (
	"bytes"
	"encoding/base64"
)

// maxToken bounds every token of our own that is looked at, in bytes.
const maxToken = 2048

// encoding is base64url without padding that refuses spare bits; see decodePart for the rest.
var encoding = base64.RawURLEncoding.Strict()

// parts are the three parts of a token in compact serialization (RFC 7515, section 3.1), as they
// stand in it; signed is what the signature covers.
type parts struct {
	header, payload, signature []byte
	signed                     []byte
}

// split takes a token apart by its dots and checks nothing else.
func split(token []byte) (parts, error) {
	if len(token) > maxToken {
		return parts{}, errTooLong
	}
	return cut(token)
}

// cut does that with a token of any length.
func cut(token []byte) (parts, error) {
	first := bytes.IndexByte(token, '.')
	last := bytes.LastIndexByte(token, '.')
	if first <= 0 || last <= first+1 || last == len(token)-1 || bytes.IndexByte(token[first+1:last], '.') >= 0 {
		return parts{}, errThreeParts
	}
	return parts{token[:first], token[first+1 : last], token[last+1:], token[:last]}, nil
}

// decodePart appends the bytes that a part encodes to dst. Exactly one text is accepted for any
// bytes. The decoder alone would skip line ends.
func decodePart(dst, part []byte) ([]byte, error) {
	if bytes.IndexByte(part, '\n') >= 0 || bytes.IndexByte(part, '\r') >= 0 {
		return nil, errEncoding
	}
	dst, err := encoding.AppendDecode(dst, part)
	if err != nil {
		return nil, errEncoding
	}
	return dst, nil
}

// header is what stands in a header: nothing else may.
type header struct {
	algorithm, keyID, kind []byte // point into the decoded header
}

var headerMembers = []member{{name: "alg"}, {name: "kid"}, {name: "typ"}}

// parseHeader reads a decoded header. crit, jku, x5u, jwk and all else that could tell a verifier
// what to do is refused by not being alg, kid or typ.
func parseHeader(text []byte) (header, error) {
	var values [3]value
	switch parseObject(text, headerMembers, values[:]) {
	case objectFine:
	case objectUnknownName:
		return header{}, errHeaderName
	case objectTwice:
		return header{}, errHeaderTwice
	case objectLacks:
		return header{}, errHeaderLacks
	default:
		return header{}, errHeaderJSON
	}
	for i := range values {
		if values[i].escaped {
			return header{}, errHeaderJSON
		}
	}
	return header{values[0].raw(text), values[1].raw(text), values[2].raw(text)}, nil
}

// expect refuses a header of another algorithm or type.
func (h header) expect(algorithm, kind string) error {
	if string(h.algorithm) != algorithm {
		return errAlgorithm
	}
	if string(h.kind) != kind {
		return errType
	}
	return nil
}

func parseClaims(text []byte, members []member, values []value) error {
	switch parseObject(text, members, values) {
	case objectFine:
		return nil
	case objectUnknownName:
		return errClaimName
	case objectTwice:
		return errClaimTwice
	case objectLacks:
		return errClaimLacks
	default:
		return errClaimsJSON
	}
}
