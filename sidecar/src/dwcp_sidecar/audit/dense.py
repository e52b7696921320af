"""Dense autoencoder: parameters and weights (rules DA1 to DA6)."""

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit.checks import GraphAudit, Require, check_units
from dwcp_sidecar.audit.int8 import of_precision

ACTIVATIONS = {"relu": "Relu", "tanh": "Tanh"}
"""Activation of the hidden layers to its operator (DA1)."""

MAX_HIDDEN_LAYERS = 64
"""Most hidden layers of a network."""

LARGEST_INPUT = 1e15
"""No scaled value is larger (S1)."""

LARGEST_RECONSTRUCTION = 1e150
"""A network that could compute a larger value is refused: the square of an error could overflow (DA2)."""


def check_parameters(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    """Checks layers and activation."""
    dense = metadata.dense
    count = len(dense.units)
    require(1 <= count <= MAX_HIDDEN_LAYERS, f"dense.units has {count} layers, not 1 to {MAX_HIDDEN_LAYERS}")
    check_units("dense.units", dense.units, require)
    require(dense.activation in ACTIVATIONS, f"dense.activation {dense.activation!r} is not {' or '.join(ACTIVATIONS)}")


def audit(graph: GraphAudit) -> None:
    """Checks threshold, shapes and the bound of DA2 of a `dense.v1` or `dense.int8.v1` graph."""
    metadata = graph.metadata
    graph.same("threshold", metadata.threshold)
    operator = ACTIVATIONS[metadata.dense.activation]
    found = {name: graph.graph.operators.get(name, 0) for name in ACTIVATIONS.values()}
    right = found[operator] == sum(found.values()) == len(metadata.dense.units)
    graph.require(
        right, f"it has {found}, not {operator} after each of {len(metadata.dense.units)} hidden layers (DA1)"
    )
    largest, width = LARGEST_INPUT, metadata.n_features
    for i, units in enumerate([*metadata.dense.units, metadata.n_features], start=1):
        kernel, bias = f"layer_{i}.kernel", f"layer_{i}.bias"
        layer = of_precision(graph, {kernel: (width, units), bias: (units,)})
        with np.errstate(over="ignore", invalid="ignore"):
            largest = largest * np.abs(layer[kernel]).sum(axis=0).max() + np.abs(layer[bias]).max()
        width = units
    bounded = bool(largest <= LARGEST_RECONSTRUCTION)  # not so when it is NaN
    graph.require(bounded, f"its values can reach {largest:g}, above {LARGEST_RECONSTRUCTION:g}: scores overflow (DA2)")
    more = f"layer_{len(metadata.dense.units) + 2}.kernel"
    there = any(name.startswith(more) for name in graph.graph.initializers)
    graph.require(not there, "it has more layers than the metadata say")
