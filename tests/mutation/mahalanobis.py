"""Mutations of the Mahalanobis distance (rules MD1 to MD7)."""

from collections.abc import Callable, Iterator

import numpy as np
import onnx

from tests.mutation import scorers
from tests.mutation.mutation import Makers, Mutation, audited, contradiction, found
from tests.mutation.neighbors import another_constant, one_value, rewire
from tests.mutation.scorers import with_operators
from tests.mutation.set_copy import METADATA, SetCopy, initializer, set_initializer

MAHALANOBIS = "mahalanobis"


def transpose(name: str) -> Callable[[onnx.ModelProto], None]:
    """A matrix stands on its side: a triangle is one still (MD2)."""
    return lambda model: set_initializer(model, name, initializer(model, name).T)


def float32_step(name: str) -> Callable[[onnx.ModelProto], None]:
    """Every number that is not 0 is a float32 step larger."""

    def change(model: onnx.ModelProto) -> None:
        values = initializer(model, name)
        stepped = np.nextafter(values.astype(np.float32), np.float32(np.inf))
        set_initializer(model, name, np.where(values == 0, 0.0, stepped))

    return change


def fill_corners(name: str) -> Callable[[onnx.ModelProto], None]:
    """Both corners beside the diagonal are set: no triangle (MD7)."""

    def change(model: onnx.ModelProto) -> None:
        values = initializer(model, name)
        values[0, -1] = values[-1, 0] = 0.5
        set_initializer(model, name, values)

    return change


def diagonal_alone(name: str) -> Callable[[onnx.ModelProto], None]:
    """Every metric counts by itself: how they go together is forgotten (MD2)."""
    return lambda model: set_initializer(model, name, np.diag(np.diagonal(initializer(model, name))))


def remember_itself(model: onnx.ModelProto) -> None:
    """The first metric of the last sample is expected from itself, too (MD4)."""
    values = initializer(model, "regression")
    values[len(values) - values.shape[1], 0] = 0.5
    set_initializer(model, "regression", values)


def older_first(model: onnx.ModelProto) -> None:
    """The samples of the window stand in the reverse order in the regression (MD1)."""
    values = initializer(model, "regression")
    width = values.shape[1]
    blocks = values.reshape(-1, width, width)
    set_initializer(model, "regression", blocks[[*range(len(blocks) - 2, -1, -1), len(blocks) - 1]].reshape(-1, width))


def shift_start(data: dict) -> None:
    """The limit of the second metric begins elsewhere (MD3)."""
    data["mahalanobis"]["limit_start"][1] += 0.01


def limits_everywhere(change: Callable[[dict], None]) -> Callable[[SetCopy], None]:
    """A change of the limits in graph and metadata."""

    def mutate(copy: SetCopy) -> None:
        copy.edit_json(METADATA[MAHALANOBIS], change)
        own = copy.json(METADATA[MAHALANOBIS])["mahalanobis"]

        def store(model: onnx.ModelProto) -> None:
            for name in ("limit_start", "limit_slope"):
                set_initializer(model, name, np.array(own[name]))

        copy.edit_graph(MAHALANOBIS, store)

    return mutate


def turn_slope(data: dict) -> None:
    """The first metric's limit is one from the other side (MD3)."""
    data["mahalanobis"]["limit_slope"][0] *= -1


def mutations() -> Iterator[Mutation]:
    """All of them."""
    make = Makers(MAHALANOBIS, "mahalanobis")
    graph, everywhere, metadata = make.graph, make.everywhere, make.metadata
    wiring = found(MAHALANOBIS, audit_may=True)
    for name in ("row_factor", "window_factor"):
        yield graph(f"{name}/transposed", transpose(name), found(MAHALANOBIS))
        yield graph(f"{name}/float32_step", float32_step(name), found(MAHALANOBIS))
        yield graph(f"{name}/diagonal", diagonal_alone(name), found(MAHALANOBIS))
        yield graph(f"{name}/no_triangle", fill_corners(name), audited(MAHALANOBIS))
        yield graph(f"{name}/nan", one_value(name, np.nan), audited(MAHALANOBIS), scores=False)
        yield graph(f"{name}/too_large", one_value(name, 2e6), audited(MAHALANOBIS))
    yield graph("regression/float32_step", float32_step("regression"), found(MAHALANOBIS))
    yield graph("regression/older_first", older_first, found(MAHALANOBIS))
    yield graph("regression/itself", remember_itself, wiring)
    yield graph("regression/too_large", one_value("regression", -2e6), audited(MAHALANOBIS))
    yield graph("precision/float32_step", float32_step("precision"), found(MAHALANOBIS))
    yield graph("precision/zero", one_value("precision", 0.0), audited(MAHALANOBIS))
    yield graph("limits/start/graph", another_constant("limit_start", 0.01), audited(MAHALANOBIS))
    yield metadata("limits/start/metadata", shift_start, audited(MAHALANOBIS))
    yield everywhere("limits/start/everywhere", limits_everywhere(shift_start), found(MAHALANOBIS))
    yield everywhere("limits/slope/everywhere", limits_everywhere(turn_slope), found(MAHALANOBIS))
    yield metadata("limits/none", lambda d: d["mahalanobis"].pop("limit_slope"), contradiction(MAHALANOBIS))
    yield metadata("limits/too_large", lambda d: d["mahalanobis"]["limit_start"].__setitem__(0, -2e6),
                   contradiction(MAHALANOBIS))  # fmt: skip
    yield metadata("limits/nan", lambda d: d["mahalanobis"]["limit_slope"].__setitem__(0, "NaN"),
                   contradiction(MAHALANOBIS))  # fmt: skip
    yield metadata("ridge", lambda d: d["mahalanobis"].update(ridge=-0.01), contradiction(MAHALANOBIS))
    yield metadata("timesteps/none", lambda d: d.pop("timesteps"), audited(MAHALANOBIS))
    yield metadata("timesteps/one", lambda d: d.update(timesteps=1), contradiction(MAHALANOBIS))
    yield metadata("timesteps/fewer", lambda d: d.update(timesteps=4), audited(MAHALANOBIS))
    yield metadata("neighbors", lambda d: d.update(neighbors={"n_neighbors": 1, "rows": 2}),
                   contradiction(MAHALANOBIS))  # fmt: skip
    yield graph("window/left_out", rewire("distance/both", 1, "row/squared"), wiring)
    yield graph("window/count", another_constant("window_count", 1), wiring)
    yield graph("row/count", another_constant("row_count", 1), wiring)
    yield graph("mean/two", another_constant("two", -1), wiring)
    yield graph("limit/left_out", rewire("score/unbounded", 1, "distance"), wiring)
    yield graph("last/another", another_constant("last_step", -1), wiring)
    yield graph("parts/swapped", rewire("parts", 1, "gains"), wiring)
    yield everywhere("distance/squared", with_operators(MAHALANOBIS, _without_root), wiring)
    yield everywhere("float32_scaling", scorers.scale_in_float32(MAHALANOBIS), wiring)
    yield graph("threshold/graph", scorers.threshold_in_graph, audited(MAHALANOBIS))
    yield everywhere("threshold/everywhere", scorers.threshold_everywhere(MAHALANOBIS), found(MAHALANOBIS))
    yield graph("means/graph", scorers.swap_in_scaler(), audited(MAHALANOBIS))
    yield everywhere("means/everywhere", scorers.swap_in_scaler_everywhere(MAHALANOBIS), found(MAHALANOBIS))


def _without_root(model: onnx.ModelProto) -> None:
    """The distance stays squared (MD2)."""
    next(node for node in model.graph.node if node.op_type == "Sqrt").op_type = "Identity"
