"""Mutations of what computes scores and decisions: graphs, and graphs together with their metadata."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dwcp_training.calibrate import depth_threshold
from tests.mutation.set_copy import METADATA, SetCopy, Trees, initializer, set_initializer, set_property

FOREST, LSTM = "isolation_forest", "lstm_autoencoder"
LAYERS = ("encoder_1", "encoder_2", "decoder_1", "decoder_2")
GATES = {"input": 0, "forget": 1, "output": 2, "candidate": 3}
"""Place of each gate's block in the stored weights (LA3)."""

Change = Callable[[SetCopy], None]


def in_graph(detector: str) -> Callable[[Callable[[onnx.ModelProto], None]], Change]:
    """Turns a change of a graph into one of a set."""
    return lambda change: lambda copy: copy.edit_graph(detector, change)


def root_split(model: onnx.ModelProto) -> None:
    """Moves the split of the first tree's root, which every row meets, by half a scale."""
    trees = Trees(model)
    splits = trees.tensor("nodes_splits")
    splits[trees.ints("tree_roots")[0]] += 0.5
    trees.set_tensor("nodes_splits", splits)


def split_one_float32_step(copy: SetCopy) -> None:
    """Moves a split that a golden row stands on by one float32 step: the row goes right instead of left (IF1)."""
    metadata = copy.json(METADATA[FOREST])
    cases = copy.json(f"{FOREST}.golden.json")["cases"]
    ids = {case["id"] for case in cases}
    on = next(c for c in cases if c["id"].endswith("/on") and c["id"].replace("/on", "/above") in ids)
    j = metadata["feature_names"].index(on["id"].split("/")[1])
    scaler = metadata["scaler"]
    at = np.float32((on["samples"][-1]["values"][j] - scaler["mean"][j]) / scaler["scale"][j])

    def change(model: onnx.ModelProto) -> None:
        trees = Trees(model)
        splits, features = trees.tensor("nodes_splits"), np.array(trees.ints("nodes_featureids"))
        above = np.float64(np.nextafter(at, np.float32(np.inf)))
        stood_on = (features == j) & (splits >= np.float64(at)) & (splits < above)
        assert stood_on.any(), "no split where the golden vector says there is one"
        splits[stood_on] = np.float64(np.nextafter(at, np.float32(-np.inf)))
        trees.set_tensor("nodes_splits", splits)

    copy.edit_graph(FOREST, change)


def swap_feature_ids(model: onnx.ModelProto) -> None:
    """Splits on the first feature are on the second and the other way round."""
    trees = Trees(model)
    trees.set_ints("nodes_featureids", [{0: 1, 1: 0}.get(j, j) for j in trees.ints("nodes_featureids")])


def another_feature_at_one_root(model: onnx.ModelProto) -> None:
    """One node, the root of the first tree, splits on the next feature."""
    trees = Trees(model)
    ids = trees.ints("nodes_featureids")
    root = trees.ints("tree_roots")[0]
    ids[root] = (ids[root] + 1) % 7
    trees.set_ints("nodes_featureids", ids)


def drop_c2(model: onnx.ModelProto) -> None:
    """c(2) = 0 instead of 1 (IF2): leaves with two training rows weigh their depth alone."""
    trees = Trees(model)
    weights, depths = trees.tensor("leaf_weights"), trees.leaf_depths()
    pairs = weights - depths == 1.0
    assert pairs.any()
    trees.set_tensor("leaf_weights", np.where(pairs, depths, weights))


def one_leaf_by_one_grid_step(model: onnx.ModelProto) -> None:
    """Every leaf of the first tree weighs 2^-40 more: the smallest change that keeps to the grid."""
    trees = Trees(model)
    weights = trees.tensor("leaf_weights")
    last = trees.ints("tree_roots")[1]
    for side in ("true", "false"):
        for child, is_leaf in list(
            zip(trees.ints(f"nodes_{side}nodeids"), trees.ints(f"nodes_{side}leafs"), strict=True)
        )[:last]:
            if is_leaf:
                weights[child] += 2.0**-40
    trees.set_tensor("leaf_weights", weights)


def leaf_off_the_grid(model: onnx.ModelProto) -> None:
    """One leaf weight is no multiple of 2^-40 (IF3)."""
    trees = Trees(model)
    weights = trees.tensor("leaf_weights")
    weights[0] += 2.0**-44
    trees.set_tensor("leaf_weights", weights)


def inverted_comparison(model: onnx.ModelProto) -> None:
    """Nodes send a sample left when it is greater than the split (IF1).

    `<` instead of `<=` would be no mutation: a split is hardly ever a float32 number, so no value equals it.
    """
    trees = Trees(model)
    trees.set_tensor("nodes_modes", np.full_like(trees.tensor("nodes_modes"), 3))  # BRANCH_GT


def scale_in_float32(detector: str) -> Change:
    """S1 in float32 inside the graph, metadata adapted: what skl2onnx does."""

    def change(model: onnx.ModelProto) -> None:
        graph = model.graph
        for name in ("scaler_mean", "scaler_scale"):
            narrow = initializer(model, name).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(narrow, f"{name}/narrow"))
        at = next(k for k, node in enumerate(graph.node) if node.op_type == "Sub")
        centred, divided = graph.node[at], graph.node[at + 1]
        assert divided.op_type == "Div"
        output = divided.output[0]
        new = [
            helper.make_node("Cast", ["samples"], ["samples/narrow"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["samples/narrow", "scaler_mean/narrow"], list(centred.output)),
            helper.make_node("Div", [centred.output[0], "scaler_scale/narrow"], ["scaled/narrow"]),
            helper.make_node("Cast", ["scaled/narrow"], [output], to=TensorProto.DOUBLE),
        ]
        nodes = [*graph.node[:at], *new, *graph.node[at + 2 :]]
        del graph.node[:]
        graph.node.extend(nodes)

    return with_operators(detector, change)


def with_operators(detector: str, change: Callable[[onnx.ModelProto], None]) -> Change:
    """Turns a change of a graph into one of a set whose metadata say how many operators there are then."""

    def mutate(copy: SetCopy) -> None:
        copy.edit_graph(detector, change)
        before = copy.json(METADATA[detector])["graph"]["operator_counts"]
        _count_operators(after := copy.json(METADATA[detector]), copy.graph(detector))
        if after["graph"]["operator_counts"] != before:
            copy.edit_json(METADATA[detector], lambda data: data.update(after))

    return mutate


def _count_operators(metadata: dict, model: onnx.ModelProto) -> None:
    kinds = [node.op_type for node in model.graph.node]
    metadata["graph"]["operator_counts"] = {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def negate_rate(model: onnx.ModelProto) -> None:
    """The score falls where it should rise (IF4)."""
    set_initializer(model, "score_rate", -initializer(model, "score_rate"))


def negate_rate_everywhere(copy: SetCopy) -> None:
    """Likewise in graph and metadata: nothing contradicts it but the golden vectors."""
    copy.edit_graph(FOREST, negate_rate)
    copy.edit_json(METADATA[FOREST], lambda d: d["forest"].update(score_rate=-d["forest"]["score_rate"]))


def depth_threshold_everywhere(copy: SetCopy) -> None:
    """The depth threshold alone moves past the nearest normal golden row, in graph and metadata: against IF5."""
    moved = _nearest_normal(copy)["depth_sum"] + 2.0**-40
    copy.edit_graph(FOREST, lambda model: set_initializer(model, "depth_threshold", np.array(moved)))
    copy.edit_json(METADATA[FOREST], lambda data: data["forest"].update(depth_threshold=moved))


def forest_threshold_without_depth(copy: SetCopy) -> None:
    """The threshold on the score moves by one float32 step in graph and metadata, the depth threshold stays."""
    threshold = next_midpoint(copy.json(METADATA[FOREST])["threshold"])
    copy.edit_graph(FOREST, lambda model: set_property(model, "dwcp.threshold", repr(threshold)))
    copy.edit_json(METADATA[FOREST], lambda data: data.update(threshold=threshold))


def forest_threshold_everywhere(copy: SetCopy) -> None:
    """Both thresholds move to just below the score of the nearest normal golden row, in graph and metadata, without
    contradiction (D2, IF5)."""
    score = np.float32(_nearest_normal(copy)["score"])
    threshold = (float(np.nextafter(score, np.float32(0))) + float(score)) / 2
    depth = depth_threshold(threshold, copy.json(METADATA[FOREST])["forest"]["score_rate"])

    def change(model: onnx.ModelProto) -> None:
        set_initializer(model, "depth_threshold", np.array(depth))
        set_property(model, "dwcp.threshold", repr(threshold))

    def change_metadata(data: dict) -> None:
        data["threshold"] = threshold
        data["forest"]["depth_threshold"] = depth

    copy.edit_graph(FOREST, change)
    copy.edit_json(METADATA[FOREST], change_metadata)


def _nearest_normal(copy: SetCopy) -> dict:
    """Answer of the normal golden row whose depth sum is the smallest."""
    scored = [case["score"] for case in copy.json(f"{FOREST}.golden.json")["cases"] if "score" in case]
    return min((score for score in scored if not score["is_anomaly"]), key=lambda score: score["depth_sum"])


def threshold_everywhere(detector: str) -> Change:
    """The threshold moves to the next midpoint of float32 numbers (D2), in graph, its properties and metadata."""

    def mutate(copy: SetCopy) -> None:
        threshold = next_midpoint(copy.json(METADATA[detector])["threshold"])

        def change(model: onnx.ModelProto) -> None:
            set_initializer(model, "threshold", np.array(threshold))
            set_property(model, "dwcp.threshold", repr(threshold))

        copy.edit_graph(detector, change)
        copy.edit_json(METADATA[detector], lambda data: data.update(threshold=threshold))

    return mutate


def threshold_in_graph(model: onnx.ModelProto) -> None:
    """The same in the graph alone."""
    set_initializer(model, "threshold", np.array(next_midpoint(float(initializer(model, "threshold")))))


def next_midpoint(threshold: float) -> float:
    """The midpoint of float32 numbers that follows one."""
    above = np.float32(threshold)
    above = above if float(above) > threshold else np.nextafter(above, np.float32(np.inf))
    return (float(above) + float(np.nextafter(above, np.float32(np.inf)))) / 2


def swap_in_scaler(part: str = "mean") -> Callable[[onnx.ModelProto], None]:
    """The means, or the scales, of the first two features change places."""

    def change(model: onnx.ModelProto) -> None:
        values = initializer(model, f"scaler_{part}")
        values[[0, 1]] = values[[1, 0]]
        set_initializer(model, f"scaler_{part}", values)

    return change


def swap_in_scaler_everywhere(detector: str, part: str = "mean") -> Change:
    """Likewise in graph and metadata, with the scaled reference values that follow from them (IF8).

    Where samples are compared with rows, both scaled by the same means, the means cancel: swap scales there.
    """

    def swap(data: dict) -> None:
        values = data["scaler"][part]
        values[0], values[1] = values[1], values[0]

    def mutate(copy: SetCopy) -> None:
        copy.edit_graph(detector, swap_in_scaler(part))
        copy.edit_json(METADATA[detector], swap)
        if any(tensor.name == "reference_scaled" for tensor in copy.graph(detector).graph.initializer):
            data = copy.json(METADATA[detector])
            means, scales = np.array(data["scaler"]["mean"]), np.array(data["scaler"]["scale"])
            scaled = (np.array(data["reference_values"]) - means) / scales
            copy.edit_graph(detector, lambda model: set_initializer(model, "reference_scaled", scaled))

    return mutate


def another_reference_value(model: onnx.ModelProto) -> None:
    """Explanations compare with another value (IF7, SV4, LC4); scores stay the same."""
    values = initializer(model, "reference_scaled")
    values[0] += 0.25
    set_initializer(model, "reference_scaled", values)


def swap_gates(
    layer: str,
    first: str,
    second: str,
    parts: tuple[str, ...] = ("kernel", "recurrent", "bias"),
    detector: str = LSTM,
) -> Change:
    """Two gate blocks of a layer change places (LA3)."""

    def change(model: onnx.ModelProto) -> None:
        for part in parts:
            blocks = np.split(initializer(model, f"{layer}.{part}"), 4, axis=-1)
            a, b = GATES[first], GATES[second]
            blocks[a], blocks[b] = blocks[b], blocks[a]
            set_initializer(model, f"{layer}.{part}", np.concatenate(blocks, axis=-1))

    return in_graph(detector)(change)


def change_weight(name: str, by: float | None, detector: str = LSTM) -> Change:
    """The largest weight of an initializer changes by a visible amount, or by one float32 step where `by` is None."""

    def change(model: onnx.ModelProto) -> None:
        values = initializer(model, name)
        place = np.unravel_index(np.abs(values).argmax(), values.shape)
        value = np.float32(values[place])
        values[place] = np.nextafter(value, np.float32(np.inf)) if by is None else value + np.float32(by)
        set_initializer(model, name, values)

    return in_graph(detector)(change)


def swap_graphs(copy: SetCopy) -> None:
    """Each detector gets the other's graph."""
    first, second = copy.path / f"{FOREST}.onnx", copy.path / f"{LSTM}.onnx"
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    copy.redigest()
