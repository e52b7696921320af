"""Mutations of the one-class SVM (rules SV1 to SV6)."""

from collections.abc import Iterator

import numpy as np
import onnx

from tests.mutation import scorers
from tests.mutation.mutation import Makers, Mutation, audited, contradiction, found
from tests.mutation.neighbors import another_constant, one_value, rewire
from tests.mutation.scorers import with_operators
from tests.mutation.set_copy import METADATA, SetCopy, initializer, set_initializer

SVM = "one_class_svm"


def step_gamma(model: onnx.ModelProto) -> None:
    """The rate of the kernel is one float32 step higher (SV1)."""
    gamma = initializer(model, "gamma").astype(np.float32)
    set_initializer(model, "gamma", np.nextafter(gamma, np.float32(np.inf)))


def step_gamma_everywhere(copy: SetCopy) -> None:
    """Likewise in graph and metadata."""
    copy.edit_graph(SVM, step_gamma)
    gamma = float(initializer(copy.graph(SVM), "gamma"))
    copy.edit_json(METADATA[SVM], lambda data: data["svm"].update(gamma=gamma))


def negative_gamma_everywhere(copy: SetCopy) -> None:
    """The kernel grows with the distance, in graph and metadata."""
    copy.edit_graph(SVM, lambda model: set_initializer(model, "gamma", -initializer(model, "gamma")))
    copy.edit_json(METADATA[SVM], lambda data: data["svm"].update(gamma=-data["svm"]["gamma"]))


def alternate_alpha(model: onnx.ModelProto) -> None:
    """Every other weight is one part in a million larger. All of them together would change no score."""
    alpha = initializer(model, "alpha")
    alpha[::2] *= 1 + 1e-6
    set_initializer(model, "alpha", alpha)


def negate_alpha(model: onnx.ModelProto) -> None:
    """One weight has the other sign (SV1)."""
    alpha = initializer(model, "alpha")
    alpha[0] = -alpha[0]
    set_initializer(model, "alpha", alpha)


def rotate_alpha(model: onnx.ModelProto) -> None:
    """Each support vector has the weight of the one before."""
    set_initializer(model, "alpha", np.roll(initializer(model, "alpha"), 1))


def enlarge_alpha(model: onnx.ModelProto) -> None:
    """All weights are so large that a score could overflow; none changes (SV2)."""
    set_initializer(model, "alpha", initializer(model, "alpha") * 1e8)


def kernel_without_sign(model: onnx.ModelProto) -> None:
    """The kernel is `exp(u)` instead of `exp(-u)` (SV1)."""
    next(node for node in model.graph.node if node.op_type == "Neg").op_type = "Identity"


def mutations() -> Iterator[Mutation]:
    """All of them."""
    make = Makers(SVM, "svm")
    graph, everywhere, metadata = make.graph, make.everywhere, make.metadata
    wiring = found(SVM, audit_may=True)
    yield graph("alpha/part_in_a_million", alternate_alpha, found(SVM))
    yield graph("alpha/rotated", rotate_alpha, found(SVM))
    yield graph("alpha/negative", negate_alpha, audited(SVM))
    yield graph("alpha/zero", one_value("alpha", 0.0), audited(SVM))
    yield graph("alpha/too_large", enlarge_alpha, audited(SVM), scores=False)
    yield graph("gamma/graph", step_gamma, audited(SVM))
    yield everywhere("gamma/float32_step", step_gamma_everywhere, found(SVM))
    yield everywhere("gamma/negative", negative_gamma_everywhere, contradiction(SVM))
    yield metadata("gamma/metadata", lambda d: d["svm"].update(gamma=d["svm"]["gamma"] * (1 + 1e-15)), audited(SVM))
    yield metadata("nu/zero", lambda d: d["svm"].update(nu=0.0), contradiction(SVM))
    yield metadata("vectors/metadata", lambda d: d["svm"].update(support_vectors=d["svm"]["support_vectors"] + 1),
                   audited(SVM))  # fmt: skip
    yield metadata("neighbors", lambda d: d.update(neighbors={"n_neighbors": 1, "rows": 2}), contradiction(SVM))
    yield everywhere("kernel/sign", with_operators(SVM, kernel_without_sign), wiring)
    yield graph("kernel/complement", rewire("complement", 1, "kernel"), wiring)
    yield graph("kernel/half", another_constant("half", 0.5), wiring)
    yield graph("inside/floor", another_constant("inside_floor", 1.0), wiring)
    yield graph("inside/outside", rewire("outside", 0, "kernel"), wiring)
    yield graph("reference_scaled", scorers.another_reference_value, audited(SVM))
    yield graph("rows/rotated", lambda m: set_initializer(m, "rows", np.roll(initializer(m, "rows"), 1, axis=0)),
                found(SVM))  # fmt: skip
    yield graph("rows/nan", one_value("rows", np.nan), audited(SVM), scores=False)
    yield everywhere("float32_scaling", scorers.scale_in_float32(SVM), wiring)
    yield graph("threshold/graph", scorers.threshold_in_graph, audited(SVM))
    yield everywhere("threshold/everywhere", scorers.threshold_everywhere(SVM), found(SVM))
    yield graph("scales/graph", scorers.swap_in_scaler("scale"), audited(SVM))
    yield everywhere("scales/everywhere", scorers.swap_in_scaler_everywhere(SVM, "scale"), found(SVM))
