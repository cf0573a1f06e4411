package hub

import "github.com/prometheus/client_golang/prometheus"

// Drop is why a connection ended.
type Drop string

// The reasons; there are no others.
const (
	DropOut       Drop = "ticket_out"     // the ticket is out, and its last event was told
	DropGone      Drop = "client_gone"    // the client closed, or its network did
	DropProtocol  Drop = "protocol_error" // what the client sent is not WebSocket
	DropUnwelcome Drop = "unwelcome_data" // binary, too long or not UTF-8
	DropSlow      Drop = "slow_reader"    // did not read for the write timeout
	DropSilent    Drop = "silent"         // answered no ping
	DropMoved     Drop = "moved"          // the edge stops, and told it to go elsewhere
	DropRefused   Drop = "ticket_refused" // the ticket is not good any more
	DropLimit     Drop = "limit"          // too many connections
	DropStopped   Drop = "stopped"        // still there when the hub ended
	DropPanic     Drop = "panic"          // its goroutine panicked
)

var drops = []Drop{
	DropOut, DropGone, DropProtocol, DropUnwelcome, DropSlow, DropSilent, DropMoved, DropRefused,
	DropLimit, DropStopped, DropPanic,
}

// Metrics are a hub's own; labels come from closed sets.
type Metrics struct {
	connections *prometheus.GaugeVec   // by kind
	opened      *prometheus.CounterVec // by kind
	drops       *prometheus.CounterVec // by reason
	events      *prometheus.CounterVec // by event
	stalls      prometheus.Counter
	panics      prometheus.Counter
}

func newMetrics() *Metrics {
	const name = "waitingroom_edge_live_"
	m := &Metrics{
		connections: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name + "connections", Help: "Live connections."}, []string{"kind"}),
		opened:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "opened_total", Help: "Live connections that were opened."}, []string{"kind"}),
		drops:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "dropped_total", Help: "Live connections that ended, by reason."}, []string{"reason"}),
		events:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "events_total", Help: "Events told."}, []string{"event"}),
		stalls:      prometheus.NewCounter(prometheus.CounterOpts{Name: name + "stalls_total", Help: "Writes that the network did not take at once."}),
		panics:      prometheus.NewCounter(prometheus.CounterOpts{Name: name + "panics_total", Help: "Panics of live connections that were caught."}),
	}
	for _, reason := range drops {
		m.drops.WithLabelValues(string(reason)) // so that each is there before its first time
	}
	for _, kind := range kinds {
		m.connections.WithLabelValues(kind)
		m.opened.WithLabelValues(kind)
	}
	return m
}

// Register makes the metrics known.
func (m *Metrics) Register(r *prometheus.Registry) {
	r.MustRegister(m.connections, m.opened, m.drops, m.events, m.stalls, m.panics)
}
