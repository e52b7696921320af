package anomaly

import (
	"fmt"
	"math"
	"slices"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// weightSlack is how far from 1 the sum of the weights of an ensemble may be (rule EN1).
const weightSlack = 1e-9

// checkNothingOfItsOwn refuses an ensemble with a scaler, reference values, a drift reference, a graph, or a class other than EXACT (rules EN4, EN7).
func checkNothingOfItsOwn(m *anomalyv1.ModelMetadata) error {
	if m.Scaler != nil || len(m.GetReferenceValues()) > 0 {
		return fmt.Errorf("scaler or reference_values is set; an ensemble has none, its members have")
	}
	if m.Drift != nil {
		return fmt.Errorf("drift is set; an ensemble has none, its members have")
	}
	g := m.GetGraph()
	if g.GetAvailable() || g.GetFile() != "" || g.GetUnavailableReason() != "" || g.GetPrecision() != "" || len(g.GetOperatorCounts()) > 0 {
		return fmt.Errorf("graph describes a graph; an ensemble has none")
	}
	if l := g.GetLayout(); l != ensembleLayout && l != ensembleLayoutOpen {
		return fmt.Errorf("graph.layout is %q; those of an ensemble are %s and %s", l, ensembleLayout, ensembleLayoutOpen)
	}
	if m.GetParityClass() != anomalyv1.ParityClass_PARITY_CLASS_EXACT {
		return fmt.Errorf("parity_class is %s; an ensemble is EXACT", m.GetParityClass())
	}
	return nil
}

// checkEnsembleParameters checks what can be seen without the members (rules EN1, EN3, EN5, EN8).
func checkEnsembleParameters(m *anomalyv1.ModelMetadata) error {
	if m.Timesteps != nil {
		if err := checkTimesteps(m); err != nil {
			return err
		}
	}
	e := m.GetEnsemble()
	if len(e.GetMembers()) == 0 {
		return fmt.Errorf("ensemble.members is empty")
	}
	last, sum := Detector(0), 0.0
	for i, member := range e.GetMembers() {
		at := fmt.Sprintf("ensemble.members[%d]", i)
		d := Detector(member.GetDetector())
		switch {
		case d == Ensemble:
			return fmt.Errorf("%s is an ensemble, which is no member of one", at)
		case !d.known() || d <= last:
			return fmt.Errorf("%s is %s, which is unknown, there twice or out of order", at, d)
		case !(member.GetWeight() > 0) || !finite(member.GetWeight()):
			return fmt.Errorf("%s.weight is %v; it is above 0", at, member.GetWeight())
		case !finite(member.GetThreshold()):
			return fmt.Errorf("%s.threshold is %v", at, member.GetThreshold())
		}
		if err := checkScale(member, m.GetGraph().GetLayout()); err != nil {
			return fmt.Errorf("%s.%w", at, err)
		}
		last = d
		sum += member.GetWeight()
	}
	if !(math.Abs(sum-1) <= weightSlack) {
		return fmt.Errorf("ensemble.members: the weights sum to %v, not to 1", sum)
	}
	if c := e.GetCriticalThreshold(); !isMidpoint(c) || c < m.GetThreshold() {
		return fmt.Errorf("ensemble.critical_threshold %v is no midpoint of two neighbouring float32 numbers, or below threshold %v",
			c, m.GetThreshold())
	}
	return nil
}

// checkScale refuses a member whose scores the common scale would not tell apart (rules EN3, EN8).
func checkScale(member *anomalyv1.EnsembleMember, layout string) error {
	low, high, threshold := member.GetLow(), member.GetHigh(), member.GetThreshold()
	switch {
	case layout == ensembleLayoutOpen && high != 0:
		return fmt.Errorf("high is %v; in %s it is 0", high, layout)
	case layout != ensembleLayoutOpen && (!finite(low) || !finite(high) || high <= low):
		return fmt.Errorf("high is %v; it is above low, %v", high, low)
	case !finite(low) || threshold <= low:
		return fmt.Errorf("threshold is %v; it is above low, %v", threshold, low)
	}
	return nil
}

// checkMember refuses a member of the set that is not the one that the ensemble was made for (rules EN1, EN2, EN4).
func checkMember(m *anomalyv1.ModelMetadata, member *anomalyv1.EnsembleMember, its *anomalyv1.ModelMetadata) error {
	d := Detector(member.GetDetector())
	names, theirs := m.GetFeatureNames(), its.GetFeatureNames()
	switch {
	case !slices.Equal(names, theirs):
		return fmt.Errorf("member %s has the features %v, the ensemble %v", d, theirs, names)
	case its.GetThreshold() != member.GetThreshold():
		return fmt.Errorf("member %s has threshold %v; the ensemble was made for %v: make the ensemble anew",
			d, its.GetThreshold(), member.GetThreshold())
	case its.GetParityClass() != anomalyv1.ParityClass_PARITY_CLASS_EXACT:
		return fmt.Errorf("member %s is not EXACT", d)
	}
	return nil
}
