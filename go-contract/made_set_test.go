package anomaly

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
	"dwcp.internal/anomaly/internal/testsets"
)

// writeMade writes a set of made models to folder: graphs, metadata, and golden vectors of normal windows, of alarms and of an error.
func writeMade(tb testing.TB, folder string, models ...madeModel) {
	tb.Helper()
	manifest := &anomalyv1.Manifest{SchemaVersion: SchemaVersion}
	add := func(name string, data []byte) {
		require.NoError(tb, os.WriteFile(filepath.Join(folder, name), data, 0o600))
		manifest.Files = append(manifest.Files, &anomalyv1.FileEntry{Path: name, Role: anomalyv1.FileRole_FILE_ROLE_SERVING})
	}
	text := func(message proto.Message) []byte {
		data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
		require.NoError(tb, err)
		return data
	}
	for _, m := range models {
		entry := &anomalyv1.ModelEntry{
			Detector: anomalyv1.Detector(m.detector), Metadata: m.detector.String() + "_metadata.json", Graph: m.meta.GetGraph().GetFile(),
			Golden: m.detector.String() + ".golden.json",
		}
		manifest.Models = append(manifest.Models, entry)
		add(entry.GetMetadata(), text(m.meta))
		add(entry.GetGraph(), m.graph)
		add(entry.GetGolden(), text(m.golden(tb)))
	}
	require.NoError(tb, os.WriteFile(filepath.Join(folder, ManifestFile), text(manifest), 0o600))
}

// golden are answers of the opened graph.
func (m madeModel) golden(tb testing.TB) *anomalyv1.GoldenFile {
	tb.Helper()
	g := &anomalyv1.GoldenFile{SchemaVersion: SchemaVersion, ModelType: m.detector.String(), Cases: []*anomalyv1.GoldenCase{
		{Id: "error/no-samples", Comment: "nothing to score", Outcome: &anomalyv1.GoldenCase_Error{
			Error: &anomalyv1.ErrorInfo{Code: anomalyv1.ErrorCode_ERROR_CODE_NO_SAMPLES, Field: "samples"},
		}},
	}}
	e, features := m.open(tb), int(m.meta.GetNFeatures())
	for _, far := range []float64{0, 1, 40} {
		window := randomRows(rand.New(rand.NewPCG(91, uint64(far))), m.scaler(), m.steps())
		window[len(window)-1] += far * m.scaler().scale[features-1]
		var v Verdict
		require.NoError(tb, e.score(window, ExplainAlways, &v))
		c := &anomalyv1.GoldenCase{Id: "window/" + string(rune('a'+len(g.Cases))), Comment: "a window", Outcome: &anomalyv1.GoldenCase_Score{
			Score: &anomalyv1.GoldenScore{
				Score: v.Score, ScoreBits: math.Float32bits(v.Score), IsAnomaly: v.IsAnomaly, Contributions: v.Contributions, Expected: v.Expected,
			},
		}}
		for row := range slices.Chunk(window, features) {
			c.Samples = append(c.Samples, &anomalyv1.Sample{Values: row})
		}
		g.Cases = append(g.Cases, c)
	}
	return g
}

// mahalanobisFolder is a set of an ensemble and its members, one of them a Mahalanobis distance of windows of 5 samples, which the
// manifest lists after the ensemble.
func mahalanobisFolder(t *testing.T, write func(folder string, from ...string) error) string {
	t.Helper()
	random := rand.New(rand.NewPCG(93, 94))
	members, folder := t.TempDir(), t.TempDir()
	writeMade(t, members, makeDense(t, random, 7, activationReLU, 4), makeSVM(t, random, 7, 30), makeMahalanobis(t, random, 5, 7))
	publish(t, members)
	require.NoError(t, write(folder, members))
	return folder
}

// TestSetsWithAMahalanobisDistance: its golden vectors run, and an ensemble that stands before it in the manifest has it as a member.
func TestSetsWithAMahalanobisDistance(t *testing.T) {
	for layout, write := range map[string]func(string, ...string) error{
		"ensemble.v1": testsets.WriteEnsemble, "ensemble.v2": testsets.WriteOpenEnsemble,
	} {
		t.Run(layout, func(t *testing.T) {
			folder := mahalanobisFolder(t, write)
			set, err := OpenModelSet(folder)
			require.NoError(t, err)
			require.Equal(t, []Detector{DenseAutoencoder, OneClassSVM, Ensemble, Mahalanobis}, set.Detectors())
			require.Equal(t, 4, set.Golden(t.Context(), Mahalanobis, set).Cases)
			require.Equal(t, 5, WindowLength(set, Ensemble))
			meta := set.Metadata(Ensemble)
			require.Equal(t, layout, meta.GetGraph().GetLayout())
			random := rand.New(rand.NewPCG(95, 96))
			rows := slices.Collect(slices.Chunk(randomRows(random, set.models[Mahalanobis].engine.(*mahalanobis).scaler, 60), 7))
			for i := range 55 {
				samples := rows[i : i+5+i%2]
				samples[len(samples)-1][i%7] += float64(i % 9)
				var got Verdict
				require.NoError(t, set.Score(t.Context(), Request{Detector: Ensemble, Samples: samples, Explain: ExplainAlways}, &got))
				require.Equal(t, plainEnsemble(t, meta, set, samples), got)
				require.Equal(t, Mahalanobis, got.Members[2].Detector)
			}
		})
	}
}

func TestRefusedSetsWithAMahalanobisDistance(t *testing.T) {
	own := func(edit func(map[string]any)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, "mahalanobis_metadata.json"), edit)
			publish(t, dir)
		}
	}
	for name, test := range map[string]struct {
		damage      func(*testing.T, string)
		code        Code
		field, text string
	}{
		"limit in the metadata alone": {own(func(m map[string]any) { object(m, "mahalanobis")["limit_start"].([]any)[0] = 9 }),
			CodeGraphInvalid, "mahalanobis.onnx", "limit_start[0] is"},
		"limit too large": {own(func(m map[string]any) { object(m, "mahalanobis")["limit_slope"].([]any)[0] = 2e6 }),
			CodeMetadataInvalid, "mahalanobis_metadata.json", "mahalanobis.limit_slope[0] is 2e+06"},
		"another window": {own(func(m map[string]any) { m["timesteps"] = 4 }),
			CodeGraphInvalid, "mahalanobis.onnx", "the graph has"},
		"no window": {own(func(m map[string]any) { delete(m, "timesteps") }),
			CodeGraphInvalid, "mahalanobis.onnx", "the graph has"},
		"a forest's parameter": {own(func(m map[string]any) { m["n_estimators"] = 100 }),
			CodeMetadataInvalid, "mahalanobis_metadata.json", "n_estimators is set"},
		"golden score a bit off": {func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, "mahalanobis.golden.json"), func(m map[string]any) {
				score := object(m["cases"].([]any)[2].(map[string]any), "score")
				bits, err := score["score_bits"].(json.Number).Int64()
				require.NoError(t, err)
				score["score_bits"], score["score"] = bits+1, math.Float32frombits(uint32(bits+1))
			})
			publish(t, dir)
		}, CodeGoldenMismatch, "mahalanobis.golden.json", "golden vectors differ"},
		"threshold of the member changed": {func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, testsets.Metadata), func(m map[string]any) {
				object(m, "ensemble")["members"].([]any)[2].(map[string]any)["threshold"] = 2.75
			})
			publish(t, dir)
		}, CodeMetadataInvalid, testsets.Metadata, "member mahalanobis has threshold"},
		"high in the open scale": {func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, testsets.Metadata), func(m map[string]any) {
				object(m, "ensemble")["members"].([]any)[1].(map[string]any)["high"] = 1e300
			})
			publish(t, dir)
		}, CodeMetadataInvalid, testsets.Metadata, "ensemble.members[1].high is 1e+300; in ensemble.v2 it is 0"},
		"models in another order": {func(t *testing.T, dir string) {
			editJSON(t, filepath.Join(dir, ManifestFile), func(m map[string]any) { slices.Reverse(m["models"].([]any)) })
		}, CodeMetadataInvalid, ManifestFile, "out of order"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := mahalanobisFolder(t, testsets.WriteOpenEnsemble)
			test.damage(t, dir)
			require.ErrorContains(t, requireSetRefused(t, dir, test.code, test.field), test.text)
		})
	}
}

// TestEnsembleWithoutItsMahalanobisDistance: a member that is listed after the ensemble is missing like any other (EN6).
func TestEnsembleWithoutItsMahalanobisDistance(t *testing.T) {
	folder := mahalanobisFolder(t, testsets.WriteOpenEnsemble)
	removeGraph(t, folder, "mahalanobis_metadata.json", Mahalanobis)
	set, err := OpenModelSet(folder)
	require.NoError(t, err)
	require.Equal(t, []Detector{DenseAutoencoder, OneClassSVM, Ensemble}, set.Detectors())
	var v Verdict
	require.NoError(t, set.Score(t.Context(), Request{Detector: Ensemble, Samples: repeat(make([]float64, 7), 5)}, &v))
	require.Equal(t, MemberVerdict{Detector: Mahalanobis, Missing: "the conversion failed"}, v.Members[2])
	err = set.Score(t.Context(), Request{Detector: Mahalanobis, Samples: repeat(make([]float64, 7), 5)}, &v)
	require.ErrorIs(t, err, CodeDetectorUnavailable)
}
