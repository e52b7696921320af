package anomaly

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// GoldenReport says how a scorer did on the golden vectors of a detector (rules V1, V2).
type GoldenReport struct {
	Detector Detector
	// File is the name of the golden file.
	File string
	// Cases is how many cases ran.
	Cases    int
	Failures []GoldenFailure
}

// GoldenFailure is a case with another answer than the wanted one.
type GoldenFailure struct {
	Case, Wanted, Got, Input string
}

// Err is GOLDEN_MISMATCH when a case failed, or when none ran; nil otherwise.
func (r *GoldenReport) Err() error {
	if r.Cases == 0 {
		return &Error{CodeGoldenMismatch, r.File, "no golden vector ran", r}
	}
	if len(r.Failures) == 0 {
		return nil
	}
	f := r.Failures[0]
	message := fmt.Sprintf("%d of %d golden vectors differ, the first is %s: wanted %s, got %s, input %s",
		len(r.Failures), r.Cases, f.Case, f.Wanted, f.Got, f.Input)
	return &Error{CodeGoldenMismatch, r.File, message, r}
}

// Error makes the report the cause of the GOLDEN_MISMATCH that it led to: errors.As finds all failures.
func (r *GoldenReport) Error() string {
	return fmt.Sprintf("%d of %d golden vectors of %s differ", len(r.Failures), r.Cases, r.Detector)
}

// parseGolden reads and checks a golden file (rules A3, V3).
func parseGolden(file string, data []byte, detector Detector) (*anomalyv1.GoldenFile, *Error) {
	g := &anomalyv1.GoldenFile{}
	if err := parseJSON(file, data, g, g.GetSchemaVersion); err != nil {
		return nil, err
	}
	if err := checkGolden(g, detector); err != nil {
		return nil, refuse(CodeMetadataInvalid, file, "%w", err)
	}
	return g, nil
}

func checkGolden(g *anomalyv1.GoldenFile, detector Detector) error {
	if g.GetModelType() != detector.String() {
		return fmt.Errorf("model_type is %q, not %s", g.GetModelType(), detector)
	}
	seen := map[string]bool{}
	for i, c := range g.GetCases() {
		if c.GetId() == "" || seen[c.GetId()] || c.GetComment() == "" {
			return fmt.Errorf("case %d (%q) has no id, one that is taken, or no comment", i, c.GetId())
		}
		seen[c.GetId()] = true
		for _, flag := range c.GetFlags() {
			if g.GetFlags()[flag] == "" {
				return fmt.Errorf("case %s has flag %q, which the file does not explain", c.GetId(), flag)
			}
		}
		switch outcome := c.GetOutcome().(type) {
		case *anomalyv1.GoldenCase_Score:
			if math.Float32bits(outcome.Score.GetScore()) != outcome.Score.GetScoreBits() {
				return fmt.Errorf("case %s: score %v does not have the bits %d", c.GetId(), outcome.Score.GetScore(), outcome.Score.GetScoreBits())
			}
		case *anomalyv1.GoldenCase_Error:
		default:
			return fmt.Errorf("case %s has no outcome", c.GetId())
		}
	}
	return nil
}

// Golden runs the golden vectors of a detector of this set through a scorer: the set itself, or a sidecar that is to have the
// same set open.
func (s *ModelSet) Golden(ctx context.Context, detector Detector, scorer Scorer) *GoldenReport {
	report := &GoldenReport{Detector: detector}
	m := s.models[detector]
	if m == nil {
		return report
	}
	report.File = m.goldenFile
	m.runGolden(ctx, m.golden, scorer, report)
	return report
}

// runGolden runs every case of a file; a case that cannot be run is a failure.
func (m *model) runGolden(ctx context.Context, file *anomalyv1.GoldenFile, scorer Scorer, report *GoldenReport) {
	var verdict Verdict
	for _, c := range file.GetCases() {
		request := Request{Detector: report.Detector, Explain: ExplainAlways}
		for _, s := range c.GetSamples() {
			request.Samples = append(request.Samples, s.GetValues())
		}
		err := scorer.Score(ctx, request, &verdict)
		report.Cases++
		wanted, got, ok := m.compareCase(c, &verdict, err)
		if !ok {
			report.Failures = append(report.Failures, GoldenFailure{c.GetId(), wanted, got, fmt.Sprint(request.Samples)})
		}
	}
}

// compareCase compares an answer with the wanted one (rule V2).
func (m *model) compareCase(c *anomalyv1.GoldenCase, got *Verdict, err error) (wantedText, gotText string, ok bool) {
	if want := c.GetError(); want != nil {
		wantedText = fmt.Sprintf("%s %s", Code(want.GetCode()), want.GetField())
		if err == nil {
			return wantedText, fmt.Sprintf("score %v", got.Score), false
		}
		var typed *Error
		ok = errors.As(err, &typed) && typed.Code == Code(want.GetCode()) && typed.Field == want.GetField()
		return wantedText, err.Error(), ok
	}
	want := c.GetScore()
	wantedText = fmt.Sprintf("%v (bits %08x) %v contributions %v expected %v depth sum %v",
		want.GetScore(), want.GetScoreBits(), want.GetIsAnomaly(), want.GetContributions(), want.GetExpected(), want.GetDepthSum())
	if err != nil {
		return wantedText, err.Error(), false
	}
	gotText = fmt.Sprintf("%v (bits %08x) %v contributions %v expected %v depth sum %v",
		got.Score, math.Float32bits(got.Score), got.IsAnomaly, got.Contributions, got.Expected, got.DepthSum)
	if bitwise(m.metadata) {
		return wantedText, gotText, equalExactly(want, got)
	}
	return wantedText, gotText, equalWithin(want, got, m.metadata)
}

func equalExactly(want *anomalyv1.GoldenScore, got *Verdict) bool {
	sameBits := func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }
	return want.GetScoreBits() == math.Float32bits(got.Score) && want.GetIsAnomaly() == got.IsAnomaly &&
		slices.EqualFunc(want.GetContributions(), got.Contributions, sameBits) &&
		slices.EqualFunc(want.GetExpected(), got.Expected, sameBits) &&
		(want.DepthSum == nil || math.Float64bits(want.GetDepthSum()) == math.Float64bits(got.DepthSum))
}

// equalWithin is P3. Comparisons are written so that a NaN fails them.
func equalWithin(want *anomalyv1.GoldenScore, got *Verdict, meta *anomalyv1.ModelMetadata) bool {
	relative, threshold := meta.GetTolerance().GetRelativeScore(), meta.GetThreshold()
	score := float64(want.GetScore())
	if !(math.Abs(float64(got.Score)-score) <= relative*score) {
		return false
	}
	inGuardBand := math.Abs(score-threshold) <= meta.GetTolerance().GetGuardBand()*threshold
	return (want.GetIsAnomaly() == got.IsAnomaly || inGuardBand) &&
		listWithin(want.GetContributions(), got.Contributions, relative) &&
		listWithin(want.GetExpected(), got.Expected, relative)
}

// listWithin says whether lists agree within a share of the largest wanted value (rule V2).
func listWithin(want, got []float32, relative float64) bool {
	if len(want) != len(got) {
		return false
	}
	largest := 0.0
	for _, w := range want {
		largest = max(largest, math.Abs(float64(w)))
	}
	for i := range want {
		if !(math.Abs(float64(want[i])-float64(got[i])) <= relative*largest) {
			return false
		}
	}
	return true
}

// Summary is one line for people.
func (r *GoldenReport) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d golden vectors, %d failed", r.Detector, r.Cases, len(r.Failures))
	return b.String()
}
