package origin

import (
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// The reasons for which the feed cuts an edge off, or loses it.
const (
	dropSlow     = "slow"     // its outbox was full, or a write took too long
	dropGone     = "gone"     // it closed the connection
	dropStopping = "stopping" // this origin stops
)

// metrics of one origin, in a registry of its own. None of them carries a tenant's data.
type metrics struct {
	registry *prometheus.Registry

	tickSeconds prometheus.Histogram
	leases      prometheus.Gauge
	turns       prometheus.Counter
	offers      prometheus.Counter
	lapses      prometheus.Counter
	expired     prometheus.Counter
	sessionEnds *prometheus.CounterVec // by reason

	batches      *prometheus.CounterVec // by endpoint and result
	batchSeconds *prometheus.HistogramVec
	joins        prometheus.Counter
	sightings    prometheus.Counter
	claims       *prometheus.CounterVec // by result

	feeds       prometheus.Gauge
	feedDrops   *prometheus.CounterVec // by reason
	feedFrames  *prometheus.CounterVec // by kind
	resnapshots prometheus.Counter
	behind      prometheus.Gauge
	journalLost prometheus.Counter

	providerFetches *prometheus.CounterVec // by result

	requests    *prometheus.CounterVec // by route and status
	storeErrors *prometheus.CounterVec // by what was tried
	storeUp     prometheus.Gauge
	panics      prometheus.Counter
}

func newMetrics() *metrics {
	const ns = "waitingroom_origin"
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: ns, Name: name, Help: help})
		registry.MustRegister(c)
		return c
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: ns, Name: name, Help: help}, labels)
		registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: ns, Name: name, Help: help})
		registry.MustRegister(g)
		return g
	}
	buckets := []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 3}
	m := &metrics{
		registry:        registry,
		leases:          gauge("leases", "Queues that this origin coordinates."),
		turns:           counter("turns_closed_total", "Turns closed."),
		offers:          counter("offers_total", "Offers made by ticks."),
		lapses:          counter("lapses_total", "Offers that were not claimed in time."),
		expired:         counter("expired_total", "Positions that expired by absence."),
		sessionEnds:     counters("sessions_ended_total", "Sessions that ended.", "reason"),
		batches:         counters("batches_total", "Requests of edges.", "endpoint", "result"),
		joins:           counter("joins_total", "Joins answered with a position."),
		sightings:       counter("sightings_total", "Sightings taken from edges."),
		claims:          counters("claims_total", "Claims.", "result"),
		feeds:           gauge("feeds", "Edges that read the feed."),
		feedDrops:       counters("feed_drops_total", "Feed connections that ended.", "reason"),
		feedFrames:      counters("feed_frames_total", "Frames made for the feed.", "kind"),
		resnapshots:     counter("resnapshots_total", "Snapshots read because entries were missing."),
		behind:          gauge("queues_behind", "Queues whose log could not be read the last time."),
		journalLost:     counter("journal_lost_entries_total", "Entries of logs that the journals will never know."),
		providerFetches: counters("provider_fetches_total", "Fetches of the keys of tenants' identity providers.", "result"),
		requests:        counters("requests_total", "Requests of operators and backends.", "route", "status"),
		storeErrors:     counters("store_errors_total", "Failed operations of the store.", "operation"),
		storeUp:         gauge("store_up", "1 while the store answers."),
		panics:          counter("panics_total", "Panics caught."),
		tickSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: ns, Name: "tick_seconds", Help: "Duration of a tick.", Buckets: buckets,
		}),
		batchSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: ns, Name: "batch_seconds", Help: "Duration of a request of an edge.", Buckets: buckets,
		}, []string{"endpoint"}),
	}
	registry.MustRegister(m.tickSeconds, m.batchSeconds)
	return m
}

// adminHandler serves /metrics and the profiles.
func (m *metrics) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}
