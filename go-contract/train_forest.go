package anomaly

import (
	"math"
	"math/bits"
	"math/rand/v2"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// ForestOptions are the hyperparameters of an isolation forest; zero values mean the defaults.
type ForestOptions struct {
	// Trees is the number of trees, 100 by default.
	Trees int
	// MaxSamples is the number of rows drawn for a tree, 256 by default.
	MaxSamples int
	// Contamination is the share of the training rows above the threshold, 0.01 by default. More contamination means more
	// alarms (rule D3).
	Contamination float64
	// Seed of every random choice, 42 by default.
	Seed uint64
}

func (o ForestOptions) withDefaults() ForestOptions {
	if o.Trees <= 0 {
		o.Trees = 100
	}
	if o.MaxSamples <= 0 {
		o.MaxSamples = 256
	}
	if !(o.Contamination > 0 && o.Contamination <= .5) {
		o.Contamination = .01
	}
	if o.Seed == 0 {
		o.Seed = 42
	}
	return o
}

// TrainForest fits an isolation forest on rows in raw units, oldest first, and gives it as a model set in memory (Liu, Ting, Zhou:
// Isolation Forest, ICDM 2008; rules IF1 to IF5). The rows are neither kept nor changed. No rows are NO_SAMPLES.
func TrainForest(schema *anomalyv1.FeatureSchema, rows [][]float64, options ForestOptions) (*ModelSet, error) {
	rows, refusal := copyRows(schema, rows)
	if refusal != nil {
		return nil, refusal
	}
	o := options.withDefaults()
	fitted, held, source := rows, rows, "the training rows themselves: too few to hold some out"
	if n := len(rows); n >= minHoldOutRows {
		cut := int(float64(n) * (1 - holdOut))
		fitted, held, source = rows[:cut], rows[cut+1:], "the last 20 % of the training rows"
	}
	s := fitScaler(fitted)
	scaled := make([][]float64, len(fitted))
	for i, row := range fitted {
		scaled[i] = make([]float64, len(row))
		for j, x := range row {
			scaled[i][j] = float64(float32(s.scale1(x, j))) // IF1
		}
	}
	maxSamples := min(o.MaxSamples, len(fitted))
	random := rand.New(rand.NewPCG(o.Seed, 0))
	trees := make([]tree, o.Trees)
	for k := range trees {
		trees[k] = growTree(scaled, maxSamples, random)
	}
	references := medians(fitted)
	rate := -1 / (float64(o.Trees) * averagePathLength(max(maxSamples, 2))) // IF4
	f := newIsolationForest(s, trees, rate, 0, references)

	threshold := nearestMidpoint(quantile(widen(f.scores(fitted)), 1-o.Contamination))
	f.depthThreshold = depthThreshold(threshold, rate)

	meta := newMetadata(IsolationForest, schema, s, references)
	trained, contamination := uint32(o.Trees), o.Contamination
	meta.NEstimators, meta.Contamination, meta.Threshold = &trained, &contamination, threshold
	meta.Calibration = calibrationOf(f.scores(held), source)
	meta.Forest = &anomalyv1.ForestParameters{MaxSamples: uint32(maxSamples), DepthThreshold: f.depthThreshold, ScoreRate: rate}
	return inMemory(IsolationForest, meta, f), nil
}

func (f *isolationForest) scores(rows [][]float64) []float32 {
	var v Verdict
	out := make([]float32, len(rows))
	for i, row := range rows {
		_ = f.score(row, ExplainNever, &v) // the native scorer has no error
		out[i] = v.Score
	}
	return out
}

func widen(values []float32) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = float64(v)
	}
	return out
}

// depthThreshold is IF5: the smallest multiple of 2^-40 whose score is not above the threshold, as far as float64 can tell.
func depthThreshold(threshold, rate float64) float64 {
	depth := math.Ceil(math.Log2(threshold)/rate/depthUnit) * depthUnit
	for math.Exp2(depth*rate) > threshold {
		depth += depthUnit
	}
	return max(depth, depthUnit)
}

// averagePathLength is c(n) of IF2: the average path length of an unsuccessful search in a binary search tree of n rows. It is
// used when a tree is grown, never when it scores.
func averagePathLength(n int) float64 {
	switch {
	case n <= 1:
		return 0
	case n == 2:
		return 1
	}
	const eulerGamma = 0.5772156649015329
	return 2*(math.Log(float64(n-1))+eulerGamma) - 2*float64(n-1)/float64(n)
}

// growTree grows a tree on rows drawn without replacement.
func growTree(rows [][]float64, maxSamples int, random *rand.Rand) tree {
	chosen := random.Perm(len(rows))[:maxSamples]
	limit := bits.Len(uint(maxSamples - 1)) // ceil(log2(maxSamples))
	t := tree{{}}
	type job struct {
		node, depth int
		rows        []int
	}
	queue := []job{{0, 0, chosen}}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		feature, split, ok := 0, 0.0, false
		if at.depth < limit && len(at.rows) > 1 {
			feature, split, ok = drawSplit(rows, at.rows, random)
		}
		if !ok {
			weight := float64(at.depth) + averagePathLength(len(at.rows))
			t[at.node] = forestNode{isLeaf: true, weight: math.Round(weight/depthUnit) * depthUnit}
			continue
		}
		var left, right []int
		for _, i := range at.rows {
			if rows[i][feature] <= split {
				left = append(left, i)
			} else {
				right = append(right, i)
			}
		}
		t[at.node] = forestNode{feature: feature, split: split, left: len(t), right: len(t) + 1}
		queue = append(queue, job{len(t), at.depth + 1, left}, job{len(t) + 1, at.depth + 1, right})
		t = append(t, forestNode{}, forestNode{})
	}
	if t[0].isLeaf { // a tree of one leaf, in the form of the graphs: both sides are that leaf
		return tree{{left: 1, right: 2}, t[0], t[0]}
	}
	return t
}

// drawSplit draws a feature that varies and a value between its smallest and largest; false when nothing varies.
func drawSplit(rows [][]float64, chosen []int, random *rand.Rand) (feature int, split float64, ok bool) {
	for _, feature := range random.Perm(len(rows[0])) {
		low, high := math.Inf(1), math.Inf(-1)
		for _, i := range chosen {
			low, high = min(low, rows[i][feature]), max(high, rows[i][feature])
		}
		if low < high {
			split = low + random.Float64()*(high-low)
			if split >= high { // rounding must not empty the right side
				split = low
			}
			return feature, split, true
		}
	}
	return 0, 0, false
}
