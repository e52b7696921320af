"""Mahalanobis distance: parameters, triangular factors and limits (rules MD1 to MD7)."""

import math

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit.checks import GraphAudit, Require, check_contamination, check_timesteps

LARGEST_NUMBER = 1e6
"""With no larger one in the graph no sum overflows, whatever the sample (MD7)."""


def check_parameters(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    """Checks window length, ridge and limits."""
    if metadata.HasField("timesteps"):
        check_timesteps(metadata, require)
        require(metadata.timesteps > 1, "timesteps is 1: a model of single samples has none (MD1)")
    check_contamination(metadata, require)
    ridge = metadata.mahalanobis.ridge
    require(0 <= ridge < math.inf, f"mahalanobis.ridge {ridge!r} is not a number of 0 or more (MD2)")
    for field in ("limit_start", "limit_slope"):
        values = getattr(metadata.mahalanobis, field)
        require(len(values) == metadata.n_features, f"mahalanobis.{field} is not one number a feature (MD3)")
        require(_bounded(values), f"mahalanobis.{field} has a number that is not finite or above 1e6 in size (MD7)")


def audit(graph: GraphAudit) -> None:
    """Checks threshold, limits, factors and regression of a `mahalanobis.v1` graph."""
    metadata = graph.metadata
    graph.same("threshold", metadata.threshold)
    graph.same("limit_start", metadata.mahalanobis.limit_start)
    graph.same("limit_slope", metadata.mahalanobis.limit_slope)
    width = metadata.n_features
    windowed = metadata.HasField("timesteps")
    length = metadata.timesteps * width if windowed else width
    factors = {"row_factor": (width, width)}
    if windowed:
        factors["window_factor"] = (length, length)
    else:
        graph.require("window_factor" not in graph.graph.initializers, "a single sample has no window_factor (MD2)")
    arrays = graph.arrays(factors | {"regression": (length, width), "precision": (width,)})
    for name, values in arrays.items():
        graph.require(_bounded(values), f"{name} has a number above 1e6 in size (MD7)")
    for name in factors:
        graph.require(_triangular(arrays[name]), f"{name} is not triangular (MD7)")
    graph.require(bool((arrays["precision"] > 0).all()), "a precision is not above 0 (MD7)")
    # Which value is that of the last sample itself: the last rows of the regression (MD4).
    own = np.diagonal(arrays["regression"][length - width :])
    graph.require(bool((own == 0).all()), "regression has a value of the last sample stand for itself (MD4)")


def _bounded(values: object) -> bool:
    return bool((np.abs(np.asarray(values, np.float64)) <= LARGEST_NUMBER).all())  # NaN is not


def _triangular(values: np.ndarray) -> bool:
    return not np.tril(values, -1).any() or not np.triu(values, 1).any()
