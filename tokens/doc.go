// Package tokens holds the two tokens of the waiting room and everything that a backend needs to
// check them.
//
// A ticket proves a position in line; edges sign it with HS256 and a key per tenant. A session
// token opens the shop for one purchase window; only the origin signs it, with Ed25519, and
// any backend can check it: in Go with Validator and Gate, elsewhere with any JOSE library and
// the public keys at /.well-known/jwks.json.
//
// Two more kinds of token come from others and are only checked: operators' JWTs, and user tokens,
// with which a tenant's identity provider says who a fan is.
package tokens
