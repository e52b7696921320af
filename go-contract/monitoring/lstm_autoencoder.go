package monitoring

// Drop-in replacement for the consumer's lstm_autoencoder.go: the LSTM autoencoder of a model set (CONTRACT.md, rules LA1 to LA8),
// scored in process, or by a sidecar with the process as its fallback. It uses what isolation_forest.go defines.

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"go.uber.org/zap"

	"dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// defaultWindowSize is the window until a model is loaded.
const defaultWindowSize = 10

// LSTMAutoencoderModel scores the last vectors with an LSTM autoencoder. It is safe for concurrent use.
type LSTMAutoencoderModel struct {
	model *loadedModel
	// windowSize is the number of vectors in a window; it does not change after construction.
	windowSize int

	mu sync.Mutex
	// window are the last vectors, oldest first, at most windowSize.
	window [][]float64
}

// NewLSTMAutoencoderModel opens the model set that modelPath lies in: the path of its lstm_autoencoder.onnx, or the folder. When
// there is no such file it succeeds, and Detect says "model not trained" from the first full window on. A file that is corrupt, has
// other features or a digest that does not match is an error. logger may be nil.
func NewLSTMAutoencoderModel(modelPath string, logger *zap.Logger) (*LSTMAutoencoderModel, error) {
	model, err := loadModel(anomaly.LSTMAutoencoder, modelPath, logger)
	if err != nil {
		return nil, err
	}
	m := &LSTMAutoencoderModel{model: model, windowSize: defaultWindowSize}
	if set, _ := model.current(); set != nil {
		m.windowSize = anomaly.WindowLength(set, anomaly.LSTMAutoencoder)
	}
	return m, nil
}

// Name is lstm_autoencoder.
func (m *LSTMAutoencoderModel) Name() string { return anomaly.LSTMAutoencoder.String() }

// UseSidecar makes the model ask the sidecar at address first, within 250 ms; "" stops it. The window is sent along. The sidecar
// must have the same model set open. Without a call, the environment variable DWCP_SIDECAR_ADDRESS decides.
func (m *LSTMAutoencoderModel) UseSidecar(address string) error { return m.model.useSidecar(address) }

// Detect scores the window that ends with metrics. It gives nil until the window is full and when the window is normal, and an
// error, never nil, when it cannot be scored. A vector that is not finite is an error and does not enter the window.
func (m *LSTMAutoencoderModel) Detect(ctx context.Context, metrics *MetricVector) (*Anomaly, error) {
	if metrics == nil {
		return nil, errors.New("lstm_autoencoder: no metrics given")
	}
	values := metrics.ToSlice()
	for j, x := range values {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, fmt.Errorf("lstm_autoencoder: %w", &anomaly.Error{
				Code: anomaly.CodeNotFinite, Field: "samples[0]." + dwcpFeatures[j].GetName(), Message: fmt.Sprintf("the value is %v", x),
			})
		}
	}
	window := m.push(values)
	if window == nil {
		return nil, nil
	}
	scored, err := m.model.score(ctx, window)
	if err != nil {
		return nil, err
	}
	return scored.anomaly(metrics, map[string]interface{}{
		"mse": float64(scored.verdict.Score), "window_size": m.windowSize,
	}), nil
}

// push adds a vector and gives the window that ends with it, nil while it is not full. Vectors are never changed afterwards, so the
// window can be scored without the lock.
func (m *LSTMAutoencoderModel) push(values []float64) [][]float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.window) == m.windowSize {
		copy(m.window, m.window[1:])
		m.window = m.window[:m.windowSize-1]
	}
	m.window = append(m.window, values)
	if len(m.window) < m.windowSize {
		return nil
	}
	return append([][]float64(nil), m.window...)
}

// Train adapts the model to data in this process and uses it from now on. With a loaded network, threshold and calibration are made
// from data; without one, a reconstruction from principal components is fitted. The artifact on disk stays as it is, and data is
// neither kept nor changed. Fewer vectors than the window are an error, after which the model in use stays.
func (m *LSTMAutoencoderModel) Train(ctx context.Context, data []*MetricVector) error {
	rows, err := trainingRows(ctx, m.Name(), data, m.windowSize)
	if err != nil {
		return err
	}
	set, _ := m.model.current()
	if set != nil && set.Metadata(anomaly.LSTMAutoencoder).GetLstm() != nil {
		set, err = anomaly.Recalibrate(set, rows, anomaly.WindowOptions{})
	} else {
		schema := &anomalyv1.FeatureSchema{Name: "dwcp", Version: 1, Features: dwcpFeatures}
		set, err = anomaly.TrainWindows(schema, rows, m.windowSize, anomaly.WindowOptions{})
	}
	if err != nil {
		return fmt.Errorf("lstm_autoencoder: training: %w", err)
	}
	m.model.replace(set)
	return nil
}
