package anomaly

import (
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// parameterFields are the fields of the metadata that not every detector has.
var parameterFields = []protoreflect.Name{
	"n_estimators", "contamination", "timesteps", "forest", "lstm", "dense", "neighbors", "svm", "classifier", "ensemble",
	"mahalanobis",
}

// parameterSpec says what the metadata of a detector hold beside what all have.
type parameterSpec struct {
	// required fields are set, optional ones may be; the other parameterFields are unset.
	required, optional []protoreflect.Name
	// check checks their values.
	check func(*anomalyv1.ModelMetadata) error
}

var parameters = map[Detector]parameterSpec{
	IsolationForest:    {required: []protoreflect.Name{"forest", "n_estimators", "contamination"}, check: checkForestParameters},
	LSTMAutoencoder:    {required: []protoreflect.Name{"lstm", "timesteps"}, check: checkLSTMParameters},
	DenseAutoencoder:   {required: []protoreflect.Name{"dense"}, check: checkDenseParameters},
	LocalOutlierFactor: {required: []protoreflect.Name{"neighbors", "contamination"}, check: checkNeighborParameters},
	// An SVM has its threshold from the solver unless a contamination was asked for (SV6).
	OneClassSVM:    {required: []protoreflect.Name{"svm"}, optional: []protoreflect.Name{"contamination"}, check: checkSVMParameters},
	LSTMClassifier: {required: []protoreflect.Name{"classifier", "timesteps"}, check: checkClassifierParameters},
	// An ensemble has a window when one of its members has (EN6).
	Ensemble: {required: []protoreflect.Name{"ensemble"}, optional: []protoreflect.Name{"timesteps"}, check: checkEnsembleParameters},
	// A Mahalanobis distance has a window or none (MD1), and a contamination where its threshold does not come from an alarm budget (MD6).
	Mahalanobis: {
		required: []protoreflect.Name{"mahalanobis"}, optional: []protoreflect.Name{"timesteps", "contamination"},
		check: checkMahalanobisParameters,
	},
}

// checkParameters refuses metadata that lack what their detector needs, or have what belongs to another one.
func checkParameters(m *anomalyv1.ModelMetadata, detector Detector) error {
	spec := parameters[detector]
	message := m.ProtoReflect()
	for _, name := range parameterFields {
		set := message.Has(message.Descriptor().Fields().ByName(name))
		required := slices.Contains(spec.required, name)
		if required && !set {
			return fmt.Errorf("%s is missing; a model of %s has it", name, detector)
		}
		if set && !required && !slices.Contains(spec.optional, name) {
			return fmt.Errorf("%s is set; a model of %s has none", name, detector)
		}
	}
	return spec.check(m)
}

// checkUnits demands layer widths of 1 to 4,096.
func checkUnits(name string, units []uint32) error {
	for i, u := range units {
		if u == 0 || u > 4096 {
			return fmt.Errorf("%s[%d] is %d; a layer has 1 to 4096 units", name, i, u)
		}
	}
	return nil
}

func checkForestParameters(m *anomalyv1.ModelMetadata) error {
	f := m.GetForest()
	if m.GetNEstimators() == 0 {
		return fmt.Errorf("n_estimators is 0")
	}
	depth, rate := f.GetDepthThreshold(), f.GetScoreRate()
	if !(depth > 0 && depth < depthLimit) || depth/depthUnit != math.Floor(depth/depthUnit) {
		return fmt.Errorf("forest.depth_threshold %v is not a multiple of 2^-40 below 2^13", depth)
	}
	if !(rate < 0) || !finite(rate) {
		return fmt.Errorf("forest.score_rate is %v", rate)
	}
	// IF5, as far as float64 can tell: the score at depth_threshold is not above the threshold, that of one unit less is.
	const slack = 1e-12
	if t := m.GetThreshold(); math.Exp2(depth*rate) > t*(1+slack) || math.Exp2((depth-depthUnit)*rate) < t*(1-slack) {
		return fmt.Errorf("forest.depth_threshold %v does not belong to threshold %v", depth, t)
	}
	return nil
}

func checkLSTMParameters(m *anomalyv1.ModelMetadata) error {
	l := m.GetLstm()
	if err := checkTimesteps(m); err != nil {
		return err
	}
	units := l.GetUnits()
	if len(units) != 4 || l.GetEncodingDim() != units[1] {
		return fmt.Errorf("lstm.units are %v with encoding_dim %d", units, l.GetEncodingDim())
	}
	return checkUnits("lstm.units", units)
}

func checkDenseParameters(m *anomalyv1.ModelMetadata) error {
	d := m.GetDense()
	if n := len(d.GetUnits()); n == 0 || n > maxDenseLayers {
		return fmt.Errorf("dense.units has %d layers; there are 1 to %d", n, maxDenseLayers)
	}
	if a := d.GetActivation(); a != activationReLU && a != activationTanh {
		return fmt.Errorf("dense.activation is %q; there are %s and %s", a, activationReLU, activationTanh)
	}
	return checkUnits("dense.units", d.GetUnits())
}

func checkNeighborParameters(m *anomalyv1.ModelMetadata) error {
	n := m.GetNeighbors()
	if k := n.GetNNeighbors(); k == 0 || k > n.GetRows() {
		return fmt.Errorf("neighbors.n_neighbors is %d of %d rows; there are 1 to as many as rows", k, n.GetRows())
	}
	return checkContamination(m)
}

func checkSVMParameters(m *anomalyv1.ModelMetadata) error {
	v := m.GetSvm()
	if g := v.GetGamma(); !(g > 0) || !finite(g) {
		return fmt.Errorf("svm.gamma is %v; it is above 0", g)
	}
	if nu := v.GetNu(); !(nu > 0 && nu <= 1) {
		return fmt.Errorf("svm.nu is %v; it is above 0 and at most 1", nu)
	}
	if v.GetSupportVectors() == 0 {
		return fmt.Errorf("svm.support_vectors is 0")
	}
	if m.Contamination == nil {
		return nil
	}
	return checkContamination(m)
}

func checkClassifierParameters(m *anomalyv1.ModelMetadata) error {
	c := m.GetClassifier()
	if err := checkTimesteps(m); err != nil {
		return err
	}
	if n := len(c.GetUnits()); n != 3 {
		return fmt.Errorf("classifier.units has %d values; there are those of lstm_1, lstm_2 and dense_1", n)
	}
	if c.GetNormalWindows() == 0 || c.GetAnomalousWindows() == 0 { // LC3
		return fmt.Errorf("classifier.normal_windows is %d and classifier.anomalous_windows %d; both classes are needed",
			c.GetNormalWindows(), c.GetAnomalousWindows())
	}
	return checkUnits("classifier.units", c.GetUnits())
}

func checkMahalanobisParameters(m *anomalyv1.ModelMetadata) error {
	p := m.GetMahalanobis()
	if m.Timesteps != nil {
		if err := checkTimesteps(m); err != nil {
			return err
		}
		if m.GetTimesteps() == 1 { // then it would have no window factor, and be a window all the same
			return fmt.Errorf("timesteps is 1; a model of single samples has none")
		}
	}
	if m.Contamination != nil {
		if err := checkContamination(m); err != nil {
			return err
		}
	}
	if r := p.GetRidge(); !(r >= 0) || !finite(r) {
		return fmt.Errorf("mahalanobis.ridge is %v; it is 0 or more", r)
	}
	for name, list := range map[string][]float64{
		"mahalanobis.limit_start": p.GetLimitStart(), "mahalanobis.limit_slope": p.GetLimitSlope(),
	} {
		if len(list) != len(m.GetFeatureNames()) {
			return fmt.Errorf("%s has %d values for %d features", name, len(list), len(m.GetFeatureNames()))
		}
		if err := checkSizes(name, list); err != nil {
			return err
		}
	}
	return nil
}

// checkTimesteps demands a window that a request can carry.
func checkTimesteps(m *anomalyv1.ModelMetadata) error {
	if t := m.GetTimesteps(); t == 0 || t > maxTimesteps {
		return fmt.Errorf("timesteps is %d; a request carries 1 to %d samples", t, maxTimesteps)
	}
	return nil
}

// checkContamination demands a share of rows.
func checkContamination(m *anomalyv1.ModelMetadata) error {
	if c := m.GetContamination(); !(c > 0 && c < 1) {
		return fmt.Errorf("contamination is %v; it is above 0 and below 1", c)
	}
	return nil
}
