package hub

import (
	"errors"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
)

// Drop is why a connection ended.
type Drop uint8

// The reasons; there are no others.
const (
	dropNone           Drop = iota // it goes on
	DropOut                        // the ticket is out, and its last event was told
	DropGone                       // the client closed, or its network did
	DropUnacknowledged             // its network acknowledged nothing for too long: it vanished, or reads nothing at all
	DropProtocol                   // what the client sent is not WebSocket
	DropUnwelcome                  // binary, too long or not UTF-8
	DropSlow                       // did not read for the write timeout
	DropSilent                     // answered no ping
	DropMoved                      // the edge stops, and told it to go elsewhere
	DropRefused                    // the ticket is not good any more
	DropLimit                      // too many connections
	DropStopped                    // still there when the hub ended
	DropPanic                      // its goroutine panicked
)

// dropNames are their names in the metrics.
var dropNames = [...]string{
	DropOut: "ticket_out", DropGone: "client_gone", DropUnacknowledged: "unacknowledged", DropProtocol: "protocol_error", DropUnwelcome: "unwelcome_data",
	DropSlow: "slow_reader", DropSilent: "silent", DropMoved: "moved", DropRefused: "ticket_refused",
	DropLimit: "limit", DropStopped: "stopped", DropPanic: "panic",
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
	for _, reason := range dropNames[DropOut:] {
		m.drops.WithLabelValues(reason) // so that each is there before its first time
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

func (m *Metrics) dropped(reason Drop) { m.drops.WithLabelValues(dropNames[reason]).Inc() }

// lost is why a connection ended from which reading, or to which writing, failed.
func lost(err error) Drop {
	if errors.Is(err, syscall.ETIMEDOUT) { // see setUserTimeout
		return DropUnacknowledged
	}
	return DropGone
}
