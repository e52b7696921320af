"""Reads the parts of an ONNX file that an audit needs, without the onnx package (rules G1 to G3)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.message import DecodeError

from dwcp.onnx.v1 import onnx_pb2
from dwcp_sidecar.errors import ContractError

_DTYPES = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    7: np.dtype("<i8"),
    9: np.dtype("?"),
    11: np.dtype("<f8"),
}
_INT8 = 3
_TYPED_FIELD = {1: "float_data", 2: "int32_data", 3: "int32_data", 7: "int64_data", 9: "int32_data", 11: "double_data"}


@dataclass(frozen=True)
class OnnxFile:
    """What a graph consists of.

    Attributes:
        operators: operator type to count.
        initializers: name to values, in the stored shape and type.
        properties: the file's own metadata properties.
        attributes: attributes of the first `TreeEnsemble` node, name to list or array; empty without one.
    """

    operators: dict[str, int]
    initializers: dict[str, np.ndarray]
    properties: dict[str, str]
    attributes: dict[str, np.ndarray | list[int]]

    @classmethod
    def parse(cls, data: bytes, name: str) -> "OnnxFile":
        """Parses an ONNX file.

        Raises:
            ContractError: GRAPH_INVALID naming the file when the bytes are not a self-contained ONNX model.
        """
        model = onnx_pb2.ModelProto()
        try:
            model.ParseFromString(data)
            if not model.graph.node:
                raise ValueError("it has no nodes")
            initializers = {tensor.name: _array(tensor) for tensor in model.graph.initializer}
            attributes = next(
                (_attributes(node) for node in model.graph.node if node.op_type == "TreeEnsemble"),
                {},
            )
        except (DecodeError, ValueError, OverflowError) as error:
            raise ContractError(
                "GRAPH_INVALID", name, f"{name} is not a complete ONNX model: {error}. Publish the set again."
            ) from None
        return cls(
            operators=dict(Counter(node.op_type for node in model.graph.node)),
            initializers=initializers,
            properties={entry.key: entry.value for entry in model.metadata_props},
            attributes=attributes,
        )


def pruned(data: bytes, outputs: Sequence[str]) -> bytes:
    """The same graph without the nodes that none of `outputs` needs.

    ONNX Runtime executes every node of a graph, whatever is fetched; a score without its explanation would cost twice
    as much as it has to.

    Args:
        data: an ONNX file that `OnnxFile.parse` accepts.
        outputs: names of graph outputs to keep.
    """
    model = onnx_pb2.ModelProto.FromString(data)
    graph = model.graph
    needed, kept = set(outputs), []
    for node in reversed(graph.node):  # nodes are in topological order
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    parts = {
        "node": list(reversed(kept)),
        "output": [output for output in graph.output if output.name in outputs],
        "initializer": [tensor for tensor in graph.initializer if tensor.name in needed],
    }
    copies = {
        field: [type(part).FromString(part.SerializeToString()) for part in found] for field, found in parts.items()
    }
    for field, found in copies.items():
        del getattr(graph, field)[:]
        getattr(graph, field).extend(found)
    return model.SerializeToString()


def _attributes(node: onnx_pb2.NodeProto) -> dict[str, np.ndarray | list[int]]:
    return {a.name: _array(a.t) if a.HasField("t") else list(a.ints) or [a.i] for a in node.attribute}


def _array(tensor: onnx_pb2.TensorProto) -> np.ndarray:
    dtype = _DTYPES.get(tensor.data_type)
    if dtype is None or tensor.data_location != 0:
        raise ValueError(f"tensor {tensor.name!r} has an unexpected type or lies in another file")
    if tensor.raw_data:
        values = np.frombuffer(tensor.raw_data, dtype)
    elif tensor.data_type == _INT8 and any(tensor.dims):
        raise ValueError(f"tensor {tensor.name!r} is not stored as raw bytes")
    else:
        values = np.array(getattr(tensor, _TYPED_FIELD[tensor.data_type]), dtype)
    return values.reshape(tuple(tensor.dims))
