package anomaly

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

type driftVector struct {
	Name      string      `json:"name"`
	Reference int         `json:"reference"`
	Rows      [][]float64 `json:"rows"`
	Features  []struct {
		PSI                 float64 `json:"psi"`
		PSICritical         float64 `json:"psi_critical"`
		Wasserstein         float64 `json:"wasserstein"`
		WassersteinCritical float64 `json:"wasserstein_critical"`
		Drifted             bool    `json:"drifted"`
	} `json:"features"`
}

// driftVectors reads the vectors that all implementations share.
func driftVectors(t *testing.T) (cases []driftVector, references []*anomalyv1.DriftReference) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "tests", "vectors", "drift", "v1.json"))
	require.NoError(t, err)
	var file struct {
		References []json.RawMessage `json:"references"`
		Cases      []driftVector     `json:"cases"`
	}
	require.NoError(t, json.Unmarshal(data, &file))
	for _, raw := range file.References {
		reference := new(anomalyv1.DriftReference)
		require.NoError(t, protojson.Unmarshal(raw, reference))
		references = append(references, reference)
	}
	require.NotEmpty(t, file.Cases)
	return file.Cases, references
}

// TestDriftVectors is DR1 to DR5.
func TestDriftVectors(t *testing.T) {
	cases, references := driftVectors(t)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			reference := newDriftReference(references[c.Reference])
			require.GreaterOrEqual(t, len(c.Rows), reference.Least())
			found := reference.Compare(slices.Concat(c.Rows...))
			require.Len(t, found, len(c.Features))
			for j, want := range c.Features {
				near(t, want.PSI, found[j].PSI)
				near(t, want.PSICritical, found[j].PSICritical)
				near(t, want.Wasserstein, found[j].Wasserstein)
				near(t, want.WassersteinCritical, found[j].WassersteinCritical)
				assert.Equal(t, want.Drifted, found[j].Drifted)
			}
		})
	}
}

func near(t *testing.T, want, got float64) {
	t.Helper()
	if !(math.Abs(got-want) <= 1e-12*math.Abs(want)+1e-15) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestDriftOfTrainingRows is the promise of the reference: rows compared with themselves are at distance 0.
func TestDriftOfTrainingRows(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	feature := &anomalyv1.DriftFeature{Scale: 1, PsiCritical: []float64{0}, WassersteinCritical: []float64{0}}
	var rows []float64
	for range 100 {
		rows = append(rows, float64(random.IntN(10)))
	}
	for edge := range 10 {
		feature.Edges = append(feature.Edges, float64(edge))
	}
	feature.Counts = make([]uint32, 11)
	for _, x := range rows {
		feature.Counts[int(x)]++
	}
	found := newDriftReference(&anomalyv1.DriftReference{Features: []*anomalyv1.DriftFeature{feature}, Sizes: []uint32{1}}).Compare(rows)
	assert.Equal(t, []FeatureDrift{{}}, found)
}

// TestDriftMetadata refuses references that contradict themselves; the mutations of tests/mutation are the same in whole sets.
func TestDriftMetadata(t *testing.T) {
	_, references := driftVectors(t)
	good := &anomalyv1.ModelMetadata{FeatureNames: []string{"a", "b", "c", "d", "e"}, Drift: references[0]}
	require.NoError(t, checkDrift(good))
	require.NoError(t, checkDrift(&anomalyv1.ModelMetadata{FeatureNames: []string{"a"}}), "older sets have none")
	for name, change := range map[string]func(d *anomalyv1.DriftReference, f *anomalyv1.DriftFeature){
		"no features":      func(d *anomalyv1.DriftReference, _ *anomalyv1.DriftFeature) { d.Features = nil },
		"no sizes":         func(d *anomalyv1.DriftReference, _ *anomalyv1.DriftFeature) { d.Sizes = nil },
		"equal sizes":      func(d *anomalyv1.DriftReference, _ *anomalyv1.DriftFeature) { d.Sizes[1] = d.Sizes[0] },
		"rate":             func(d *anomalyv1.DriftReference, _ *anomalyv1.DriftFeature) { d.Rate = math.NaN() },
		"psi threshold":    func(d *anomalyv1.DriftReference, _ *anomalyv1.DriftFeature) { d.PsiThreshold = math.Inf(1) },
		"distance":         func(d *anomalyv1.DriftReference, _ *anomalyv1.DriftFeature) { d.WassersteinThreshold = -1 },
		"no edges":         func(_ *anomalyv1.DriftReference, f *anomalyv1.DriftFeature) { f.Edges = nil },
		"NaN edge":         func(_ *anomalyv1.DriftReference, f *anomalyv1.DriftFeature) { f.Edges[3] = math.NaN() },
		"infinite edge":    func(_ *anomalyv1.DriftReference, f *anomalyv1.DriftFeature) { f.Edges[0] = math.Inf(-1) },
		"falling edges":    func(_ *anomalyv1.DriftReference, f *anomalyv1.DriftFeature) { slices.Reverse(f.Edges) },
		"counts":           func(_ *anomalyv1.DriftReference, f *anomalyv1.DriftFeature) { f.Counts = f.Counts[1:] },
		"one row too many": func(_ *anomalyv1.DriftReference, f *anomalyv1.DriftFeature) { f.Counts[2]++ },
		"scale":            func(_ *anomalyv1.DriftReference, f *anomalyv1.DriftFeature) { f.Scale = 0 },
		"critical values":  func(_ *anomalyv1.DriftReference, f *anomalyv1.DriftFeature) { f.PsiCritical = f.PsiCritical[1:] },
		"critical value":   func(_ *anomalyv1.DriftReference, f *anomalyv1.DriftFeature) { f.WassersteinCritical[0] = math.NaN() },
	} {
		t.Run(name, func(t *testing.T) {
			bad := proto.CloneOf(good)
			change(bad.Drift, bad.GetDrift().GetFeatures()[0])
			assert.ErrorContains(t, checkDrift(bad), "drift.")
		})
	}
}
