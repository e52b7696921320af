"""Mutations of the LSTM classifier (rules LC1 to LC6)."""

from collections.abc import Iterator

import numpy as np
import onnx

from tests.conformance.cases import ENSEMBLE
from tests.mutation import scorers
from tests.mutation.mutation import Makers, Mutation, audited, contradiction, found
from tests.mutation.neighbors import another_constant, one_value, rewire
from tests.mutation.scorers import change_weight, swap_gates, with_operators
from tests.mutation.set_copy import METADATA, SetCopy, initializer, set_initializer

CLASSIFIER = "lstm_classifier"


def swap_layers(model: onnx.ModelProto) -> None:
    """The LSTM layers change places, with their shapes (LC1)."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for part in ("kernel", "recurrent", "bias"):
        tensors[f"lstm_1.{part}"].name, tensors[f"lstm_2.{part}"].name = f"lstm_2.{part}", f"lstm_1.{part}"


def transpose_recurrent(model: onnx.ModelProto) -> None:
    """Each gate of the first layer looks back through the transposed weights: the same numbers and shape (LA3)."""
    blocks = np.split(initializer(model, "lstm_1.recurrent"), 4, axis=1)
    set_initializer(model, "lstm_1.recurrent", np.concatenate([block.T for block in blocks], axis=1))


def without_relu(model: onnx.ModelProto) -> None:
    """`dense_1` passes on what is below 0 (LC1)."""
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Identity"


def relu_to_tanh(model: onnx.ModelProto) -> None:
    """`dense_1` has another activation (LC1)."""
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Tanh"


def negate_output(model: onnx.ModelProto) -> None:
    """The score is the probability of normal (LC2)."""
    for name in ("output.kernel", "output.bias"):
        set_initializer(model, name, -initializer(model, name))


def drop_output_bias(model: onnx.ModelProto) -> None:
    """The output unit has no bias (LC1)."""
    set_initializer(model, "output.bias", np.zeros_like(initializer(model, "output.bias")))


def other_reference_everywhere(copy: SetCopy) -> None:
    """The first reference value is another one, raw and scaled, in graph and metadata (LC4, LC5)."""
    copy.edit_json(METADATA[CLASSIFIER], lambda d: d["reference_values"].__setitem__(0, d["reference_values"][0] * 1.5))
    data = copy.json(METADATA[CLASSIFIER])
    values = np.array(data["reference_values"])
    scaled = (values - np.array(data["scaler"]["mean"])) / np.array(data["scaler"]["scale"])

    def change(model: onnx.ModelProto) -> None:
        set_initializer(model, "reference_values", values)
        set_initializer(model, "reference_scaled", scaled)

    copy.edit_graph(CLASSIFIER, change)


def mutations() -> Iterator[Mutation]:
    """All of them."""
    make = Makers(CLASSIFIER, "classifier")
    graph, everywhere, metadata = make.graph, make.everywhere, make.metadata
    wiring = found(CLASSIFIER, audit_may=True)
    yield everywhere(
        "gates/forget_output", swap_gates("lstm_1", "forget", "output", detector=CLASSIFIER), found(CLASSIFIER)
    )
    yield everywhere(
        "gates/kernel", swap_gates("lstm_2", "input", "forget", ("kernel",), CLASSIFIER), found(CLASSIFIER)
    )
    yield everywhere("gates/keras", swap_gates("lstm_2", "output", "candidate", detector=CLASSIFIER), found(CLASSIFIER))
    yield graph("layers/swapped", swap_layers, audited(CLASSIFIER), scores=False)
    yield graph("recurrent/transposed", transpose_recurrent, found(CLASSIFIER))
    for layer in ("lstm_1.kernel", "lstm_2.recurrent", "dense_1.kernel", "output.kernel"):
        yield everywhere(f"weight/{layer}", change_weight(layer, 0.01, CLASSIFIER), found(CLASSIFIER))
    yield everywhere("weight/float32_step", change_weight("output.bias", None, CLASSIFIER), found(CLASSIFIER))
    yield graph("weight/no_float32", one_value("dense_1.bias", 1e39), audited(CLASSIFIER), scores=False)
    yield graph("weight/nan", one_value("lstm_1.bias", np.nan), audited(CLASSIFIER), scores=False)
    yield everywhere("relu/none", with_operators(CLASSIFIER, without_relu), wiring)
    yield everywhere("relu/tanh", with_operators(CLASSIFIER, relu_to_tanh), wiring)
    yield graph("output/negated", negate_output, found(CLASSIFIER))
    yield graph("output/no_bias", drop_output_bias, found(CLASSIFIER))
    yield graph("sigmoid/one", another_constant("one", 1e-6), wiring)
    yield graph("sigmoid/sign", rewire("output/exp", 0, "output/sum"), wiring)
    yield graph("reference_scaled", scorers.another_reference_value, audited(CLASSIFIER))
    yield everywhere("reference/everywhere", other_reference_everywhere, found(CLASSIFIER))
    yield everywhere("float32_scaling", scorers.scale_in_float32(CLASSIFIER), wiring)
    yield graph("threshold/graph", scorers.threshold_in_graph, audited(CLASSIFIER))
    # In this set it is a member, and the ensemble was made for another threshold (EN2).
    yield everywhere("threshold/everywhere", scorers.threshold_everywhere(CLASSIFIER), contradiction(ENSEMBLE))
    yield graph("means/graph", scorers.swap_in_scaler(), audited(CLASSIFIER))
    yield everywhere("means/everywhere", scorers.swap_in_scaler_everywhere(CLASSIFIER), found(CLASSIFIER))
    yield metadata("units/other", lambda d: d["classifier"]["units"].__setitem__(0, 63), audited(CLASSIFIER))
    yield metadata("units/zero", lambda d: d["classifier"]["units"].__setitem__(2, 0), contradiction(CLASSIFIER))
    yield metadata("units/two", lambda d: d["classifier"]["units"].pop(), contradiction(CLASSIFIER))
    yield metadata("classes/one", lambda d: d["classifier"].update(anomalous_windows=0), contradiction(CLASSIFIER))
    yield metadata("timesteps/none", lambda d: d.pop("timesteps"), contradiction(CLASSIFIER))
    yield metadata("timesteps/too_long", lambda d: d.update(timesteps=257), contradiction(CLASSIFIER))
    yield metadata("contamination", lambda d: d.update(contamination=0.1), contradiction(CLASSIFIER))
