package anomaly

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// TestParametersOfDetectors: what a detector needs is there, what belongs to another is not, values are in range. The message names
// the field.
func TestParametersOfDetectors(t *testing.T) {
	type metadata = anomalyv1.ModelMetadata
	foreign := map[string]func(*metadata){
		"n_estimators":  func(m *metadata) { m.NEstimators = proto.Uint32(0) },
		"contamination": func(m *metadata) { m.Contamination = proto.Float64(.01) },
		"timesteps":     func(m *metadata) { m.Timesteps = proto.Uint32(1) },
		"forest":        func(m *metadata) { m.Forest = &anomalyv1.ForestParameters{} },
		"lstm":          func(m *metadata) { m.Lstm = &anomalyv1.LstmParameters{} },
		"dense":         func(m *metadata) { m.Dense = &anomalyv1.DenseParameters{} },
		"neighbors":     func(m *metadata) { m.Neighbors = &anomalyv1.NeighborParameters{} },
		"svm":           func(m *metadata) { m.Svm = &anomalyv1.SvmParameters{} },
		"classifier":    func(m *metadata) { m.Classifier = &anomalyv1.ClassifierParameters{} },
		"ensemble":      func(m *metadata) { m.Ensemble = &anomalyv1.EnsembleParameters{} },
		"mahalanobis":   func(m *metadata) { m.Mahalanobis = &anomalyv1.MahalanobisParameters{} },
	}
	require.Len(t, foreign, len(parameterFields))
	require.Len(t, parameters, len(Detectors()))
	own := map[Detector]map[string]func(*metadata){
		IsolationForest: {
			"forest":        func(m *metadata) { m.Forest = nil },
			"n_estimators":  func(m *metadata) { m.NEstimators = proto.Uint32(0) },
			"contamination": func(m *metadata) { m.Contamination = nil },
		},
		LSTMAutoencoder: {
			"lstm":      func(m *metadata) { m.Lstm = nil },
			"timesteps": func(m *metadata) { m.Timesteps = nil },
			"units":     func(m *metadata) { m.Lstm.Units[2] = 0 },
		},
		DenseAutoencoder: {
			"dense":                         func(m *metadata) { m.Dense = nil },
			"dense.units has 0":             func(m *metadata) { m.Dense.Units = nil },
			"dense.units has 65":            func(m *metadata) { m.Dense.Units = make([]uint32, 65) },
			"dense.units[1] is 0":           func(m *metadata) { m.Dense.Units[1] = 0 },
			"dense.units[0] is 4097":        func(m *metadata) { m.Dense.Units[0] = 4097 },
			`dense.activation is "sigmoid"`: func(m *metadata) { m.Dense.Activation = "sigmoid" },
		},
		LocalOutlierFactor: {
			"neighbors is missing":          func(m *metadata) { m.Neighbors = nil },
			"neighbors.n_neighbors is 0 of": func(m *metadata) { m.Neighbors.NNeighbors = 0 },
			"there are 1 to as many":        func(m *metadata) { m.Neighbors.NNeighbors = m.Neighbors.Rows + 1 },
			"contamination is missing":      func(m *metadata) { m.Contamination = nil },
			"contamination is 1":            func(m *metadata) { m.Contamination = proto.Float64(1) },
			"contamination is NaN":          func(m *metadata) { m.Contamination = proto.Float64(math.NaN()) },
		},
		OneClassSVM: {
			"svm is missing":           func(m *metadata) { m.Svm = nil },
			"svm.gamma is 0":           func(m *metadata) { m.Svm.Gamma = 0 },
			"svm.gamma is NaN":         func(m *metadata) { m.Svm.Gamma = math.NaN() },
			"svm.gamma is +Inf":        func(m *metadata) { m.Svm.Gamma = math.Inf(1) },
			"svm.nu is 0":              func(m *metadata) { m.Svm.Nu = 0 },
			"svm.nu is 1.5":            func(m *metadata) { m.Svm.Nu = 1.5 },
			"svm.support_vectors is 0": func(m *metadata) { m.Svm.SupportVectors = 0 },
			"contamination is 0":       func(m *metadata) { m.Contamination = proto.Float64(0) },
		},
		LSTMClassifier: {
			"classifier is missing":           func(m *metadata) { m.Classifier = nil },
			"timesteps is missing":            func(m *metadata) { m.Timesteps = nil },
			"timesteps is 0":                  func(m *metadata) { m.Timesteps = proto.Uint32(0) },
			"timesteps is 257":                func(m *metadata) { m.Timesteps = proto.Uint32(257) },
			"classifier.units has 2 values":   func(m *metadata) { m.Classifier.Units = m.Classifier.Units[:2] },
			"classifier.units[1] is 0":        func(m *metadata) { m.Classifier.Units[1] = 0 },
			"classifier.units[2] is 4097":     func(m *metadata) { m.Classifier.Units[2] = 4097 },
			"classifier.normal_windows is 0":  func(m *metadata) { m.Classifier.NormalWindows = 0 },
			"classifier.anomalous_windows 0;": func(m *metadata) { m.Classifier.AnomalousWindows = 0 },
		},
		Mahalanobis: {
			"mahalanobis is missing":                   func(m *metadata) { m.Mahalanobis = nil },
			"timesteps is 0":                           func(m *metadata) { m.Timesteps = proto.Uint32(0) },
			"timesteps is 257":                         func(m *metadata) { m.Timesteps = proto.Uint32(257) },
			"timesteps is 1; a model of single":        func(m *metadata) { m.Timesteps = proto.Uint32(1) },
			"contamination is 0":                       func(m *metadata) { m.Contamination = proto.Float64(0) },
			"contamination is NaN":                     func(m *metadata) { m.Contamination = proto.Float64(math.NaN()) },
			"mahalanobis.ridge is -1":                  func(m *metadata) { m.Mahalanobis.Ridge = -1 },
			"mahalanobis.ridge is NaN":                 func(m *metadata) { m.Mahalanobis.Ridge = math.NaN() },
			"mahalanobis.ridge is +Inf":                func(m *metadata) { m.Mahalanobis.Ridge = math.Inf(1) },
			"mahalanobis.limit_start has 6 values":     func(m *metadata) { m.Mahalanobis.LimitStart = m.Mahalanobis.LimitStart[:6] },
			"mahalanobis.limit_slope has 0 values":     func(m *metadata) { m.Mahalanobis.LimitSlope = nil },
			"mahalanobis.limit_start[2] is NaN":        func(m *metadata) { m.Mahalanobis.LimitStart[2] = math.NaN() },
			"mahalanobis.limit_start[0] is -2e+06":     func(m *metadata) { m.Mahalanobis.LimitStart[0] = -2e6 },
			"mahalanobis.limit_slope[6] is -Inf":       func(m *metadata) { m.Mahalanobis.LimitSlope[6] = math.Inf(-1) },
			"mahalanobis.limit_slope[1] is 1.5e+06; i": func(m *metadata) { m.Mahalanobis.LimitSlope[1] = 1.5e6 },
		},
		Ensemble: ensembleFaults(),
	}
	ensemble := madeModel{detector: Ensemble, meta: openEnsemble(t).Metadata(Ensemble)}
	for _, model := range append(auditedModels(t), ensemble) {
		d := model.detector
		check := func(field string, change func(*metadata)) {
			m := proto.CloneOf(model.meta)
			change(m)
			err := checkMetadata(m, d)
			require.Error(t, err, "%s: %s", d, field)
			require.ErrorContains(t, err, field, d)
		}
		require.NoError(t, checkMetadata(model.meta, d))
		message := model.meta.ProtoReflect()
		for name, set := range foreign {
			optional := slices.Contains(parameters[d].optional, protoreflect.Name(name))
			if message.Has(message.Descriptor().Fields().ByTextName(name)) || optional {
				continue
			}
			check(name+" is set", set)
		}
		require.NotEmpty(t, own[d])
		for field, change := range own[d] {
			check(field, change)
		}
		for _, other := range Detectors() {
			if other != d {
				require.Error(t, checkMetadata(model.meta, other), "%s taken for %s", d, other)
			}
		}
	}
	svm := madeModels(t)[4]
	svm.meta.Contamination = proto.Float64(.05)
	require.NoError(t, checkMetadata(svm.meta, OneClassSVM), "an SVM may have been asked for a contamination (SV6)")
}

func TestParseDetectorNamesAll(t *testing.T) {
	_, err := ParseDetector("local_outlier")
	require.ErrorContains(t, err, `"local_outlier" is not a detector; there are isolation_forest, lstm_autoencoder, dense_autoencoder, `+
		`local_outlier_factor, one_class_svm, lstm_classifier, ensemble and mahalanobis`)
	for _, d := range Detectors() {
		require.True(t, d.known())
		require.NotEqual(t, "unspecified", d.String())
	}
	require.Len(t, Detectors(), len(anomalyv1.Detector_name)-1, "the contract has a detector that this package lacks")
	for d := range anomalyv1.Detector_name {
		require.Equal(t, d != 0, Detector(d).known())
	}
}
