"""LSTM autoencoder through tf2onnx: four float32 LSTM nodes between our scaling and score (layout `lstm.float32.v1`).

Two to five times faster than the exact graph in batches, in the TOLERANCE class (P3).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from dwcp_sidecar.audit import LSTM_LAYERS
from dwcp_training.export.from_keras import from_keras
from dwcp_training.export.graph import DOUBLE, GraphBuilder, output_types, properties, value
from dwcp_training.export.lstm import add_score

LAYOUT = "lstm.float32.v1"


class ConversionError(RuntimeError):
    """tf2onnx gave a graph that is not the one expected."""


def tf2onnx_graph(network: Any) -> onnx.ModelProto:
    """tf2onnx's graph of a functional, not unrolled Keras network; input `scaled`, float32.

    Raises:
        ConversionError: when the layers did not become four LSTM nodes (recurrent dropout and hard sigmoid make loops).
    """
    model = from_keras(network)
    kinds = [node.op_type for node in model.graph.node]
    if kinds.count("LSTM") != len(LSTM_LAYERS) or "Loop" in kinds or "Scan" in kinds:
        raise ConversionError(
            f"tf2onnx gave {kinds.count('LSTM')} LSTM nodes, wanted {len(LSTM_LAYERS)}: {sorted(set(kinds))}"
        )
    return model


def export_lstm_float32(
    network: Any, mean: np.ndarray, scale: np.ndarray, features: Sequence[str], threshold: float
) -> onnx.ModelProto:
    """Builds the graph of layout `lstm.float32.v1`. Arguments as of `export_lstm`.

    Raises:
        ConversionError: when tf2onnx's graph is not as expected.
    """
    inner = tf2onnx_graph(network)
    timesteps, width = network.input_shape[1:]
    _use_canonical_names(inner, network)
    _widen_integers(inner)
    _number_names(inner)
    g = GraphBuilder()
    scaled = g.scale("samples", mean, scale, "scaled/float64")
    g.node("Cast", [scaled], inner.graph.input[0].name, to=TensorProto.FLOAT)
    for tensor in inner.graph.initializer:
        g.initializers[tensor.name] = tensor
    g.nodes.extend(inner.graph.node)
    reconstructed = g.node("Cast", [inner.graph.output[0].name], "reconstructed", to=TensorProto.DOUBLE)
    add_score(g, scaled, reconstructed, timesteps, width, threshold)
    return g.model(
        "lstm_autoencoder",
        [value("samples", DOUBLE, ["N", timesteps, width])],
        output_types(width),
        properties(LAYOUT, threshold, features),
    )


def _use_canonical_names(model: onnx.ModelProto, network: Any) -> None:
    """Renames the weights in place to the names of G2: those of LSTM nodes by place, of the dense layer by value."""
    old_to_new: dict[str, str] = {}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    lstm_nodes = [node for node in model.graph.node if node.op_type == "LSTM"]
    for layer, node in zip(LSTM_LAYERS, lstm_nodes, strict=True):
        for part, name in zip("WRB", node.input[1:4], strict=True):
            old_to_new[name] = f"{layer}.{part}"
    for part, array in zip(("kernel", "bias"), network.get_layer("dense").get_weights(), strict=True):
        same = [
            n for n, v in values.items() if v.shape == array.shape and np.array_equal(v, array) and n not in old_to_new
        ]
        if len(same) != 1:
            raise ConversionError(f"dense.{part} stands {len(same)} times in tf2onnx's graph, wanted once")
        old_to_new[same[0]] = f"dense.{part}"
    for tensor in model.graph.initializer:
        tensor.name = old_to_new.get(tensor.name, tensor.name)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = old_to_new.get(name, name)


def _widen_integers(model: onnx.ModelProto) -> None:
    """Makes tf2onnx's arithmetic on shapes int64 throughout, in place: readers of model sets know no int32."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.INT32:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.int64), tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.INT32:
                attribute.i = TensorProto.INT64


def _number_names(model: onnx.ModelProto) -> None:
    """Numbers all tensors but the weights in node order, in place: the names of tf2onnx differ from run to run."""
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    names: dict[str, str] = {"": ""}  # an optional input that is left out

    def numbered(name: str) -> str:
        if name not in names:
            canonical = name in initializers and name.split(".")[0] in (*LSTM_LAYERS, "dense")
            names[name] = name if canonical else f"tf2onnx/{len(names)}"
        return names[name]

    for index, node in enumerate(graph.node):
        node.name = f"tf2onnx/{index}"
        node.input[:] = [numbered(name) for name in node.input]
        node.output[:] = [numbered(name) for name in node.output]
    for value_info in (*graph.input, *graph.output):
        value_info.name = numbered(value_info.name)
    used = [initializers[name] for name in names if name in initializers]
    for tensor in used:
        tensor.name = names[tensor.name]
    ordered = [tensor.SerializeToString(deterministic=True) for tensor in used]
    del graph.initializer[:]
    graph.initializer.extend(TensorProto.FromString(tensor) for tensor in ordered)
