"""Dense autoencoder to an EXACT graph: float64 matrix products, one after the other (rules DA1 to DA6, G1, G2)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from dwcp_sidecar.audit.dense import ACTIVATIONS
from dwcp_training.export.graph import CLAMP, DOUBLE, GraphBuilder, output_types, properties, value
from dwcp_training.export.verdict import VERDICT_OPERATORS, add_decision, add_shares

LAYOUT = "dense.v1"

LARGEST_SCORE = float(np.finfo(np.float32).max)
"""No score is above the largest float32 (DA3)."""


def operators(hidden_layers: int, activation: str) -> dict[str, int]:
    """Operator counts of the layout, asserted at export and at every load (G2)."""
    layers = hidden_layers + 1
    own = {
        "Add": layers + 1, "Cast": 1, "Clip": 1, "Div": 2, "MatMul": layers, "Min": 1, "Mul": 2, "Sub": 2,
        ACTIVATIONS[activation]: hidden_layers,
    }  # fmt: skip
    return dict(Counter(own) + Counter(VERDICT_OPERATORS))


@dataclass(frozen=True)
class DenseLayer:
    """Weights of one layer, which computes `x kernel + bias`.

    Attributes:
        kernel: float32 `[in, out]`.
        bias: float32 `[out]`.
    """

    kernel: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class DenseWeights:
    """Weights of the whole network.

    Attributes:
        layers: from the first after the input to the output layer.
        activation: of all layers but the last, `relu` or `tanh`.
    """

    layers: tuple[DenseLayer, ...]
    activation: str

    @property
    def units(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return tuple(len(layer.bias) for layer in self.layers[:-1])

    @property
    def largest_reconstruction(self) -> float:
        """No value inside the network is larger, whatever the sample; NaN or infinity where there is no bound (DA2)."""
        largest = CLAMP
        with np.errstate(over="ignore", invalid="ignore"):
            for layer in self.layers:
                columns = np.abs(layer.kernel.astype(np.float64)).sum(axis=0)
                largest = largest * float(columns.max()) + float(np.abs(layer.bias.astype(np.float64)).max())
        return largest


def export_dense(
    weights: DenseWeights, mean: np.ndarray, scale: np.ndarray, features: Sequence[str], threshold: float
) -> onnx.ModelProto:
    """Builds the graph of layout `dense.v1`.

    Args:
        weights: of the trained network.
        mean, scale: of the scaler, float64 `[features]`.
        features: names in schema order.
        threshold: on the score.
    """
    g = GraphBuilder()
    scaled = g.scale("samples", mean, scale, "scaled")
    x = scaled
    *hidden, last = weights.layers
    for i, layer in enumerate(hidden, start=1):
        name = f"layer_{i}"
        total = g.dense(name, x, layer.kernel, layer.bias, f"{name}/sum")
        x = g.node(ACTIVATIONS[weights.activation], [total], name)
    x = g.dense(f"layer_{len(weights.layers)}", x, last.kernel, last.bias, "reconstructed")
    _add_score(g, scaled, x, len(features), threshold)
    width = len(features)
    return g.model(
        "dense_autoencoder",
        [value("samples", DOUBLE, ["N", width])],
        output_types(width),
        properties(LAYOUT, threshold, features),
    )


def _add_score(g: GraphBuilder, scaled: str, reconstructed: str, width: int, threshold: float) -> None:
    """Adds DA3 to DA6 to a graph that has `scaled` and its reconstruction, float64 `[N, features]`."""
    g.constant("count", float(width))
    g.constant("largest", LARGEST_SCORE)
    g.constant("axis_1", [1], np.int64)
    difference = g.node("Sub", [scaled, reconstructed], "difference")
    total = add_shares(g, g.node("Mul", [difference, difference], "errors"))
    mean = g.node("Div", [total, "count"], "score/mean")
    add_decision(g, g.node("Min", [mean, "largest"], "score/column"), threshold)
    unscaled = g.node("Mul", [reconstructed, "scaler_scale"], "expected/unscaled")
    raw = g.node("Add", [unscaled, "scaler_mean"], "expected/float64")
    g.node("Cast", [raw], "expected", to=TensorProto.FLOAT)
