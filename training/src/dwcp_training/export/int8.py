"""Weights of a published graph in int8, with one scale a column (rules Q1 and Q2).

Only how the weights are stored changes: in the graph they become float64 numbers again before anything is computed, and
every product and sum is that of the float64 graph. Activations are not quantised. ONNX Runtime's dynamic quantisation
does that with one scale for a whole tensor, so that the score of an item would depend on the other items of its batch,
which W4 forbids.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dwcp_sidecar.audit.int8 import LARGEST

LAYOUTS = {"dense.v1": "dense.int8.v1", "lstm.v1": "lstm.int8.v1"}
"""Layout of a float64 graph to that of its int8 variant."""


class Quantized:
    """A matrix in int8.

    Attributes:
        units: int8 `[in, out]`, -127 to 127.
        scale: float32 `[out]`, above 0.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        largest = np.abs(matrix).max(axis=0)
        scale = (largest / LARGEST).astype(np.float32)
        # A column of zeros, or of numbers that no float32 scale reaches, has all its units 0.
        self.scale: np.ndarray = np.where(scale > 0, scale, np.float32(1))
        units = np.rint(matrix / self.scale.astype(np.float64))
        self.units: np.ndarray = np.clip(units, -LARGEST, LARGEST).astype(np.int8)

    @property
    def values(self) -> np.ndarray:
        """What the units stand for, float64 `[in, out]`: exact products."""
        return self.units.astype(np.float64) * self.scale.astype(np.float64)


def weight_names(initializers: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the weights of a graph in float64, sorted."""
    return sorted(name for name in initializers if name.endswith((".kernel", ".recurrent", ".bias")))


def quantized_graph(model: onnx.ModelProto, names: Sequence[str]) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A copy of a graph with its weights in int8, vectors among them in float32 (Q1).

    Args:
        model: a graph of a layout in `LAYOUTS`.
        names: of its weights.

    Returns:
        The graph, and its weights as it computes with them, float64.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    stored: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    values: dict[str, np.ndarray] = {}

    def keep(name: str, array: np.ndarray) -> str:
        stored.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    for name in names:
        wide = numpy_helper.to_array(tensors[name])
        if wide.ndim == 1:
            narrow = wide.astype(np.float32)
            values[name] = narrow.astype(np.float64)
            nodes.append(helper.make_node("Cast", [keep(f"{name}.float32", narrow)], [name], to=TensorProto.DOUBLE))
            continue
        matrix = Quantized(wide)
        values[name] = matrix.values
        for part, array in (("int8", matrix.units), ("scale", matrix.scale)):
            stored_as = keep(f"{name}.{part}", array)
            nodes.append(helper.make_node("Cast", [stored_as], [f"{stored_as}/wide"], to=TensorProto.DOUBLE))
        nodes.append(helper.make_node("Mul", [f"{name}.int8/wide", f"{name}.scale/wide"], [name]))
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    del quantized.graph.initializer[:], quantized.graph.node[:]
    quantized.graph.initializer.extend([tensor for tensor in graph.initializer if tensor.name not in values] + stored)
    quantized.graph.node.extend([*nodes, *graph.node])
    known = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(quantized, {**known, "dwcp.layout": LAYOUTS[known["dwcp.layout"]]})
    onnx.checker.check_model(quantized)
    return quantized, values
