"""Limits of single metrics: the value at which an operator wants to be woken is an alarm by itself (rule MD3).

A distance says how unusual a sample is, and a metric whose normal values spread widely is not unusual at its critical
value. Nor would such a score count in an ensemble whose other members say nearly nothing. So a term is added for each
metric with a warning and a critical value that differ: 0 where it begins, and at the critical value ten times the
threshold on the distance, which on the ensemble's common scale (EN8) is about 0.8.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dwcp.anomaly.v1 import features_pb2
from dwcp_sidecar.audit.mahalanobis import LARGEST_NUMBER
from dwcp_training.detectors.base import Floats, clamp_scaled

CRITICAL_FACTOR = 10.0
"""The term at the critical value, in thresholds on the distance."""

START_QUANTILE = 0.999
"""A term begins no nearer to normal than where so many training rows lie behind."""


@dataclass(frozen=True)
class CriticalLimits:
    """Terms of the metrics, scaled units.

    Attributes:
        start: where each term is 0, float64 `[F]`; 0 where there is none.
        slope: of each term, float64 `[F]`, negative where low is bad; 0 where there is none.
        warnings: why a metric that could have one has none.
    """

    start: Floats
    slope: Floats
    warnings: tuple[str, ...] = ()

    def terms(self, last: Floats) -> Floats:
        """The terms for scaled last samples `[n, F]`, 0 where they are negative; float64 `[n, F]`."""
        terms = self.slope * (last - self.start)
        return np.where(terms > 0, terms, 0.0)


def no_limits(width: int) -> CriticalLimits:
    """No metric has one."""
    return CriticalLimits(np.zeros(width), np.zeros(width))


def critical_limits(
    features: Sequence[features_pb2.Feature],
    mean: Floats,
    scale: Floats,
    parts: Sequence[Floats],
    threshold: float,
    contamination: float,
) -> CriticalLimits:
    """The limits of the metrics that have a warning and a critical value which differ.

    A term begins at the warning value, or where 99.9 % of the training rows lie behind if that is nearer to critical.
    It is left out, with a warning, where normal rows come halfway from there to critical too often.

    Args:
        features: of the schema; those without a limit of their own have equal warning and critical values.
        mean, scale: of the scaler, float64 `[F]`.
        parts: scaled normal rows `[n, F]`, first those that were fitted.
        threshold: on the distance, without limits.
        contamination: share of normal rows that may alarm; a tenth of it may come so far.
    """
    start, slope, warnings = np.zeros(len(features)), np.zeros(len(features)), []
    warning = clamp_scaled(np.array([feature.warning for feature in features]), mean, scale)
    critical = clamp_scaled(np.array([feature.critical for feature in features]), mean, scale)
    for j, feature in enumerate(features):
        if feature.warning == feature.critical:
            continue
        sign = 1.0 if feature.critical > feature.warning else -1.0
        towards = [sign * rows[:, j] for rows in parts]
        begin = max(sign * warning[j], float(np.quantile(towards[0], START_QUANTILE)))
        end = sign * critical[j]
        why = _refused(towards, begin, end, threshold, contamination / 10)
        if why:
            warnings.append(f"{feature.name} at its critical value is no alarm by itself: {why}.")
        else:
            start[j], slope[j] = sign * begin, sign * CRITICAL_FACTOR * threshold / (end - begin)
    return CriticalLimits(start, slope, tuple(warnings))


def _refused(towards: list[Floats], begin: float, end: float, threshold: float, share: float) -> str:
    """Why a term from `begin` to `end` cannot be; empty where it can."""
    if not begin < end:
        return "normal rows reach it"
    halfway = (begin + end) / 2
    beyond = max(float((rows > halfway).mean()) for rows in towards)
    if beyond > share:
        return f"{100 * beyond:.2g} % of the normal rows come halfway to it, {100 * share:.2g} % may"
    if abs(begin) > LARGEST_NUMBER or CRITICAL_FACTOR * threshold / (end - begin) > LARGEST_NUMBER:
        return "it lies too far from normal, or too near to the warning value, for the numbers of MD7"
    return ""
