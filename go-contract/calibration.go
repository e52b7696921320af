package anomaly

import (
	"sort"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// calibration turns scores into p-values and levels (rules C1 to C4).
type calibration struct {
	// scores of held-out normal data, ascending.
	scores []float32
	// critical is the score above which the level of an ensemble is CRITICAL (rule EN5); 0 for other detectors, whose level follows
	// from the scores (rule C4).
	critical float64
}

func newCalibration(m *anomalyv1.ModelMetadata) calibration {
	return calibration{m.GetCalibration().GetScores(), m.GetEnsemble().GetCriticalThreshold()}
}

// atLeast is k of C2: how many held-out scores are at least as high as score.
func (c calibration) atLeast(score float32) int {
	return len(c.scores) - sort.Search(len(c.scores), func(i int) bool { return c.scores[i] >= score })
}

// judge gives p-value and level. On normal data exchangeable with the held-out data p <= a happens with probability at
// most a (split conformal prediction).
func (c calibration) judge(score float32, isAnomaly bool) (p float64, level Level) {
	k := c.atLeast(score)
	p = float64(1+k) / float64(len(c.scores)+1)
	switch {
	case !isAnomaly:
		return p, LevelNormal
	case c.critical == 0 && k == 0, c.critical > 0 && float64(score) > c.critical:
		return p, LevelCritical
	default:
		return p, LevelWarning
	}
}
