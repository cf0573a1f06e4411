package edge

import (
	"net/http"
	"net/http/pprof"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are an edge's own; labels come from closed sets and never from what was sent.
type metrics struct {
	registry          *prometheus.Registry
	requests          *prometheus.CounterVec
	panics            prometheus.Counter
	joinsTurnedAway   *prometheus.CounterVec
	joinBatchSize     prometheus.Histogram
	joinRetries       prometheus.Counter
	sightings         prometheus.Counter
	userTokensRefused *prometheus.CounterVec // by reason
	sightingsDropped  *prometheus.CounterVec
	handIns           *prometheus.CounterVec
	feedEnds          *prometheus.CounterVec
	liveTurnedAway    *prometheus.CounterVec
}

// Why a live connection was refused.
const (
	liveStopping    = "stopping"    // this edge stops
	liveConnections = "connections" // there are too many
	liveUpgrades    = "upgrades"    // too many come at once
)

// turnedAwayReason is why a join was refused before it reached the origin.
type turnedAwayReason string

const (
	turnedAwayFull           turnedAwayReason = "gather_full"     // too many joins wait
	turnedAwaySlow           turnedAwayReason = "gather_slow"     // those that wait have waited too long
	turnedAwayConnections    turnedAwayReason = "connections"     // too many connections are open
	turnedAwayAddress        turnedAwayReason = "address"         // too many joins from the client's address
	turnedAwayPublishableKey turnedAwayReason = "publishable_key" // too many joins with the key
	turnedAwaySecretKey      turnedAwayReason = "secret_key"      // too many joins with the key
)

func (m *metrics) turnedAway(reason turnedAwayReason) {
	m.joinsTurnedAway.WithLabelValues(string(reason)).Inc()
}

func newMetrics(s *Server) *metrics {
	name := func(s string) string { return "waitingroom_edge_" + s }
	counter := func(what, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name(what), Help: help})
	}
	counters := func(what, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name(what), Help: help}, labels)
	}
	m := &metrics{
		registry:          prometheus.NewRegistry(),
		requests:          counters("requests_total", "Requests by route and class of status.", "route", "status"),
		panics:            counter("panics_total", "Handlers that panicked and were caught."),
		joinsTurnedAway:   counters("joins_turned_away_total", "Joins refused before they reached the origin.", "reason"),
		userTokensRefused: counters("user_tokens_refused_total", "Joins refused because of their userToken.", "reason"),
		joinBatchSize: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name("join_batch_size"), Help: "Joins sent to the origin at once.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 11),
		}),
		joinRetries:      counter("join_batch_repeats_total", "Batches of joins sent again because their outcome was unknown."),
		sightings:        counter("sightings_total", "Requests of fans in line."),
		sightingsDropped: counters("sightings_dropped_total", "Sightings that were never handed in.", "reason"),
		handIns:          counters("hand_ins_total", "Requests that hand in sightings.", "outcome"),
		liveTurnedAway:   counters("live_turned_away_total", "Live connections that were refused.", "reason"),
		feedEnds:         counters("feed_ends_total", "Connections to the feed that ended.", "reason"),
	}
	for _, reason := range []turnedAwayReason{
		turnedAwayFull, turnedAwaySlow, turnedAwayConnections, turnedAwayAddress, turnedAwayPublishableKey, turnedAwaySecretKey,
	} {
		m.joinsTurnedAway.WithLabelValues(string(reason)) // so that each is there before its first time
	}
	for _, reason := range []refusedUserReason{refusedUserNone, refusedUserInvalid, refusedUserExpired, refusedUserPending} {
		m.userTokensRefused.WithLabelValues(string(reason))
	}
	for _, reason := range []string{liveStopping, liveConnections, liveUpgrades} {
		m.liveTurnedAway.WithLabelValues(reason)
	}
	gauge := func(what, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name(what), Help: help}, value)
	}
	m.registry.MustRegister(
		m.requests, m.panics, m.joinsTurnedAway, m.joinBatchSize, m.joinRetries, m.sightings,
		m.sightingsDropped, m.userTokensRefused, m.handIns, m.feedEnds, m.liveTurnedAway,
		gauge("state_age_seconds", "Time since an origin that reaches its store was last heard.", func() float64 {
			age, _ := s.known.clock.age()
			return age.Seconds()
		}),
		gauge("queues", "Queues that this edge serves.", func() float64 {
			return float64(len(s.known.current.Load().lines))
		}),
		gauge("connections", "Open connections.", func() float64 { return float64(s.http.GetOpenConnectionsCount()) }),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// byStatus are one route's counters, by class of status, found once and not at every request.
type byStatus [6]prometheus.Counter

func (m *metrics) route(route string) *byStatus {
	var list byStatus
	for class := 1; class < len(list); class++ {
		list[class] = m.requests.WithLabelValues(route, strconv.Itoa(class)+"xx")
	}
	return &list
}

func (b *byStatus) count(status int) {
	if class := status / 100; class > 0 && class < len(b) {
		b[class].Inc()
	}
}

// adminHandler serves /metrics and /debug/pprof.
func (m *metrics) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
