"""Mutations of the local outlier factor (rules LF1 to LF7)."""

from collections.abc import Callable, Iterator

import numpy as np
import onnx

from tests.conformance.reference.distances import squared_distances
from tests.mutation import scorers
from tests.mutation.mutation import Makers, Mutation, audited, contradiction, found
from tests.mutation.scorers import with_operators
from tests.mutation.set_copy import METADATA, SetCopy, initializer, set_initializer

NEIGHBORS = "local_outlier_factor"


def swap_k_distances(copy: SetCopy) -> None:
    """Two rows change k-distances: the neighbour of a golden row whose reach is farthest beyond its distance, and the
    row with the smallest k-distance (LF3)."""
    data, model = copy.json(METADATA[NEIGHBORS]), copy.graph(NEIGHBORS)
    case = next(c for c in copy.json(f"{NEIGHBORS}.golden.json")["cases"] if c["id"].startswith("typical/"))
    mean, scale = np.array(data["scaler"]["mean"]), np.array(data["scaler"]["scale"])
    sample = (np.array([case["samples"][-1]["values"]]) - mean) / scale
    distance = np.sqrt(squared_distances(sample, (initializer(model, "rows") - mean) / scale)[0])
    near = np.argsort(distance, kind="stable")[: data["neighbors"]["n_neighbors"]]
    k_distance = initializer(model, "k_distance")
    first = near[np.argmax(k_distance[near] - distance[near])]
    second = k_distance.argmin()
    assert k_distance[first] > max(distance[first], k_distance[second])
    k_distance[[first, second]] = k_distance[[second, first]]
    copy.edit_graph(NEIGHBORS, lambda graph: set_initializer(graph, "k_distance", k_distance))


def step_densities(model: onnx.ModelProto) -> None:
    """Every density is a float32 step higher (LF3)."""
    wide = initializer(model, "density")
    set_initializer(model, "density", np.nextafter(wide.astype(np.float32), np.float32(np.inf)))


def reverse_rows(model: onnx.ModelProto) -> None:
    """The rows stand in the reverse order, with all that belongs to them: only ties are decided otherwise (LF2)."""
    for name in ("rows", "k_distance", "density"):
        set_initializer(model, name, initializer(model, name)[::-1])


def rotate_rows(model: onnx.ModelProto) -> None:
    """The rows stand one further, k-distances and densities as before."""
    set_initializer(model, "rows", np.roll(initializer(model, "rows"), 1, axis=0))


def rewire(output: str, place: int, name: str) -> Callable[[onnx.ModelProto], None]:
    """One input of the node that gives `output` is another tensor."""

    def change(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if output in node.output)
        assert node.input[place] != name
        node.input[place] = name

    return change


def farthest(model: onnx.ModelProto) -> None:
    """The neighbours are the farthest rows (LF2)."""
    node = next(node for node in model.graph.node if node.op_type == "TopK")
    next(attribute for attribute in node.attribute if attribute.name == "largest").i = 1


def another_constant(name: str, by: float) -> Callable[[onnx.ModelProto], None]:
    """A constant of the layout is another number."""
    return lambda model: set_initializer(model, name, initializer(model, name) + by)


def one_value(name: str, value: float) -> Callable[[onnx.ModelProto], None]:
    """The first value of an initializer is one that the contract excludes."""

    def change(model: onnx.ModelProto) -> None:
        values = initializer(model, name)
        values.ravel()[0] = value
        set_initializer(model, name, values)

    return change


def fewer_neighbors_everywhere(copy: SetCopy) -> None:
    """A sample is compared with one row less, in graph and metadata; what is stored of the rows stays (LF2, LF3)."""

    def change(model: onnx.ModelProto) -> None:
        another_constant("neighbors", -1)(model)
        another_constant("count", -1)(model)

    copy.edit_graph(NEIGHBORS, change)
    copy.edit_json(METADATA[NEIGHBORS], lambda d: d["neighbors"].update(n_neighbors=d["neighbors"]["n_neighbors"] - 1))


def mutations() -> Iterator[Mutation]:
    """All of them."""
    make = Makers(NEIGHBORS, "neighbors")
    graph, everywhere, metadata = make.graph, make.everywhere, make.metadata
    wiring = found(NEIGHBORS, audit_may=True)
    yield everywhere("k_distance/swapped", swap_k_distances, found(NEIGHBORS))
    yield graph("k_distance/left_out", rewire("reach", 0, "nearest/distance"), wiring)
    yield graph("k_distance/negative", one_value("k_distance", -1.0), audited(NEIGHBORS), scores=False)
    yield graph("density/float32_step", step_densities, found(NEIGHBORS))
    yield graph("density/zero", one_value("density", 0.0), audited(NEIGHBORS), scores=False)
    yield graph("density/infinite", one_value("density", np.inf), audited(NEIGHBORS), scores=False)
    yield graph("rows/reversed", reverse_rows, found(NEIGHBORS))
    yield graph("rows/rotated", rotate_rows, found(NEIGHBORS))
    yield graph("rows/nan", one_value("rows", np.nan), audited(NEIGHBORS), scores=False)
    yield graph("neighbors/farthest", farthest, wiring)
    yield graph("neighbors/fewer", another_constant("neighbors", -1), audited(NEIGHBORS))
    yield graph("neighbors/count", another_constant("count", 1), wiring)
    yield everywhere("neighbors/everywhere", fewer_neighbors_everywhere, found(NEIGHBORS))
    yield metadata("neighbors/metadata", lambda d: d["neighbors"].update(n_neighbors=3), audited(NEIGHBORS))
    yield metadata("neighbors/none", lambda d: d["neighbors"].update(n_neighbors=0), contradiction(NEIGHBORS))
    yield metadata("neighbors/more_than_rows", lambda d: d["neighbors"].update(n_neighbors=d["neighbors"]["rows"] + 1),
                   contradiction(NEIGHBORS))  # fmt: skip
    yield metadata("rows/metadata", lambda d: d["neighbors"].update(rows=d["neighbors"]["rows"] - 1),
                   audited(NEIGHBORS))  # fmt: skip
    yield metadata("contamination/none", lambda d: d.pop("contamination"), contradiction(NEIGHBORS))
    yield graph("distance/one_feature_twice", rewire("distance/1/difference", 0, "distance/0/sample"), wiring)
    yield graph("expected/scaled", rewire("nearest/rows", 0, "rows/scaled"), wiring)
    yield everywhere("float32_scaling", scorers.scale_in_float32(NEIGHBORS), wiring)
    yield graph("threshold/graph", scorers.threshold_in_graph, audited(NEIGHBORS))
    yield everywhere("threshold/everywhere", scorers.threshold_everywhere(NEIGHBORS), found(NEIGHBORS))
    yield graph("scales/graph", scorers.swap_in_scaler("scale"), audited(NEIGHBORS))
    yield everywhere("scales/everywhere", scorers.swap_in_scaler_everywhere(NEIGHBORS, "scale"), found(NEIGHBORS))
    yield everywhere("rows/unscaled", with_operators(NEIGHBORS, rewire("rows/columns", 0, "rows")), wiring)
