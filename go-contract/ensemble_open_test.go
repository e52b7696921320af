package anomaly

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
	"dwcp.internal/anomaly/internal/testsets"
)

var openedOpenEnsemble = sync.OnceValues(func() (*ModelSet, error) { return openWritten(testsets.WriteOpenEnsemble) })

// openOpenEnsemble gives the set of openEnsemble with the common scale of EN8.
func openOpenEnsemble(tb testing.TB) *ModelSet {
	tb.Helper()
	set, err := openedOpenEnsemble()
	require.NoError(tb, err)
	return set
}

func TestOpenEnsembleEqualsThePlainFormula(t *testing.T) {
	set, closed := openOpenEnsemble(t), openEnsemble(t)
	meta, levels := set.Metadata(Ensemble), map[Level]int{}
	require.Equal(t, "ensemble.v2", meta.GetGraph().GetLayout())
	apart := 0
	var got, other Verdict
	for i, samples := range ensembleWindows(t) {
		want := plainEnsemble(t, meta, set, samples)
		levels[want.Level]++
		for _, explain := range []Explain{ExplainAlways, ExplainAlarms, ExplainNever} {
			require.NoError(t, set.Score(t.Context(), Request{Detector: Ensemble, Samples: samples, Explain: explain}, &got))
			if !explain.wanted(want.IsAnomaly) {
				want.Contributions, want.Expected, want.TopFeature = got.Contributions[:0], got.Expected[:0], ""
			}
			require.Equal(t, want, got, "window %d", i)
		}
		require.NoError(t, closed.Score(t.Context(), Request{Detector: Ensemble, Samples: samples}, &other))
		for k := range got.Members { // the scales meet at 0 and at the threshold, and nowhere else
			require.Equal(t, other.Members[k].Normalized > 0, got.Members[k].Normalized > 0)
			if got.Members[k].Normalized != other.Members[k].Normalized {
				apart++
			}
		}
	}
	require.Len(t, levels, 3, "windows of every level (EN5)")
	require.Positive(t, apart)
}

func TestOpenEnsembleBatchEqualsSingle(t *testing.T) {
	set := openOpenEnsemble(t)
	windows := ensembleWindows(t)[:60]
	var rows []float64
	for _, samples := range windows {
		rows = append(rows, slices.Concat(samples[len(samples)-10:]...)...)
	}
	var batch BatchVerdict
	require.NoError(t, set.ScoreBatch(t.Context(), BatchRequest{Detector: Ensemble, Rows: rows, Explain: ExplainAlways}, &batch))
	var one, item Verdict
	for i, samples := range windows {
		require.NoError(t, set.Score(t.Context(), Request{Detector: Ensemble, Samples: samples, Explain: ExplainAlways}, &one))
		batch.Item(i, 7, &item)
		one.Members, one.TopFeature, item.Members = nil, "", nil
		require.Equal(t, one, item)
	}
	requireNoAllocations(t, set, Request{Detector: Ensemble, Samples: repeat(plainRow, 10), Explain: ExplainAlways})
}

// TestOpenScale: 0 up to the median, 0.3 at the threshold, and from there on more for more, without reaching 1 (EN8).
func TestOpenScale(t *testing.T) {
	m := ensembleMember{low: .5, threshold: .8125, open: true}
	for score, u := range map[float32]float64{.5: 0, .25: 0, 0: 0, .8125: 1, 1.125: 2, 2.375: 6} {
		require.Equal(t, u/(u+7./3), m.normalize(score), score)
	}
	require.InDelta(t, .3, m.normalize(.8125), 1e-16)

	last, saturated := 0.0, 0
	for score := float32(.5); score < 1e6; score *= 1.01 {
		n := m.normalize(score)
		require.True(t, n >= last && n < 1, "%v has %v after %v", score, n, last)
		if n == last && score > .5 {
			saturated++
		}
		last = n
	}
	require.Zero(t, saturated, "of two scores above the median the higher one stays the higher one")

	// What scale and score there may be: a number from 0 to 1, close to that of exact arithmetic.
	random := rand.New(rand.NewPCG(97, 98))
	smallest := nearestMidpoint(0)
	members := []ensembleMember{
		{low: math.Nextafter(smallest, 0), threshold: smallest, open: true},
		{low: -math.MaxFloat64, threshold: smallest, open: true},
		{low: 0, threshold: math.MaxFloat32, open: true},
	}
	for range 500 {
		low := math.Exp(20 * random.NormFloat64())
		members = append(members, ensembleMember{low: low, threshold: low * (1 + random.ExpFloat64()), open: true})
	}
	for _, m := range members {
		for _, score := range []float32{0, float32(m.low), float32(m.threshold), float32(min(m.threshold*7, math.MaxFloat32)), -1} {
			n := m.normalize(score)
			require.True(t, n >= 0 && n <= 1, "%v of %v is %v", score, m, n)
			above := new(big.Float).SetPrec(300).Sub(exactly(float64(score)), exactly(m.low))
			if above.Sign() <= 0 {
				require.Zero(t, n)
				continue
			}
			seventh := new(big.Float).SetPrec(300).Quo(exactly(7), exactly(3))
			u := above.Quo(above, new(big.Float).SetPrec(300).Sub(exactly(m.threshold), exactly(m.low)))
			want, _ := new(big.Float).SetPrec(300).Quo(u, new(big.Float).SetPrec(300).Add(u, seventh)).Float64()
			require.InDelta(t, want, n, 1e-15*want+1e-300)
		}
	}
}

// TestOpenScaleIsAudited: `high` is 0 in ensemble.v2 and nowhere else, and a threshold lies above the median in both (EN8).
func TestOpenScaleIsAudited(t *testing.T) {
	type metadata = anomalyv1.ModelMetadata
	whole := openOpenEnsemble(t).Metadata(Ensemble)
	require.NoError(t, checkMetadata(whole, Ensemble))
	first := func(m *metadata) *anomalyv1.EnsembleMember { return m.Ensemble.Members[0] }
	for text, change := range map[string]func(m *metadata){
		"ensemble.members[0].high is 1; in ensemble.v2 it is 0": func(m *metadata) { first(m).High = 1 },
		"ensemble.members[0].high is NaN":                       func(m *metadata) { first(m).High = math.NaN() },
		"ensemble.members[0].threshold is":                      func(m *metadata) { first(m).Low = first(m).Threshold },
		"it is above low, NaN":                                  func(m *metadata) { first(m).Low = math.NaN() },
		"it is above low, -Inf":                                 func(m *metadata) { first(m).Low = math.Inf(-1) },
		"ensemble.members[0].high is 0; it is above low":        func(m *metadata) { m.Graph.Layout = "ensemble.v1" },
		"graph.layout is \"ensemble.v3\"":                       func(m *metadata) { m.Graph.Layout = "ensemble.v3" },
	} {
		m := proto.CloneOf(whole)
		change(m)
		require.ErrorContains(t, checkMetadata(m, Ensemble), text)
	}
	closed := proto.CloneOf(openEnsemble(t).Metadata(Ensemble))
	closed.Graph.Layout = "ensemble.v2"
	require.ErrorContains(t, checkMetadata(closed, Ensemble), "in ensemble.v2 it is 0")
}
