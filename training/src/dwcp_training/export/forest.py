"""Isolation forest to ONNX: one TreeEnsemble node whose leaf weights are path lengths (rules IF1 to IF8, G1, G2)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from sklearn.ensemble import IsolationForest
from sklearn.preprocessing import StandardScaler

from dwcp_sidecar.audit import LEAF_GRID
from dwcp_training.export.graph import BOOL, DOUBLE, FLOAT, GraphBuilder, properties, value

LAYOUT = "forest.v1"
_BRANCH_LEQ = 0
_SUM = 1

OPERATORS = {
    "Cast": 5, "Clip": 1, "Concat": 1, "Div": 2, "Equal": 2, "Expand": 1, "Less": 1, "MatMul": 1, "Mul": 2, "Pow": 1,
    "ReduceSum": 2, "Relu": 1, "Reshape": 3, "Shape": 2, "Slice": 3, "Sub": 2, "Transpose": 1, "TreeEnsemble": 1,
    "Unsqueeze": 1, "Where": 4,
}  # fmt: skip
"""Operator counts of the layout, asserted at export and at every load (G2)."""


def average_path_length(n: int) -> float:
    """c(n), the average path length of an unsuccessful search in a binary search tree of n rows (IF2).

    Source: Liu, Ting, Zhou: Isolation Forest, ICDM 2008, equation 1, with the harmonic number as ln(n - 1) + gamma.
    """
    if n <= 1:
        return 0.0
    if n == 2:
        return 1.0
    return 2.0 * (math.log(n - 1.0) + 0.5772156649015329) - 2.0 * (n - 1.0) / n


@dataclass(frozen=True)
class FlatForest:
    """All trees as flat lists, in the form of the TreeEnsemble operator.

    Child indices count inner nodes, or leaves where the flag beside them is set.
    """

    roots: list[int]
    features: list[int]
    splits: np.ndarray
    left: list[int]
    left_is_leaf: list[int]
    right: list[int]
    right_is_leaf: list[int]
    leaf_weights: np.ndarray

    @classmethod
    def of(cls, forest: IsolationForest) -> "FlatForest":
        """Flattens a fitted forest, leaf weights rounded to the grid of IF2."""
        roots: list[int] = []
        features: list[int] = []
        splits: list[float] = []
        children: dict[str, list[int]] = {key: [] for key in ("left", "left_is_leaf", "right", "right_is_leaf")}
        weights: list[float] = []

        def leaf(depth: int, rows: int) -> int:
            weights.append(round((depth + average_path_length(rows)) * LEAF_GRID) / LEAF_GRID)
            return len(weights) - 1

        for estimator, columns in zip(forest.estimators_, forest.estimators_features_, strict=True):
            tree = estimator.tree_
            inner = {node: len(features) + k for k, node in enumerate(np.flatnonzero(tree.children_left >= 0).tolist())}
            roots.append(len(features))
            if not inner:  # a tree of one leaf: a node whose children are the same leaf
                only = leaf(0, int(tree.n_node_samples[0]))
                features.append(0)
                splits.append(0.0)
                for key, child in (("left", only), ("left_is_leaf", 1), ("right", only), ("right_is_leaf", 1)):
                    children[key].append(child)
                continue
            depth = {0: 0}
            for node in inner:
                features.append(int(columns[tree.feature[node]]))
                splits.append(float(tree.threshold[node]))
                for side, child in (("left", int(tree.children_left[node])), ("right", int(tree.children_right[node]))):
                    depth[child] = depth[node] + 1
                    is_leaf = child not in inner
                    children[f"{side}_is_leaf"].append(int(is_leaf))
                    children[side].append(
                        leaf(depth[child], int(tree.n_node_samples[child])) if is_leaf else inner[child]
                    )
        return cls(roots=roots, features=features, splits=np.array(splits), leaf_weights=np.array(weights), **children)


def score_rate(n_estimators: int, max_samples: int) -> float:
    """Exponent per unit of depth sum (IF4).

    Raises:
        ValueError: when trees are built on a single row, which has no path length.
    """
    if max_samples < 2:
        raise ValueError(f"max_samples is {max_samples}; a forest needs at least 2 rows per tree. Train on more data.")
    return -1.0 / (n_estimators * average_path_length(max_samples))


def export_forest(
    forest: IsolationForest,
    scaler: StandardScaler,
    reference: np.ndarray,
    features: Sequence[str],
    threshold: float,
    depth_threshold: float,
) -> onnx.ModelProto:
    """Builds the graph of layout `forest.v1`.

    Args:
        forest: fitted on scaled rows.
        scaler: fitted on raw rows.
        reference: medians of the raw training rows, float64 `[features]`.
        features: names in schema order.
        threshold: on the score, for the graph's properties.
        depth_threshold: on the depth sum (IF5).

    """
    width = len(features)
    flat = FlatForest.of(forest)
    g = GraphBuilder()
    scaled = g.scale("samples", scaler.mean_, scaler.scale_, "scaled")
    # The same arithmetic as in the graph, so that replacing scaled values replaces raw ones (IF8).
    g.constant("reference_scaled", (reference - scaler.mean_) / scaler.scale_)
    g.constant("reference_values", reference, np.float32)
    g.constant("score_rate", score_rate(len(flat.roots), forest._max_samples))
    g.constant("depth_threshold", depth_threshold)
    g.constant("two", 2.0)
    g.constant("zero", 0.0)
    for name, values in (("axis_1", [1]), ("from_0", [0]), ("from_1", [1]), ("to_1", [1]), ("to_end", [2**31])):
        g.constant(name, values, np.int64)
    g.constant("rows_shape", [-1, width], np.int64)
    g.constant("any", [-1], np.int64)
    # Default of the optional input: nothing replaced, then one metric at a time.
    g.constant("occlusion", np.vstack([np.zeros((1, width), bool), np.eye(width, dtype=bool)]), np.bool_)

    # [N, 1 + groups, features]: the sample, then its copies with metrics at their reference value.
    copies = g.node(
        "Where", ["occlusion", "reference_scaled", g.node("Unsqueeze", [scaled, "axis_1"], "scaled/1")], "copies"
    )
    narrow = g.node("Cast", [copies], "copies/float32", to=TensorProto.FLOAT)  # IF1: rounded, then widened
    wide = g.node("Cast", [narrow], "copies/float64", to=TensorProto.DOUBLE)
    rows = g.node("Reshape", [wide, "rows_shape"], "copies/rows")
    g.node(
        "TreeEnsemble",
        [rows],
        "depth/rows",
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=_SUM,
        post_transform=0,
        tree_roots=flat.roots,
        nodes_featureids=flat.features,
        nodes_splits=numpy_helper.from_array(flat.splits),
        nodes_modes=numpy_helper.from_array(np.full(len(flat.features), _BRANCH_LEQ, np.uint8)),
        nodes_truenodeids=flat.left,
        nodes_trueleafs=flat.left_is_leaf,
        nodes_falsenodeids=flat.right,
        nodes_falseleafs=flat.right_is_leaf,
        leaf_targetids=[0] * len(flat.leaf_weights),
        leaf_weights=numpy_helper.from_array(flat.leaf_weights),
    )
    groups = g.node("Shape", ["occlusion"], "groups", start=0, end=1)
    depths = g.node("Reshape", ["depth/rows", g.node("Concat", ["any", groups], "depth/shape", axis=0)], "depth/copies")
    depth = g.node("Slice", [depths, "from_0", "to_1", "axis_1"], "depth/column")
    depth_sum = g.node("Reshape", [depth, "any"], "depth_sum")
    g.node("Less", [depth_sum, "depth_threshold"], "is_anomaly")
    exponent = g.node("Mul", [depth_sum, "score_rate"], "exponent")
    g.node("Cast", [g.node("Pow", ["two", exponent], "score/float64")], "score", to=TensorProto.FLOAT)

    # Shares of the gain in depth; of the squared scaled values where nothing gains (IF7).
    replaced = g.node("Slice", [depths, "from_1", "to_end", "axis_1"], "depth/replaced")
    gain = g.node("Relu", [g.node("Sub", [replaced, depth], "gain/signed")], "gain")
    gain_sum = g.node("ReduceSum", [gain, "axis_1"], "gain/sum", keepdims=1)
    masks = g.node(
        "Cast",
        [g.node("Slice", ["occlusion", "from_1", "to_end", "from_0"], "masks/bool")],
        "masks",
        to=TensorProto.DOUBLE,
    )
    transposed = g.node("Transpose", [masks], "masks/transposed", perm=[1, 0])
    distance = g.node("MatMul", [g.node("Mul", [scaled, scaled], "squares"), transposed], "distance")
    distance_sum = g.node("ReduceSum", [distance, "axis_1"], "distance/sum", keepdims=1)
    no_gain = g.node("Equal", [gain_sum, "zero"], "gain/none")
    part = g.node("Where", [no_gain, distance, gain], "part")
    whole = g.node("Where", [no_gain, distance_sum, gain_sum], "whole")
    share = g.node("Div", [part, whole], "share/unguarded")
    nothing = g.node("Equal", [whole, "zero"], "whole/none")
    g.node("Cast", [g.node("Where", [nothing, "zero", share], "share")], "contributions", to=TensorProto.FLOAT)
    g.node("Expand", ["reference_values", g.node("Shape", ["samples"], "samples/shape")], "expected")

    return g.model(
        "isolation_forest",
        [value("samples", DOUBLE, ["N", width]), value("occlusion", BOOL, ["groups_and_1", width])],
        [
            value("score", FLOAT, ["N"]),
            value("is_anomaly", BOOL, ["N"]),
            value("contributions", FLOAT, ["N", "groups"]),
            value("expected", FLOAT, ["N", width]),
            value("depth_sum", DOUBLE, ["N"]),
        ],
        properties(LAYOUT, threshold, features),
    )
