package server

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	anomaly "dwcp.internal/anomaly"
	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// driftScorer is a scorer whose forest has a drift reference: two features, uniform from 0 to 10 in training.
type driftScorer struct {
	anomaly.Scorer
	metadata map[anomaly.Detector]*anomalyv1.ModelMetadata
}

func newDriftScorer() driftScorer {
	feature := &anomalyv1.DriftFeature{Scale: 2.9, PsiCritical: []float64{.2}, WassersteinCritical: []float64{.2}}
	for edge := range 11 {
		feature.Edges = append(feature.Edges, float64(edge))
	}
	feature.Counts = []uint32{0, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 0}
	reference := &anomalyv1.DriftReference{
		Features: []*anomalyv1.DriftFeature{feature, proto.CloneOf(feature)}, Sizes: []uint32{20}, Rate: .01, PsiThreshold: .25, WassersteinThreshold: .15,
	}
	return driftScorer{metadata: map[anomaly.Detector]*anomalyv1.ModelMetadata{
		forest: {FeatureNames: []string{"a", "b"}, Drift: reference},
		lstm:   {FeatureNames: []string{"a", "b"}},
		anomaly.Ensemble: {FeatureNames: []string{"a", "b"}, Ensemble: &anomalyv1.EnsembleParameters{Members: []*anomalyv1.EnsembleMember{
			{Detector: anomalyv1.Detector_DETECTOR_LSTM_AUTOENCODER}, {Detector: anomalyv1.Detector_DETECTOR_ISOLATION_FOREST},
		}}},
	}}
}

func (s driftScorer) Metadata(d anomaly.Detector) *anomalyv1.ModelMetadata { return s.metadata[d] }

// TestRecentRows compares the ring with a plain list, whatever comes at once.
func TestRecentRows(t *testing.T) {
	reference := anomaly.DriftReferenceOf(newDriftScorer(), forest)
	require.NotNil(t, reference)
	random := rand.New(rand.NewPCG(3, 4))
	for _, window := range []int{20, 33, 500} {
		kept, given := newRecent(reference, 2, window), []float64(nil)
		for range 60 {
			stride := 2 * (1 + random.IntN(3))
			count := 1 + random.IntN(70)
			rows := make([]float64, stride*count+2)
			for i := range rows {
				rows[i] = 10 * random.Float64()
			}
			first := random.IntN(2) * 2
			if count == 1 {
				kept.add(rows[first:][:2])
			} else {
				kept.addItems(rows, first, stride, count-1)
				count--
			}
			for i := range count {
				given = append(given, rows[first+i*stride:][:2]...)
			}
			last := given[max(0, len(given)-2*window):]
			rowsKept, found := kept.compare()
			require.Equal(t, len(last)/2, rowsKept)
			if rowsKept < 20 {
				require.Nil(t, found)
				continue
			}
			want := reference.Compare(last)
			for j := range want {
				require.Equal(t, want[j].PSI, found[j].PSI)
				require.InDelta(t, want[j].Wasserstein, found[j].Wasserstein, 1e-12)
			}
		}
	}
}

// TestRecentRowsOfManyCalls loses none, and a scrape disturbs nobody.
func TestRecentRowsOfManyCalls(t *testing.T) {
	kept := newRecent(anomaly.DriftReferenceOf(newDriftScorer(), forest), 2, 100_000)
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			for range 1000 {
				kept.add([]float64{1, 2})
				kept.addItems([]float64{1, 2, 3, 4}, 0, 2, 2)
			}
			kept.compare()
		})
	}
	calls.Wait()
	rows, found := kept.compare()
	assert.Equal(t, 24_000, rows)
	assert.True(t, found[0].Drifted)
}

// TestRecentRowsAreBounded is the limit of DR6, and what keeps nothing.
func TestRecentRowsAreBounded(t *testing.T) {
	reference := anomaly.DriftReferenceOf(newDriftScorer(), forest)
	assert.Equal(t, largestRecent/500, newRecent(reference, 500, 4096).room)
	assert.Equal(t, 1, newRecent(reference, 2*largestRecent, 4096).room)
	assert.Equal(t, 4096, newRecent(reference, 2, 4096).room)
	assert.Nil(t, newRecent(reference, 2, 0))
	assert.Nil(t, newRecent(nil, 2, 4096))
	var none *recent
	none.add([]float64{1})
	none.addItems([]float64{1}, 0, 1, 1)
}

// TestDriftOfAnEnsemble is the end of DR6: it has the reference of its first member that has one.
func TestDriftOfAnEnsemble(t *testing.T) {
	scorer := newDriftScorer()
	assert.Nil(t, anomaly.DriftReferenceOf(scorer, lstm))
	assert.Nil(t, anomaly.DriftReferenceOf(scorer, anomaly.OneClassSVM))
	assert.Equal(t, anomaly.DriftReferenceOf(scorer, forest), anomaly.DriftReferenceOf(scorer, anomaly.Ensemble))
}

// TestDriftWindow is the flag: only where there are metrics, and never below 0.
func TestDriftWindow(t *testing.T) {
	assert.Equal(t, 7, Settings{Metrics: "127.0.0.1:0", DriftWindow: 7}.driftWindow())
	assert.Zero(t, Settings{DriftWindow: 7}.driftWindow())
	for _, window := range []int{-1, 1 << 31} {
		err := Settings{Listen: "127.0.0.1:0", Limits: DefaultLimits(), DriftWindow: window}.check()
		require.Error(t, err)
		assert.True(t, strings.Contains(fmt.Sprint(err), "--drift-window"), err)
	}
}

// TestOldSetsHaveNoDriftGauges is DR6 for a set that was made before there were references.
func TestOldSetsHaveNoDriftGauges(t *testing.T) {
	s := startWith(t, openReference(t), Settings{Listen: "127.0.0.1:0", Metrics: "127.0.0.1:0", DriftWindow: 4096, Limits: limits(8)}, silent())
	_, err := anomalyv1.NewScoringServiceClient(connect(t, s.Addresses[0])).Score(t.Context(), scoreRequestOf(forest, row()))
	require.NoError(t, err)
	assert.NotContains(t, metricsPage(t, s), "drift")
}

// BenchmarkRecentRow is what a call pays.
func BenchmarkRecentRow(b *testing.B) {
	kept, sample := newRecent(anomaly.DriftReferenceOf(newDriftScorer(), forest), 2, 4096), []float64{1, 2}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			kept.add(sample)
		}
	})
}
