"""LSTM classifier to an EXACT graph: float64, unrolled over the window (rules LC1 to LC6, G1, G2)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from dwcp_training.export.graph import DOUBLE, GraphBuilder, output_types, properties, value
from dwcp_training.export.lstm import LayerWeights, add_layer
from dwcp_training.export.verdict import VERDICT_OPERATORS, add_decision, add_shares

LAYOUT = "classifier.v1"
LAYERS = ("lstm_1", "lstm_2")
"""Names of the LSTM layers (LC1)."""


def operators(timesteps: int) -> dict[str, int]:
    """Operator counts of the layout for a window length, asserted at export and at every load (G2)."""
    cells = timesteps * len(LAYERS)
    later = cells - len(LAYERS)  # cells that have a state before them
    own = {
        "Add": cells + later + 3, "Clip": 1, "Concat": later + len(LAYERS), "Div": 2, "Exp": 1, "Expand": 1,
        "Gather": timesteps, "MatMul": cells + 2, "Mul": 2 * cells + later + 1, "Neg": 1, "ReduceSum": 1, "Relu": 1,
        "Shape": 1, "Sigmoid": cells, "Split": 2 * cells, "Sub": 2, "Tanh": 2 * cells,
    }  # fmt: skip
    return dict(Counter(own) + Counter(VERDICT_OPERATORS))


@dataclass(frozen=True)
class ClassifierWeights:
    """Weights of the whole network, float32.

    Attributes:
        layers: lstm_1, lstm_2 (LC1).
        dense_kernel: `[units of lstm_2, units]`, of `dense_1`.
        dense_bias: `[units]`.
        output_kernel: `[units, 1]`.
        output_bias: `[1]`.
    """

    layers: tuple[LayerWeights, ...]
    dense_kernel: np.ndarray
    dense_bias: np.ndarray
    output_kernel: np.ndarray
    output_bias: np.ndarray

    @classmethod
    def of(cls, network: Any) -> "ClassifierWeights":
        """Takes the weights out of a Keras model whose layers are named as in LC1."""
        dense = (*network.get_layer("dense_1").get_weights(), *network.get_layer("output").get_weights())
        return cls(
            tuple(LayerWeights.of(network.get_layer(name)) for name in LAYERS),
            *(np.asarray(array, np.float32) for array in dense),
        )

    @property
    def units(self) -> tuple[int, ...]:
        """Units of lstm_1, lstm_2, dense_1."""
        return *(layer.units for layer in self.layers), len(self.dense_bias)

    @property
    def finite(self) -> bool:
        """Whether every weight is a finite number."""
        arrays = [getattr(layer, part) for layer in self.layers for part in ("kernel", "recurrent", "bias")]
        arrays += [self.dense_kernel, self.dense_bias, self.output_kernel, self.output_bias]
        return all(bool(np.isfinite(array).all()) for array in arrays)


def export_classifier(
    weights: ClassifierWeights,
    reference: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    timesteps: int,
    features: Sequence[str],
    threshold: float,
) -> onnx.ModelProto:
    """Builds the graph of layout `classifier.v1`.

    Args:
        weights: of the trained network.
        reference: medians of the normal training rows, raw, float64 `[features]`.
        mean, scale: of the scaler, float64 `[features]`.
        timesteps: window length.
        features: names in schema order.
        threshold: on the score.
    """
    width = len(features)
    g = GraphBuilder()
    scaled = g.scale("samples", mean, scale, "scaled")
    g.constant("reference_scaled", (reference - mean) / scale)  # as the graph scales, see IF8
    g.constant("reference_values", reference, np.float32)
    g.constant("axis_1", [1], np.int64)
    g.constant("one", 1.0)
    for step in range(timesteps):
        g.constant(f"step_{step}", step, np.int64)

    hidden = [g.node("Gather", [scaled, f"step_{t}"], f"scaled/{t}", axis=1) for t in range(timesteps)]
    for name, layer in zip(LAYERS, weights.layers, strict=True):
        hidden = add_layer(g, name, layer, hidden)
    dense = g.dense("dense_1", hidden[-1], weights.dense_kernel, weights.dense_bias, "dense_1/sum")
    active = g.node("Relu", [dense], "dense_1")
    logit = g.dense("output", active, weights.output_kernel, weights.output_bias, "output/sum")
    # sigmoid written out: ONNX Runtime's operator cancels for a negative logit, and a normal window has no digits left.
    opposite = g.node("Exp", [g.node("Neg", [logit], "output/negative")], "output/exp")
    score = g.node("Div", ["one", g.node("Add", [opposite, "one"], "output/divisor")], "score/column")
    add_decision(g, score, threshold)

    apart = g.node("Sub", [scaled, "reference_scaled"], "apart")
    squared = g.node("Mul", [apart, apart], "squared")
    errors = g.node("ReduceSum", [squared, "axis_1"], "errors", keepdims=0)
    add_shares(g, errors)
    g.node("Expand", ["reference_values", g.node("Shape", [errors], "errors/shape")], "expected")
    return g.model(
        "lstm_classifier",
        [value("samples", DOUBLE, ["N", timesteps, width])],
        output_types(width),
        properties(LAYOUT, threshold, features),
    )
