"""Squared distances between samples and stored rows inside a graph (rule LF1)."""

import numpy as np

from dwcp_training.export.graph import GraphBuilder


def add_squared_distances(
    g: GraphBuilder, scaled: str, rows: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> tuple[str, str]:
    """Adds the initializer `rows`, its scaling and the distances.

    The squares are added feature by feature in schema order, one float64 addition after the other. A matrix product or
    a `ReduceSum` would add in another order on other machines, and neighbours that are equally far would change places.

    Args:
        g: the graph.
        scaled: name of the scaled samples, float64 `[N, features]`.
        rows: raw rows, float64 `[rows, features]`.
        mean, scale: of the scaler, float64 `[features]`.

    Returns:
        Names of the squared distances, float64 `[N, rows]`, and of the scaled rows, float64 `[rows, features]`.
    """
    width = rows.shape[1]
    g.constant("rows", rows)
    rows_scaled = g.scale("rows", mean, scale, "rows/scaled")  # ONNX Runtime computes what is constant once, at load
    columns = g.node("Transpose", [rows_scaled], "rows/columns", perm=[1, 0])
    at = [f"distance/{j}" for j in range(width)]
    g.node("Split", [scaled], [f"{name}/sample" for name in at], axis=1, num_outputs=width)
    g.node("Split", [columns], [f"{name}/row" for name in at], axis=0, num_outputs=width)
    total = ""
    for name in at:
        difference = g.node("Sub", [f"{name}/sample", f"{name}/row"], f"{name}/difference")
        square = g.node("Mul", [difference, difference], f"{name}/square")
        total = g.node("Add", [total, square], f"{name}/sum") if total else square
    return total, rows_scaled


def distance_operators(width: int) -> dict[str, int]:
    """Operator counts of what `add_squared_distances` adds for samples of `width` features."""
    return {"Add": width - 1, "Clip": 1, "Div": 1, "Mul": width, "Split": 2, "Sub": width + 1, "Transpose": 1}
