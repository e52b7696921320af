"""The end of a graph that scores single samples: decision and contributions (rules P1, D1, G1)."""

from onnx import TensorProto

from dwcp_training.export.graph import GraphBuilder

VERDICT_OPERATORS = {"Cast": 3, "Div": 1, "Equal": 1, "Greater": 1, "ReduceSum": 1, "Squeeze": 1, "Where": 1}
"""Operator counts of what `add_decision` and `add_shares` add together."""


def add_decision(g: GraphBuilder, column: str, threshold: float) -> None:
    """Adds the outputs `score` and `is_anomaly`.

    Args:
        g: the graph; it has the constant `axis_1`.
        column: name of the unrounded scores, float64 `[N, 1]`.
        threshold: on the score.
    """
    g.constant("threshold", threshold)
    flat = g.node("Squeeze", [column, "axis_1"], "score/float64")
    published = g.node("Cast", [flat], "score", to=TensorProto.FLOAT)
    wide = g.node("Cast", [published], "score/published", to=TensorProto.DOUBLE)
    g.node("Greater", [wide, "threshold"], "is_anomaly")


def add_shares(g: GraphBuilder, errors: str, steps: float = 0.0) -> str:
    """Adds the output `contributions`: each feature's share of the sum, or 0 where the sum is 0.

    Args:
        g: the graph; it has the constant `axis_1`.
        errors: name of the parts, float64 `[N, features]`, none negative.
        steps: shares are rounded to multiples of one of so many parts of 1, a power of 2; 0 leaves them as they are.

    Returns:
        The name of the sums, float64 `[N, 1]`.
    """
    g.constant("zero", 0.0)
    total: str = g.node("ReduceSum", [errors, "axis_1"], "errors/total", keepdims=1)
    share = g.node("Div", [errors, total], "share/unguarded")
    nothing = g.node("Equal", [total, "zero"], "errors/none")
    share = g.node("Where", [nothing, "zero", share], "share")
    if steps:
        scaled = g.node("Mul", [share, g.constant("share_steps", steps)], "share/steps")
        share = g.node("Div", [g.node("Round", [scaled], "share/whole"), "share_steps"], "share/rounded")
    g.node("Cast", [share], "contributions", to=TensorProto.FLOAT)
    return total
