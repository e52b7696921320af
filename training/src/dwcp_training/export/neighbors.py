"""Local outlier factor to an EXACT graph: distances, `TopK`, stored densities (rules LF1 to LF7, G1, G2)."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto

from dwcp_training.export.distance import add_squared_distances, distance_operators
from dwcp_training.export.graph import DOUBLE, GraphBuilder, output_types, properties, value
from dwcp_training.export.verdict import VERDICT_OPERATORS, add_decision, add_shares

LAYOUT = "neighbors.v1"

REACH_FLOOR = 1e-10
"""Added to a mean reach, so that the density of rows that are all alike is finite (LF3); scikit-learn's value."""

_OWN_OPERATORS = {
    "Add": 1, "Cast": 1, "Clip": 1, "Div": 4, "Gather": 4, "Max": 1, "Mul": 2, "ReduceSum": 4, "Sqrt": 1, "Sub": 2,
    "TopK": 1, "Unsqueeze": 1,
}  # fmt: skip


def operators(width: int) -> dict[str, int]:
    """Operator counts of the layout for samples of `width` features, asserted at export and at every load (G2)."""
    return dict(Counter(_OWN_OPERATORS) + Counter(distance_operators(width)) + Counter(VERDICT_OPERATORS))


def export_neighbors(
    rows: np.ndarray,
    k_distance: np.ndarray,
    density: np.ndarray,
    n_neighbors: int,
    mean: np.ndarray,
    scale: np.ndarray,
    features: Sequence[str],
    threshold: float,
) -> onnx.ModelProto:
    """Builds the graph of layout `neighbors.v1`.

    Args:
        rows: raw training rows in the order of training, float64 `[rows, features]`.
        k_distance, density: of each training row (LF3), float64 `[rows]`.
        n_neighbors: of a sample (LF2).
        mean, scale: of the scaler, float64 `[features]`.
        features: names in schema order.
        threshold: on the score.
    """
    width = len(features)
    g = GraphBuilder()
    scaled = g.scale("samples", mean, scale, "scaled")
    g.constant("k_distance", k_distance)
    g.constant("density", density)
    g.constant("count", float(n_neighbors))
    g.constant("reach_floor", REACH_FLOOR)
    g.constant("neighbors", [n_neighbors], np.int64)
    g.constant("axis_1", [1], np.int64)
    squared, rows_scaled = add_squared_distances(g, scaled, rows, mean, scale)
    # Of equal distances TopK gives the lower index first, as LF2 wants.
    nearest, index = g.node(
        "TopK", [squared, "neighbors"], ["nearest/squared", "nearest/index"], axis=1, largest=0, sorted=1
    )
    distance = g.node("Sqrt", [nearest], "nearest/distance")
    reach = g.node("Max", [g.node("Gather", ["k_distance", index], "nearest/k_distance", axis=0), distance], "reach")
    mean_reach = g.node("Add", [_mean(g, reach, "reach", keepdims=1), "reach_floor"], "reach/raised")
    densities = g.node("Gather", ["density", index], "nearest/density", axis=0)
    score = g.node("Mul", [_mean(g, densities, "nearest/density", keepdims=1), mean_reach], "score/column")
    add_decision(g, score, threshold)

    near = g.node("Gather", [rows_scaled, index], "nearest/scaled", axis=0)
    apart = g.node("Sub", [g.node("Unsqueeze", [scaled, "axis_1"], "scaled/1"), near], "apart")
    squares = g.node("Mul", [apart, apart], "apart/squared")
    add_shares(g, g.node("ReduceSum", [squares, "axis_1"], "errors", keepdims=0))
    raw = g.node("Gather", ["rows", index], "nearest/rows", axis=0)
    g.node("Cast", [_mean(g, raw, "nearest/rows", keepdims=0)], "expected", to=TensorProto.FLOAT)
    return g.model(
        "local_outlier_factor",
        [value("samples", DOUBLE, ["N", width])],
        output_types(width),
        properties(LAYOUT, threshold, features),
    )


def _mean(g: GraphBuilder, values: str, name: str, keepdims: int) -> str:
    """Mean over the neighbours, axis 1."""
    total = g.node("ReduceSum", [values, "axis_1"], f"{name}/sum", keepdims=keepdims)
    return g.node("Div", [total, "count"], f"{name}/mean")
