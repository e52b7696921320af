"""What fitting a detector gives, whatever the detector."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from dwcp.anomaly.v1 import features_pb2, model_pb2
from dwcp_training.data.errors import DataError
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.profiles import Scaling

Floats = NDArray[np.float64]

HELD_OUT = 0.2
"""Share of the rows, the last ones, that a detector without early stopping does not see and that calibrate its p-values
(C3)."""


@dataclass(frozen=True)
class Evaluation:
    """Unrounded answers of a float64 reference for `n` items of `f` features.

    Attributes:
        scores: float64 `[n]`.
        is_anomaly: bool `[n]`, from the unrounded score or the exact depth sum.
        contributions: float64 `[n, f]`.
        expected: float64 `[n, f]`, raw units.
        depth_sums: float64 `[n]`, isolation forest only.
        expected_is_stored: `expected` is the reference values, which nobody computes when scoring.
        inner: gives what was rounded to float32 on the way to the answers, float64 `[n, numbers]`, for an ensemble.
    """

    scores: Floats
    is_anomaly: NDArray[np.bool_]
    contributions: Floats
    expected: Floats
    depth_sums: Floats | None = None
    expected_is_stored: bool = False
    inner: Callable[[], Floats] | None = None


class Reference(Protocol):
    """An independent float64 implementation: scikit-learn's or Keras' trees and weights without the exported graph."""

    def evaluate(self, items: Floats) -> Evaluation:
        """Evaluates finite raw items, float64 `[n, timesteps, features]`."""
        ...


class Progress(Protocol):
    """Receives the progress of long work."""

    def __call__(self, done: int, total: int, text: str) -> None: ...


def silent(done: int, total: int, text: str) -> None:
    """A Progress that shows nothing."""


@dataclass
class Fitted:
    """A fitted detector, before export.

    Attributes:
        metadata: all of it but `graph` and `calibration`.
        graph: builds the ONNX graph; may raise anything a converter raises.
        cross_check: compares a built graph with other converters; returns findings in words, raises on a difference.
        operators: operator counts that the graph must have.
        layout: name of the graph's layout (G2).
        precision: `float64` or `float32`.
        reference: float64 implementation.
        fitted_items: what the model was fitted on, float64 `[n, timesteps, features]`, raw.
        held_out_items: normal items it has not seen, likewise.
        byproducts: file name to bytes, for people and other tools.
        metadata_file, graph_file: their names in a set; no graph file for an ensemble, which has no graph (EN7).
        facts: what to tell the person who trains, label to text.
        no_drift: why there is no drift reference, or an empty text.
        quick_check: the part of `cross_check` that takes no other converter, for those who export very many models;
            None where there is no such part.
        follow: what else has to follow when the threshold moves: by-products that decide, IF5's depth.
        budget_scores: the held-out scores that an alarm budget is kept with (C5), float64 `[n]`; None means all of
            `held_out_items`.
        calibration: held-out scores and where they are from, for a detector whose held-out items are elsewhere; None
            for one that is calibrated on `held_out_items`.
    """

    metadata: model_pb2.ModelMetadata
    graph: Callable[[], onnx.ModelProto]
    cross_check: Callable[[onnx.ModelProto], dict[str, str]]
    operators: dict[str, int] | None
    layout: str
    precision: str
    reference: Reference
    fitted_items: Floats
    held_out_items: Floats
    byproducts: dict[str, bytes]
    metadata_file: str
    graph_file: str
    facts: dict[str, str] = field(default_factory=dict)
    no_drift: str = ""
    quick_check: Callable[[onnx.ModelProto], dict[str, str]] | None = None
    follow: Callable[[float], dict[str, bytes]] = lambda threshold: {}
    budget_scores: Floats | None = None
    calibration: tuple[Floats, str] | None = None

    def move_threshold(self, threshold: float) -> None:
        """Makes metadata, graph, reference and by-products decide at another threshold, a midpoint of D2."""
        self.metadata.threshold = threshold
        self.byproducts |= self.follow(threshold)


def fitted_scaler(fit_part: Telemetry) -> StandardScaler:
    """The scaler that the profile asks for, fitted on these rows: always a mean and a scale above 0 (S1).

    Raises:
        DataError: a metric has no finite mean or scale, because its values are near the largest float64.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        scaler = _scaler(fit_part.scaling, fit_part.values, fit_part.schema.names)
    for j, name in enumerate(fit_part.schema.names):
        if not (np.isfinite(scaler.mean_[j]) and np.isfinite(scaler.scale_[j])):
            raise DataError(
                name,
                f"values up to {np.abs(fit_part.values[:, j]).max():g} have no finite mean and scale.",
                "Give the metric a maximum in the profile, and leave rows above it out with --on-bad-rows drop.",
            )
    return scaler


def _scaler(scaling: Scaling, values: Floats, names: Sequence[str]) -> StandardScaler:
    scaler = StandardScaler().fit(values)
    if scaling.method == "standard":
        return scaler
    if scaling.method == "minmax":
        scaler.mean_, scale = values.min(axis=0), np.ptp(values, axis=0)
    elif scaling.method == "robust":
        scaler.mean_, scale = np.median(values, axis=0), np.subtract(*np.percentile(values, [75, 25], axis=0))
    else:
        scaler.mean_, scale = np.zeros(values.shape[1]), np.ones(values.shape[1])
    if scaling.method == "divisors":
        scale = np.array([scaling.divisors[name] for name in names], dtype=np.float64)
    # As in StandardScaler, a metric without any spread is divided by 1.
    scaler.scale_ = np.where(scale > 0, scale, 1.0)
    scaler.var_ = scaler.scale_**2
    return scaler


def common_metadata(
    telemetry: Telemetry, model_type: str, mean: Floats, scale: Floats, fitted_values: Floats
) -> model_pb2.ModelMetadata:
    """The metadata that every detector has.

    Args:
        telemetry: the training data as read.
        mean, scale: of the scaler.
        fitted_values: raw rows that were fitted on, for the medians (IF6).
    """
    metadata = model_pb2.ModelMetadata(
        schema_version=1,
        model_type=model_type,
        n_features=len(telemetry.schema.names),
        feature_names=telemetry.schema.names,
        feature_schema=features_pb2.FeatureSchema(**telemetry.schema.model_dump()),
        cadence_seconds=telemetry.cadence_seconds or 0.0,
        scaler=model_pb2.Scaler(mean=mean, scale=scale),
        reference_values=np.median(fitted_values, axis=0),
    )
    record_data(metadata.training, telemetry)
    if telemetry.scaling.method != "standard":
        scaling = f"{telemetry.scaling.method}, version {telemetry.scaling.version}"
        metadata.training.hyperparameters["scaling"] = scaling
    return metadata


def record_data(record: model_pb2.TrainingRecord, telemetry: Telemetry) -> None:
    """Writes down which data was read, what of it was left out, and the warnings about it."""
    record.data_source, record.rows_read = telemetry.source, telemetry.report.rows_read
    record.first_timestamp, record.last_timestamp = telemetry.first_timestamp, telemetry.last_timestamp
    record.warnings.extend(telemetry.report.warnings)
    for reason, rows in telemetry.report.dropped.items():
        record.dropped[reason] = rows


def counted_rows(telemetry: Telemetry, fitted: int, held_out: int) -> str:
    """How many rows were fitted, held out and read, in words."""
    return f"{fitted:,} fitted, {held_out:,} held out, {telemetry.report.rows_read:,} read"


def counted_above(threshold: float, scores: Floats) -> str:
    """A threshold and how many scores of the fitted rows lie above it, in words."""
    above = int((scores > threshold).sum())
    return f"{threshold:.6f}: {above:,} of {len(scores):,} fitted rows lie above ({100 * above / len(scores):.2f} %)"


def clamp_scaled(items: Floats, mean: Floats, scale: Floats) -> Floats:
    """S1 in numpy: `clamp((x - mean) / scale)`."""
    with np.errstate(over="ignore"):
        return np.clip((items - mean) / scale, -1e15, 1e15)


def shares(parts: Floats) -> Floats:
    """Each row divided by its sum; rows whose sum is 0 stay 0."""
    total = parts.sum(axis=1, keepdims=True)
    return np.divide(parts, total, out=np.zeros_like(parts), where=total != 0)
