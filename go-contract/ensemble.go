package anomaly

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// ensemble is the scorer of an ensemble (rules EN1 to EN8). It has no graph: its members score with their own engines, and what they
// publish is joined here, in float64, each operation on its own.
type ensemble struct {
	threshold float64
	features  int
	// size is the number of values of a window.
	size    int
	members []ensembleMember

	scratch sync.Pool // of *ensembleScratch
}

// ensembleMember is a member as the metadata have it.
type ensembleMember struct {
	detector                     Detector
	weight, threshold, low, high float64
	// open says that the common scale has no upper end within reach (EN8); then high means nothing.
	open bool
	// model is nil for a member that cannot be scored with the set; missing says why (EN6).
	model   *model
	missing string
	// skip is the number of values of a window before those that the member scores: all members speak of the last sample (EN6).
	skip int
}

// ensembleScratch is what one scoring works in.
type ensembleScratch struct {
	// answers has one entry per member.
	answers []memberAnswer
	parts   []float64
}

// memberAnswer is what a member said of a window.
type memberAnswer struct {
	verdict Verdict
	missing string
	// normalized is the score on the common scale, share its product with the weight (EN3, EN8).
	normalized, share float64
}

// join opens the ensemble of a set whose other models are open (rules EN1, EN2, EN6).
func (s *ModelSet) join(files *setFiles, entry *anomalyv1.ModelEntry) *Error {
	meta, refusal := parseMetadata(entry.GetMetadata(), files.serving[entry.GetMetadata()], Ensemble)
	if refusal != nil {
		return refusal
	}
	golden, refusal := parseGolden(entry.GetGolden(), files.serving[entry.GetGolden()], Ensemble)
	if refusal != nil {
		return refusal
	}
	e, err := newEnsemble(meta, s)
	if err != nil {
		return refuse(CodeMetadataInvalid, entry.GetMetadata(), "%w", err)
	}
	s.metadata[Ensemble] = meta
	if slices.ContainsFunc(e.members, func(m ensembleMember) bool { return m.model != nil }) {
		s.models[Ensemble] = &model{
			metadata: meta, shape: shapeOf(meta), calibration: newCalibration(meta), engine: e, golden: golden, goldenFile: entry.GetGolden(),
		}
	}
	return nil
}

// newEnsemble finds the members in a set.
func newEnsemble(meta *anomalyv1.ModelMetadata, s *ModelSet) (*ensemble, error) {
	e := &ensemble{threshold: meta.GetThreshold(), features: len(meta.GetFeatureNames())}
	e.size = e.features * windowLength(meta)
	longest, complete := uint32(0), true
	for _, member := range meta.GetEnsemble().GetMembers() {
		d := Detector(member.GetDetector())
		m := ensembleMember{
			detector: d, weight: member.GetWeight(), threshold: member.GetThreshold(), low: member.GetLow(), high: member.GetHigh(),
			open: meta.GetGraph().GetLayout() == ensembleLayoutOpen, model: s.models[d],
		}
		if its := s.metadata[d]; its == nil {
			complete = false
		} else if err := checkMember(meta, member, its); err != nil {
			return nil, err
		} else {
			longest = max(longest, its.GetTimesteps())
			m.skip = e.size - windowLength(its)*e.features
		}
		if m.model == nil {
			m.missing = s.unavailable(d)
		}
		e.members = append(e.members, m)
	}
	// A member that is not there may be the one with the longest window.
	if t := meta.GetTimesteps(); t < longest || (complete && t != longest) {
		return nil, fmt.Errorf("timesteps is %d; the longest window of the members is %d", t, longest)
	}
	e.scratch.New = func() any {
		return &ensembleScratch{answers: make([]memberAnswer, len(e.members)), parts: make([]float64, e.features)}
	}
	return e, nil
}

// unavailable says why a detector cannot be scored with the set.
func (s *ModelSet) unavailable(d Detector) string {
	meta := s.metadata[d]
	switch {
	case meta == nil:
		return "it is not part of the set"
	case d == Ensemble:
		var reasons []string
		for _, member := range meta.GetEnsemble().GetMembers() {
			m := Detector(member.GetDetector())
			reasons = append(reasons, fmt.Sprintf("%s: %s", m, s.unavailable(m)))
		}
		return "none of its members can be scored: " + strings.Join(reasons, "; ")
	}
	return meta.GetGraph().GetUnavailableReason()
}

// score scores a window with every member.
func (e *ensemble) score(window []float64, explain Explain, verdict *Verdict) error {
	s := e.scratch.Get().(*ensembleScratch)
	defer e.scratch.Put(s)
	for k := range e.members {
		m, a := &e.members[k], &s.answers[k]
		if a.missing = m.missing; m.model == nil {
			continue
		}
		if err := m.model.engine.score(window[m.skip:], explain, &a.verdict); err != nil {
			a.missing = "it failed: " + err.Error()
		}
	}
	if wanted, err := e.vote(s, explain, verdict); err != nil || !wanted {
		return err
	}
	for k := range e.members { // a member that alarms itself has explained already
		m, a := &e.members[k], &s.answers[k]
		if a.share > 0 && len(a.verdict.Contributions) == 0 {
			if err := m.model.engine.score(window[m.skip:], ExplainAlways, &a.verdict); err != nil {
				return fmt.Errorf("%s, asked to explain: %w", m.detector, err)
			}
		}
	}
	e.explain(s, verdict)
	return nil
}

// vote joins the scores of the members that answered (rules EN3, EN4, EN6, EN8), says what each of them said, and whether an explanation is
// wanted.
func (e *ensemble) vote(s *ensembleScratch, explain Explain, verdict *Verdict) (wanted bool, err error) {
	shares, weights := 0.0, 0.0
	for k := range e.members {
		m, a := &e.members[k], &s.answers[k]
		a.normalized, a.share = 0, 0
		if a.missing != "" {
			continue
		}
		a.normalized = m.normalize(a.verdict.Score)
		a.share = float64(m.weight * a.normalized)
		shares += a.share
		weights += m.weight
	}
	verdict.Members = verdict.Members[:0]
	for k := range e.members {
		m, a := &e.members[k], &s.answers[k]
		said := MemberVerdict{Detector: m.detector, Missing: a.missing}
		if a.missing == "" {
			said.Weight, said.Score, said.Normalized = m.weight/weights, a.verdict.Score, a.normalized
		}
		verdict.Members = append(verdict.Members, said)
	}
	if weights == 0 {
		return false, refuse(CodeDetectorUnavailable, "detector", "no member of the ensemble answered; %s: %s",
			e.members[0].detector, s.answers[0].missing)
	}
	return verdict.decide(shares/weights, e.threshold, explain), nil // EN5
}

// sevenThirds makes 0.3 of a score at the threshold (rule EN8).
const sevenThirds float64 = 7. / 3

// normalize puts a published score on the common scale (rules EN3, EN8).
func (m *ensembleMember) normalize(score float32) float64 {
	if m.open {
		u := max(0, float64(float64(score)-m.low)/float64(m.threshold-m.low))
		return u / (u + sevenThirds)
	}
	n := float64(float64(score)-m.low) / float64(m.high-m.low)
	return min(max(n, 0), 1)
}

// explain appends the explanation of the members that answered and have explained (rule EN7). One whose share is 0 adds nothing, so it
// need not have, unless none has more.
func (e *ensemble) explain(s *ensembleScratch, verdict *Verdict) {
	clear(s.parts)
	total := 0.0
	var leader *memberAnswer
	for k := range s.answers {
		a := &s.answers[k]
		if a.missing != "" {
			continue
		}
		if leader == nil || a.share > leader.share {
			leader = a
		}
		total += a.share
		for j, c := range a.verdict.Contributions {
			s.parts[j] += float64(a.share * float64(c))
		}
	}
	verdict.Contributions = appendShares(verdict.Contributions, s.parts, total)
	verdict.Expected = append(verdict.Expected, leader.verdict.Expected...)
}

// scoreBatch scores all items with one member after the other. What the members said of an item cannot be told in a batch, so that a
// member that fails is an error here.
func (e *ensemble) scoreBatch(ctx context.Context, rows []float64, count, stride int, explain Explain, verdict *BatchVerdict) error {
	each := ExplainNever
	if explain == ExplainAlways {
		each = ExplainAlways
	}
	batches := make([]BatchVerdict, len(e.members))
	for k := range e.members {
		m := &e.members[k]
		if m.model == nil {
			continue
		}
		batches[k].reset(count, e.features, each)
		if err := m.model.scoreItems(ctx, rows[m.skip:], count, stride, each, &batches[k]); err != nil {
			return fmt.Errorf("%s: %w", m.detector, err)
		}
	}
	s := e.scratch.Get().(*ensembleScratch)
	defer e.scratch.Put(s)
	var one Verdict
	for i := range count {
		for k := range e.members {
			a := &s.answers[k]
			if a.missing = e.members[k].missing; a.missing == "" {
				batches[k].Item(i, e.features, &a.verdict)
			}
		}
		wanted, err := e.vote(s, each, &one)
		if err != nil {
			return err
		}
		verdict.Scores[i], verdict.IsAnomaly[i] = one.Score, one.IsAnomaly
		if wanted {
			e.explain(s, &one)
			verdict.explain(i, e.features, one.Contributions, one.Expected)
		}
	}
	if explain == ExplainAlways || explain == ExplainNever {
		return nil
	}
	return verdict.explainAlarms(rows, e.size, stride, e.features, func(windows []float64, count int, explained *BatchVerdict) error {
		return e.scoreBatch(ctx, windows, count, e.size, ExplainAlways, explained)
	})
}

func (e *ensemble) close() error { return nil }
