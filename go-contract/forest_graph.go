package anomaly

import (
	"errors"
	"fmt"
	"math"

	anomalyv1 "dwcp.internal/anomaly/gen/dwcp/anomaly/v1"
)

// Bounds of a forest.
const (
	// depthUnit is the unit of leaf weights and depth sums, 2^-40 (rule IF2).
	depthUnit = 1.0 / (1 << 40)
	// depthLimit: the largest possible depth sum is below it, so that sums are exact (rule IF3).
	depthLimit = 1 << 13
	// maxTreeDepth bounds the steps of a descent. An isolation tree stops at ceil(log2(max_samples)).
	maxTreeDepth = 64
)

// tree is the nodes of a tree; the first is the root.
type tree []forestNode

type forestNode struct {
	isLeaf bool
	// weight of a leaf.
	weight float64
	// A sample goes left when its value of feature is <= split.
	feature     int
	split       float64
	left, right int
}

// depth is the number of steps to the deepest leaf. Children come after their parents.
func (t tree) depth() int {
	depths := make([]int, len(t))
	deepest := 0
	for i, n := range t {
		if !n.isLeaf {
			depths[n.left], depths[n.right] = depths[i]+1, depths[i]+1
			deepest = max(deepest, depths[i]+1)
		}
	}
	return deepest
}

// openForest audits a graph of layout forest.v1 (rule G2) and constructs its scorer.
func openForest(m *onnxModel, meta *anomalyv1.ModelMetadata) (engine, error) {
	features := int(meta.GetNFeatures())
	if err := m.checkWiring(forestWiring(features), forestValues); err != nil {
		return nil, err
	}
	s, err := m.scaler(meta)
	if err != nil {
		return nil, err
	}
	forest := meta.GetForest()
	references := meta.GetReferenceValues()
	err = errors.Join(
		m.checkValues("score_rate", []float64{forest.GetScoreRate()}, typeFloat64),
		m.checkValues("depth_threshold", []float64{forest.GetDepthThreshold()}, typeFloat64),
		m.checkReferences(s, references),
	)
	if err != nil {
		return nil, err
	}
	trees, err := m.trees(features)
	if err != nil {
		return nil, err
	}
	if len(trees) != int(meta.GetNEstimators()) {
		return nil, fmt.Errorf("%d trees; the metadata says %d", len(trees), meta.GetNEstimators())
	}
	return newIsolationForest(s, trees, forest.GetScoreRate(), forest.GetDepthThreshold(), references), nil
}

// packedTrees are the arrays of a TreeEnsemble node.
type packedTrees struct {
	roots, features, trueIDs, trueLeafs, falseIDs, falseLeafs, modes, targets []int64
	splits, weights                                                           []float64
}

// trees reads and audits the TreeEnsemble node: every node and leaf belongs to exactly one tree, nothing leads backwards, depths
// are bounded, splits are finite, weights are multiples of 2^-40 whose largest possible sum is below 2^13 (IF2, IF3).
func (m *onnxModel) trees(features int) ([]tree, error) {
	e, err := m.packedTrees()
	if err != nil {
		return nil, err
	}
	inner, leaves := len(e.features), len(e.weights)
	for name, list := range map[string][]int64{
		"nodes_modes": e.modes, "nodes_truenodeids": e.trueIDs, "nodes_trueleafs": e.trueLeafs,
		"nodes_falsenodeids": e.falseIDs, "nodes_falseleafs": e.falseLeafs,
	} {
		if len(list) != inner {
			return nil, fmt.Errorf("%s has %d entries for %d nodes", name, len(list), inner)
		}
	}
	if len(e.splits) != inner || len(e.targets) != leaves {
		return nil, fmt.Errorf("%d splits for %d nodes, %d targets for %d leaves", len(e.splits), inner, len(e.targets), leaves)
	}
	for i := range inner {
		if f := e.features[i]; f < 0 || f >= int64(features) {
			return nil, fmt.Errorf("node %d tests feature %d of %d", i, f, features)
		}
		if !finite(e.splits[i]) || e.modes[i] != 0 {
			return nil, fmt.Errorf("node %d has split %v and mode %d", i, e.splits[i], e.modes[i])
		}
	}
	for i, w := range e.weights {
		if !finite(w) || w < 0 || w != math.Floor(w/depthUnit)*depthUnit || e.targets[i] != 0 {
			return nil, fmt.Errorf("leaf %d has weight %v, which is not a multiple of 2^-40, or target %d", i, w, e.targets[i])
		}
	}
	walk := treeWalk{packedTrees: e, seenNode: make([]bool, inner), seenLeaf: make([]bool, leaves)}
	trees := make([]tree, 0, len(e.roots))
	largest := 0.0
	for k, root := range e.roots {
		t, heaviest, err := walk.tree(root)
		if err != nil {
			return nil, fmt.Errorf("tree %d: %w", k, err)
		}
		trees = append(trees, t)
		if largest += heaviest; largest >= depthLimit {
			return nil, fmt.Errorf("the largest possible depth sum is not below %d", depthLimit)
		}
	}
	if walk.nodes != inner || walk.leaves != leaves {
		return nil, fmt.Errorf("%d of %d nodes and %d of %d leaves belong to no tree", inner-walk.nodes, inner, leaves-walk.leaves, leaves)
	}
	return trees, nil
}

// treeWalk copies trees out of the arrays and remembers what it has seen.
type treeWalk struct {
	*packedTrees
	seenNode, seenLeaf []bool
	nodes, leaves      int
}

// tree gives the tree below a root, and the weight of its heaviest leaf.
func (w *treeWalk) tree(root int64) (t tree, heaviest float64, err error) {
	type job struct {
		source int64
		target int
		depth  int
	}
	t = tree{{}}
	queue := []job{{root, 0, 0}}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		if at.source < 0 || at.source >= int64(len(w.seenNode)) {
			return nil, 0, fmt.Errorf("node %d is out of range", at.source)
		}
		if w.seenNode[at.source] {
			return nil, 0, fmt.Errorf("node %d is reached twice", at.source)
		}
		if at.depth >= maxTreeDepth {
			return nil, 0, fmt.Errorf("deeper than %d", maxTreeDepth)
		}
		w.seenNode[at.source] = true
		w.nodes++
		i := at.source
		n := forestNode{feature: int(w.features[i]), split: w.splits[i], left: len(t), right: len(t) + 1}
		t[at.target] = n
		t = append(t, forestNode{}, forestNode{})
		// A tree that is a single leaf is written as a node with that leaf on both sides.
		twin := w.trueLeafs[i] == 1 && w.falseLeafs[i] == 1 && w.trueIDs[i] == w.falseIDs[i] && at.target == 0
		for side, child := range [2]int64{w.trueIDs[i], w.falseIDs[i]} {
			target := n.left + side
			switch [2]int64{w.trueLeafs[i], w.falseLeafs[i]}[side] {
			case 0:
				queue = append(queue, job{child, target, at.depth + 1})
			case 1:
				if child < 0 || child >= int64(len(w.seenLeaf)) {
					return nil, 0, fmt.Errorf("leaf %d is out of range", child)
				}
				second := twin && side == 1
				if w.seenLeaf[child] && !second {
					return nil, 0, fmt.Errorf("leaf %d is reached twice", child)
				}
				if !second {
					w.leaves++
				}
				w.seenLeaf[child] = true
				t[target] = forestNode{isLeaf: true, weight: w.weights[child]}
				heaviest = max(heaviest, w.weights[child])
			default:
				return nil, 0, fmt.Errorf("node %d has a leaf flag that is neither 0 nor 1", i)
			}
		}
	}
	return t, heaviest, nil
}

// packedTrees reads the attributes of the only TreeEnsemble node.
func (m *onnxModel) packedTrees() (*packedTrees, error) {
	var node *onnxNode
	for i := range m.nodes {
		if m.nodes[i].opType == "TreeEnsemble" {
			if node != nil {
				return nil, errors.New("more than one TreeEnsemble")
			}
			node = &m.nodes[i]
		}
	}
	if node == nil || node.domain != "ai.onnx.ml" || m.opsets["ai.onnx.ml"] != 5 {
		return nil, errors.New("no TreeEnsemble of ai.onnx.ml 5")
	}
	e := &packedTrees{}
	ints := map[string]*[]int64{
		"tree_roots": &e.roots, "nodes_featureids": &e.features, "leaf_targetids": &e.targets,
		"nodes_truenodeids": &e.trueIDs, "nodes_trueleafs": &e.trueLeafs,
		"nodes_falsenodeids": &e.falseIDs, "nodes_falseleafs": &e.falseLeafs,
	}
	floats := map[string]*[]float64{"nodes_splits": &e.splits, "leaf_weights": &e.weights}
	scalars := map[string]int64{"n_targets": 1, "aggregate_function": 1, "post_transform": 0}
	for i := range node.attributes {
		a := &node.attributes[i]
		var err error
		if want, ok := scalars[a.name]; ok {
			if a.kind != attrInt || a.i != want {
				err = fmt.Errorf("is %d, not %d", a.i, want)
			}
			delete(scalars, a.name)
		} else if to, ok := ints[a.name]; ok && a.kind == attrInts {
			*to = a.ints
			delete(ints, a.name)
		} else if to, ok := floats[a.name]; ok && a.kind == attrTensor && a.t != nil {
			*to, err = a.t.float64s()
			delete(floats, a.name)
		} else if a.name == "nodes_modes" && a.kind == attrTensor && a.t != nil {
			e.modes, err = a.t.int64s()
		} else {
			err = errors.New("is not an attribute of this layout, or has the wrong type")
		}
		if err != nil {
			return nil, fmt.Errorf("attribute %s of TreeEnsemble: %w", a.name, err)
		}
	}
	if len(scalars)+len(ints)+len(floats) > 0 {
		return nil, errors.New("TreeEnsemble lacks attributes")
	}
	return e, nil
}
