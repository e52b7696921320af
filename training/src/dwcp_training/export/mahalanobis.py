"""Mahalanobis distance to an EXACT graph: triangular factors, limits, a regression (rules MD1 to MD5, G1, G2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto

from dwcp_training.export.graph import DOUBLE, GraphBuilder, output_types, properties, value
from dwcp_training.export.verdict import VERDICT_OPERATORS, add_decision, add_shares

if TYPE_CHECKING:
    from dwcp_training.detectors.covariance import Distance

LAYOUT = "mahalanobis.v1"

LARGEST_SCORE = float(np.finfo(np.float32).max)
"""No score is above the largest float32 (MD3)."""

SHARE_STEPS = 2.0**24
"""Contributions are multiples of one of so many parts (MD5)."""

_OWN_OPERATORS = {
    "Add": 1, "Cast": 1, "Clip": 1, "Div": 3, "Greater": 2, "MatMul": 2, "Max": 1, "Min": 1, "Mul": 6, "ReduceMax": 1,
    "ReduceSum": 1, "Round": 1, "Sqrt": 1, "Sub": 3, "Where": 2,
}  # fmt: skip
_WINDOW_OPERATORS = {"Add": 1, "Div": 2, "Flatten": 1, "Gather": 1, "MatMul": 1, "Mul": 1, "ReduceSum": 1}


def operators(timesteps: int) -> dict[str, int]:
    """Operator counts of the layout for a window length, asserted at export and at every load (G2)."""
    counts = Counter(_OWN_OPERATORS) + Counter(VERDICT_OPERATORS)
    return dict(counts + Counter(_WINDOW_OPERATORS) if timesteps > 1 else counts)


def export_mahalanobis(
    distance: Distance,
    limit_start: np.ndarray,
    limit_slope: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    timesteps: int,
    features: Sequence[str],
    threshold: float,
) -> onnx.ModelProto:
    """Builds the graph of layout `mahalanobis.v1`.

    Args:
        distance: factors, regression and precision.
        limit_start, limit_slope: of each metric (MD3), float64 `[features]`.
        mean, scale: of the scaler, float64 `[features]`.
        timesteps: window length; 1 makes a graph for single samples.
        features: names in schema order.
        threshold: on the score.
    """
    width, windowed = len(features), timesteps > 1
    g = GraphBuilder()
    flat = last = g.scale("samples", mean, scale, "scaled")
    g.constant("axis_1", [1], np.int64)
    g.constant("zero", 0.0)
    g.constant("largest", LARGEST_SCORE)
    if windowed:
        flat = g.node("Flatten", ["scaled"], "window", axis=1)
        last = g.node("Gather", ["scaled", g.constant("last_step", timesteps - 1, np.int64)], "last", axis=1)
    squared = _add_squared(g, last, "row", distance.row_factor)
    if windowed:
        whole = _add_squared(g, flat, "window", distance.window_factor)
        both = g.node("Add", [squared, whole], "distance/both")
        squared = g.node("Div", [both, g.constant("two", 2.0)], "distance/squared")
    apart = g.node("Sqrt", [squared], "distance")

    g.constant("limit_start", limit_start)
    g.constant("limit_slope", limit_slope)
    terms = g.node("Mul", [g.node("Sub", [last, "limit_start"], "limit/beyond"), "limit_slope"], "limit/terms")
    # Terms that are not above 0 become 0, and never -0: which of the two a maximum gives is not the same everywhere.
    terms = g.node("Where", [g.node("Greater", [terms, "zero"], "limit/any"), terms, "zero"], "limit/positive")
    limit = g.node("ReduceMax", [terms, "axis_1"], "limit", keepdims=1)
    score = g.node("Min", [g.node("Max", [apart, limit], "score/unbounded"), "largest"], "score/column")
    add_decision(g, score, threshold)

    g.constant("regression", distance.regression)
    g.constant("precision", distance.precision)
    expected = g.node("MatMul", [flat, "regression"], "expected/scaled")
    missed = g.node("Sub", [last, expected], "expected/missed")
    gains = g.node("Mul", [g.node("Mul", [missed, missed], "expected/squared"), "precision"], "gains")
    beyond = g.node("Greater", [limit, apart], "limit/decides")
    add_shares(g, g.node("Where", [beyond, terms, gains], "parts"), SHARE_STEPS)
    raw = g.node("Add", [g.node("Mul", [expected, "scaler_scale"], "expected/unscaled"), "scaler_mean"], "expected/raw")
    g.node("Cast", [raw], "expected", to=TensorProto.FLOAT)
    return g.model(
        "mahalanobis",
        [value("samples", DOUBLE, ["N", timesteps, width] if windowed else ["N", width])],
        output_types(width),
        properties(LAYOUT, threshold, features),
    )


def _add_squared(g: GraphBuilder, values: str, name: str, factor: np.ndarray) -> str:
    """Adds the sum of the squares of `values factor`, divided by their number; returns its name, `[N, 1]`."""
    product = g.node("MatMul", [values, g.constant(f"{name}_factor", factor)], f"{name}/product")
    total = g.node("ReduceSum", [g.node("Mul", [product, product], f"{name}/squares"), "axis_1"], f"{name}/sum",
                   keepdims=1)  # fmt: skip
    mean: str = g.node("Div", [total, g.constant(f"{name}_count", float(len(factor)))], f"{name}/squared")
    return mean
