"""Mahalanobis distance of a sample and of the window that ends with it, with limits of single metrics (MD1 to MD7).

Source of the method: Mahalanobis: On the generalized distance in statistics, 1936; the ridge as in Hoerl and Kennard:
Ridge Regression, Technometrics 1970. Of the designs that `tests/bench/covariance_study.py` compares, the distance of
the row together with that of five rows, each by its number of values, ranked best on recorded faults.

Covariances come from the fitted part, and the threshold from the held-out part: the rows that a covariance was computed
from are nearer to the middle than others are. Windows that a limit makes an alarm are such at any threshold, since the
limits follow it. They count as alarms for the contamination, and not for an alarm budget: an operator asked for them.
"""

import io
import pickle
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dwcp.anomaly.v1 import features_pb2, model_pb2
from dwcp_sidecar.audit.mahalanobis import LARGEST_NUMBER
from dwcp_training.calibrate import midpoint_threshold
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.data.windows import time_split, windows
from dwcp_training.detectors.base import (
    HELD_OUT,
    Evaluation,
    Fitted,
    Floats,
    Progress,
    clamp_scaled,
    common_metadata,
    fitted_scaler,
    shares,
    silent,
)
from dwcp_training.detectors.covariance import Distance, covariance, distance_of
from dwcp_training.detectors.critical_limits import CriticalLimits, critical_limits, no_limits, terms
from dwcp_training.export import mahalanobis
from dwcp_training.export.crosscheck_mahalanobis import cross_check_mahalanobis
from dwcp_training.export.mahalanobis import LARGEST_SCORE, SHARE_STEPS
from dwcp_training.profiles import MahalanobisDefaults, Scaling

MOST_VALUES = 2_048
"""Values in a window: the factor of so many has 33 megabytes, and its time grows with the third power."""

_AT_ONCE = 4_096


@dataclass(frozen=True)
class Covariances:
    """What was estimated, scaled units.

    Attributes:
        row: float64 `[F, F]`.
        window: float64 `[T F, T F]`; None for single samples.
    """

    row: Floats
    window: Floats | None


class MahalanobisReference:
    """MD1 to MD6 in numpy on the factors of training.

    Args:
        distance: as fitted.
        metadata: has the scaler; threshold and limits are read at each evaluation.
    """

    def __init__(self, distance: Distance, metadata: model_pb2.ModelMetadata) -> None:
        self.distance = distance
        self._metadata = metadata
        self._mean, self._scale = np.array(metadata.scaler.mean), np.array(metadata.scaler.scale)

    def distances(self, items: Floats) -> Floats:
        """MD2 for raw items `[n, T, F]`; float64 `[n]`."""
        parts = [self._scaled(items[i : i + _AT_ONCE]) for i in range(0, len(items), _AT_ONCE)]
        return np.sqrt(np.concatenate([self.distance.squared(part) for part in parts]))

    @property
    def limits(self) -> tuple[Floats, Floats]:
        """`limit_start` and `limit_slope` (MD3), float64 `[F]` each."""
        stored = self._metadata.mahalanobis
        return np.array(stored.limit_start), np.array(stored.limit_slope)

    def evaluate(self, items: Floats) -> Evaluation:
        parts = [self._evaluate(items[i : i + _AT_ONCE]) for i in range(0, len(items), _AT_ONCE)]
        return Evaluation(*(np.concatenate([part[i] for part in parts]) for i in range(4)))

    def _scaled(self, items: Floats) -> Floats:
        return clamp_scaled(items, self._mean, self._scale).reshape(len(items), -1)

    def _evaluate(self, items: Floats) -> tuple[Floats, NDArray[np.bool_], Floats, Floats]:
        flat = self._scaled(items)
        last = flat[:, -items.shape[2] :]
        distance = np.sqrt(self.distance.squared(flat))
        beyond = terms(last, *self.limits)
        limit = beyond.max(axis=1)
        scores = np.minimum(np.maximum(distance, limit), LARGEST_SCORE)
        expected = self.distance.expected(flat)
        gains = self.distance.precision * (last - expected) ** 2
        with np.errstate(over="ignore"):
            raw = expected * self._scale + self._mean
        return (
            scores,
            scores > self._metadata.threshold,
            np.rint(shares(np.where((limit > distance)[:, np.newaxis], beyond, gains)) * SHARE_STEPS) / SHARE_STEPS,
            raw,
        )


def fit_mahalanobis(telemetry: Telemetry, settings: MahalanobisDefaults, progress: Progress = silent) -> Fitted:
    """Fits scaler and covariances on all but the last fifth of the rows, threshold and limits with that fifth.

    The scaler is the standard one whatever the profile says: the distance is counted from the mean (MD2), the ridge in
    variances, and the covariance takes all other scaling out again.

    Raises:
        DataError: no window fits into the rows, a window has too many values, or the held-out rows give no threshold.
    """
    progress(0, 4, "preparing windows")
    length = settings.lags + 1
    _check_width(telemetry, length)
    fit_part, held_out = time_split(telemetry, HELD_OUT, gap=length)
    fit_part = _in_windows(fit_part, length)
    scaler = fitted_scaler(_standard(fit_part))
    fitted_items = _windows(fit_part, length)
    held_out_items = _windows(held_out, length)

    progress(1, 4, f"covariance of {len(fitted_items):,} windows of {length * len(telemetry.schema.names):,} values")
    scaled = clamp_scaled(fit_part.values, scaler.mean_, scaler.scale_)
    estimated = Covariances(
        covariance(scaled),
        covariance(clamp_scaled(fitted_items, scaler.mean_, scaler.scale_).reshape(len(fitted_items), -1))
        if length > 1
        else None,
    )
    progress(2, 4, "factors")
    distance = distance_of(estimated.row, estimated.window, settings.ridge)

    metadata = common_metadata(_standard(telemetry), "mahalanobis", scaler.mean_, scaler.scale_, fit_part.values)
    metadata.contamination = settings.contamination
    metadata.parity_class = model_pb2.PARITY_CLASS_EXACT
    if length > 1:
        metadata.timesteps = length
    metadata.mahalanobis.ridge = settings.ridge
    metadata.training.seed = settings.seed
    metadata.training.fitted_on, metadata.training.held_out = len(fitted_items), len(held_out_items)

    progress(3, 4, "limits and threshold")
    _check_numbers(distance, telemetry.schema.names)
    reference = MahalanobisReference(distance, metadata)
    limits = no_limits(metadata.n_features)
    if settings.limits:
        parts = (scaled, clamp_scaled(held_out.values, scaler.mean_, scaler.scale_))
        own = _own_limits(telemetry, metadata)
        limits = critical_limits(own, scaler.mean_, scaler.scale_, parts, settings.contamination)
    metadata.training.warnings.extend(limits.warnings)
    metadata.mahalanobis.limit_start.extend(limits.start.tolist())

    distances = reference.distances(held_out_items)
    woken = limits.alarming(clamp_scaled(held_out_items[:, -1], scaler.mean_, scaler.scale_))
    if woken.any():
        metadata.training.warnings.append(_woken_said(int(woken.sum()), len(woken)))
    threshold = _threshold(distances, woken, settings.contamination)

    def follow(threshold: float) -> dict[str, bytes]:
        del metadata.mahalanobis.limit_slope[:]
        metadata.mahalanobis.limit_slope.extend(limits.slope(threshold).tolist())
        return {}

    metadata.threshold = threshold
    follow(threshold)
    fitted_distances = reference.distances(fitted_items)
    metadata.training.history["distance_range"].values.extend([fitted_distances.min(), fitted_distances.max()])
    above = int((woken | (distances > threshold)).sum())

    progress(4, 4, "done")
    return Fitted(
        metadata=metadata,
        graph=lambda: mahalanobis.export_mahalanobis(
            distance,
            *reference.limits,
            scaler.mean_,
            scaler.scale_,
            length,
            metadata.feature_names,
            metadata.threshold,
        ),
        cross_check=lambda graph: cross_check_mahalanobis(graph, estimated, settings.ridge, scaler, fitted_items),
        operators=mahalanobis.operators(length),
        layout=mahalanobis.LAYOUT,
        precision="float64",
        reference=reference,
        fitted_items=fitted_items,
        held_out_items=held_out_items,
        byproducts={
            "mahalanobis.npz": _saved(estimated),
            "mahalanobis_scaler.pkl": pickle.dumps(scaler),
        },
        metadata_file="mahalanobis_metadata.json",
        graph_file="mahalanobis.onnx",
        follow=follow,
        budget_scores=distances[~woken],
        facts=_facts(telemetry, fitted_distances, distances, length)
        | {
            "threshold": f"{threshold:.6f}: {above:,} of {len(distances):,} held-out windows lie above "
            f"({100 * above / len(distances):.2f} %)",
            "limits": _limits_said(telemetry, limits, int(woken.sum()), len(woken)),
            **({"warning": " ".join(limits.warnings)} if limits.warnings else {}),
        },
    )


def _check_width(telemetry: Telemetry, length: int) -> None:
    width = len(telemetry.schema.names)
    if width * length > MOST_VALUES:
        raise DataError(
            "lags",
            f"windows of {length} samples of {width:,} metrics have {width * length:,} values, at most {MOST_VALUES:,}",
            "Use fewer lags; 0 scores single samples." if length > 1 else "Leave metrics out.",
        )


def _in_windows(telemetry: Telemetry, length: int) -> Telemetry:
    """Only the rows that some window has: unbroken runs that are shorter than one have none."""
    long = [part for part in telemetry.segments if part[1] - part[0] >= length]
    return telemetry.take(long) if long and len(long) < len(telemetry.segments) else telemetry


def _windows(telemetry: Telemetry, length: int) -> Floats:
    try:
        return windows(telemetry.values, telemetry.segments, length)
    except DataError as error:
        raise DataError(
            "lags", error.message, "Use fewer lags, or data with fewer gaps.", code=DataErrorCode.TOO_SHORT
        ) from None


def _standard(telemetry: Telemetry) -> Telemetry:
    return replace(telemetry, scaling=Scaling())


def _own_limits(telemetry: Telemetry, metadata: model_pb2.ModelMetadata) -> list[features_pb2.Feature]:
    """The features, without the limits that were taken from the data: these are nobody's wish to be woken."""
    found = []
    for feature in metadata.feature_schema.features:
        own = features_pb2.Feature()
        own.CopyFrom(feature)
        if feature.name in telemetry.guessed_limits:
            own.critical = own.warning
        found.append(own)
    return found


def _threshold(distances: Floats, woken: NDArray[np.bool_], contamination: float) -> float:
    """Leaves the share `contamination` of held-out windows above it (MD6), those that a limit makes alarms included.

    Where these are more already, the others keep the share.

    Args:
        distances: of the held-out windows, float64 `[n]`.
        woken: those that a limit makes an alarm, bool `[n]`.
    """
    rest = distances[~woken]
    above = contamination * len(distances) - woken.sum()
    share = above / len(rest) if above > 0 else contamination
    trained = -float(np.percentile(-rest, 100 * share))
    try:
        return midpoint_threshold(trained, rest)
    except ValueError:
        raise DataError(
            "rows",
            f"the held-out rows have distances from {rest.min():g} to {rest.max():g}, and contamination "
            f"{contamination:g} the threshold {trained:g}: it must be above 0.",
            "Use more data, whose last fifth changes too.",
        ) from None


def _check_numbers(distance: Distance, names: tuple[str, ...]) -> None:
    """Refuses what MD7 does. The ridge keeps all of it small, but for the regression of a metric that barely counts."""
    for name in ("row_factor", "window_factor", "regression", "precision"):
        values = getattr(distance, name)
        if values is None:
            continue
        worst = float(np.abs(values).max())
        if not worst <= LARGEST_NUMBER:
            column = names[int(np.abs(values).max(axis=0).argmax()) % len(names)] if values.ndim > 1 else "ridge"
            raise DataError(
                column, f"its part of the {name} is {worst:g}, above {LARGEST_NUMBER:g} (MD7).", "Use a larger ridge."
            )


def _saved(estimated: Covariances) -> bytes:
    """`mahalanobis.npz`: `row` and, with a window, `window`, the covariances of scaled values before the ridge."""
    file = io.BytesIO()
    arrays = {"row": estimated.row} | ({} if estimated.window is None else {"window": estimated.window})
    np.savez(file, **arrays)  # its entries carry no time of day
    return file.getvalue()


def _facts(telemetry: Telemetry, fitted: Floats, held_out: Floats, length: int) -> dict[str, str]:
    short = sum(stop - start < length for start, stop in telemetry.segments)
    runs = f"; {short:,} of {len(telemetry.segments):,} unbroken runs are shorter and give none" if short else ""
    what = f" windows of {length} samples each{runs}" if length > 1 else " single samples"
    return {
        "windows": f"{len(fitted):,} fitted, {len(held_out):,} held out,{what}",
        "distances": f"{held_out.min():.4f} to {held_out.max():.4f} held out, "
        f"{fitted.min():.4f} to {fitted.max():.4f} fitted",
    }


def _limits_said(telemetry: Telemetry, limits: CriticalLimits, woken: int, held_out: int) -> str:
    names = [name for name, reach in zip(telemetry.schema.names, limits.reach, strict=True) if reach]
    said = f"alarms by themselves at their critical value: {', '.join(names) or 'none'}"
    return f"{said}; {_woken_said(woken, held_out)}" if woken else said


def _woken_said(woken: int, held_out: int) -> str:
    return (
        f"limits make {woken:,} of {held_out:,} held-out normal windows alarms, at any threshold; an alarm budget does "
        "not count them"
    )
