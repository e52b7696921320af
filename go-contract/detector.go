package anomaly

import (
	"strings"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// Detector is one of the detectors of the contract.
type Detector int32

// The detectors.
const (
	// IsolationForest scores one sample (rules IF1 to IF8).
	IsolationForest = Detector(anomalyv1.Detector_DETECTOR_ISOLATION_FOREST)
	// LSTMAutoencoder scores a window of samples (rules LA1 to LA8).
	LSTMAutoencoder = Detector(anomalyv1.Detector_DETECTOR_LSTM_AUTOENCODER)
)

const detectorPrefix = "DETECTOR_"

// Detectors lists every detector of the contract, in the order of the enum.
func Detectors() []Detector { return []Detector{IsolationForest, LSTMAutoencoder} }

// String is the detector's name in files, requests and on command lines, for example `isolation_forest`.
func (d Detector) String() string {
	return strings.ToLower(strings.TrimPrefix(anomalyv1.Detector(d).String(), detectorPrefix))
}

// ParseDetector is the inverse of String. A name that is not in the contract is UNKNOWN_DETECTOR.
func ParseDetector(name string) (Detector, error) {
	for _, d := range Detectors() {
		if d.String() == name {
			return d, nil
		}
	}
	return 0, refuse(CodeUnknownDetector, "detector", "%q is not a detector; there are isolation_forest and lstm_autoencoder", name)
}

func (d Detector) known() bool { return d == IsolationForest || d == LSTMAutoencoder }

// layoutSpec is what this package knows about a graph layout (rule G2).
type layoutSpec struct {
	detector Detector
	// precision is the arithmetic inside the graph.
	precision string
	// exact says whether a model of this layout may be in the EXACT class.
	exact bool
	// open audits the graph against the metadata and constructs the native scorer.
	open func(graph *onnxModel, metadata *anomalyv1.ModelMetadata) (engine, error)
}

// layouts is the registry: a detector is added by its enum value, one scorer file and one line here.
var layouts = map[string]layoutSpec{
	"forest.v1":       {IsolationForest, "float64", true, openForest},
	"lstm.v1":         {LSTMAutoencoder, "float64", true, openLSTM},
	"lstm.float32.v1": {LSTMAutoencoder, "float32", false, openLSTMFloat32},
}
