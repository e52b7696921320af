package anomaly

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// auditGraph checks what holds for every layout: the graph's own properties (rule G3) and its operator counts (G2).
func auditGraph(m *onnxModel, meta *anomalyv1.ModelMetadata) error {
	graph := meta.GetGraph()
	if got := m.props["dwcp.layout"]; got != graph.GetLayout() {
		return fmt.Errorf("the graph says layout %q, the metadata %q", got, graph.GetLayout())
	}
	if got := m.props["dwcp.features"]; got != strings.Join(meta.GetFeatureNames(), ",") {
		return fmt.Errorf("the graph says features %q", got)
	}
	threshold, err := strconv.ParseFloat(m.props["dwcp.threshold"], 64)
	if err != nil || math.Float64bits(threshold) != math.Float64bits(meta.GetThreshold()) {
		return fmt.Errorf("the graph says threshold %q, the metadata %v", m.props["dwcp.threshold"], meta.GetThreshold())
	}
	counts := map[string]uint32{}
	for i := range m.nodes {
		counts[m.nodes[i].opType]++
	}
	for op, want := range graph.GetOperatorCounts() {
		if counts[op] != want {
			return fmt.Errorf("%d operators %s; the metadata says %d", counts[op], op, want)
		}
	}
	for op, got := range counts {
		if _, ok := graph.GetOperatorCounts()[op]; !ok {
			return fmt.Errorf("%d operators %s; the metadata says none", got, op)
		}
	}
	return nil
}

// scaler reads the scaler of the graph; it must be that of the metadata to the bit (rule S2).
func (m *onnxModel) scaler(meta *anomalyv1.ModelMetadata) (scaler, error) {
	s := scaler{mean: meta.GetScaler().GetMean(), scale: meta.GetScaler().GetScale()}
	if err := m.checkValues("scaler_mean", s.mean, typeFloat64); err != nil {
		return scaler{}, err
	}
	if err := m.checkValues("scaler_scale", s.scale, typeFloat64); err != nil {
		return scaler{}, err
	}
	return s, nil
}

// checkReferences demands that the graph holds the reference values of the metadata, raw and scaled (rules IF6, IF8).
func (m *onnxModel) checkReferences(s scaler, references []float64) error {
	scaled, published := s.references(references)
	raw := make([]float64, len(published))
	for j, r := range published {
		raw[j] = float64(r)
	}
	return errors.Join(
		m.checkValues("reference_scaled", scaled, typeFloat64),
		m.checkValues("reference_values", raw, typeFloat32),
	)
}

// checkValues demands that an initializer holds the values of the metadata, to the bit.
func (m *onnxModel) checkValues(name string, want []float64, elemType int64) error {
	got, err := m.values(name, elemType, len(want))
	if err != nil {
		return err
	}
	for i := range want {
		if math.Float64bits(got[i]) != math.Float64bits(want[i]) {
			return fmt.Errorf("%s[%d] is %v in the graph; the metadata says %v", name, i, got[i], want[i])
		}
	}
	return nil
}

// values reads a float initializer with the given number of elements, all finite, as float64.
func (m *onnxModel) values(name string, elemType int64, elements int) ([]float64, error) {
	t := m.initializers[name]
	if t == nil {
		return nil, fmt.Errorf("no initializer %s", name)
	}
	if t.elements != elements {
		return nil, fmt.Errorf("%s has shape %v, not %d values", name, t.dims, elements)
	}
	var values []float64
	var err error
	if elemType == typeFloat32 {
		var narrow []float32
		narrow, err = t.float32s()
		for _, v := range narrow {
			values = append(values, float64(v))
		}
	} else {
		values, err = t.float64s()
	}
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(values, func(v float64) bool { return !finite(v) }); i >= 0 {
		return nil, fmt.Errorf("%s[%d] is %v", name, i, values[i])
	}
	return values, nil
}

// valueReader reads initializers and remembers the first fault.
type valueReader struct {
	model    *onnxModel
	elemType int64
	// int8 says that weights are stored as rule Q1 says.
	int8 bool
	err  error
}

func (r *valueReader) read(name string, shape ...int) []float64 {
	if r.err != nil {
		return nil
	}
	elements := 1
	dims := make([]int64, len(shape))
	for i, d := range shape {
		elements *= d
		dims[i] = int64(d)
	}
	values, err := r.model.values(name, r.elemType, elements)
	if err == nil && !slices.Equal(r.model.initializers[name].dims, dims) {
		err = fmt.Errorf("%s has shape %v, not %v", name, r.model.initializers[name].dims, dims)
	}
	r.err = err
	return values
}

// shared reads what all graphs but a forest's have, the scaler (rule S2) and the threshold; they must be those of the metadata to the bit.
func (r *valueReader) shared(meta *anomalyv1.ModelMetadata) (scaler, float64) {
	if r.err != nil {
		return scaler{}, 0
	}
	s, err := r.model.scaler(meta)
	r.err = errors.Join(err, r.model.checkValues("threshold", []float64{meta.GetThreshold()}, typeFloat64))
	return s, meta.GetThreshold()
}
