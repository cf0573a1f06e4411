package tokens

import "errors"

// ErrInvalid is wrapped by every refusal of a token that was never valid here; the text names the
// reason and never holds a part of the token. ErrExpired is wrapped when everything is right but
// the expiry has passed. ErrRevoked: ended early. ErrStale: the list of revocations is too old.
var (
	ErrInvalid = errors.New("invalid token")
	ErrExpired = errors.New("token expired")
	ErrRevoked = errors.New("session was ended")
	ErrStale   = errors.New("revocations are out of date")
)

// refusal is an error made once, so that refusing a flood of bad tokens allocates nothing. Its
// text comes from this package alone: no part of a token or key can get into it.
type refusal struct {
	kind   error
	reason string
}

func (r *refusal) Error() string { return r.kind.Error() + ": " + r.reason }
func (r *refusal) Unwrap() error { return r.kind }

func invalid(reason string) error { return &refusal{ErrInvalid, reason} }

// The reasons to refuse a token, in the order in which they are looked at.
var (
	errTooLong      = invalid("it is longer than 2048 bytes")
	errThreeParts   = invalid("it has not three parts")
	errEncoding     = invalid("a part is not canonical base64url without padding")
	errHeaderJSON   = invalid("the header is not one strict JSON object")
	errHeaderName   = invalid("the header has a member other than alg, kid and typ")
	errHeaderTwice  = invalid("the header names a member twice")
	errHeaderLacks  = invalid("the header lacks alg, kid or typ")
	errAlgorithm    = invalid("the algorithm is not the one for this kind of token")
	errType         = invalid("the type is not the one for this kind of token")
	errClaimsJSON   = invalid("the claims are not one strict JSON object")
	errClaimName    = invalid("an unknown claim")
	errClaimTwice   = invalid("a claim is named twice")
	errClaimLacks   = invalid("a claim is missing")
	errTenantKeys   = invalid("no keys of the tenant in the audience")
	errKeyID        = invalid("no usable key has this key id")
	errSignature    = invalid("the signature does not match")
	errIssuer       = invalid("another issuer")
	errAudience     = invalid("another audience")
	errID           = invalid("the id does not fit the other claims")
	errQueue        = invalid("another queue")
	errSubject      = invalid("the subject is empty or too long")
	errName         = invalid("incarnation or generation is not a name")
	errPosition     = invalid("positions begin at 1")
	errUserTooLong  = invalid("it is longer than 8192 bytes")
	errUserHeader   = invalid("the header has a member that would tell a verifier what to do")
	errUserLacks    = invalid("the header lacks alg or kid")
	errNoSuchKey    = invalid("no key has this key id, nor would one make it valid")
	errRole         = invalid("an unknown role")
	errTimes        = invalid("the times contradict each other")
	errFuture       = invalid("issued in the future")
	errNotYet       = invalid("not valid yet")
	errLife         = invalid("valid for longer than 24 hours")
	errExpiredToken = error(&refusal{ErrExpired, "its time has passed"})
)
