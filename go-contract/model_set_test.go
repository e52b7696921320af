package anomaly

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
	"dwcp.internal/anomaly/internal/testsets"
)

// editJSON changes a JSON file of a set.
func editJSON(t *testing.T, path string, edit func(map[string]any)) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var value map[string]any
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.UseNumber()
	require.NoError(t, decoder.Decode(&value))
	edit(value)
	data, err = json.Marshal(value)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

// publish brings the digests of the manifest up to date, so that a change behind them is what a test finds.
func publish(t *testing.T, dir string) {
	t.Helper()
	editJSON(t, filepath.Join(dir, ManifestFile), func(m map[string]any) {
		for _, f := range m["files"].([]any) {
			entry := f.(map[string]any)
			data, err := os.ReadFile(filepath.Join(dir, entry["path"].(string)))
			if err != nil {
				continue
			}
			sum := sha256.Sum256(data)
			entry["sha256"], entry["size"] = hex.EncodeToString(sum[:]), len(data)
		}
	})
}

func object(m map[string]any, key string) map[string]any { return m[key].(map[string]any) }

func TestRefusedSets(t *testing.T) {
	manifest := func(edit func(map[string]any)) func(*testing.T, string) {
		return func(t *testing.T, dir string) { editJSON(t, filepath.Join(dir, ManifestFile), edit) }
	}
	inFile := func(name string, edit func(map[string]any)) func(*testing.T, string) {
		return func(t *testing.T, dir string) { editJSON(t, filepath.Join(dir, name), edit); publish(t, dir) }
	}
	forest := func(edit func(map[string]any)) func(*testing.T, string) { return inFile("model_metadata.json", edit) }
	lstm := func(edit func(map[string]any)) func(*testing.T, string) { return inFile("lstm_metadata.json", edit) }
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, name))) }
	}
	firstFile := func(m map[string]any) map[string]any { return m["files"].([]any)[0].(map[string]any) }
	const golden = "isolation_forest.golden.json"
	for name, test := range map[string]struct {
		damage func(*testing.T, string)
		code   Code
		field  string
	}{
		"no manifest":        {remove(ManifestFile), CodeManifestMissing, ManifestFile},
		"no graph":           {remove("isolation_forest.onnx"), CodeFileMissing, "isolation_forest.onnx"},
		"no metadata":        {remove("lstm_metadata.json"), CodeFileMissing, "lstm_metadata.json"},
		"manifest not JSON":  {func(t *testing.T, dir string) { write(t, dir, ManifestFile, "{") }, CodeMetadataInvalid, ManifestFile},
		"unknown field":      {manifest(func(m map[string]any) { m["more"] = 1 }), CodeMetadataInvalid, ManifestFile},
		"no version":         {manifest(func(m map[string]any) { delete(m, "schema_version") }), CodeMetadataInvalid, ManifestFile},
		"version 2":          {manifest(func(m map[string]any) { m["schema_version"], m["more"] = 2, 1 }), CodeSchemaFromFuture, ManifestFile},
		"no models":          {manifest(func(m map[string]any) { m["models"] = []any{} }), CodeMetadataInvalid, ManifestFile},
		"path with folders":  {manifest(func(m map[string]any) { firstFile(m)["path"] = "../x" }), CodeMetadataInvalid, ManifestFile},
		"path empty":         {manifest(func(m map[string]any) { firstFile(m)["path"] = "" }), CodeMetadataInvalid, ManifestFile},
		"no role":            {manifest(func(m map[string]any) { delete(firstFile(m), "role") }), CodeMetadataInvalid, ManifestFile},
		"needed byproduct":   {manifest(func(m map[string]any) { firstFile(m)["role"] = "FILE_ROLE_BYPRODUCT" }), CodeMetadataInvalid, ManifestFile},
		"wrong digest":       {manifest(func(m map[string]any) { firstFile(m)["sha256"] = strings.Repeat("0", 64) }), CodeDigestMismatch, golden},
		"wrong size":         {manifest(func(m map[string]any) { firstFile(m)["size"] = 1 }), CodeDigestMismatch, golden},
		"detector twice":     {manifest(func(m map[string]any) { l := m["models"].([]any); l[1] = l[0] }), CodeMetadataInvalid, ManifestFile},
		"metadata version 9": {forest(func(m map[string]any) { m["schema_version"] = 9 }), CodeSchemaFromFuture, "model_metadata.json"},
		"metadata swapped": {manifest(func(m map[string]any) {
			l := m["models"].([]any)
			l[0].(map[string]any)["metadata"] = "lstm_metadata.json"
		}), CodeMetadataInvalid, "lstm_metadata.json"},
		"unknown metadata":        {forest(func(m map[string]any) { m["colour"] = "red" }), CodeMetadataInvalid, "model_metadata.json"},
		"no parity class":         {forest(func(m map[string]any) { delete(m, "parity_class") }), CodeMetadataInvalid, "model_metadata.json"},
		"tolerance when exact":    {forest(func(m map[string]any) { m["tolerance"] = map[string]any{} }), CodeMetadataInvalid, "model_metadata.json"},
		"threshold off midpoint":  {forest(func(m map[string]any) { m["threshold"] = .5 }), CodeMetadataInvalid, "model_metadata.json"},
		"feature names reordered": {forest(func(m map[string]any) { l := m["feature_names"].([]any); l[0], l[1] = l[1], l[0] }), CodeMetadataInvalid, "model_metadata.json"},
		"scale of zero":           {forest(func(m map[string]any) { object(m, "scaler")["scale"].([]any)[0] = 0 }), CodeMetadataInvalid, "model_metadata.json"},
		"scale of infinity":       {forest(func(m map[string]any) { object(m, "scaler")["scale"].([]any)[0] = "Infinity" }), CodeMetadataInvalid, "model_metadata.json"},
		"scaler too short":        {forest(func(m map[string]any) { object(m, "scaler")["mean"] = []any{1} }), CodeMetadataInvalid, "model_metadata.json"},
		"calibration descends":    {forest(func(m map[string]any) { object(m, "calibration")["scores"] = []any{.5, .4} }), CodeMetadataInvalid, "model_metadata.json"},
		"no calibration":          {forest(func(m map[string]any) { delete(m, "calibration") }), CodeMetadataInvalid, "model_metadata.json"},
		"other depth threshold":   {forest(func(m map[string]any) { object(m, "forest")["depth_threshold"] = 500 }), CodeMetadataInvalid, "model_metadata.json"},
		"window in a forest":      {forest(func(m map[string]any) { m["timesteps"] = 10 }), CodeMetadataInvalid, "model_metadata.json"},
		"layout of the other":     {forest(func(m map[string]any) { object(m, "graph")["layout"] = "lstm.v1" }), CodeMetadataInvalid, "model_metadata.json"},
		"available without file":  {forest(func(m map[string]any) { object(m, "graph")["file"] = "" }), CodeMetadataInvalid, "model_metadata.json"},
		"window of 0":             {lstm(func(m map[string]any) { m["timesteps"] = 0 }), CodeMetadataInvalid, "lstm_metadata.json"},
		"window of 11":            {lstm(func(m map[string]any) { m["timesteps"] = 11 }), CodeGraphInvalid, "lstm_autoencoder.onnx"},
		"more units":              {lstm(func(m map[string]any) { object(m, "lstm")["units"].([]any)[0] = 128 }), CodeGraphInvalid, "lstm_autoencoder.onnx"},
		"mean differs": {forest(func(m map[string]any) {
			object(m, "scaler")["mean"].([]any)[0] = 1.25
		}), CodeGraphInvalid, "isolation_forest.onnx"},
		"graph not ONNX": {func(t *testing.T, dir string) { write(t, dir, "isolation_forest.onnx", "no"); publish(t, dir) }, CodeGraphInvalid, "isolation_forest.onnx"},
		"golden of the other": {inFile(golden, func(m map[string]any) { m["model_type"] = "lstm_autoencoder" }),
			CodeMetadataInvalid, golden},
		"golden flag unexplained": {inFile(golden, func(m map[string]any) { m["flags"] = map[string]any{} }), CodeMetadataInvalid, golden},
		"golden without cases":    {inFile(golden, func(m map[string]any) { m["cases"] = []any{} }), CodeGoldenMismatch, golden},
		"golden decision flipped": {inFile(golden, func(m map[string]any) {
			flipped := false
			for _, c := range m["cases"].([]any) {
				if score, ok := c.(map[string]any)["score"].(map[string]any); ok && !flipped {
					score["is_anomaly"], flipped = score["is_anomaly"] != true, true
				}
			}
		}), CodeGoldenMismatch, golden},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyReference(t)
			test.damage(t, dir)
			requireSetRefused(t, dir, test.code, test.field)
		})
	}
}

// requireSetRefused demands that the set in a folder is refused whole (rule A5), and gives the refusal.
func requireSetRefused(t *testing.T, dir string, code Code, field string) error {
	t.Helper()
	set, err := OpenModelSet(dir)
	require.ErrorIs(t, err, code)
	assert.Equal(t, field, AsError(err).Field)
	assert.Nil(t, set, "nothing half-open remains")
	assert.NotEmpty(t, code.Remedy())
	return err
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
}

func TestByproductsMayBeAbsentButNotDamaged(t *testing.T) {
	dir := copyReference(t)
	data := []byte("weights")
	sum := sha256.Sum256(data)
	editJSON(t, filepath.Join(dir, ManifestFile), func(m map[string]any) {
		m["files"] = append(m["files"].([]any), map[string]any{
			"path": "zz.bin", "size": len(data), "sha256": hex.EncodeToString(sum[:]), "role": "FILE_ROLE_BYPRODUCT",
		})
	})
	_, err := OpenModelSet(dir)
	require.NoError(t, err)
	write(t, dir, "zz.bin", "weights")
	_, err = OpenModelSet(dir)
	require.NoError(t, err)
	write(t, dir, "zz.bin", "Weights")
	_, err = OpenModelSet(dir)
	require.ErrorIs(t, err, CodeDigestMismatch)
}

// releaseFolder lays a set out as training does (rule A6).
func releaseFolder(t *testing.T) string {
	t.Helper()
	source, root := copyReference(t), t.TempDir()
	release := filepath.Join(root, "releases", "0123456789abcdef")
	require.NoError(t, os.MkdirAll(filepath.Dir(release), 0o700))
	require.NoError(t, os.Rename(source, release))
	require.NoError(t, os.Symlink(filepath.Join("releases", "0123456789abcdef"), filepath.Join(root, "current")))
	entries, err := os.ReadDir(release)
	require.NoError(t, err)
	for _, e := range entries {
		require.NoError(t, os.Symlink(filepath.Join("current", e.Name()), filepath.Join(root, e.Name())))
	}
	return root
}

func TestFolderOfLinks(t *testing.T) {
	root := releaseFolder(t)
	want := openReference(t).ID()
	for _, path := range []string{root, filepath.Join(root, "current")} {
		set, err := OpenModelSet(path)
		require.NoError(t, err)
		require.Equal(t, want, set.ID())
	}
	replaced := filepath.Join(root, "isolation_forest.onnx")
	require.NoError(t, os.Remove(replaced))
	require.NoError(t, os.WriteFile(replaced, []byte("mine"), 0o600))
	_, err := OpenModelSet(root)
	require.ErrorIs(t, err, CodeDigestMismatch)
	require.Equal(t, "isolation_forest.onnx", AsError(err).Field)
}

func TestDetectorWithoutGraphIsUnavailable(t *testing.T) {
	dir := copyReference(t)
	editJSON(t, filepath.Join(dir, "lstm_metadata.json"), func(m map[string]any) {
		m["graph"] = map[string]any{"available": false, "unavailable_reason": "the conversion failed"}
	})
	editJSON(t, filepath.Join(dir, ManifestFile), func(m map[string]any) {
		entry := m["models"].([]any)[1].(map[string]any)
		entry["graph"], entry["golden"] = "", ""
	})
	publish(t, dir)
	set, err := OpenModelSet(dir)
	require.NoError(t, err)
	require.Equal(t, []Detector{IsolationForest}, set.Detectors())
	var v Verdict
	err = set.Score(t.Context(), Request{Detector: LSTMAutoencoder}, &v)
	require.ErrorIs(t, err, CodeDetectorUnavailable)
	require.ErrorContains(t, err, "the conversion failed")
	err = set.Score(t.Context(), Request{Detector: 99}, &v)
	require.ErrorIs(t, err, CodeUnknownDetector)
	err = set.Score(t.Context(), Request{Detector: IsolationForest, ModelSetID: "other"}, &v)
	require.ErrorIs(t, err, CodeModelSetMismatch)
}

// FuzzManifest: no bytes make the JSON readers panic, and what passes holds what the rest relies on.
func FuzzManifest(f *testing.F) {
	for _, pattern := range []string{ManifestFile, "*_metadata.json"} {
		files, err := filepath.Glob(filepath.Join(referenceSets, "*", pattern))
		require.NoError(f, err)
		require.NotEmpty(f, files)
		for _, file := range files {
			data, err := os.ReadFile(file)
			require.NoError(f, err)
			f.Add(data)
		}
	}
	open := f.TempDir()
	require.NoError(f, testsets.WriteOpenEnsemble(open, memberSets...))
	for _, ensemble := range []string{ensembleFolder(f), open} {
		for _, name := range []string{ManifestFile, testsets.Metadata, testsets.Golden} {
			data, err := os.ReadFile(filepath.Join(ensemble, name))
			require.NoError(f, err)
			f.Add(data)
		}
	}
	f.Add([]byte(`{"schema_version": 1e99}`))
	f.Add([]byte(`{"schema_version": 1, "models": [{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := parseManifest(data); err == nil {
			for _, entry := range m.GetFiles() {
				require.Equal(t, entry.GetPath(), filepath.Base(entry.GetPath()))
			}
		}
		for _, d := range Detectors() {
			if m, err := parseMetadata("x", data, d); err == nil {
				if d == Ensemble {
					require.NotEmpty(t, m.GetEnsemble().GetMembers())
					first := m.GetEnsemble().GetMembers()[0]
					require.Greater(t, first.GetThreshold(), first.GetLow())
					require.Equal(t, m.GetGraph().GetLayout() == ensembleLayoutOpen, first.GetHigh() == 0)
				} else {
					require.Len(t, m.GetScaler().GetMean(), len(m.GetFeatureNames()))
				}
				require.NotEqual(t, anomalyv1.ParityClass_PARITY_CLASS_UNSPECIFIED, m.GetParityClass())
			}
			_, _ = parseGolden("x", data, d)
		}
	})
}
