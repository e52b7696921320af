package anomaly

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// SchemaVersion is the version of the contract that this package implements (rule A4).
const SchemaVersion = 1

// maxTimesteps keeps a window within what a request can carry (rule W3).
const maxTimesteps = MaxSamples

// parseJSON reads a ProtoJSON file of the set into message (rules A3, A4). Where that fails the version is looked at first, because a
// newer file may well have fields that are unknown here.
func parseJSON(file string, data []byte, message proto.Message, version func() uint32) *Error {
	if protojson.Unmarshal(data, message) == nil && version() == SchemaVersion {
		return nil
	}
	proto.Reset(message)
	var head struct {
		Version json.Number `json:"schema_version"`
	}
	if json.Unmarshal(data, &head) == nil {
		if v, err := head.Version.Float64(); err == nil && v > SchemaVersion {
			return refuse(CodeSchemaFromFuture, file, "schema_version is %s; this program knows %d", head.Version, SchemaVersion)
		}
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return refuse(CodeMetadataInvalid, file, "the file starts with a byte order mark")
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: false}).Unmarshal(data, message); err != nil {
		return refuse(CodeMetadataInvalid, file, "%w", err)
	}
	if v := version(); v != SchemaVersion {
		return refuse(CodeMetadataInvalid, file, "schema_version is %d, not %d", v, SchemaVersion)
	}
	return nil
}

// parseMetadata reads and checks the metadata of a model (rules A3, P4, D2, C1, IF5).
func parseMetadata(file string, data []byte, detector Detector) (*anomalyv1.ModelMetadata, *Error) {
	m := &anomalyv1.ModelMetadata{}
	if err := parseJSON(file, data, m, m.GetSchemaVersion); err != nil {
		return nil, err
	}
	if err := checkMetadata(m, detector); err != nil {
		return nil, refuse(CodeMetadataInvalid, file, "%w", err)
	}
	return m, nil
}

// checkMetadata refuses missing values and contradictions between fields.
func checkMetadata(m *anomalyv1.ModelMetadata, detector Detector) error {
	if m.GetModelType() != detector.String() {
		return fmt.Errorf("model_type is %q; the manifest says %s", m.GetModelType(), detector)
	}
	checks := []func(*anomalyv1.ModelMetadata) error{checkFeatures, checkScaler, checkDecision, checkGraphEntry, checkDrift}
	if detector == Ensemble { // it has neither scaler nor graph of its own
		checks = []func(*anomalyv1.ModelMetadata) error{checkFeatures, checkDecision, checkNothingOfItsOwn}
	}
	for _, check := range checks {
		if err := check(m); err != nil {
			return err
		}
	}
	return checkParameters(m, detector)
}

func checkFeatures(m *anomalyv1.ModelMetadata) error {
	names := m.GetFeatureNames()
	if len(names) == 0 || int(m.GetNFeatures()) != len(names) {
		return fmt.Errorf("n_features is %d with %d feature_names", m.GetNFeatures(), len(names))
	}
	schema := m.GetFeatureSchema().GetFeatures()
	if len(schema) != len(names) {
		return fmt.Errorf("feature_schema has %d features, feature_names %d", len(schema), len(names))
	}
	seen := map[string]bool{}
	for j, name := range names {
		if name == "" || seen[name] || schema[j].GetName() != name {
			return fmt.Errorf("feature_names[%d] is %q, empty, repeated, or not that of feature_schema", j, name)
		}
		seen[name] = true
	}
	return nil
}

func checkScaler(m *anomalyv1.ModelMetadata) error {
	for name, list := range map[string][]float64{
		"scaler.mean": m.GetScaler().GetMean(), "scaler.scale": m.GetScaler().GetScale(), "reference_values": m.GetReferenceValues(),
	} {
		if len(list) != len(m.GetFeatureNames()) {
			return fmt.Errorf("%s has %d values for %d features", name, len(list), len(m.GetFeatureNames()))
		}
		for j, v := range list {
			if !finite(v) || (name == "scaler.scale" && v <= 0) {
				return fmt.Errorf("%s[%d] is %v", name, j, v)
			}
		}
	}
	return nil
}

// checkDecision checks the parity class (P4), the threshold (D2) and the calibration (C1).
func checkDecision(m *anomalyv1.ModelMetadata) error {
	switch m.GetParityClass() {
	case anomalyv1.ParityClass_PARITY_CLASS_EXACT:
		if m.Tolerance != nil {
			return fmt.Errorf("tolerance is set in the EXACT class")
		}
	case anomalyv1.ParityClass_PARITY_CLASS_TOLERANCE:
		t := m.GetTolerance()
		if !(t.GetRelativeScore() > 0 && t.GetRelativeScore() < 1) || !(t.GetGuardBand() >= 0 && t.GetGuardBand() < 1) {
			return fmt.Errorf("tolerance is missing or out of range in the TOLERANCE class")
		}
	default:
		return fmt.Errorf("parity_class is missing")
	}
	if !isMidpoint(m.GetThreshold()) {
		return fmt.Errorf("threshold %v is not the midpoint of two neighbouring float32 numbers", m.GetThreshold())
	}
	scores := m.GetCalibration().GetScores()
	if len(scores) == 0 {
		return fmt.Errorf("calibration.scores is empty")
	}
	if len(scores) > 2000 || !slices.IsSorted(scores) {
		return fmt.Errorf("calibration.scores are %d, at most 2000 are allowed, or they do not ascend", len(scores))
	}
	for i, s := range scores {
		if !finite(float64(s)) {
			return fmt.Errorf("calibration.scores[%d] is %v", i, s)
		}
	}
	return nil
}

// isMidpoint says whether t lies halfway between two neighbouring float32 numbers above 0 (rule D2).
func isMidpoint(t float64) bool {
	low := roundDown32(t)
	high := math.Nextafter32(low, float32(math.Inf(1)))
	return t > 0 && float64(high) <= math.MaxFloat32 && float64(low) != t && (float64(low)+float64(high))/2 == t
}

func checkGraphEntry(m *anomalyv1.ModelMetadata) error {
	g := m.GetGraph()
	if g == nil {
		return fmt.Errorf("graph is missing")
	}
	if !g.GetAvailable() {
		if g.GetFile() != "" || g.GetUnavailableReason() == "" {
			return fmt.Errorf("graph is not available, but has a file, or gives no reason")
		}
		return nil
	}
	if g.GetFile() == "" || g.GetUnavailableReason() != "" {
		return fmt.Errorf("graph is available, but has no file, or a reason why not")
	}
	spec, ok := layouts[g.GetLayout()]
	if !ok || spec.detector.String() != m.GetModelType() {
		return fmt.Errorf("graph.layout %q is not a layout of %s", g.GetLayout(), m.GetModelType())
	}
	if g.GetPrecision() != spec.precision {
		return fmt.Errorf("graph.precision %q is not that of layout %s", g.GetPrecision(), g.GetLayout())
	}
	if m.GetParityClass() == anomalyv1.ParityClass_PARITY_CLASS_EXACT && !spec.exact {
		return fmt.Errorf("layout %s cannot be in the EXACT class", g.GetLayout())
	}
	if len(g.GetOperatorCounts()) == 0 {
		return fmt.Errorf("graph.operator_counts is missing")
	}
	return nil
}
