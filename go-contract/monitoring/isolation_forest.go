package monitoring

// Drop-in replacement for the consumer's isolation_forest.go: the isolation forest of a model set (CONTRACT.md, rules IF1 to IF8),
// scored in process, or by a sidecar with the process as its fallback. This file and lstm_autoencoder.go go together.

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"go.uber.org/zap"

	"dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// sidecarAddressVariable, when set, makes both models ask the sidecar at that address first.
const sidecarAddressVariable = "DWCP_SIDECAR_ADDRESS"

// publicKeysVariable, when set, names PEM files of public keys, separated as in PATH: a model set that none of them has signed is an
// error (rule A8).
const publicKeysVariable = "DWCP_PUBLIC_KEYS"

var errModelNotTrained = errors.New("model not trained")

// dwcpFeatures are the metrics in the order of MetricVector.ToSlice (rules F1, F2), with their units.
var dwcpFeatures = []*anomalyv1.Feature{
	{Name: "bandwidth", Unit: "Mbps"}, {Name: "latency", Unit: "ms"}, {Name: "packet_loss", Unit: "%"}, {Name: "jitter", Unit: "ms"},
	{Name: "cpu_usage", Unit: "%"}, {Name: "memory_usage", Unit: "%"}, {Name: "error_rate", Unit: "%"},
}

// IsolationForestModel scores single vectors with an isolation forest. It is safe for concurrent use.
type IsolationForestModel struct {
	model *loadedModel
}

// NewIsolationForestModel opens the model set that modelPath lies in: the path of its isolation_forest.onnx, or the folder. When
// there is no such file it succeeds, and Detect says "model not trained". A file that is corrupt, has other features or a digest
// that does not match is an error. logger may be nil.
func NewIsolationForestModel(modelPath string, logger *zap.Logger) (*IsolationForestModel, error) {
	model, err := loadModel(anomaly.IsolationForest, modelPath, logger)
	if err != nil {
		return nil, err
	}
	return &IsolationForestModel{model: model}, nil
}

// Name is isolation_forest.
func (m *IsolationForestModel) Name() string { return anomaly.IsolationForest.String() }

// UseSidecar makes the model ask the sidecar at address first, within 250 ms; "" stops it. The sidecar must have the same model set
// open. Without a call, the environment variable DWCP_SIDECAR_ADDRESS decides.
func (m *IsolationForestModel) UseSidecar(address string) error { return m.model.useSidecar(address) }

// Detect scores one vector. It gives nil when the vector is normal, and an error, never nil, when it cannot be scored.
func (m *IsolationForestModel) Detect(ctx context.Context, metrics *MetricVector) (*Anomaly, error) {
	if metrics == nil {
		return nil, errors.New("isolation_forest: no metrics given")
	}
	scored, err := m.model.score(ctx, [][]float64{metrics.ToSlice()})
	if err != nil {
		return nil, err
	}
	return scored.anomaly(metrics, map[string]interface{}{"trees": int(scored.metadata.GetNEstimators())}), nil
}

// Train fits a forest on data in this process and uses it from now on. The artifact on disk stays as it is, and data is neither
// kept nor changed. No data is an error, after which the model in use stays.
func (m *IsolationForestModel) Train(ctx context.Context, data []*MetricVector) error {
	rows, err := trainingRows(ctx, m.Name(), data, 1)
	if err != nil {
		return err
	}
	set, err := anomaly.TrainForest(&anomalyv1.FeatureSchema{Name: "dwcp", Version: 1, Features: dwcpFeatures}, rows, anomaly.ForestOptions{})
	if err != nil {
		return fmt.Errorf("isolation_forest: training: %w", err)
	}
	m.model.replace(set)
	return nil
}

// loadedModel is what both models share: a detector of an open model set, and perhaps a sidecar.
type loadedModel struct {
	detector anomaly.Detector
	logger   *zap.Logger

	mu sync.RWMutex
	// set is nil until a model has been loaded or trained.
	set *anomaly.ModelSet
	// sidecar is nil when none is used. It cannot know a model that was trained in this process.
	sidecar *anomaly.Fallback
	// sidecarDown keeps the log to one line per change.
	sidecarDown bool
}

// loadModel opens the model set that a path lies in.
func loadModel(detector anomaly.Detector, path string, logger *zap.Logger) (*loadedModel, error) {
	if logger == nil {
		logger = zap.NewNop()
	}
	m := &loadedModel{detector: detector, logger: logger.With(zap.String("detector", detector.String()))}
	info, err := os.Stat(path)
	if err != nil {
		if _, linkErr := os.Lstat(path); errors.Is(err, fs.ErrNotExist) && linkErr != nil {
			m.logger.Info("no model file, waiting for Train", zap.String("path", path))
			return m, nil
		}
		// There is something, for example a link to nowhere, that cannot be read.
		return nil, fmt.Errorf("%s: %w", detector, err)
	}
	folder := path
	if !info.IsDir() {
		folder = filepath.Dir(path)
	} else if _, err := os.Lstat(filepath.Join(path, anomaly.ManifestFile)); errors.Is(err, fs.ErrNotExist) {
		m.logger.Info("no model set in the folder, waiting for Train", zap.String("path", path))
		return m, nil
	}
	var options []anomaly.Option
	if files := os.Getenv(publicKeysVariable); files != "" {
		keys, err := anomaly.ReadPublicKeys(filepath.SplitList(files)...)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", detector, publicKeysVariable, err)
		}
		options = append(options, anomaly.WithPublicKeys(keys...))
	}
	set, err := anomaly.OpenModelSet(folder, options...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", detector, err)
	}
	if err := m.checkModel(set, path, info.IsDir()); err != nil {
		return nil, err
	}
	m.set = set
	return m, m.useSidecar(os.Getenv(sidecarAddressVariable))
}

// checkModel refuses a set without this detector, with other features, or with another graph than the path says.
func (m *loadedModel) checkModel(set *anomaly.ModelSet, path string, isFolder bool) error {
	meta := set.Metadata(m.detector)
	if meta == nil {
		return fmt.Errorf("%s: the model set in %s has no graph of this detector", m.detector, path)
	}
	if !isFolder && filepath.Base(path) != meta.GetGraph().GetFile() {
		return fmt.Errorf("%s: %s is not the graph of this detector; the model set says %s", m.detector, path, meta.GetGraph().GetFile())
	}
	if !slices.EqualFunc(meta.GetFeatureNames(), dwcpFeatures, func(name string, f *anomalyv1.Feature) bool { return name == f.GetName() }) {
		return fmt.Errorf("%s: the model in %s has the features %v, not those of MetricVector", m.detector, path, meta.GetFeatureNames())
	}
	return nil
}

func (m *loadedModel) useSidecar(address string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var next *anomaly.Fallback
	if address != "" && m.set != nil && m.set.ID() != anomaly.InProcess {
		var err error
		if next, err = anomaly.NewFallback(m.set, address); err != nil {
			return fmt.Errorf("%s: sidecar: %w", m.detector, err)
		}
	}
	m.closeSidecar()
	m.sidecar = next
	return nil
}

func (m *loadedModel) closeSidecar() {
	if m.sidecar == nil {
		return
	}
	if err := m.sidecar.Close(); err != nil {
		m.logger.Warn("closing the connection to the sidecar", zap.Error(err))
	}
	m.sidecar = nil
}

// replace puts a model that was trained in this process in the place of the loaded one.
func (m *loadedModel) replace(set *anomaly.ModelSet) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closeSidecar()
	m.set = set
}

func (m *loadedModel) current() (*anomaly.ModelSet, *anomaly.Fallback) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.set, m.sidecar
}

// scoredWindow is a verdict and where it comes from.
type scoredWindow struct {
	verdict  anomaly.Verdict
	metadata *anomalyv1.ModelMetadata
	detector anomaly.Detector
	setID    string
	source   string
	// fallback is why the sidecar did not answer, nil when it did or when there is none.
	fallback error
}

// score scores samples with the sidecar, or else in this process.
func (m *loadedModel) score(ctx context.Context, samples [][]float64) (*scoredWindow, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", m.detector, err)
	}
	set, sidecar := m.current()
	if set == nil {
		return nil, errModelNotTrained
	}
	s := &scoredWindow{metadata: set.Metadata(m.detector), detector: m.detector, setID: set.ID(), source: "native"}
	request := anomaly.Request{Detector: m.detector, Samples: samples}
	var err error
	if sidecar == nil {
		err = set.Score(ctx, request, &s.verdict)
	} else {
		s.source = "sidecar"
		if s.fallback, err = sidecar.Score(ctx, request, &s.verdict); s.fallback != nil {
			s.source = "native"
		}
		m.reportSidecar(s.fallback)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.detector, err)
	}
	return s, nil
}

// reportSidecar logs when the sidecar goes or comes back.
func (m *loadedModel) reportSidecar(failure error) {
	m.mu.Lock()
	changed := m.sidecarDown != (failure != nil)
	m.sidecarDown = failure != nil
	m.mu.Unlock()
	switch {
	case changed && failure != nil:
		m.logger.Warn("the sidecar failed, scoring in process", zap.Error(failure))
	case changed:
		m.logger.Info("the sidecar answers again")
	}
}

// anomaly turns a verdict on metrics into the consumer's alarm, nil when it is normal. extra are further keys of Context.
func (s *scoredWindow) anomaly(metrics *MetricVector, extra map[string]interface{}) *Anomaly {
	v := &s.verdict
	if !v.IsAnomaly {
		return nil
	}
	names, values := s.metadata.GetFeatureNames(), metrics.ToSlice()
	top := max(slices.Index(names, v.TopFeature), 0)
	contributions := make(map[string]float64, len(names))
	for j, c := range v.Contributions {
		contributions[names[j]] = float64(c)
	}
	expected := 0.0
	if top < len(v.Expected) {
		expected = float64(v.Expected[top])
	}
	details := map[string]interface{}{
		"score": float64(v.Score), "threshold": v.Threshold, "p_value": v.PValue, "calibrated_confidence": 1 - v.PValue,
		"level": v.Level.String(), "contributions": contributions, "model_set_id": s.setID, "backend": s.source,
	}
	if s.fallback != nil {
		details["sidecar_error"] = s.fallback.Error()
	}
	for key, value := range extra {
		details[key] = value
	}
	// The ensemble downstream counts an alarm in full only at 1.0; how sure it is stands in Context.
	const confidence = 1.0
	deviation := math.Abs(values[top] - expected)
	return &Anomaly{
		Timestamp: metrics.Timestamp, MetricName: names[top], Value: values[top], Expected: expected, Deviation: deviation,
		Severity: calculateSeverity(confidence, percentOf(deviation, expected)), Confidence: confidence, ModelType: s.detector.String(),
		Description: fmt.Sprintf("%s: %s is %.4g, expected %.4g (score %.4f above %.4f, p = %.3g)",
			s.detector, names[top], values[top], expected, v.Score, v.Threshold, v.PValue),
		Context: details,
	}
}

// percentOf gives deviation as percent of expected, always finite: any deviation from an expected 0 counts as 100 %.
func percentOf(deviation, expected float64) float64 {
	switch {
	case deviation == 0:
		return 0
	case expected == 0:
		return 100
	}
	return math.Min(deviation/math.Abs(expected)*100, math.MaxFloat64)
}

// trainingRows copies the values of data; fewer than least rows are an error.
func trainingRows(ctx context.Context, name string, data []*MetricVector, least int) ([][]float64, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: training: %w", name, err)
	}
	if len(data) < least {
		return nil, fmt.Errorf("%s: training: %d vectors are not enough, at least %d are needed", name, len(data), least)
	}
	rows := make([][]float64, len(data))
	for i, vector := range data {
		if vector == nil {
			return nil, fmt.Errorf("%s: training: vector %d is nil", name, i)
		}
		rows[i] = vector.ToSlice()
	}
	return rows, nil
}
