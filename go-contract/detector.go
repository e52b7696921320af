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
	// DenseAutoencoder scores one sample (rules DA1 to DA6).
	DenseAutoencoder = Detector(anomalyv1.Detector_DETECTOR_DENSE_AUTOENCODER)
	// LocalOutlierFactor scores one sample (rules LF1 to LF7).
	LocalOutlierFactor = Detector(anomalyv1.Detector_DETECTOR_LOCAL_OUTLIER_FACTOR)
	// OneClassSVM scores one sample (rules SV1 to SV6).
	OneClassSVM = Detector(anomalyv1.Detector_DETECTOR_ONE_CLASS_SVM)
	// LSTMClassifier scores a window of samples, and was trained on labels (rules LC1 to LC6).
	LSTMClassifier = Detector(anomalyv1.Detector_DETECTOR_LSTM_CLASSIFIER)
	// Ensemble joins other detectors of its set (rules EN1 to EN8).
	Ensemble = Detector(anomalyv1.Detector_DETECTOR_ENSEMBLE)
	// Mahalanobis scores a window of samples, or one sample (rules MD1 to MD7).
	Mahalanobis = Detector(anomalyv1.Detector_DETECTOR_MAHALANOBIS)
)

const detectorPrefix = "DETECTOR_"

// Detectors lists every detector of the contract, in the order of the enum.
func Detectors() []Detector {
	return []Detector{
		IsolationForest, LSTMAutoencoder, DenseAutoencoder, LocalOutlierFactor, OneClassSVM, LSTMClassifier, Ensemble, Mahalanobis,
	}
}

// String is the detector's name in files, requests and on command lines, for example `isolation_forest`.
func (d Detector) String() string {
	return strings.ToLower(strings.TrimPrefix(anomalyv1.Detector(d).String(), detectorPrefix))
}

// ParseDetector is the inverse of String. A name that is not in the contract is UNKNOWN_DETECTOR.
func ParseDetector(name string) (Detector, error) {
	var names []string
	for _, d := range Detectors() {
		if d.String() == name {
			return d, nil
		}
		names = append(names, d.String())
	}
	last := len(names) - 1
	return 0, refuse(CodeUnknownDetector, "detector", "%q is not a detector; there are %s and %s",
		name, strings.Join(names[:last], ", "), names[last])
}

func (d Detector) known() bool { return d >= IsolationForest && d <= Mahalanobis }

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

// layouts is the registry: a detector is added by its enum value, one scorer file, its own metadata and one line here. An ensemble has
// no graph (ensembleLayout); ModelSet.join puts it together.
var layouts = map[string]layoutSpec{
	"forest.v1":       {IsolationForest, "float64", true, openForest},
	"lstm.v1":         {LSTMAutoencoder, "float64", true, openLSTM},
	"lstm.float32.v1": {LSTMAutoencoder, "float32", false, openLSTMFloat32},
	"lstm.int8.v1":    {LSTMAutoencoder, "int8", false, openLSTM},
	"dense.v1":        {DenseAutoencoder, "float64", true, openDense},
	"dense.int8.v1":   {DenseAutoencoder, "int8", false, openDense},
	"neighbors.v1":    {LocalOutlierFactor, "float64", true, openNeighbors},
	"svm.v1":          {OneClassSVM, "float64", true, openSVM},
	"classifier.v1":   {LSTMClassifier, "float64", true, openClassifier},
	"mahalanobis.v1":  {Mahalanobis, "float64", true, openMahalanobis},
}

// ensembleLayout is what the metadata of an ensemble say in the place of a graph (rule EN7).
const ensembleLayout = "ensemble.v1"

// ensembleLayoutOpen is that of an ensemble whose common scale has no upper end within reach (rule EN8).
const ensembleLayoutOpen = "ensemble.v2"
