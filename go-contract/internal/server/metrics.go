package server

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	anomaly "dwcp.internal/anomaly"
)

// Results of a reload, of the model set and of the certificates.
const (
	swapped   = "swapped"
	unchanged = "unchanged"
	refused   = "refused"
)

// latencyBuckets are upper bounds in seconds.
var latencyBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// pValueBuckets are upper bounds of p-values, the same in every implementation (rule M3).
var pValueBuckets = []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, .75, 1}

// metrics are the metrics of rule M1. What is counted with every call is looked up once, at start or when a set comes into use.
type metrics struct {
	registry *prometheus.Registry

	requests, scores, alarms       *prometheus.CounterVec
	refusals, reloads, refusedSets *prometheus.CounterVec
	certificateReloads             *prometheus.CounterVec
	seconds, pValues               *prometheus.HistogramVec
	methods                        map[string]*methodCounts
}

// methodCounts are the metrics of one method.
type methodCounts struct {
	name    string
	vec     *prometheus.CounterVec
	byCode  [codes.Unauthenticated + 1]atomic.Pointer[prometheus.Counter]
	seconds prometheus.Observer
}

// modelCounts are the metrics of one detector, for the features of one model set.
type modelCounts struct {
	scores  prometheus.Counter
	pValues prometheus.Observer
	// alarms, by level and by 1 + number of the top feature; 0 stands for no explanation.
	alarms map[anomaly.Level][]prometheus.Counter
}

// codeNames are the names of gRPC's status codes in capitals (rule M2).
var codeNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
	"UNAUTHENTICATED",
}

// newMetrics makes the metrics. What state gives is asked when somebody looks.
func newMetrics(state prometheus.Collector) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), methods: map[string]*methodCounts{}}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(vec)
		return vec
	}
	m.requests = counter("dwcp_requests_total", "Calls that were answered; a stream counts when it ends.", "method", "code")
	m.scores = counter("dwcp_scores_total", "Samples and windows that were scored.", "detector")
	m.alarms = counter("dwcp_alarms_total", "Scores above the threshold, by the feature that contributes most.", "detector", "level", "metric")
	m.refusals = counter("dwcp_refusals_total", "Requests and stream samples that were refused, by the contract's code.", "code")
	m.reloads = counter("dwcp_reloads_total", "Looks at a changed model folder.", "result")
	m.refusedSets = counter("dwcp_model_sets_refused_total", "Model sets that were refused, by the contract's code.", "code")
	m.certificateReloads = counter("dwcp_certificate_reloads_total", "Changed certificate files.", "result")
	m.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "dwcp_request_seconds", Help: "Time from a request to its answer; for a stream, of each request.", Buckets: latencyBuckets,
	}, []string{"method"})
	m.pValues = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "dwcp_score_p_value", Help: "P-values of scored samples and windows.", Buckets: pValueBuckets,
	}, []string{"detector"})
	m.registry.MustRegister(m.seconds, m.pValues, state)
	for _, result := range []string{swapped, unchanged, refused} {
		m.reloads.WithLabelValues(result)
	}
	for _, result := range []string{swapped, refused} {
		m.certificateReloads.WithLabelValues(result)
	}
	for _, known := range methodAt {
		counts := &methodCounts{name: known.name, vec: m.requests, seconds: m.seconds.WithLabelValues(known.name)}
		counts.counter(codes.OK)
		m.methods[known.name] = counts
	}
	return m
}

// counter is made when a code comes up for the first time.
func (c *methodCounts) counter(code codes.Code) prometheus.Counter {
	if int(code) >= len(c.byCode) {
		code = codes.Unknown
	}
	if counter := c.byCode[code].Load(); counter != nil {
		return *counter
	}
	counter := c.vec.WithLabelValues(c.name, codeNames[code])
	c.byCode[code].Store(&counter)
	return counter
}

// answered counts a call that is over.
func (c *methodCounts) answered(code codes.Code) { c.counter(code).Inc() }

// took notes how long an answer took.
func (c *methodCounts) took(begin time.Time) { c.seconds.Observe(time.Since(begin).Seconds()) }

// model gives the metrics of a detector with these features.
func (m *metrics) model(d anomaly.Detector, features []string) *modelCounts {
	c := &modelCounts{
		scores: m.scores.WithLabelValues(d.String()), pValues: m.pValues.WithLabelValues(d.String()), alarms: map[anomaly.Level][]prometheus.Counter{},
	}
	for _, level := range []anomaly.Level{anomaly.LevelWarning, anomaly.LevelCritical} {
		c.alarms[level] = append(c.alarms[level], m.alarms.WithLabelValues(d.String(), level.String(), ""))
		for _, name := range features {
			c.alarms[level] = append(c.alarms[level], m.alarms.WithLabelValues(d.String(), level.String(), name))
		}
	}
	return c
}

// verdict counts one score.
func (m *model) verdict(v *anomaly.Verdict) {
	m.counts.scores.Inc()
	m.counts.pValues.Observe(v.PValue)
	if v.IsAnomaly {
		m.alarm(v.Level, v.Contributions)
	}
}

// batch counts the scores of a batch.
func (m *model) batch(v *anomaly.BatchVerdict) {
	m.counts.scores.Add(float64(len(v.Scores)))
	for _, p := range v.PValues {
		m.counts.pValues.Observe(p)
	}
	width := len(m.features)
	for i, is := range v.IsAnomaly {
		switch {
		case !is:
		case len(v.Contributions) == 0:
			m.alarm(v.Levels[i], nil)
		default:
			m.alarm(v.Levels[i], v.Contributions[i*width:][:width])
		}
	}
}

// seen keeps the last row of each of count items of a batch to see drift by (rule DR6).
func (m *model) seen(rows []float64, layout anomaly.BatchLayout, count int) {
	width := len(m.features)
	stride := width
	if layout != anomaly.BatchSeries {
		stride *= m.window
	}
	m.recent.addItems(rows, (m.window-1)*width, stride, count)
}

// alarm counts one alarm, by the feature that contributes most.
func (m *model) alarm(level anomaly.Level, contributions []float32) {
	top, best := 0, float32(0)
	for j, c := range contributions {
		if c > best {
			best, top = c, j+1
		}
	}
	if counters := m.counts.alarms[level]; top < len(counters) {
		counters[top].Inc()
	}
}

// handler serves the page that Prometheus reads.
func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	return mux
}

// state gives the metrics that are values of the moment.
type state struct{ s *service }

func describeState(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	inFlightDesc    = describeState("dwcp_in_flight", "Unary scoring calls that are taken and not answered yet.")
	queuedDesc      = describeState("dwcp_queued", "Calls that wait for a worker; here none ever does.")
	streamsDesc     = describeState("dwcp_streams", "Open streams.")
	setDesc         = describeState("dwcp_model_set_info", "The model set in use.", "model_set_id")
	openedDesc      = describeState("dwcp_model_set_loaded_timestamp_seconds", "When the model set in use came into use.")
	writtenDesc     = describeState("dwcp_model_set_created_timestamp_seconds", "When the manifest of the model set in use was written.")
	workersDesc     = describeState("dwcp_workers", "Processes that answer.")
	restartsDesc    = describeState("dwcp_worker_restarts_total", "Processes that had to be started again.")
	driftRowsDesc   = describeState("dwcp_drift_rows", "Recent rows that are compared with the training rows.", "detector")
	driftPSIDesc    = describeState("dwcp_drift_psi", "Population stability index of recent rows.", "detector", "metric")
	driftFarDesc    = describeState("dwcp_drift_wasserstein", "Wasserstein distance of recent rows, in training standard deviations.", "detector", "metric")
	driftDesc       = describeState("dwcp_drift", "1 where recent rows have drifted from the training rows.", "detector", "metric")
	budgetDesc      = describeState("dwcp_alarm_budget_share", "Share of normal samples that may alarm as the model was trained for.", "detector")
	fleetSeriesDesc = describeState("dwcp_fleet_series", "Series that the index of the fleet lists.")
	fleetOpenDesc   = describeState("dwcp_fleet_sets_open", "Model sets that are open.")
	fleetOpenedDesc = describeState("dwcp_fleet_sets_opened_total", "Model sets that were opened.")
	fleetClosedDesc = describeState("dwcp_fleet_sets_closed_total", "Model sets that were closed.")
	certificateDesc = describeState("dwcp_certificate_expiry_timestamp_seconds", "When the certificate in use ends to be valid.")
)

// Describe is part of prometheus.Collector.
func (s state) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		inFlightDesc, queuedDesc, streamsDesc, setDesc, openedDesc, writtenDesc, workersDesc, restartsDesc, certificateDesc,
		driftRowsDesc, driftPSIDesc, driftFarDesc, driftDesc, budgetDesc, fleetSeriesDesc, fleetOpenDesc, fleetOpenedDesc, fleetClosedDesc,
	} {
		to <- d
	}
}

// Collect is part of prometheus.Collector.
func (s state) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(inFlightDesc, float64(s.s.inFlight.Load()))
	gauge(queuedDesc, 0)
	gauge(streamsDesc, float64(s.s.streams.open.Load()))
	gauge(workersDesc, 1)
	to <- prometheus.MustNewConstMetric(restartsDesc, prometheus.CounterValue, 0)
	l := s.s.live.Load()
	gauge(setDesc, 1, l.id)
	gauge(openedDesc, unixSeconds(l.opened))
	if !l.written.IsZero() {
		gauge(writtenDesc, unixSeconds(l.written))
	}
	if l.fleet != nil {
		counts := l.fleet.all.Counts()
		gauge(fleetSeriesDesc, float64(l.fleet.all.Len()))
		gauge(fleetOpenDesc, float64(counts.Open))
		to <- prometheus.MustNewConstMetric(fleetOpenedDesc, prometheus.CounterValue, float64(counts.Opened))
		to <- prometheus.MustNewConstMetric(fleetClosedDesc, prometheus.CounterValue, float64(counts.Closed))
	}
	for _, m := range l.models {
		if m == nil {
			continue
		}
		if m.budget > 0 {
			gauge(budgetDesc, m.budget, m.detector.String())
		}
		if m.recent != nil {
			m.collectDrift(gauge)
		}
	}
	if s.s.certificates != nil {
		gauge(certificateDesc, unixSeconds(s.s.certificates.expiry()))
	}
}

// collectDrift publishes what rule DR6 says.
func (m *model) collectDrift(gauge func(d *prometheus.Desc, value float64, labels ...string)) {
	name := m.detector.String()
	rows, found := m.recent.compare()
	gauge(driftRowsDesc, float64(rows), name)
	for j, f := range found {
		drifted := 0.0
		if f.Drifted {
			drifted = 1
		}
		gauge(driftPSIDesc, f.PSI, name, m.features[j])
		gauge(driftFarDesc, f.Wasserstein, name, m.features[j])
		gauge(driftDesc, drifted, name, m.features[j])
	}
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }
