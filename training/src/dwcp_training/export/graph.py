"""What all exported graphs share: constants, scaling in the graph, properties (rules S1, G1, G3)."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLAMP = 1e15
"""Scaled values are clamped to +-CLAMP (S1)."""

OPSETS = {"": 21, "ai.onnx.ml": 5}
IR_VERSION = 10


class GraphBuilder:
    """Collects nodes and initializers in a fixed order, so that equal models give equal bytes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: Any, dtype: type = np.float64) -> str:
        """Adds an initializer and returns its name."""
        self.initializers[name] = numpy_helper.from_array(
            np.ascontiguousarray(values, dtype).reshape(np.shape(values)), name
        )
        return name

    def node(self, op: str, inputs: Sequence[str], output: str | Sequence[str], **attributes: Any) -> Any:
        """Adds a node and returns its output name, or names."""
        outputs = [output] if isinstance(output, str) else list(output)
        self.nodes.append(helper.make_node(op, list(inputs), outputs, **attributes))
        return output

    def scale(self, samples: str, mean: np.ndarray, scale: np.ndarray, output: str) -> str:
        """Adds S1 in float64."""
        self.constant("scaler_mean", mean)
        self.constant("scaler_scale", scale)
        centred = self.node("Sub", [samples, "scaler_mean"], f"{output}/centred")
        scaled = self.node("Div", [centred, "scaler_scale"], f"{output}/unclamped")
        low, high = self.constant("clamp_low", -CLAMP), self.constant("clamp_high", CLAMP)
        return self.node("Clip", [scaled, low, high], output)

    def dense(self, name: str, x: str, kernel: np.ndarray, bias: np.ndarray, output: str) -> str:
        """Adds `x W + b` with the initializers `name.kernel` and `name.bias`."""
        self.constant(f"{name}.kernel", kernel)
        self.constant(f"{name}.bias", bias)
        product = self.node("MatMul", [x, f"{name}.kernel"], f"{name}/product")
        total: str = self.node("Add", [product, f"{name}.bias"], output)
        return total

    def model(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        properties: dict[str, str],
    ) -> onnx.ModelProto:
        """The checked model."""
        graph = helper.make_graph(self.nodes, name, list(inputs), list(outputs), list(self.initializers.values()))
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS.items()],
            ir_version=IR_VERSION,
            producer_name="dwcp-training",
        )
        helper.set_model_props(model, properties)
        onnx.checker.check_model(model)
        return model


def properties(layout: str, threshold: float, features: Sequence[str]) -> dict[str, str]:
    """The graph's own metadata properties (G3)."""
    return {"dwcp.features": ",".join(features), "dwcp.layout": layout, "dwcp.threshold": repr(threshold)}


def value(name: str, dtype: int, shape: Sequence[str | int]) -> onnx.ValueInfoProto:
    """Type of a graph input or output."""
    return helper.make_tensor_value_info(name, dtype, list(shape))


def output_types(width: int) -> list[onnx.ValueInfoProto]:
    """Outputs of every graph but the forest's, which has more (G1)."""
    return [
        value("score", FLOAT, ["N"]),
        value("is_anomaly", BOOL, ["N"]),
        value("contributions", FLOAT, ["N", width]),
        value("expected", FLOAT, ["N", width]),
    ]


def operator_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Operator type to count, sorted by type."""
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))


FLOAT, DOUBLE, BOOL = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL
