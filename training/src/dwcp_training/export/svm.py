"""One-class SVM to an EXACT graph: a kernel of exact distances, positive weights (rules SV1 to SV6, G1, G2)."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx

from dwcp_training.export.distance import add_squared_distances, distance_operators
from dwcp_training.export.graph import DOUBLE, GraphBuilder, output_types, properties, value
from dwcp_training.export.verdict import VERDICT_OPERATORS, add_decision, add_shares

LAYOUT = "svm.v1"

INSIDE_FLOOR = 2.0**-100
"""Smallest divisor of a score (SV2): where every kernel value vanishes the score is huge, and finite."""

_OWN_OPERATORS = {
    "Add": 1, "Clip": 1, "Div": 2, "Exp": 1, "Expand": 1, "MatMul": 2, "Max": 1, "Mul": 4, "Neg": 1, "Shape": 1,
    "Sub": 2, "Tanh": 1, "Unsqueeze": 1,
}  # fmt: skip


def operators(width: int) -> dict[str, int]:
    """Operator counts of the layout for samples of `width` features, asserted at export and at every load (G2)."""
    return dict(Counter(_OWN_OPERATORS) + Counter(distance_operators(width)) + Counter(VERDICT_OPERATORS))


def export_svm(
    rows: np.ndarray,
    alpha: np.ndarray,
    gamma: float,
    reference: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    features: Sequence[str],
    threshold: float,
) -> onnx.ModelProto:
    """Builds the graph of layout `svm.v1`.

    Args:
        rows: raw support vectors, float64 `[support vectors, features]`.
        alpha: their weights, above 0, float64 `[support vectors]`.
        gamma: rate of the kernel, scaled units.
        reference: medians of the raw training rows, float64 `[features]`.
        mean, scale: of the scaler, float64 `[features]`.
        features: names in schema order.
        threshold: on the score.
    """
    width = len(features)
    g = GraphBuilder()
    scaled = g.scale("samples", mean, scale, "scaled")
    g.constant("alpha", alpha)
    g.constant("gamma", gamma)
    g.constant("reference_scaled", (reference - mean) / scale)  # as the graph scales, see IF8
    g.constant("reference_values", reference, np.float32)
    g.constant("half", 0.5)
    g.constant("one", 1.0)
    g.constant("inside_floor", INSIDE_FLOOR)
    g.constant("axis_1", [1], np.int64)
    squared, _ = add_squared_distances(g, scaled, rows, mean, scale)
    exponent = g.node("Mul", [squared, "gamma"], "exponent")
    kernel = g.node("Exp", [g.node("Neg", [exponent], "exponent/negative")], "kernel")
    # 1 - kernel without cancellation (SV3): ONNX has no expm1.
    tangent = g.node("Tanh", [g.node("Mul", [exponent, "half"], "exponent/half")], "complement/tanh")
    complement = g.node("Mul", [tangent, g.node("Add", [kernel, "one"], "kernel/1")], "complement")
    weights = g.node("Unsqueeze", ["alpha", "axis_1"], "alpha/column")
    inside = g.node("MatMul", [kernel, weights], "inside")
    outside = g.node("MatMul", [complement, weights], "outside")
    score = g.node("Div", [outside, g.node("Max", [inside, "inside_floor"], "inside/raised")], "score/column")
    add_decision(g, score, threshold)

    apart = g.node("Sub", [scaled, "reference_scaled"], "apart")
    add_shares(g, g.node("Mul", [apart, apart], "errors"))
    g.node("Expand", ["reference_values", g.node("Shape", ["samples"], "samples/shape")], "expected")
    return g.model(
        "one_class_svm",
        [value("samples", DOUBLE, ["N", width])],
        output_types(width),
        properties(LAYOUT, threshold, features),
    )
