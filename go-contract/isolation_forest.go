package anomaly

import (
	"math"
	"slices"
	"sync"
)

// isolationForest is the native scorer of an isolation forest (rules IF1 to IF8).
//
// The trees are compiled for speed without a change of meaning:
//
//   - A scaled value is a float32 (IF1), so `value <= t` for a float64 threshold t is the same test as `value <= t32` with t32
//     the largest float32 not above t. Both sides become integers in the order of the floats.
//   - The children of a node lie side by side; a step is `left + (value > limit)`, without a branch to mispredict. Half the
//     branches of an isolation forest are coin tosses.
//   - A leaf is a node that leads to itself, so every tree of a group takes the same number of steps, and several trees
//     advance at once. The order of the sum does not matter: it is exact (IF3).
type isolationForest struct {
	scaler
	nodes []treeNode
	// weights has the leaf weight of each node, 0 for inner nodes (IF2).
	weights []float64
	groups  []treeGroup

	scoreRate, depthThreshold float64
	// referenceScaled are the float64 values that IF8 puts in the place of z; referenceKeys the same as keys.
	referenceScaled []float64
	referenceKeys   []int32
	// expected is the training median of each feature in raw units (IF6).
	expected []float32

	scratch sync.Pool // of *forestScratch
}

// treeNode sends a sample to `left` when keys[feature] <= limit, else to `left + 1`.
type treeNode struct {
	limit   int32
	feature uint32
	left    uint32
}

// groupSize is how many trees descend at once. Eight hide the latency of the loads; more do not fit the registers.
const groupSize = 8

// treeGroup is groupSize trees that descend together.
type treeGroup struct {
	roots [groupSize]uint32
	// steps is the depth of the deepest tree.
	steps int
}

type forestScratch struct {
	z     []float64
	keys  []int32
	gains []float64
}

// newIsolationForest compiles trees. They have been audited.
func newIsolationForest(s scaler, trees []tree, scoreRate, depthThreshold float64, references []float64) *isolationForest {
	f := &isolationForest{scaler: s, scoreRate: scoreRate, depthThreshold: depthThreshold}
	f.referenceScaled, f.expected = s.references(references)
	for _, z := range f.referenceScaled {
		f.referenceKeys = append(f.referenceKeys, floatKey(float32(z)))
	}
	f.compile(trees)
	f.nodes, f.weights = slices.Clone(f.nodes), slices.Clone(f.weights) // without the room to grow, which takes a fifth
	n := len(references)
	f.scratch.New = func() any {
		return &forestScratch{z: make([]float64, n), keys: make([]int32, n), gains: make([]float64, n)}
	}
	return f
}

// compile lays the trees out, deepest first so that the trees of a group are about equally deep.
func (f *isolationForest) compile(trees []tree) {
	trees = slices.Clone(trees)
	slices.SortStableFunc(trees, func(a, b tree) int { return b.depth() - a.depth() })
	f.addLeaf(0) // node 0 fills up the last group
	for start := 0; start < len(trees); start += groupSize {
		var g treeGroup
		for k := range trees[start:min(start+groupSize, len(trees))] {
			t := trees[start+k]
			g.roots[k] = f.addTree(t)
			g.steps = max(g.steps, t.depth())
		}
		f.groups = append(f.groups, g)
	}
}

func (f *isolationForest) addLeaf(weight float64) uint32 {
	self := uint32(len(f.nodes))
	f.nodes = append(f.nodes, treeNode{limit: math.MaxInt32, left: self})
	f.weights = append(f.weights, weight)
	return self
}

// addTree appends a tree breadth first, so that the levels that every sample passes lie together.
func (f *isolationForest) addTree(t tree) uint32 {
	root := f.addLeaf(0)
	type job struct {
		node   int
		target uint32
	}
	queue := []job{{0, root}}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		n := t[at.node]
		if n.isLeaf {
			f.weights[at.target] = n.weight
			continue
		}
		left := f.addLeaf(0)
		f.addLeaf(0)
		f.nodes[at.target] = treeNode{limit: floatKey(roundDown32(n.split)), feature: uint32(n.feature), left: left}
		queue = append(queue, job{n.left, left}, job{n.right, left + 1})
	}
	return root
}

// roundDown32 is the largest float32 not above x.
func roundDown32(x float64) float32 {
	f := float32(x)
	if float64(f) > x {
		f = math.Nextafter32(f, float32(math.Inf(-1)))
	}
	return f
}

// floatKey maps floats to integers of the same order. Negative zero is zero (F5).
func floatKey(f float32) int32 {
	if f == 0 {
		return 0
	}
	bits := int32(math.Float32bits(f))
	return bits ^ int32(uint32(bits>>31)>>1)
}

// depthSum is the sum of the weights of the leaves that a sample reaches (IF3).
func (f *isolationForest) depthSum(keys []int32) float64 {
	nodes, weights := f.nodes, f.weights
	sum := 0.0
	for k := range f.groups {
		g := &f.groups[k]
		a0, a1, a2, a3 := g.roots[0], g.roots[1], g.roots[2], g.roots[3]
		a4, a5, a6, a7 := g.roots[4], g.roots[5], g.roots[6], g.roots[7]
		for s := g.steps; s > 0; s-- {
			a0, a1, a2, a3 = step(nodes, keys, a0), step(nodes, keys, a1), step(nodes, keys, a2), step(nodes, keys, a3)
			a4, a5, a6, a7 = step(nodes, keys, a4), step(nodes, keys, a5), step(nodes, keys, a6), step(nodes, keys, a7)
		}
		sum += weights[a0] + weights[a1] + weights[a2] + weights[a3]
		sum += weights[a4] + weights[a5] + weights[a6] + weights[a7]
	}
	return sum
}

// step goes one level down. The sign of the difference is the answer of the comparison.
func step(nodes []treeNode, keys []int32, at uint32) uint32 {
	n := &nodes[at]
	return n.left + uint32(uint64(int64(n.limit)-int64(keys[n.feature]))>>63)
}

// score scores the row `window`.
func (f *isolationForest) score(window []float64, explain Explain, verdict *Verdict) error {
	s := f.scratch.Get().(*forestScratch)
	for j, x := range window {
		z := f.scale1(x, j)
		s.z[j] = z
		s.keys[j] = floatKey(float32(z))
	}
	sum := f.depthSum(s.keys)
	verdict.DepthSum = sum
	verdict.Score = float32(math.Exp2(float64(sum * f.scoreRate))) // IF4
	verdict.IsAnomaly = sum < f.depthThreshold                     // IF5
	verdict.Contributions, verdict.Expected = verdict.Contributions[:0], verdict.Expected[:0]
	if explain.wanted(verdict.IsAnomaly) {
		verdict.Contributions = f.contributions(verdict.Contributions, s, sum)
		verdict.Expected = append(verdict.Expected, f.expected...)
	}
	f.scratch.Put(s)
	return nil
}

// contributions appends the share of the alarm that each feature alone explains (IF7).
func (f *isolationForest) contributions(to []float32, s *forestScratch, sum float64) []float32 {
	total := 0.0
	for j, key := range s.keys {
		s.keys[j] = f.referenceKeys[j]
		gain := f.depthSum(s.keys) - sum
		s.keys[j] = key
		s.gains[j] = max(gain, 0)
		total += s.gains[j]
	}
	if total == 0 {
		for j, z := range s.z {
			s.gains[j] = float64(z * z)
			total += s.gains[j]
		}
	}
	return appendShares(to, s.gains, total)
}

// appendShares appends part/total rounded to float32, or zeros when the total is 0 (IF7, LA6, DA4, LF5, SV4, LC4, EN7).
func appendShares(to []float32, parts []float64, total float64) []float32 {
	for _, part := range parts {
		share := 0.0
		if total > 0 {
			share = part / total
		}
		to = append(to, float32(share))
	}
	return to
}

func (f *isolationForest) close() error { return nil }
