"""Weights in int8 (rules Q1 and Q2): how they are stored, and what they stand for."""

from collections.abc import Mapping

import numpy as np

from dwcp_sidecar.audit.checks import GraphAudit

PRECISION = "int8"

LARGEST = 127
"""Largest magnitude of a stored weight: -128 has no positive counterpart and is not used (Q1)."""


def weights(graph: GraphAudit, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The weights of these names as the graph computes with them, float64, each of its shape.

    A matrix `name` is stored as `name.int8` with one float32 number a column in `name.scale`, a vector as
    `name.float32`. Products of an int8 and a float32 number are exact in float64.
    """
    found = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            stored = f"{name}.float32"
            found[name] = graph.arrays({stored: shape}, np.float32)[stored].astype(np.float64)
            continue
        whole, scale = f"{name}.int8", f"{name}.scale"
        units = graph.arrays({whole: shape}, np.int8)[whole]
        graph.require(bool((units >= -LARGEST).all()), f"{whole} has a value below -{LARGEST} (Q1)")
        columns = graph.arrays({scale: shape[-1:]}, np.float32)[scale]
        graph.require(bool((columns > 0).all()), f"{scale} has a value that is not above 0 (Q1)")
        found[name] = units.astype(np.float64) * columns.astype(np.float64)
    return found


def of_precision(graph: GraphAudit, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The weights of a graph in float64 or int8, as it computes with them."""
    if graph.metadata.graph.precision == PRECISION:
        return weights(graph, shapes)
    return graph.arrays(shapes)
