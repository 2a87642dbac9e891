package node

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"lockstep/mirror"
)

// latencyBuckets, in seconds, are narrow where a disk or a metropolitan line answers.
var latencyBuckets = []float64{
	25e-6, 50e-6, 75e-6, 100e-6, 150e-6, 200e-6, 300e-6, 500e-6, 750e-6, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3, 7.5e-3,
	10e-3, 15e-3, 20e-3, 30e-3, 50e-3, 75e-3, 100e-3, 200e-3, 500e-3, 1, 2, 5, 10,
}

// metrics are what Prometheus is told.
type metrics struct {
	registry *prometheus.Registry
	latency  *prometheus.HistogramVec
	failed   *prometheus.CounterVec
	writes   *writeParts
}

// writeParts say where the time of writes goes, at the node that leads.
type writeParts struct {
	local, wire, remote, total *prometheus.HistogramVec
}

func newWriteParts() *writeParts {
	part := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "lockstep_write_" + name + "_seconds", Buckets: latencyBuckets,
			Help: help + " At the node that leads; a sample of at most 100 writes a second.",
		}, labels)
	}
	return &writeParts{
		local:  part("local", "Until the primary's own copy had a write.", "volume"),
		wire:   part("wire", "What of a replica's acknowledgement was the way there and back.", "volume", "node"),
		remote: part("remote", "What of it was the replica itself, and waiting in between.", "volume", "node"),
		total:  part("total", "Until a write was complete: every copy in sync had it.", "volume"),
	}
}

func (w *writeParts) all() []*prometheus.HistogramVec {
	return []*prometheus.HistogramVec{w.local, w.wire, w.remote, w.total}
}

func newMetrics(n *node) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "lockstep_request_seconds", Buckets: latencyBuckets,
			Help: "How long requests of this node's NBD clients took, whichever node is primary; failed ones are not counted.",
		}, []string{"volume", "op"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lockstep_requests_failed_total", Help: "Requests of this node's NBD clients that ended with an error.",
		}, []string{"volume", "op"}),
		writes: newWriteParts(),
	}
	for _, part := range m.writes.all() {
		m.registry.MustRegister(part)
	}
	m.registry.MustRegister(m.latency, m.failed, &gauges{n: n}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

var opKinds = []mirror.OpKind{mirror.Read, mirror.Write, mirror.Zero, mirror.Flush}

// observer returns what counts a volume's requests. It costs no look-up each.
func (m *metrics) observer(volume string) func(mirror.OpKind, error, time.Duration) {
	var latency [4]prometheus.Observer
	var failed [4]prometheus.Counter
	for _, kind := range opKinds {
		latency[kind] = m.latency.WithLabelValues(volume, kind.String())
		failed[kind] = m.failed.WithLabelValues(volume, kind.String())
	}
	return func(kind mirror.OpKind, err error, took time.Duration) {
		if err != nil {
			failed[kind].Inc()
			return
		}
		latency[kind].Observe(took.Seconds())
	}
}

// forget drops what was counted of a volume that is deleted.
func (m *metrics) forget(volume string) {
	labels := prometheus.Labels{"volume": volume}
	m.latency.DeletePartialMatch(labels)
	m.failed.DeletePartialMatch(labels)
	for _, part := range m.writes.all() {
		part.DeletePartialMatch(labels)
	}
}
