"""Checks metadata for completeness and contradictions (A3, A4, P4, D2, DR1)."""

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit import ensemble
from dwcp_sidecar.audit.checks import Require, is_finite, is_midpoint, requirement
from dwcp_sidecar.audit.drift import check_drift
from dwcp_sidecar.audit.registry import LAYOUTS, PARAMETERS
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.limits import MAX_CALIBRATION_SCORES
from dwcp_sidecar.protojson import require_known_version

_OF_ONE_DETECTOR = (
    "n_estimators",
    "contamination",
    "timesteps",
    "forest",
    "lstm",
    "dense",
    "neighbors",
    "svm",
    "classifier",
    "ensemble",
    "mahalanobis",
)
"""Fields that some detectors have and others must not (A3)."""


def audit_metadata(metadata: model_pb2.ModelMetadata, name: str) -> None:
    """Checks the metadata of a model.

    Raises:
        ContractError: SCHEMA_FROM_FUTURE or METADATA_INVALID naming the file.
    """
    require = requirement("METADATA_INVALID", name)
    check_version(metadata.schema_version, name)
    require(metadata.model_type in PARAMETERS, f"model_type {metadata.model_type!r} is no detector")
    _features(metadata, require)
    _decision(metadata, require)
    if metadata.model_type == ensemble.NAME:
        ensemble.check_nothing_of_its_own(metadata, require)
    else:
        _scaling(metadata, require)
        _graph_entry(metadata, require)
        check_drift(metadata, require)
    parameters = PARAMETERS[metadata.model_type]
    for field in _OF_ONE_DETECTOR:
        if metadata.HasField(field):
            require(field in parameters.required | parameters.optional, f"{metadata.model_type} has no {field}")
        else:
            require(field not in parameters.required, f"{field} is not set")
    parameters.check(metadata, require)


def _features(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    features = [feature.name for feature in metadata.feature_schema.features]
    width = metadata.n_features
    require(width > 0 and len(features) == width, "n_features is not the number of features")
    require(list(metadata.feature_names) == features, "feature_names and feature_schema differ")
    require(len(set(features)) == width and all(features), "a feature name is empty or appears twice")


def _scaling(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    width = metadata.n_features
    for field in ("mean", "scale"):
        values = getattr(metadata.scaler, field)
        require(len(values) == width and is_finite(values), f"scaler.{field} is not one number a feature")
    require(min(metadata.scaler.scale) > 0, "scaler.scale has a value that is not above 0")
    require(len(metadata.reference_values) == width, "reference_values is not one number a feature")
    require(is_finite(metadata.reference_values), "reference_values has a value that is not finite")


def _decision(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    require(is_midpoint(metadata.threshold), f"threshold {metadata.threshold!r} is not a float32 midpoint (D2)")
    require(metadata.parity_class != model_pb2.PARITY_CLASS_UNSPECIFIED, "parity_class is not set (P4)")
    if metadata.parity_class == model_pb2.PARITY_CLASS_TOLERANCE:
        tolerance = metadata.tolerance
        require(0 < tolerance.relative_score < 1 and 0 <= tolerance.guard_band < 1, "tolerance is not between 0 and 1")
    else:
        require(not metadata.HasField("tolerance"), "tolerance is set in the EXACT class")
    scores = np.array(metadata.calibration.scores, np.float32)
    require(0 < len(scores) <= MAX_CALIBRATION_SCORES, f"calibration.scores are {len(scores)}, not 1 to 2,000 (C1)")
    require(bool(np.isfinite(scores).all()), "calibration.scores has a value that is not finite")
    require(bool((np.diff(scores) >= 0).all()), "calibration.scores is not ascending")


def _graph_entry(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    graph = metadata.graph
    require(graph.available == bool(graph.file), "graph.available contradicts graph.file")
    why = graph.unavailable_reason
    require(graph.available != bool(why), f"graph.available contradicts graph.unavailable_reason {why!r}")
    if not graph.available:
        return
    known = graph.layout in LAYOUTS and LAYOUTS[graph.layout].detector == metadata.model_type
    require(known, f"graph.layout {graph.layout!r} is not one of {metadata.model_type}")
    layout = LAYOUTS[graph.layout]
    require(graph.precision == layout.precision, f"graph.precision {graph.precision!r} is not that of {graph.layout}")
    exact = metadata.parity_class == model_pb2.PARITY_CLASS_EXACT
    require(layout.exact or not exact, f"layout {graph.layout} cannot be in the EXACT class")


def check_version(version: int, name: str) -> None:
    """Raises SCHEMA_FROM_FUTURE for a newer version, METADATA_INVALID for none (A4)."""
    require_known_version(version, name)
    if version < 1:
        raise ContractError("METADATA_INVALID", name, f"{name} has no schema_version. Publish the set again.")
