package edge

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"waitingroom/origin/queue"
	"waitingroom/origin/wire"
	"waitingroom/tokens"
)

// benchHandler drives the handler without a socket: prepare makes the n-th request.
func benchHandler(b *testing.B, s *Server, n int, prepare func(i int, r *fasthttp.Request), want int) {
	b.Helper()
	requests := make([]fasthttp.Request, n)
	for i := range requests {
		requests[i].Header.SetHost("wait.example")
		prepare(i, &requests[i])
	}
	b.ReportAllocs()
	b.ResetTimer()
	var ctx fasthttp.RequestCtx
	var address net.Addr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	for i := range b.N {
		ctx.Init(&requests[i%n], address, nil)
		requests[i%n].CopyTo(&ctx.Request)
		s.http.Handler(&ctx)
		if got := ctx.Response.StatusCode(); got != want {
			b.Fatalf("got %d %s, want %d", got, ctx.Response.Body(), want)
		}
		ctx.Response.Reset()
		ctx.ResetUserValues()
	}
}

func benchEdge(b *testing.B) (*edgeUnderTest, *scripted) {
	o := newScripted(b)
	e := startEdge(b, o, func(c *Config) {
		// At work, but out of reach.
		c.Limits.JoinsPerPublishableKey = JoinRate{PerSecond: 1_000_000, Burst: 10_000_000}
		c.Limits.LiveUpgradesPerSecond = 1_000_000
	})
	curve := queue.Curve{}
	for i := range 30 {
		curve.Ahead, curve.P50, curve.P90 = append(curve.Ahead, uint64(i)*4000), append(curve.P50, i*100), append(curve.P90, i*120)
	}
	o.log("acme.sale", queue.Entry{Kind: queue.EntryJoined, Issued: 100_000}, queue.Entry{Kind: queue.EntryEstimate, Estimate: &queue.Estimate{Curve: curve}})
	e.applied("acme.sale")
	return e, o
}

func benchPoll(b *testing.B, remembered bool) {
	e, o := benchEdge(b)
	const tickets = 10_000
	if !remembered {
		k := e.known.current.Load()
		small, err := newRemembered[*ticket](1)
		if err != nil {
			b.Fatal(err)
		}
		k.keys.knownTickets = small
	}
	benchHandler(b, e.Server, tickets, func(i int, r *fasthttp.Request) {
		token, id := o.ticketAt(b, uint64(i+1))
		r.SetRequestURI("/tickets/" + id)
		r.Header.Set("Authorization", "Bearer "+token)
	}, 200)
}

func BenchmarkPoll(b *testing.B)      { benchPoll(b, true) }
func BenchmarkFirstPoll(b *testing.B) { benchPoll(b, false) }

func BenchmarkAccess(b *testing.B) {
	e, o := benchEdge(b)
	benchHandler(b, e.Server, 1000, func(i int, r *fasthttp.Request) {
		r.SetRequestURI("/access?queue=acme.sale")
		r.Header.Set("Authorization", "Bearer "+o.session(b, func(s *tokens.Session) { s.ID = fmt.Sprintf("acme.sale~%d", i) }))
	}, 200)
}

// BenchmarkJoin leaves out the origin's part and its round trip.
func BenchmarkJoin(b *testing.B) {
	e, o := benchEdge(b)
	o.join = func(_ context.Context, r wire.JoinRequest) (wire.JoinResponse, error) {
		answer := wire.JoinResponse{Incarnation: "inc1", Generation: "gen1", Joins: make([]wire.Joined, len(r.Users))}
		for i := range answer.Joins {
			answer.Joins[i] = wire.Joined{Position: 100_001 + uint64(i), New: true}
		}
		return answer, nil
	}
	benchHandler(b, e.Server, 1, func(_ int, r *fasthttp.Request) {
		r.SetRequestURI("/queues/acme.sale/tickets")
		r.Header.SetMethod("POST")
		r.Header.SetContentType("application/json")
		r.Header.Set("X-API-Key", o.apiKeys["acme publishable"])
		r.SetBodyString("{}")
	}, 201)
}

func BenchmarkStatusDocument(b *testing.B) {
	ahead := uint64(4711)
	s := queue.Status{
		State: queue.TicketWaiting, QueueState: queue.Open, Position: 5000, Ahead: &ahead,
		HeldUntil: time.Now().UTC(), PollAfterSeconds: 20, Now: time.Now().UTC(), Seq: "generation.123",
	}
	b.ReportAllocs()
	var buf []byte
	for b.Loop() {
		buf = appendStatus(buf[:0], &s)
	}
}
