"""Checks that a graph is what its metadata says (rules S2, G1 to G3, IF3), before anything executes it."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar import detectors
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.onnx_file import OnnxFile
from dwcp_sidecar.protojson import require_known_version

LEAF_GRID = 2.0**40
"""Leaf weights are multiples of 1 / LEAF_GRID (IF2)."""

MAX_DEPTH_SUM = 2.0**13
"""A depth sum below this is exact in float64 (IF3)."""

LSTM_LAYERS = ("encoder_1", "encoder_2", "decoder_1", "decoder_2")
"""Layers of the LSTM autoencoder in the order of LA1."""


def audit_metadata(metadata: model_pb2.ModelMetadata, name: str) -> None:
    """Checks metadata for completeness and contradictions (A3, A4, P4, D2).

    Raises:
        ContractError: SCHEMA_FROM_FUTURE or METADATA_INVALID naming the file.
    """

    def require(condition: bool, what: str) -> None:
        if not condition:
            raise ContractError("METADATA_INVALID", name, f"{name}: {what}. Publish the set again.")

    check_version(metadata.schema_version, name)
    require(metadata.model_type in detectors.BY_NAME, f"model_type {metadata.model_type!r} is no detector")
    features = [feature.name for feature in metadata.feature_schema.features]
    width = metadata.n_features
    require(width > 0 and len(features) == width, "n_features is not the number of features")
    require(list(metadata.feature_names) == features, "feature_names and feature_schema differ")
    require(len(set(features)) == width, "a feature name appears twice")
    for field in ("mean", "scale"):
        values = getattr(metadata.scaler, field)
        require(len(values) == width and all(map(math.isfinite, values)), f"scaler.{field} is not one number a feature")
    require(min(metadata.scaler.scale) > 0, "scaler.scale has a value that is not above 0")
    require(len(metadata.reference_values) == width, "reference_values is not one number a feature")
    require(all(map(math.isfinite, metadata.reference_values)), "reference_values has a value that is not finite")
    require(is_midpoint(metadata.threshold), f"threshold {metadata.threshold!r} is not a float32 midpoint (D2)")
    require(metadata.parity_class != model_pb2.PARITY_CLASS_UNSPECIFIED, "parity_class is not set (P4)")
    if metadata.parity_class == model_pb2.PARITY_CLASS_TOLERANCE:
        tolerance = metadata.tolerance
        require(0 < tolerance.relative_score < 1 and 0 < tolerance.guard_band < 1, "tolerance is not between 0 and 1")
    scores = np.array(metadata.calibration.scores, np.float32)
    require(len(scores) > 0 and bool(np.isfinite(scores).all()), "calibration.scores is empty or not finite")
    require(bool((np.diff(scores) >= 0).all()), "calibration.scores is not ascending")
    require(metadata.graph.available == bool(metadata.graph.file), "graph.available contradicts graph.file")
    if metadata.model_type == "isolation_forest":
        require(metadata.HasField("forest"), "forest is not set")
        require(metadata.n_estimators > 0, "n_estimators is not set")
        depth, rate = metadata.forest.depth_threshold, metadata.forest.score_rate
        on_grid = 0 < depth < MAX_DEPTH_SUM and (depth * LEAF_GRID).is_integer()
        require(on_grid, f"forest.depth_threshold {depth!r} is not a multiple of 2^-40 below 2^13")
        require(-math.inf < rate < 0, f"forest.score_rate {rate!r} is not a negative number")
        require(_belongs(depth, rate, metadata.threshold), "forest.depth_threshold does not belong to threshold (IF5)")
    if metadata.model_type == "lstm_autoencoder":
        require(metadata.HasField("lstm") and len(metadata.lstm.units) == len(LSTM_LAYERS), "lstm is not set")
        require(metadata.timesteps > 0, "timesteps is not set")


def _belongs(depth: float, rate: float, threshold: float) -> bool:
    """IF5 as far as float64 can tell: the score at `depth` is not above the threshold, that of one unit less is."""
    slack = 1e-12
    above = 2.0 ** ((depth - 1 / LEAF_GRID) * rate)
    return 2.0 ** (depth * rate) <= threshold * (1 + slack) and above >= threshold * (1 - slack)


def check_version(version: int, name: str) -> None:
    """Raises SCHEMA_FROM_FUTURE for a newer version, METADATA_INVALID for none (A4)."""
    require_known_version(version, name)
    if version < 1:
        raise ContractError("METADATA_INVALID", name, f"{name} has no schema_version. Publish the set again.")


def is_midpoint(threshold: float) -> bool:
    """Whether a number is the midpoint of two neighbouring positive float32 numbers (D2)."""
    if not (math.isfinite(threshold) and 0 < threshold < float(np.finfo(np.float32).max)):
        return False
    near = np.float32(threshold)
    below = near if float(near) <= threshold else np.nextafter(near, np.float32(0))
    above = np.nextafter(below, np.float32(np.inf))
    return (float(below) + float(above)) / 2 == threshold


def audit_graph(metadata: model_pb2.ModelMetadata, graph: OnnxFile) -> None:
    """Checks a graph against its metadata.

    Raises:
        ContractError: GRAPH_INVALID naming the file and what differs.
    """
    name = metadata.graph.file

    def require(condition: bool, what: str) -> None:
        if not condition:
            raise ContractError("GRAPH_INVALID", name, f"{name}: {what}. Publish the set again.")

    counts = dict(metadata.graph.operator_counts)
    require(graph.operators == counts, f"operators are {graph.operators}, the metadata says {counts}")
    require(graph.properties.get("dwcp.layout") == metadata.graph.layout, "its layout is not that of the metadata")
    require(graph.properties.get("dwcp.features") == ",".join(metadata.feature_names), "its features are others")
    require(graph.properties.get("dwcp.threshold") == repr(metadata.threshold), "its threshold is another")
    audit = _AUDITS.get((metadata.model_type, metadata.graph.layout))
    require(audit is not None, f"layout {metadata.graph.layout!r} is not one of {metadata.model_type}")

    def same(initializer: str, values: object, dtype: type = np.float64) -> None:
        stored = graph.initializers.get(initializer)
        require(stored is not None, f"initializer {initializer} is missing")
        wanted = np.asarray(values, dtype)
        require(
            stored.dtype == wanted.dtype
            and stored.size == wanted.size
            and bool((stored.ravel() == wanted.ravel()).all()),
            f"{initializer} is not what the metadata says (S2)",
        )

    same("scaler_mean", metadata.scaler.mean)
    same("scaler_scale", metadata.scaler.scale)
    audit(metadata, graph, require, same)


def _audit_forest(
    metadata: model_pb2.ModelMetadata, graph: OnnxFile, require: Callable[..., None], same: Callable[..., None]
) -> None:
    same("reference_values", metadata.reference_values, np.float32)
    mean, scale = np.array(metadata.scaler.mean), np.array(metadata.scaler.scale)
    with np.errstate(over="ignore"):
        same("reference_scaled", (np.array(metadata.reference_values) - mean) / scale)  # IF8
    same("score_rate", metadata.forest.score_rate)
    same("depth_threshold", metadata.forest.depth_threshold)
    tree = graph.attributes
    roots, weights = tree.get("tree_roots", []), np.asarray(tree.get("leaf_weights", []), np.float64)
    require(len(roots) == metadata.n_estimators, f"it has {len(roots)} trees, not {metadata.n_estimators}")
    require(weights.size > 0 and bool(np.isfinite(weights).all()), "its leaf weights are not finite")
    require(bool((weights * LEAF_GRID == np.rint(weights * LEAF_GRID)).all()), "a leaf weight is off the grid (IF2)")
    require(bool((weights >= 0).all()), "a leaf weight is negative")
    splits = np.asarray(tree.get("nodes_splits", []), np.float64)
    require(bool(np.isfinite(splits).all()), "a split is not finite")
    require(not np.any(tree.get("nodes_modes", [])), "a node compares by another rule than <= (IF1)")
    require(max(tree.get("nodes_featureids", [0])) < metadata.n_features, "a split is on a feature that does not exist")
    largest = _largest_depth_sum(tree, weights)
    require(largest is not None, "its nodes do not form trees")
    require(largest < MAX_DEPTH_SUM, f"a depth sum can reach {largest:g} and may not be exact (IF3): use fewer trees")


def _largest_depth_sum(tree: Mapping[str, Any], weights: np.ndarray) -> float | None:
    """Sum of the largest leaf weight of each tree, or None when nodes point outside or more than once at a node."""
    sides = [
        (
            np.asarray(tree.get(f"nodes_{side}nodeids", []), np.int64),
            np.asarray(tree.get(f"nodes_{side}leafs", []), bool),
        )
        for side in ("true", "false")
    ]
    count = len(sides[0][0])
    if any(len(array) != count for side in sides for array in side):
        return None
    nodes = np.asarray(tree.get("tree_roots", []), np.int64)
    owners = np.arange(len(nodes))
    largest = np.zeros(len(nodes))
    visited = 0
    while len(nodes):
        visited += len(nodes)
        if visited > count or nodes.min() < 0 or nodes.max() >= count:
            return None
        below: list[tuple[np.ndarray, np.ndarray]] = []
        for children, is_leaf in sides:
            child, leaf = children[nodes], is_leaf[nodes]
            leaves = child[leaf]
            if len(leaves) and (leaves.min() < 0 or leaves.max() >= len(weights)):
                return None
            np.maximum.at(largest, owners[leaf], weights[leaves])
            below.append((child[~leaf], owners[~leaf]))
        nodes, owners = (np.concatenate(parts) for parts in zip(*below, strict=True))
    return float(largest.sum())


def _audit_lstm(
    metadata: model_pb2.ModelMetadata, graph: OnnxFile, require: Callable[..., None], same: Callable[..., None]
) -> None:
    same("threshold", metadata.threshold)
    wide = metadata.graph.precision == "float64"
    dtype = np.dtype("<f8") if wide else np.dtype("<f4")
    shapes: dict[str, tuple[int, ...]] = {}
    width = metadata.n_features
    for layer, units in zip(LSTM_LAYERS, metadata.lstm.units, strict=True):
        if wide:
            shapes |= {
                f"{layer}.kernel": (width, 4 * units),
                f"{layer}.recurrent": (units, 4 * units),
                f"{layer}.bias": (4 * units,),
            }
        else:
            shapes |= {
                f"{layer}.W": (1, 4 * units, width),
                f"{layer}.R": (1, 4 * units, units),
                f"{layer}.B": (1, 8 * units),
            }
        width = units
    shapes |= {"dense.kernel": (width, metadata.n_features), "dense.bias": (metadata.n_features,)}
    for initializer, shape in shapes.items():
        values = graph.initializers.get(initializer)
        require(values is not None, f"initializer {initializer} is missing")
        require(values.dtype == dtype and values.shape == shape, f"{initializer} is {values.dtype} {values.shape}")
        require(bool(np.isfinite(values).all()), f"{initializer} has a value that is not finite")


_AUDITS = {
    ("isolation_forest", "forest.v1"): _audit_forest,
    ("lstm_autoencoder", "lstm.v1"): _audit_lstm,
    ("lstm_autoencoder", "lstm.float32.v1"): _audit_lstm,
}
