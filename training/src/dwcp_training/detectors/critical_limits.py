"""Limits of single metrics: the value at which an operator wants to be woken is an alarm by itself (rule MD3).

A distance says how unusual a sample is, and a metric whose normal values spread widely is not unusual at its critical
value. Nor would such a score count in an ensemble whose other members say nearly nothing. So a term is added for each
metric with a warning and a critical value that differ: 0 where it begins, and at the critical value ten times the
threshold, whatever the threshold is, which on the ensemble's common scale (EN8) is 0.8 or more.

A term begins at nine tenths of the way from warning to critical, so that normal rows beyond the warning value are left
to the distance. Where normal rows come close to the critical value too often, there is no term, and a warning says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp.anomaly.v1 import features_pb2
from dwcp_sidecar.audit.mahalanobis import LARGEST_NUMBER
from dwcp_training.detectors.base import Floats, clamp_scaled

CRITICAL_FACTOR = 10.0
"""The term at the critical value, in thresholds."""

START = 0.9
"""Share of the way from warning to critical at which a term begins."""

LEAST_REACH = 1e-2
"""Shortest way from the start of a term to the critical value, scaled units: it keeps slopes far below 1e6 (MD7)."""


@dataclass(frozen=True)
class CriticalLimits:
    """Terms of the metrics, scaled units.

    Attributes:
        start: where each term is 0, float64 `[F]`; 0 where there is none.
        reach: from there to the critical value, float64 `[F]`, negative where low is bad; 0 where there is none.
        warnings: why a metric that could have a term has none.
    """

    start: Floats
    reach: Floats
    warnings: tuple[str, ...] = ()

    def slope(self, threshold: float) -> Floats:
        """`limit_slope` of MD3 with a threshold on the score; float64 `[F]`, 0 where there is no term."""
        return _divided(CRITICAL_FACTOR * threshold * np.ones_like(self.reach), self.reach)

    def alarming(self, last: Floats) -> NDArray[np.bool_]:
        """Whether a term alone makes scaled last samples `[n, F]` alarms, which no threshold changes; bool `[n]`."""
        return (CRITICAL_FACTOR * _divided(last - self.start, self.reach) > 1).any(axis=1)


def terms(last: Floats, start: Floats, slope: Floats) -> Floats:
    """The terms of MD3 for scaled last samples `[n, F]`, 0 where they are negative; float64 `[n, F]`."""
    found = slope * (last - start)
    return np.where(found > 0, found, 0.0)


def no_limits(width: int) -> CriticalLimits:
    """No metric has one."""
    return CriticalLimits(np.zeros(width), np.zeros(width))


def critical_limits(
    features: Sequence[features_pb2.Feature],
    mean: Floats,
    scale: Floats,
    parts: Sequence[Floats],
    contamination: float,
) -> CriticalLimits:
    """The limits of the metrics that have a warning and a critical value which differ.

    Args:
        features: of the schema; those without a limit of their own have equal warning and critical values.
        mean, scale: of the scaler, float64 `[F]`.
        parts: scaled normal rows `[n, F]`, those that were fitted and those held out.
        contamination: share of normal rows that may alarm. A tenth of it may lie beyond halfway from the start of a
            term to the critical value, in each part.
    """
    start, reach, warnings = np.zeros(len(features)), np.zeros(len(features)), []
    warning = clamp_scaled(np.array([feature.warning for feature in features]), mean, scale)
    critical = clamp_scaled(np.array([feature.critical for feature in features]), mean, scale)
    for j, feature in enumerate(features):
        if feature.warning == feature.critical:
            continue
        sign = 1.0 if feature.critical > feature.warning else -1.0
        towards = [sign * rows[:, j] for rows in parts]
        end = sign * critical[j]
        begin = end - (1 - START) * (end - sign * warning[j])
        why = _refused(towards, begin, end, contamination / 10)
        if why:
            warnings.append(f"{feature.name} at its critical value is no alarm by itself: {why}.")
        else:
            start[j], reach[j] = sign * begin, sign * (end - begin)
    return CriticalLimits(start, reach, tuple(warnings))


def _refused(towards: list[Floats], begin: float, end: float, share: float) -> str:
    """Why a term from `begin` to `end` cannot be; empty where it can."""
    if abs(begin) > LARGEST_NUMBER or not end - begin >= LEAST_REACH:
        return "it lies too far from normal, or too near to the warning value, for the numbers of MD7"
    beyond = max(float((rows > (begin + end) / 2).mean()) for rows in towards)
    if beyond > share:
        return f"{100 * beyond:.2g} % of the normal rows come close to it or beyond, {100 * share:.2g} % may"
    return ""


def _divided(numbers: Floats, by: Floats) -> Floats:
    return np.divide(numbers, by, out=np.zeros_like(numbers), where=by != 0)
