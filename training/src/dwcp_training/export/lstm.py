"""LSTM autoencoder to an EXACT graph: float64, unrolled over the window (rules LA1 to LA8, G1, G2).

ONNX Runtime's LSTM operator has no float64 form, so every step is written out as matrix products, sigmoids and
tangents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from dwcp_sidecar.audit import LSTM_LAYERS
from dwcp_training.export.graph import DOUBLE, GraphBuilder, output_types, properties, value

LAYOUT = "lstm.v1"
_KERAS_GATES = (0, 1, 3, 2)  # Keras: input, forget, candidate, output; ours: input, forget, output, candidate (LA3)


def operators(timesteps: int) -> dict[str, int]:
    """Operator counts of the layout for a window length, asserted at export and at every load (G2)."""
    cells = timesteps * len(LSTM_LAYERS)
    later = cells - len(LSTM_LAYERS)  # cells that have a state before them
    return {
        "Add": cells + later + 2, "Cast": 4, "Clip": 1, "Concat": later + len(LSTM_LAYERS) + 1, "Div": 3, "Equal": 1,
        "Gather": timesteps + 1, "Greater": 1, "MatMul": cells + 1, "Mul": 2 * cells + later + 2, "ReduceSum": 2,
        "Sigmoid": cells, "Split": 2 * cells, "Squeeze": 1, "Sub": 2, "Tanh": 2 * cells, "Unsqueeze": timesteps,
        "Where": 1,
    }  # fmt: skip


@dataclass(frozen=True)
class LayerWeights:
    """Weights of one LSTM layer, gates in the order of LA3.

    Attributes:
        kernel: float32 `[in, 4 units]`.
        recurrent: float32 `[units, 4 units]`.
        bias: float32 `[4 units]`.
    """

    kernel: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray

    @property
    def units(self) -> int:
        return len(self.recurrent)

    @classmethod
    def of(cls, layer: Any) -> "LayerWeights":
        """Takes the weights out of a Keras LSTM layer."""

        def gates(array: np.ndarray) -> np.ndarray:
            parts = np.split(np.asarray(array, np.float32), 4, axis=-1)
            return np.concatenate([parts[i] for i in _KERAS_GATES], axis=-1)

        return cls(*map(gates, layer.get_weights()))


@dataclass(frozen=True)
class LstmWeights:
    """Weights of the whole network.

    Attributes:
        layers: encoder_1, encoder_2, decoder_1, decoder_2 (LA1).
        dense_kernel: float32 `[units, features]`.
        dense_bias: float32 `[features]`.
    """

    layers: tuple[LayerWeights, ...]
    dense_kernel: np.ndarray
    dense_bias: np.ndarray

    @classmethod
    def of(cls, network: Any) -> "LstmWeights":
        """Takes the weights out of a Keras model whose layers are named as in LA1."""
        layers = tuple(LayerWeights.of(network.get_layer(name)) for name in LSTM_LAYERS)
        kernel, bias = network.get_layer("dense").get_weights()
        return cls(layers, np.asarray(kernel, np.float32), np.asarray(bias, np.float32))


def export_lstm(
    weights: LstmWeights,
    mean: np.ndarray,
    scale: np.ndarray,
    timesteps: int,
    features: Sequence[str],
    threshold: float,
) -> onnx.ModelProto:
    """Builds the graph of layout `lstm.v1`.

    Args:
        weights: of the trained network.
        mean, scale: of the scaler, float64 `[features]`.
        timesteps: window length.
        features: names in schema order.
        threshold: on the score.
    """
    g = GraphBuilder()
    scaled = g.scale("samples", mean, scale, "scaled")
    g.constant("axis_1", [1], np.int64)
    for step in range(timesteps):
        g.constant(f"step_{step}", step, np.int64)

    hidden = [g.node("Gather", [scaled, f"step_{t}"], f"scaled/{t}", axis=1) for t in range(timesteps)]
    for name, layer in zip(LSTM_LAYERS, weights.layers, strict=True):
        if name == "decoder_1":  # the code is its input at every step
            hidden = hidden[-1:] * timesteps
        hidden = add_layer(g, name, layer, hidden)
    sequence = g.node("Concat", [g.node("Unsqueeze", [h, "axis_1"], f"{h}/row") for h in hidden], "decoded", axis=1)
    reconstructed = g.dense("dense", sequence, weights.dense_kernel, weights.dense_bias, "reconstructed")
    add_score(g, scaled, reconstructed, timesteps, len(features), threshold)
    width = len(features)
    return g.model(
        "lstm_autoencoder",
        [value("samples", DOUBLE, ["N", timesteps, width])],
        output_types(width),
        properties(LAYOUT, threshold, features),
    )


def add_layer(g: GraphBuilder, name: str, weights: LayerWeights, inputs: list[str]) -> list[str]:
    """Adds one LSTM layer (LA3) on the inputs of every step, `[N, in]` each; returns its hidden states likewise."""
    units = weights.units
    for part in ("kernel", "recurrent", "bias"):
        g.constant(f"{name}.{part}", getattr(weights, part))
    g.constant(f"{name}/gates_and_candidate", [3 * units, units], np.int64)
    g.constant(f"{name}/gates", [units] * 3, np.int64)
    stacked = g.node("Concat", [f"{name}.kernel", f"{name}.recurrent"], f"{name}/weights", axis=0)
    states: list[str] = []
    cell = ""
    for t, x in enumerate(inputs):
        at = f"{name}/{t}"
        if t == 0:  # states start at 0: no recurrent part, nothing to forget
            product = g.node("MatMul", [x, f"{name}.kernel"], f"{at}/product")
        else:
            both = g.node("Concat", [x, states[-1]], f"{at}/input", axis=1)
            product = g.node("MatMul", [both, stacked], f"{at}/product")
        total = g.node("Add", [product, f"{name}.bias"], f"{at}/total")
        gates, candidate = g.node(
            "Split", [total, f"{name}/gates_and_candidate"], [f"{at}/gates_total", f"{at}/candidate_total"], axis=1
        )
        opened = g.node("Sigmoid", [gates], f"{at}/gates")
        i, f, o = g.node("Split", [opened, f"{name}/gates"], [f"{at}/{gate}" for gate in "ifo"], axis=1)
        new = g.node("Mul", [i, g.node("Tanh", [candidate], f"{at}/candidate")], f"{at}/new")
        cell = g.node("Add", [g.node("Mul", [f, cell], f"{at}/kept"), new], f"{at}/cell") if cell else new
        states.append(g.node("Mul", [o, g.node("Tanh", [cell], f"{at}/tanh_cell")], f"{at}/hidden"))
    return states


def add_score(g: GraphBuilder, scaled: str, reconstructed: str, timesteps: int, width: int, threshold: float) -> None:
    """Adds LA5 to LA8 to a graph that has `scaled` and its reconstruction, float64 `[N, timesteps, features]`."""
    g.constant("count", float(timesteps * width))
    g.constant("threshold", threshold)
    g.constant("zero", 0.0)
    g.constant("over_time", [1], np.int64)
    g.constant("last_step", timesteps - 1, np.int64)
    difference = g.node("Sub", [scaled, reconstructed], "difference")
    squared = g.node("Mul", [difference, difference], "squared")
    errors = g.node("ReduceSum", [squared, "over_time"], "errors", keepdims=0)
    total = g.node("ReduceSum", [errors, "over_time"], "errors/total", keepdims=1)
    mean = g.node("Div", [total, "count"], "score/column")
    flat = g.node("Squeeze", [mean, "over_time"], "score/float64")
    published = g.node("Cast", [flat], "score", to=TensorProto.FLOAT)
    g.node(
        "Greater", [g.node("Cast", [published], "score/published", to=TensorProto.DOUBLE), "threshold"], "is_anomaly"
    )
    share = g.node("Div", [errors, total], "share/unguarded")
    nothing = g.node("Equal", [total, "zero"], "errors/none")
    g.node("Cast", [g.node("Where", [nothing, "zero", share], "share")], "contributions", to=TensorProto.FLOAT)
    last = g.node("Gather", [reconstructed, "last_step"], "last", axis=1)
    raw = g.node("Add", [g.node("Mul", [last, "scaler_scale"], "last/unscaled"), "scaler_mean"], "expected/float64")
    g.node("Cast", [raw], "expected", to=TensorProto.FLOAT)
