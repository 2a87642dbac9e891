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
}
