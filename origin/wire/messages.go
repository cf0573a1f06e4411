// Package wire holds what edges and the origin say to each other: JSON messages over HTTP behind
// the cluster secret, and the edge's client. It carries secrets; off loopback it runs over TLS or
// not at all.
package wire

import (
	"encoding/json"
	"time"

	"waitingroom/origin/queue"
)

// The origin's endpoints for edges. All want "Authorization: Bearer <cluster secret>"; the
// batches are POSTs with a JSON body, the feed is a GET that answers with one Frame a line until
// the connection ends.
const (
	PathJoin      = "/edge/join"
	PathSightings = "/edge/sightings"
	PathClaim     = "/edge/claim"
	PathLeave     = "/edge/leave"
	PathUserKey   = "/edge/user-key"
	PathFeed      = "/edge/feed"
)

// LeastSecret is the least length of the cluster secret, in bytes.
const LeastSecret = 32

// HeartbeatEvery is how often the feed says something at the least; an edge that hears nothing
// for a few of them has lost its origin.
const HeartbeatEvery = time.Second

// Frame is one line of the feed. Exactly one of the pointers is set.
type Frame struct {
	Tenants     *Tenants     `json:"tenants,omitempty"`
	Snapshot    *Snapshot    `json:"snapshot,omitempty"`
	Entries     *Entries     `json:"entries,omitempty"`
	Removed     *Removed     `json:"removed,omitempty"`
	Revocations *Revocations `json:"revocations,omitempty"`
	Heartbeat   *Heartbeat   `json:"heartbeat,omitempty"`
}

// Tenants is the configuration that edges need: the first frame, and again at every change.
type Tenants struct {
	// Issuer is the iss of all tokens.
	Issuer string `json:"issuer"`
	// JWKS is the public key set of session tokens, as published.
	JWKS    json.RawMessage `json:"jwks"`
	Tenants []Tenant        `json:"tenants"`
}

// Tenant is one tenant's keys.
type Tenant struct {
	ID string `json:"id"`
	// TicketKeys is the secret key set of tickets, in the form that tokens.ParseKeyRing reads.
	TicketKeys json.RawMessage `json:"ticketKeys"`
	APIKeys    []APIKey        `json:"apiKeys"`
	// UserTokens says which user tokens are believed; nil where the tenant has no identity provider.
	UserTokens *UserTokens `json:"userTokens,omitempty"`
}

// UserTokens are the public keys of a tenant's identity provider, and what its tokens have to say.
type UserTokens struct {
	Issuer   string `json:"issuer"`
	Audience string `json:"audience"`
	// Keys is the key set, in the form that tokens.ParseUserKeys reads. It is absent as long as the
	// provider has not been reached by this origin.
	Keys json.RawMessage `json:"keys,omitempty"`
	// Fetched says that the keys are those that the provider publishes at the time: one that is not
	// among them may be among the next, see PathUserKey.
	Fetched bool `json:"fetched"`
}

// APIKey is what is known of an API key: never the key itself.
type APIKey struct {
	ID     string `json:"id"`
	Secret bool   `json:"secret"` // else publishable
	SHA256 string `json:"sha256"` // hex
}

// Snapshot starts or replaces what an edge knows of a queue.
type Snapshot struct {
	Queue queue.Snapshot `json:"queue"`
}

// Entries continue a queue's log.
type Entries struct {
	Queue   queue.ID      `json:"queue"`
	Entries []queue.Entry `json:"entries"`
}

// Removed says that a queue was deleted.
type Removed struct {
	Queue queue.ID `json:"queue"`
}

// Revocations continue a tenant's list of sessions that were ended early; with Reset they are
// the whole list.
type Revocations struct {
	Tenant string       `json:"tenant"`
	List   []Revocation `json:"list"`
	Cursor string       `json:"cursor"`
	Reset  bool         `json:"reset"`
}

// Revocation is a session that was ended early.
type Revocation struct {
	ID        string    `json:"id"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// Heartbeat says that all frames up to now have been sent. Before the first one of a connection
// come the snapshots of all queues: one that was told of earlier, and is not among them, is gone.
type Heartbeat struct {
	// Now is the store's time, which all answers to fans go by.
	Now time.Time `json:"now"`
	// Ready is false while the origin cannot reach the store: the state then ages.
	Ready bool `json:"ready"`
}

// JoinRequest asks for positions.
type JoinRequest struct {
	Queue queue.ID `json:"queue"`
	Edge  string   `json:"edge"`
	Seq   uint64   `json:"seq"` // counts this edge's batches of this queue, from 1
	// Floor is the highest position that the edge knows to have been issued, by the incarnation
	// FloorOf.
	Floor   uint64 `json:"floor"`
	FloorOf string `json:"floorOf"`
	// Users has one element for each join in order of arrival; "" is an anonymous fan.
	Users []string `json:"users"`
}

// JoinResponse answers it.
type JoinResponse struct {
	Incarnation string    `json:"incarnation"`
	Generation  string    `json:"generation"`
	Entry       uint64    `json:"entry"`
	Now         time.Time `json:"now"`
	Joins       []Joined  `json:"joins"`
}

// Joined is the answer to one join.
type Joined struct {
	Position  uint64    `json:"position"`
	New       bool      `json:"new"`
	ClaimBy   time.Time `json:"claimBy,omitzero"`   // an offer runs
	ExpiresAt time.Time `json:"expiresAt,omitzero"` // a session runs
}

// SightingsRequest hands in what an edge saw.
type SightingsRequest struct {
	Edge   string      `json:"edge"`
	Queues []Sightings `json:"queues"`
}

// Sightings are those of one queue; the members are those of store.SightingBatch.
type Sightings struct {
	Queue       queue.ID        `json:"queue"`
	Incarnation string          `json:"incarnation"`
	Turn        uint64          `json:"turn"`
	Positions   queue.Positions `json:"positions"`
	AsOf        uint64          `json:"asOf"`
	Complete    bool            `json:"complete"`
	Leaving     bool            `json:"leaving"`
	At          time.Time       `json:"at,omitzero"` // set with Complete
}

// SightingsResponse answers it: the queues of which nothing was taken this time and which the
// edge hands in again.
type SightingsResponse struct {
	Again []queue.ID `json:"again,omitempty"`
}

// ClaimRequest asks for the session of a ticket, which the origin checks itself.
type ClaimRequest struct {
	Ticket string `json:"ticket"`
}

// ClaimResponse answers it. Error is one of the codes below when there is no session.
type ClaimResponse struct {
	SessionToken string    `json:"sessionToken,omitempty"`
	ExpiresAt    time.Time `json:"expiresAt,omitzero"`
	Error        string    `json:"error,omitempty"`
	// Fate is set with CodeOut.
	Fate queue.Fate `json:"fate,omitzero"`
}

// LeaveRequest takes a ticket out of the line, and ends its session if one runs.
type LeaveRequest struct {
	Ticket string `json:"ticket"`
}

// UserKeyRequest asks for a key of a tenant's identity provider that the edge does not know.
type UserKeyRequest struct {
	Tenant string `json:"tenant"`
	KeyID  string `json:"keyId"`
}

// UserKeyResponse answers it. A key that is known comes over the feed.
type UserKeyResponse struct {
	Key UserKeyState `json:"key"`
	// RetrySeconds is when to ask again, for this key if it is absent or pending, and for others.
	RetrySeconds int `json:"retrySeconds"`
}

// UserKeyState is what an origin can say of a key.
type UserKeyState string

// The states of a key.
const (
	UserKeyKnown   UserKeyState = "known"
	UserKeyAbsent  UserKeyState = "absent"  // not in the set, which was fetched since the key was asked for
	UserKeyPending UserKeyState = "pending" // the set is still to be fetched
)

// Error is what counts of the body of every refused request of an edge, a problem document with a
// status of 400 or above.
type Error struct {
	Code string `json:"code"`
}

// The codes of Error and of ClaimResponse.Error.
const (
	CodeUnauthorized = "unauthorized"      // the cluster secret is wrong
	CodeBadRequest   = "bad_request"       //
	CodeBadTicket    = "invalid_ticket"    // not a valid ticket, or of an earlier incarnation
	CodeNotFound     = "queue_not_found"   //
	CodeClosed       = "queue_closed"      //
	CodeIdentity     = "identity_required" // join: users only, and somebody in the batch is anonymous; nobody of it got a position
	CodeNotYourTurn  = "not_your_turn"     // claim
	CodeTaken        = "position_taken"    // claim: the position is another's
	CodeOut          = "ticket_out"        // claim: the position is done
	CodeUnavailable  = "unavailable"       // the store cannot be reached, or is not decided: try again
)
