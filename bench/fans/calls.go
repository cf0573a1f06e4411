package fans

import "time"

// Kind is how a fan watches.
type Kind string

// The kinds of live connections; Mixed is every other fan by each.
const (
	WebSocket Kind = "WebSocket"
	Events    Kind = "events" // Server-Sent Events
	Mixed     Kind = "mixed"
)

// Config is what a crowd is told at its beginning.
type Config struct {
	// Edges are the addresses of the edges that hold live connections; Home is the one by which the
	// crowd watches as long as it lives. Door is the address of the edge by which it joins.
	Edges []string
	Home  int
	Door  string
	// Origin is where the shop ends sessions that were used.
	Origin string
	Queue  string
	// AppKey is the app's publishable API key, ShopKey the shop's secret one.
	AppKey, ShopKey string
	// Source is the address of this machine from which all connections come.
	Source string
	// Claim is how long an offer runs, by which the moment of the tick is told from claimBy.
	Claim time.Duration
	Seed  uint64
}

// Behaviour is what fans do who are let in. Without a call that sets it they only watch.
type Behaviour struct {
	// Claims is the share of offers that are claimed; the others are let pass.
	Claims float64
	// Buys is the share of sessions in which the fan buys, upon which the shop ends the session. The
	// others run out.
	Buys float64
	// Think is how long a fan takes to claim, Shop to buy; half as long to half as long again.
	Think, Shop time.Duration
	// Renews says that a new fan joins for each whose ticket is out of the line.
	Renews bool
}

// Connect is how fans begin to watch.
type Connect struct {
	Kind      Kind
	PerSecond int
	// Bad says that they read badly once they have read their first status: half of them a few bytes
	// a second, the other half nothing at all.
	Bad bool
}

// Report is what happened since the report before it, where it is not said to be as of now.
type Report struct {
	Fans int // as of now, also those who are out
	// WebSockets and Streams are the live connections as of now on which a status has come.
	WebSockets, Streams int
	// Pausing fans wait to come back, as of now; Out are done.
	Pausing, Out int
	// Waiting, Admitted and Active fans as of now, by what they were told last.
	Waiting, Admitted, Active int

	// Statuses were told, Signs are pings and comments, Bytes all that was read.
	Statuses, Signs, Bytes uint64
	// Offered counts who was told of an offer, at joining or later; OfferedLive of them those who were
	// told by an event. Ticks are these by the moment of the tick, in milliseconds since 1970.
	Offered, OfferedLive int
	Ticks                map[int64]int
	// Closed counts who was told that the queue has closed.
	Closed int
	// Claimed and Bought count what the shop saw; Passed are offers that were let pass on purpose;
	// Late are claims that found no offer any more.
	Claimed, Bought, Passed, Late int
	// Ended counts connections that ended though the ticket was not out, by how: the code of a
	// WebSocket, or what happened.
	Ended map[string]int
	// Refused counts connections that an edge refused with 503.
	Refused int
	// Back are the moments at which fans had a status again after their connection had ended, in
	// microseconds since 1970.
	Back []int64
	// Older counts statuses after coming back that were older than what the fan knew, and were
	// ignored.
	Older int
	// Wrong counts what must never be, and Samples tells the first of it.
	Wrong   int
	Samples []string

	// Told is the time from an event's rendering to its being read, of all events but the first on a
	// connection; that of bad readers does not count. Offers is the time from the tick that made an
	// offer until the fan had read of it. Closing is that from the announced moment until the fan had
	// read that the queue has closed. HDR histograms in microseconds, encoded (V2).
	Told, Offers, Closing []byte
}

// Connected is how many live connections there are.
func (r *Report) Connected() int { return r.WebSockets + r.Streams }
