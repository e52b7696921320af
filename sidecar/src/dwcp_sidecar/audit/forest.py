"""Isolation forest: parameters and trees (rules IF1 to IF8)."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit.checks import GraphAudit, Require

LEAF_GRID = 2.0**40
"""Leaf weights are multiples of 1 / LEAF_GRID (IF2)."""

MAX_DEPTH_SUM = 2.0**13
"""A depth sum below this is exact in float64 (IF3)."""


def check_parameters(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    """Checks trees, depth threshold and rate (IF4, IF5)."""
    require(metadata.n_estimators > 0, "n_estimators is not set")
    depth, rate = metadata.forest.depth_threshold, metadata.forest.score_rate
    on_grid = 0 < depth < MAX_DEPTH_SUM and (depth * LEAF_GRID).is_integer()
    require(on_grid, f"forest.depth_threshold {depth!r} is not a multiple of 2^-40 below 2^13")
    require(-math.inf < rate < 0, f"forest.score_rate {rate!r} is not a negative number")
    require(_belongs(depth, rate, metadata.threshold), "forest.depth_threshold does not belong to threshold (IF5)")


def _belongs(depth: float, rate: float, threshold: float) -> bool:
    """IF5 as far as float64 can tell: the score at `depth` is not above the threshold, that of one unit less is."""
    slack = 1e-12
    above = 2.0 ** ((depth - 1 / LEAF_GRID) * rate)
    return 2.0 ** (depth * rate) <= threshold * (1 + slack) and above >= threshold * (1 - slack)


def audit(graph: GraphAudit) -> None:
    """Checks thresholds, reference values and trees of a `forest.v1` graph."""
    metadata, require = graph.metadata, graph.require
    graph.same_reference()
    graph.same("score_rate", metadata.forest.score_rate)
    graph.same("depth_threshold", metadata.forest.depth_threshold)
    tree = graph.graph.attributes
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
