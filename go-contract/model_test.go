package anomaly

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

var openedReference = sync.OnceValues(func() (*ModelSet, error) { return OpenModelSet(referenceSet) })

// openReference gives the reference set, opened once.
func openReference(tb testing.TB) *ModelSet {
	tb.Helper()
	set, err := openedReference()
	require.NoError(tb, err)
	return set
}

var openedReferences = sync.OnceValues(func() (sets []*ModelSet, err error) {
	manifests, err := filepath.Glob(filepath.Join(referenceSets, "*", ManifestFile))
	for _, manifest := range manifests {
		set, err := OpenModelSet(filepath.Dir(manifest))
		if err != nil {
			return nil, err
		}
		sets = append(sets, set)
	}
	return sets, err
})

// openReferences gives every frozen set, opened once. Together they have every detector.
func openReferences(tb testing.TB) []*ModelSet {
	tb.Helper()
	sets, err := openedReferences()
	require.NoError(tb, err)
	require.NotEmpty(tb, sets)
	return sets
}

// homes gives the frozen set of each detector that its frozen vectors are for. A detector that is a member of an ensemble may be in a
// second set for that alone.
func homes(tb testing.TB) map[Detector]*ModelSet {
	tb.Helper()
	found := map[Detector]*ModelSet{}
	for _, set := range openReferences(tb) {
		for _, d := range set.Detectors() {
			if found[d] == nil || set.Metadata(Ensemble) == nil {
				found[d] = set
			}
		}
	}
	return found
}

// copyReference copies the reference set into a folder that a test may damage.
func copyReference(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	entries, err := os.ReadDir(referenceSet)
	require.NoError(t, err)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(referenceSet, e.Name()))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, e.Name()), data, 0o600))
	}
	return dir
}

func TestReferenceSetsHaveEveryDetectorAndAllCasesRun(t *testing.T) {
	ran := map[Detector]bool{}
	for _, set := range openReferences(t) {
		for _, d := range set.Detectors() {
			report := set.Golden(t.Context(), d, set)
			require.NoError(t, report.Err())
			require.Len(t, set.models[d].golden.GetCases(), report.Cases)
			require.Greater(t, report.Cases, 50)
			ran[d] = true
		}
	}
	require.Len(t, ran, len(Detectors()))
}
