package anomaly

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
	"dwcp.internal/anomaly/internal/testsets"
)

// memberSets are the frozen sets whose detectors become members.
var memberSets = []string{referenceSets + "/v1", referenceSets + "/more-v1"}

// ensembleFolder writes a set of all frozen detectors and an ensemble of them.
func ensembleFolder(tb testing.TB) string {
	tb.Helper()
	folder := tb.TempDir()
	require.NoError(tb, testsets.WriteEnsemble(folder, memberSets...))
	return folder
}

var openedEnsemble = sync.OnceValues(func() (*ModelSet, error) {
	return openWritten(testsets.WriteEnsemble)
})

// openWritten opens an ensemble of the frozen detectors, from a folder that is gone afterwards.
func openWritten(write func(folder string, from ...string) error) (*ModelSet, error) {
	folder, err := os.MkdirTemp("", "dwcp")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(folder)
	if err := write(folder, memberSets...); err != nil {
		return nil, err
	}
	return OpenModelSet(folder)
}

// openEnsemble gives the set of ensembleFolder, opened once.
func openEnsemble(tb testing.TB) *ModelSet {
	tb.Helper()
	set, err := openedEnsemble()
	require.NoError(tb, err)
	return set
}

// ensembleWindows are windows of the LSTM autoencoder's golden vectors, normal ones and others.
func ensembleWindows(tb testing.TB) (windows [][][]float64) {
	tb.Helper()
	for _, r := range goldenRequests(tb, openReference(tb), LSTMAutoencoder, ExplainAlways) {
		windows = append(windows, r.Samples)
	}
	return windows
}

// plainScale is EN3, or EN8, as it is written.
func plainScale(layout string, member *anomalyv1.EnsembleMember, score float32) float64 {
	above := float64(score) - member.GetLow()
	if layout == "ensemble.v2" {
		u := above / (member.GetThreshold() - member.GetLow())
		if u < 0 {
			u = 0
		}
		return u / (u + 7.0/3.0)
	}
	n := above / (member.GetHigh() - member.GetLow())
	if n < 0 {
		return 0
	} else if n > 1 {
		return 1
	}
	return n
}

// plainEnsemble is EN3 to EN8 as they are written, on what the members that answer say of the same samples.
func plainEnsemble(tb testing.TB, meta *anomalyv1.ModelMetadata, members *ModelSet, samples [][]float64) (want Verdict) {
	tb.Helper()
	width := len(meta.GetFeatureNames())
	sumWeights, sumScores, largest := 0.0, 0.0, -1.0
	parts := make([]float64, width)
	for _, member := range meta.GetEnsemble().GetMembers() {
		d, w := Detector(member.GetDetector()), member.GetWeight()
		var v Verdict
		err := members.Score(tb.Context(), Request{Detector: d, Samples: samples, Explain: ExplainAlways}, &v)
		if err != nil {
			require.ErrorIs(tb, err, CodeDetectorUnavailable)
			want.Members = append(want.Members, MemberVerdict{Detector: d, Missing: "missing"})
			continue
		}
		n := plainScale(meta.GetGraph().GetLayout(), member, v.Score)
		wn := float64(w * n)
		sumWeights += w
		sumScores += wn
		for j, c := range v.Contributions {
			parts[j] += float64(wn * float64(c))
		}
		if wn > largest {
			largest, want.Expected = wn, slices.Clone(v.Expected)
		}
		want.Members = append(want.Members, MemberVerdict{Detector: d, Weight: w, Score: v.Score, Normalized: n})
	}
	for i := range want.Members {
		want.Members[i].Weight /= sumWeights
	}
	want.Score = float32(sumScores / sumWeights)
	want.Threshold = meta.GetThreshold()
	want.IsAnomaly = float64(want.Score) > want.Threshold
	want.Level = LevelNormal
	if want.IsAnomaly {
		want.Level = LevelWarning
		if float64(want.Score) > meta.GetEnsemble().GetCriticalThreshold() {
			want.Level = LevelCritical
		}
	}
	held := meta.GetCalibration().GetScores()
	k := 0
	for _, s := range held {
		if s >= want.Score {
			k++
		}
	}
	want.PValue = float64(1+k) / float64(len(held)+1)
	best := float32(0)
	for j, part := range parts {
		share := 0.0
		if sumScores > 0 {
			share = part / sumScores
		}
		want.Contributions = append(want.Contributions, float32(share))
		if float32(share) > best {
			best, want.TopFeature = float32(share), meta.GetFeatureNames()[j]
		}
	}
	return want
}

func TestEnsembleEqualsThePlainFormula(t *testing.T) {
	set := openEnsemble(t)
	require.Equal(t, []Detector{IsolationForest, LSTMAutoencoder, DenseAutoencoder, LocalOutlierFactor, OneClassSVM, Ensemble}, set.Detectors())
	require.Equal(t, 10, WindowLength(set, Ensemble), "the longest window of the members (EN6)")
	require.Nil(t, set.Metadata(Ensemble).GetScaler())
	meta, levels := set.Metadata(Ensemble), map[Level]int{}
	var got Verdict
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
	}
	require.Len(t, levels, 3, "windows of every level (EN5)")
}

// TestEnsembleOfARowApartFromItsWindow: members of single samples score the last one (EN6).
func TestEnsembleOfARowApartFromItsWindow(t *testing.T) {
	set := openEnsemble(t)
	quiet := repeat(plainRow, 10)
	alarm := append(repeat(plainRow, 9), rowWith(1, 500))
	var before, after, forest Verdict
	require.NoError(t, set.Score(t.Context(), Request{Detector: Ensemble, Samples: quiet}, &before))
	require.NoError(t, set.Score(t.Context(), Request{Detector: Ensemble, Samples: alarm}, &after))
	require.NoError(t, set.Score(t.Context(), Request{Detector: IsolationForest, Samples: alarm[9:]}, &forest))
	require.False(t, before.IsAnomaly)
	require.Empty(t, before.Contributions)
	require.Len(t, before.Members, 5, "also without an explanation (EN6)")
	require.True(t, after.IsAnomaly)
	require.Equal(t, "latency", after.TopFeature)
	require.Equal(t, forest.Score, after.Members[0].Score)

	// A Verdict that is used again says nothing of an earlier ensemble.
	require.NoError(t, set.Score(t.Context(), Request{Detector: IsolationForest, Samples: quiet}, &after))
	require.Empty(t, after.Members)
}

func TestEnsembleRequestsAreCheckedInOrder(t *testing.T) {
	set := openEnsemble(t)
	for _, c := range []struct {
		samples [][]float64
		code    Code
		field   string
	}{
		{nil, CodeNoSamples, "samples"},
		{repeat(nil, 257), CodeTooManySamples, "samples"},
		{[][]float64{{1}}, CodeWrongWidth, "samples[0]"},
		{[][]float64{rowWith(2, math.NaN())}, CodeNotFinite, "samples[0].packet_loss"},
		{repeat(plainRow, 9), CodeWindowTooShort, "samples"}, // the forest alone could score these
	} {
		var v Verdict
		err := set.Score(t.Context(), Request{Detector: Ensemble, Samples: c.samples}, &v)
		require.ErrorIs(t, err, c.code)
		assert.Equal(t, c.field, AsError(err).Field)
	}
	var b BatchVerdict
	err := set.ScoreBatch(t.Context(), BatchRequest{Detector: Ensemble, Rows: make([]float64, 7*15)}, &b)
	require.ErrorIs(t, err, CodeWindowTooShort)
}

func TestEnsembleBatchEqualsSingle(t *testing.T) {
	set := openEnsemble(t)
	var rows []float64
	for _, samples := range ensembleWindows(t) {
		for _, row := range samples[len(samples)-10:] {
			rows = append(rows, row...)
		}
	}
	for layout, stride := range map[BatchLayout]int{BatchWindows: 70, BatchSeries: 7} {
		for _, explain := range []Explain{ExplainAlways, ExplainAlarms, ExplainNever} {
			var batch BatchVerdict
			request := BatchRequest{Detector: Ensemble, Rows: rows, Layout: layout, Explain: explain}
			require.NoError(t, set.ScoreBatch(t.Context(), request, &batch))
			require.Len(t, batch.Scores, (len(rows)-70)/stride+1)
			require.Empty(t, batch.DepthSums)
			var one, item Verdict
			for i := 0; i < len(batch.Scores); i += 3 {
				samples := slices.Collect(slices.Chunk(rows[i*stride:][:70], 7))
				require.NoError(t, set.Score(t.Context(), Request{Detector: Ensemble, Samples: samples, Explain: explain}, &one))
				batch.Item(i, 7, &item)
				require.Equal(t, []any{one.Score, one.IsAnomaly, one.PValue, one.Level}, []any{item.Score, item.IsAnomaly, item.PValue, item.Level})
				require.Empty(t, item.Members)
				if len(one.Contributions) > 0 {
					require.Equal(t, one.Contributions, item.Contributions)
					require.Equal(t, one.Expected, item.Expected)
				}
			}
		}
	}
}

func TestEnsembleScoresWithoutAllocating(t *testing.T) {
	set := openEnsemble(t)
	for _, samples := range [][][]float64{repeat(plainRow, 10), append(repeat(plainRow, 9), rowWith(1, 500))} {
		for _, explain := range []Explain{ExplainAlways, ExplainAlarms, ExplainNever} {
			requireNoAllocations(t, set, Request{Detector: Ensemble, Samples: samples, Explain: explain})
		}
	}
}

// removeModel takes a detector out of a manifest; its files stay.
func removeModel(t *testing.T, folder string, d Detector) {
	t.Helper()
	editJSON(t, filepath.Join(folder, ManifestFile), func(m map[string]any) {
		m["models"] = slices.DeleteFunc(m["models"].([]any), func(entry any) bool {
			return entry.(map[string]any)["detector"] == detectorPrefix+strings.ToUpper(d.String())
		})
	})
}

// removeGraph makes a detector one whose conversion failed.
func removeGraph(t *testing.T, folder, metadata string, d Detector) {
	t.Helper()
	editJSON(t, filepath.Join(folder, metadata), func(m map[string]any) {
		m["graph"] = map[string]any{"available": false, "unavailable_reason": "the conversion failed"}
	})
	editJSON(t, filepath.Join(folder, ManifestFile), func(m map[string]any) {
		for _, entry := range m["models"].([]any) {
			if entry := entry.(map[string]any); entry["detector"] == detectorPrefix+strings.ToUpper(d.String()) {
				entry["graph"], entry["golden"] = "", ""
			}
		}
	})
	publish(t, folder)
}

func TestEnsembleWithMissingMembers(t *testing.T) {
	folder := ensembleFolder(t)
	removeModel(t, folder, OneClassSVM)
	removeGraph(t, folder, "lstm_metadata.json", LSTMAutoencoder)
	set, err := OpenModelSet(folder)
	require.NoError(t, err)
	require.Equal(t, []Detector{IsolationForest, DenseAutoencoder, LocalOutlierFactor, Ensemble}, set.Detectors())
	require.Equal(t, 10, WindowLength(set, Ensemble), "the window stays what it was when the ensemble was made")
	meta := set.Metadata(Ensemble)
	var got Verdict
	var rows []float64
	windows := ensembleWindows(t)[:40]
	for _, samples := range windows {
		want := plainEnsemble(t, meta, set, samples)
		require.NoError(t, set.Score(t.Context(), Request{Detector: Ensemble, Samples: samples, Explain: ExplainAlways}, &got))
		weights := 0.0
		for i, m := range got.Members {
			if m.Missing != "" {
				want.Members[i].Missing = m.Missing
			}
			weights += m.Weight
		}
		require.InDelta(t, 1, weights, 1e-12, "the others share the weight (EN6)")
		require.Equal(t, want, got)
		require.Equal(t, "the conversion failed", got.Members[1].Missing)
		require.Equal(t, "it is not part of the set", got.Members[4].Missing)
		rows = append(rows, slices.Concat(samples[len(samples)-10:]...)...)
	}
	var batch BatchVerdict
	require.NoError(t, set.ScoreBatch(t.Context(), BatchRequest{Detector: Ensemble, Rows: rows}, &batch))
	require.Equal(t, got.Score, batch.Scores[len(windows)-1])

	for _, d := range []Detector{IsolationForest, DenseAutoencoder, LocalOutlierFactor} {
		removeModel(t, folder, d)
	}
	set, err = OpenModelSet(folder)
	require.NoError(t, err)
	require.Empty(t, set.Detectors())
	require.Nil(t, set.Metadata(Ensemble))
	err = set.Score(t.Context(), Request{Detector: Ensemble, Samples: windows[0]}, &got)
	require.ErrorIs(t, err, CodeDetectorUnavailable)
	require.ErrorContains(t, err, "none of its members can be scored: isolation_forest: it is not part of the set; "+
		"lstm_autoencoder: the conversion failed; dense_autoencoder: ")
	require.Equal(t, "detector", AsError(err).Field)
}

// broken is an engine that fails, after some answers.
type broken struct {
	engine
	answers int
}

func (b *broken) score(window []float64, explain Explain, verdict *Verdict) error {
	if b.answers--; b.answers < 0 {
		return errors.New("out of order")
	}
	return b.engine.score(window, explain, verdict)
}

// TestEnsembleWithFailingMembers: a backend that fails is a member that did not answer, and is named; in a batch, which could not name
// it, it is an error.
func TestEnsembleWithFailingMembers(t *testing.T) {
	whole := openEnsemble(t)
	samples := repeat(plainRow, 10)
	// failing is the ensemble with members whose engines fail after a number of answers.
	failing := func(answers map[Detector]int) *ModelSet {
		set := &ModelSet{id: whole.id, models: maps.Clone(whole.models), metadata: whole.metadata}
		for d, n := range answers {
			copied := *whole.models[d]
			copied.engine = &broken{copied.engine, n}
			set.models[d] = &copied
		}
		joined, err := newEnsemble(whole.Metadata(Ensemble), set)
		require.NoError(t, err)
		copied := *whole.models[Ensemble]
		copied.engine = joined
		set.models[Ensemble] = &copied
		return set
	}
	set := failing(map[Detector]int{DenseAutoencoder: 0})
	var got Verdict
	require.NoError(t, set.Score(t.Context(), Request{Detector: Ensemble, Samples: samples, Explain: ExplainAlways}, &got))
	require.Equal(t, MemberVerdict{Detector: DenseAutoencoder, Missing: "it failed: out of order"}, got.Members[2])
	others := proto.CloneOf(whole.Metadata(Ensemble))
	others.Ensemble.Members = slices.Delete(others.Ensemble.Members, 2, 3)
	want := plainEnsemble(t, others, whole, samples)
	require.Equal(t, want.Score, got.Score)
	require.Equal(t, want.Contributions, got.Contributions)
	var batch BatchVerdict
	err := set.ScoreBatch(t.Context(), BatchRequest{Detector: Ensemble, Rows: slices.Concat(samples...)}, &batch)
	require.ErrorIs(t, err, CodeInternal)
	require.ErrorContains(t, err, "dense_autoencoder: out of order")

	all := map[Detector]int{}
	for _, d := range whole.Detectors()[:5] {
		all[d] = 0
	}
	err = failing(all).Score(t.Context(), Request{Detector: Ensemble, Samples: samples}, &got)
	require.ErrorIs(t, err, CodeDetectorUnavailable)
	require.ErrorContains(t, err, "isolation_forest: it failed: out of order")

	// The score is there, but not what explains it: no alarm without its reason.
	alarm := append(repeat(plainRow, 9), rowWith(1, 19))
	err = failing(map[Detector]int{IsolationForest: 1}).Score(t.Context(), Request{Detector: Ensemble, Samples: alarm}, &got)
	require.ErrorIs(t, err, CodeInternal)
	require.ErrorContains(t, err, "isolation_forest, asked to explain: out of order")
}

func TestRefusedEnsembles(t *testing.T) {
	ensemble := func(edit func(m map[string]any)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, testsets.Metadata), edit)
			publish(t, dir)
		}
	}
	member := func(i int, edit func(m map[string]any)) func(*testing.T, string) {
		return ensemble(func(m map[string]any) { edit(object(m, "ensemble")["members"].([]any)[i].(map[string]any)) })
	}
	manifest := func(edit func(m, entry map[string]any)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, ManifestFile), func(m map[string]any) {
				models := m["models"].([]any)
				edit(m, models[len(models)-1].(map[string]any))
			})
		}
	}
	forest := func(edit func(m map[string]any)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, "model_metadata.json"), edit)
			publish(t, dir)
		}
	}
	for name, test := range map[string]struct {
		damage      func(*testing.T, string)
		code        Code
		field, text string
	}{
		"threshold of a member changed": {member(3, func(m map[string]any) { m["threshold"] = 1.5 }),
			CodeMetadataInvalid, testsets.Metadata, "member local_outlier_factor has threshold"},
		"weights below 1": {member(0, func(m map[string]any) { m["weight"] = .01 }),
			CodeMetadataInvalid, testsets.Metadata, "the weights sum to"},
		"weights a little above 1": {member(0, func(m map[string]any) { m["weight"] = 1./15 + 2e-9 }),
			CodeMetadataInvalid, testsets.Metadata, "the weights sum to"},
		"weight of a member gone": {member(0, func(m map[string]any) { delete(m, "weight") }),
			CodeMetadataInvalid, testsets.Metadata, "ensemble.members[0].weight is 0"},
		"negative weight": {member(1, func(m map[string]any) { m["weight"] = -.1 }),
			CodeMetadataInvalid, testsets.Metadata, "ensemble.members[1].weight is -0.1"},
		"a member twice": {member(1, func(m map[string]any) { m["detector"] = "DETECTOR_ISOLATION_FOREST" }),
			CodeMetadataInvalid, testsets.Metadata, "ensemble.members[1] is isolation_forest"},
		"an ensemble as member": {member(4, func(m map[string]any) { m["detector"] = "DETECTOR_ENSEMBLE" }),
			CodeMetadataInvalid, testsets.Metadata, "ensemble.members[4] is an ensemble"},
		"threshold of a member at its low": {member(2, func(m map[string]any) { m["low"] = m["threshold"] }),
			CodeMetadataInvalid, testsets.Metadata, "ensemble.members[2].threshold is"},
		"high not above low": {member(2, func(m map[string]any) { m["high"] = m["low"] }),
			CodeMetadataInvalid, testsets.Metadata, "ensemble.members[2].high"},
		"low of infinity": {member(2, func(m map[string]any) { m["low"] = "-Infinity" }),
			CodeMetadataInvalid, testsets.Metadata, "ensemble.members[2].high"},
		"no members": {ensemble(func(m map[string]any) { object(m, "ensemble")["members"] = []any{} }),
			CodeMetadataInvalid, testsets.Metadata, "ensemble.members is empty"},
		"no ensemble": {ensemble(func(m map[string]any) { delete(m, "ensemble") }),
			CodeMetadataInvalid, testsets.Metadata, "ensemble is missing"},
		"other features": {ensemble(func(m map[string]any) {
			names := m["feature_names"].([]any)
			features := object(m, "feature_schema")["features"].([]any)
			names[0], names[1], features[0], features[1] = names[1], names[0], features[1], features[0]
		}), CodeMetadataInvalid, testsets.Metadata, "member isolation_forest has the features"},
		"window longer than its members'": {ensemble(func(m map[string]any) { m["timesteps"] = 11 }),
			CodeMetadataInvalid, testsets.Metadata, "timesteps is 11; the longest window of the members is 10"},
		"window shorter than its members'": {ensemble(func(m map[string]any) { m["timesteps"] = 9 }),
			CodeMetadataInvalid, testsets.Metadata, "timesteps is 9"},
		"no window": {ensemble(func(m map[string]any) { delete(m, "timesteps") }),
			CodeMetadataInvalid, testsets.Metadata, "timesteps is 0"},
		"threshold off midpoint": {ensemble(func(m map[string]any) { m["threshold"] = .3 }),
			CodeMetadataInvalid, testsets.Metadata, "threshold 0.3"},
		"critical off midpoint": {ensemble(func(m map[string]any) { object(m, "ensemble")["critical_threshold"] = .7 }),
			CodeMetadataInvalid, testsets.Metadata, "ensemble.critical_threshold 0.7"},
		"a tolerance": {ensemble(func(m map[string]any) {
			m["parity_class"], m["tolerance"] = "PARITY_CLASS_TOLERANCE", map[string]any{"relative_score": .01}
		}), CodeMetadataInvalid, testsets.Metadata, "parity_class"},
		"a scaler": {ensemble(func(m map[string]any) { m["scaler"] = map[string]any{} }),
			CodeMetadataInvalid, testsets.Metadata, "scaler or reference_values is set"},
		"a graph": {ensemble(func(m map[string]any) { object(m, "graph")["file"] = "x.onnx" }),
			CodeMetadataInvalid, testsets.Metadata, "graph describes a graph"},
		"another layout": {ensemble(func(m map[string]any) { object(m, "graph")["layout"] = "forest.v1" }),
			CodeMetadataInvalid, testsets.Metadata, "graph.layout"},
		"a graph in the manifest": {manifest(func(_, entry map[string]any) { entry["graph"] = "isolation_forest.onnx" }),
			CodeMetadataInvalid, ManifestFile, "has a graph"},
		"no golden vectors": {manifest(func(_, entry map[string]any) { delete(entry, "golden") }),
			CodeMetadataInvalid, ManifestFile, "no golden vectors"},
		"golden vectors not listed": {manifest(func(_, entry map[string]any) { entry["golden"] = "other.json" }),
			CodeMetadataInvalid, ManifestFile, "other.json"},
		"golden vectors without cases": {func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, testsets.Golden), func(m map[string]any) { m["cases"] = []any{} })
			publish(t, dir)
		}, CodeGoldenMismatch, testsets.Golden, "no golden vector ran"},
		"golden vectors of the forest": {func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, testsets.Golden), func(m map[string]any) { m["model_type"] = "isolation_forest" })
			publish(t, dir)
		}, CodeMetadataInvalid, testsets.Golden, "model_type"},
		"ensemble before its members": {func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, ManifestFile), func(m map[string]any) { slices.Reverse(m["models"].([]any)) })
		}, CodeMetadataInvalid, ManifestFile, "out of order"},
		"a parameter of an ensemble in a forest": {forest(func(m map[string]any) { m["ensemble"] = map[string]any{} }),
			CodeMetadataInvalid, "model_metadata.json", "ensemble is set"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := ensembleFolder(t)
			test.damage(t, dir)
			assert.ErrorContains(t, requireSetRefused(t, dir, test.code, test.field), test.text)
		})
	}
}

// TestEnsembleOfAMemberInTolerance: no member may be less than EXACT (EN4).
func TestEnsembleOfAMemberInTolerance(t *testing.T) {
	set := openEnsemble(t)
	its := proto.CloneOf(set.Metadata(LSTMAutoencoder))
	its.ParityClass = anomalyv1.ParityClass_PARITY_CLASS_TOLERANCE
	meta := set.Metadata(Ensemble)
	require.ErrorContains(t, checkMember(meta, meta.GetEnsemble().GetMembers()[1], its), "member lstm_autoencoder is not EXACT")
}

// TestEnsembleGoldenVectorsRun: they are compared like all others, with the scores of the members.
func TestEnsembleGoldenVectorsRun(t *testing.T) {
	dir := ensembleFolder(t)
	set := openEnsemble(t)
	golden := &anomalyv1.GoldenFile{SchemaVersion: SchemaVersion, ModelType: Ensemble.String()}
	for i, samples := range ensembleWindows(t)[:30] {
		v := plainEnsemble(t, set.Metadata(Ensemble), set, samples)
		c := &anomalyv1.GoldenCase{Id: fmt.Sprint("window/", i), Comment: "a window", Outcome: &anomalyv1.GoldenCase_Score{Score: &anomalyv1.GoldenScore{
			Score: v.Score, ScoreBits: math.Float32bits(v.Score), IsAnomaly: v.IsAnomaly, Contributions: v.Contributions, Expected: v.Expected,
		}}}
		for _, row := range samples {
			c.Samples = append(c.Samples, &anomalyv1.Sample{Values: row})
		}
		golden.Cases = append(golden.Cases, c)
	}
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(golden)
	require.NoError(t, err)
	write(t, dir, testsets.Golden, string(data))
	publish(t, dir)
	opened, err := OpenModelSet(dir)
	require.NoError(t, err)
	report := opened.Golden(t.Context(), Ensemble, opened)
	require.NoError(t, report.Err())
	require.Equal(t, 30, report.Cases)

	// The normalized score of a member one part in a million off is a failure.
	editJSON(t, filepath.Join(dir, testsets.Metadata), func(m map[string]any) {
		member := object(m, "ensemble")["members"].([]any)[4].(map[string]any)
		high, err := member["high"].(json.Number).Float64()
		require.NoError(t, err)
		member["high"] = high * (1 + 1e-6)
	})
	publish(t, dir)
	_, err = OpenModelSet(dir)
	require.ErrorIs(t, err, CodeGoldenMismatch)
	require.Equal(t, testsets.Golden, AsError(err).Field)
}

// ensembleFaults are changes of an ensemble's metadata that are refused, by what the message says.
func ensembleFaults() map[string]func(*anomalyv1.ModelMetadata) {
	type metadata = anomalyv1.ModelMetadata
	first := func(m *metadata) *anomalyv1.EnsembleMember { return m.Ensemble.Members[0] }
	return map[string]func(*metadata){
		"ensemble is missing":                  func(m *metadata) { m.Ensemble = nil },
		"ensemble.members is empty":            func(m *metadata) { m.Ensemble.Members = nil },
		"timesteps is 257":                     func(m *metadata) { m.Timesteps = proto.Uint32(257) },
		"timesteps is 0":                       func(m *metadata) { m.Timesteps = proto.Uint32(0) },
		"ensemble.members[0] is unspecified":   func(m *metadata) { first(m).Detector = 0 },
		"which is unknown, there twice":        func(m *metadata) { first(m).Detector = 99 },
		"ensemble.members[0].weight is NaN":    func(m *metadata) { first(m).Weight = math.NaN() },
		"ensemble.members[0].weight is +Inf":   func(m *metadata) { first(m).Weight = math.Inf(1) },
		"ensemble.members[0].threshold is NaN": func(m *metadata) { first(m).Threshold = math.NaN() },
		"ensemble.members[0].high is NaN":      func(m *metadata) { first(m).High = math.NaN() },
		"ensemble.members[0].high is +Inf":     func(m *metadata) { first(m).High = math.Inf(1) },
		"it is above low, NaN":                 func(m *metadata) { first(m).Low = math.NaN() },
		"ensemble.members[0].threshold is 0.4": func(m *metadata) { first(m).Threshold, first(m).Low, first(m).High = .4, .4, .5 },
		"ensemble.members[0].high is 0; it is": func(m *metadata) { first(m).High = 0 },
		"ensemble.critical_threshold 0":        func(m *metadata) { m.Ensemble.CriticalThreshold = 0 },
		"or below threshold":                   func(m *metadata) { m.Ensemble.CriticalThreshold = nearestMidpoint(.2) },
		"reference_values is set":              func(m *metadata) { m.ReferenceValues = make([]float64, 7) },
		"graph.layout is \"\"":                 func(m *metadata) { m.Graph = nil },
		"parity_class is PARITY_CLASS_TOLERANCE": func(m *metadata) {
			m.ParityClass, m.Tolerance = anomalyv1.ParityClass_PARITY_CLASS_TOLERANCE, &anomalyv1.Tolerance{RelativeScore: .1}
		},
	}
}

// TestNormalizedScores: 0 at the median, 0.3 at the threshold, and nothing outside 0 to 1 (EN3).
func TestNormalizedScores(t *testing.T) {
	m := ensembleMember{low: .5, high: .5 + (.8-.5)/.3}
	require.InDelta(t, .3, m.normalize(.8), 1e-7)
	for score, want := range map[float32]float64{.5: 0, .2: 0, 0: 0, 1.5: 1, 1e9: 1, math.MaxFloat32: 1, 1: .5} {
		require.Equal(t, want, m.normalize(score), score)
	}
	steep := ensembleMember{low: 1, high: math.Nextafter(1, 2)}
	require.Equal(t, 1.0, steep.normalize(1.1))
	require.Equal(t, 0.0, steep.normalize(1))
	wide := ensembleMember{low: -math.MaxFloat64, high: math.MaxFloat64} // the width overflows
	require.Equal(t, 0.0, wide.normalize(math.MaxFloat32))
}

// BenchmarkEnsemble is an ensemble over forest, dense autoencoder and SVM of the frozen sets, beside its members.
func BenchmarkEnsemble(b *testing.B) {
	whole := openEnsemble(b)
	meta := proto.CloneOf(whole.Metadata(Ensemble))
	meta.Timesteps = nil
	meta.Ensemble.Members = []*anomalyv1.EnsembleMember{meta.Ensemble.Members[0], meta.Ensemble.Members[2], meta.Ensemble.Members[4]}
	set := inMemory(Ensemble, meta, nil)
	for _, d := range []Detector{IsolationForest, DenseAutoencoder, OneClassSVM} {
		set.models[d], set.metadata[d] = whole.models[d], whole.metadata[d]
	}
	joined, err := newEnsemble(meta, set)
	require.NoError(b, err)
	set.models[Ensemble].engine = joined
	random := rand.New(rand.NewPCG(69, 70))
	quiet, alarm := repeat(plainRow, 1), [][]float64{rowWith(1, 500)}
	for name, samples := range map[string][][]float64{"normal": quiet, "alarm": alarm} {
		for _, d := range []Detector{IsolationForest, DenseAutoencoder, OneClassSVM, Ensemble} {
			for _, explain := range []Explain{ExplainNever, ExplainAlarms} {
				b.Run(fmt.Sprintf("%s/%s/explain=%d", name, d, explain), func(b *testing.B) {
					var v Verdict
					b.ReportAllocs()
					for b.Loop() {
						if err := set.Score(b.Context(), Request{Detector: d, Samples: samples, Explain: explain}, &v); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
	rows := make([]float64, 0, 7*1024)
	for range 1024 {
		for _, x := range plainRow {
			rows = append(rows, x*(1+random.NormFloat64()/20))
		}
	}
	b.Run("batch of 1024", func(b *testing.B) {
		var v BatchVerdict
		for b.Loop() {
			if err := set.ScoreBatch(b.Context(), BatchRequest{Detector: Ensemble, Rows: rows}, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
}
