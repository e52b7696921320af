package anomaly

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// runVectors runs the frozen vectors of a detector through the reference set (rule V5).
func runVectors(t *testing.T, set *ModelSet, d Detector) *GoldenReport {
	t.Helper()
	name := d.String() + ".golden.json"
	data, err := os.ReadFile(filepath.Join(vectorsDir, name))
	require.NoError(t, err)
	file, refusal := parseGolden(name, data, d)
	require.Nil(t, refusal)
	report := &GoldenReport{Detector: d, File: name}
	set.models[d].runGolden(t.Context(), file, set, report)
	require.Len(t, file.GetCases(), report.Cases)
	return report
}

func TestFrozenVectors(t *testing.T) {
	ran := homes(t)
	for d, set := range ran {
		report := runVectors(t, set, d)
		require.NoError(t, report.Err())
		require.Greater(t, report.Cases, 100)
	}
	require.Len(t, ran, len(Detectors()), "a detector has no frozen vectors")
	files, err := filepath.Glob(filepath.Join(vectorsDir, "*.golden.json"))
	require.NoError(t, err)
	require.Len(t, files, len(ran), "a file of vectors is not run")
}

// goldenCase gives a copy of the first case with a score, and the verdict that it wants.
func goldenCase(t *testing.T, m *model) (*anomalyv1.GoldenCase, Verdict) {
	t.Helper()
	for _, c := range m.golden.GetCases() {
		if s := c.GetScore(); s != nil {
			return proto.Clone(c).(*anomalyv1.GoldenCase), Verdict{
				Score: s.GetScore(), IsAnomaly: s.GetIsAnomaly(), Contributions: s.GetContributions(), Expected: s.GetExpected(), DepthSum: s.GetDepthSum(),
			}
		}
	}
	t.Fatal("no case with a score")
	return nil, Verdict{}
}

func TestExactComparisonSeesEveryBit(t *testing.T) {
	m := openReference(t).models[IsolationForest]
	c, good := goldenCase(t, m)
	_, _, ok := m.compareCase(c, &good, nil)
	require.True(t, ok)
	next := func(x float32) float32 { return math.Nextafter32(x, 2) }
	nan := float32(math.NaN())
	for name, bend := range map[string]func(*Verdict){
		"score":    func(v *Verdict) { v.Score = next(v.Score) },
		"NaN":      func(v *Verdict) { v.Score = nan },
		"decision": func(v *Verdict) { v.IsAnomaly = !v.IsAnomaly },
		"contribution": func(v *Verdict) {
			v.Contributions = append([]float32{next(v.Contributions[0])}, v.Contributions[1:]...)
		},
		"too few":        func(v *Verdict) { v.Contributions = v.Contributions[1:] },
		"expected":       func(v *Verdict) { v.Expected = append([]float32{nan}, v.Expected[1:]...) },
		"depth sum":      func(v *Verdict) { v.DepthSum = math.Nextafter(v.DepthSum, 0) },
		"no depth sum":   func(v *Verdict) { v.DepthSum = 0 },
		"nothing at all": func(v *Verdict) { *v = Verdict{} },
	} {
		bent := good
		bend(&bent)
		_, _, ok := m.compareCase(c, &bent, nil)
		assert.False(t, ok, name)
	}
	_, _, ok = m.compareCase(c, &good, refuse(CodeNotFinite, "samples", "no"))
	assert.False(t, ok, "an error is never a score")
	wantsError := &anomalyv1.GoldenCase{Outcome: &anomalyv1.GoldenCase_Error{Error: &anomalyv1.ErrorInfo{
		Code: anomalyv1.ErrorCode_ERROR_CODE_NO_SAMPLES, Field: "samples",
	}}}
	_, _, ok = m.compareCase(wantsError, &good, nil)
	assert.False(t, ok)
	_, _, ok = m.compareCase(wantsError, nil, refuse(CodeNoSamples, "rows", "no"))
	assert.False(t, ok)
	_, _, ok = m.compareCase(wantsError, nil, refuse(CodeNoSamples, "samples", "no"))
	assert.True(t, ok)
}

func TestToleranceComparison(t *testing.T) {
	m := *openReference(t).models[LSTMAutoencoder]
	m.metadata = proto.Clone(m.metadata).(*anomalyv1.ModelMetadata)
	m.metadata.ParityClass = anomalyv1.ParityClass_PARITY_CLASS_TOLERANCE
	m.metadata.Tolerance = &anomalyv1.Tolerance{RelativeScore: 1e-4, GuardBand: 1e-3}
	c, good := goldenCase(t, &m)
	near, far := good, good
	near.Score *= 1 + 5e-5
	far.Score *= 1 + 2e-4
	for verdict, want := range map[*Verdict]bool{&good: true, &near: true, &far: false, {Score: float32(math.NaN())}: false} {
		_, _, ok := m.compareCase(c, verdict, nil)
		assert.Equal(t, want, ok, verdict.Score)
	}
	flipped := good
	flipped.IsAnomaly = !flipped.IsAnomaly
	_, _, ok := m.compareCase(c, &flipped, nil)
	assert.False(t, ok, "outside the guard band decisions agree")
	m.metadata.Threshold = float64(good.Score) * (1 + 5e-4)
	_, _, ok = m.compareCase(c, &flipped, nil)
	assert.True(t, ok)
}

func TestReportsNameTheCase(t *testing.T) {
	empty := &GoldenReport{Detector: IsolationForest, File: "f"}
	require.ErrorIs(t, empty.Err(), CodeGoldenMismatch, "no case that ran is a failure")
	r := &GoldenReport{Cases: 2, File: "f", Failures: []GoldenFailure{{"a/b", "1", "2", "[[3]]"}}}
	require.ErrorContains(t, r.Err(), "a/b: wanted 1, got 2, input [[3]]")
	require.True(t, strings.HasPrefix(r.Err().Error(), "GOLDEN_MISMATCH f: 1 of 2"))
	require.NoError(t, (&GoldenReport{Cases: 1}).Err())
}
