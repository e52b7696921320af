"""Mutations of the dense autoencoder (rules DA1 to DA6)."""

from collections.abc import Iterator

import numpy as np
import onnx

from tests.mutation import scorers
from tests.mutation.mutation import Makers, Mutation, audited, contradiction, found
from tests.mutation.scorers import with_operators
from tests.mutation.set_copy import METADATA, SetCopy, initializer, set_initializer

DENSE = "dense_autoencoder"


def transpose_kernel(model: onnx.ModelProto) -> None:
    """The first kernel is stored output by output: the same numbers, shape and file size (DA1)."""
    set_initializer(model, "layer_1.kernel", initializer(model, "layer_1.kernel").T)


def swap_layers(model: onnx.ModelProto) -> None:
    """The first and the last layer change places, with their shapes."""
    last = sum(tensor.name.endswith(".kernel") for tensor in model.graph.initializer)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for part in ("kernel", "bias"):
        tensors[f"layer_1.{part}"].name, tensors[f"layer_{last}.{part}"].name = (
            f"layer_{last}.{part}", f"layer_1.{part}",
        )  # fmt: skip


def drop_bias(model: onnx.ModelProto) -> None:
    """The first layer has no bias (DA1)."""
    set_initializer(model, "layer_1.bias", np.zeros_like(initializer(model, "layer_1.bias")))


def let_grow(model: onnx.ModelProto) -> None:
    """The first kernel is so large that the square of an error could overflow (DA2)."""
    set_initializer(model, "layer_1.kernel", initializer(model, "layer_1.kernel") * 1e140)


def relu_to_tanh(model: onnx.ModelProto) -> None:
    """Hidden layers have the other activation (DA1)."""
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Tanh"


def relu_to_tanh_everywhere(copy: SetCopy) -> None:
    """Likewise in graph and metadata."""
    with_operators(DENSE, relu_to_tanh)(copy)
    copy.edit_json(METADATA[DENSE], lambda data: data["dense"].update(activation="tanh"))


def mean_of_one_feature_less(model: onnx.ModelProto) -> None:
    """The sum of squares is divided by another number (DA3)."""
    set_initializer(model, "count", initializer(model, "count") - 1)


def output_activated(model: onnx.ModelProto) -> None:
    """The output layer has an activation, too (DA1)."""
    at = next(k for k, node in enumerate(model.graph.node) if node.output[0] == "reconstructed")
    model.graph.node[at].output[0] = "output/sum"
    nodes = list(model.graph.node)
    nodes.insert(at + 1, onnx.helper.make_node("Relu", ["output/sum"], ["reconstructed"]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def mutations() -> Iterator[Mutation]:
    """All of them."""
    make = Makers(DENSE, "dense")
    graph, everywhere, metadata = make.graph, make.everywhere, make.metadata
    yield graph("kernel/transposed", transpose_kernel, found(DENSE))
    yield graph("layers/swapped", swap_layers, audited(DENSE), scores=False)
    yield graph("bias/none", drop_bias, found(DENSE))
    yield graph("kernel/unbounded", let_grow, audited(DENSE))
    yield graph("count", mean_of_one_feature_less, found(DENSE, audit_may=True))
    yield everywhere("weight/visible", scorers.change_weight("layer_1.kernel", 0.01, DENSE), found(DENSE))
    yield everywhere("weight/float32_step", scorers.change_weight("layer_2.kernel", None, DENSE), found(DENSE))
    yield everywhere("weight/bias", scorers.change_weight("layer_2.bias", None, DENSE), found(DENSE))
    yield everywhere("activation/graph", with_operators(DENSE, relu_to_tanh), audited(DENSE))
    yield everywhere("activation/everywhere", relu_to_tanh_everywhere, found(DENSE))
    yield everywhere("activation/output", with_operators(DENSE, output_activated), audited(DENSE))
    yield metadata("activation/metadata", lambda d: d["dense"].update(activation="tanh"), audited(DENSE))
    yield metadata("activation/unknown", lambda d: d["dense"].update(activation="gelu"), contradiction(DENSE))
    yield metadata("units/other", lambda d: d["dense"]["units"].__setitem__(0, 63), audited(DENSE))
    yield metadata("units/zero", lambda d: d["dense"]["units"].__setitem__(0, 0), contradiction(DENSE))
    yield metadata("units/none", lambda d: d["dense"].update(units=[]), contradiction(DENSE))
    yield metadata("timesteps", lambda d: d.update(timesteps=1), contradiction(DENSE))
    yield everywhere("float32_scaling", scorers.scale_in_float32(DENSE), found(DENSE, audit_may=True))
    yield graph("threshold/graph", scorers.threshold_in_graph, audited(DENSE))
    yield everywhere("threshold/everywhere", scorers.threshold_everywhere(DENSE), found(DENSE))
    yield graph("means/graph", scorers.swap_in_scaler(), audited(DENSE))
    yield everywhere("means/everywhere", scorers.swap_in_scaler_everywhere(DENSE), found(DENSE))
