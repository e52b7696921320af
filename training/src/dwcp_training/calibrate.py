"""Thresholds and calibration in the form that the contract wants (rules D2, IF5, C1)."""

from decimal import Decimal, localcontext
from itertools import pairwise

import numpy as np

from dwcp_sidecar.audit import LEAF_GRID
from dwcp_sidecar.limits import MAX_CALIBRATION_SCORES


def midpoint_threshold(threshold: float, scores: np.ndarray | None = None) -> float:
    """The midpoint of two neighbouring float32 numbers that lies nearest to a threshold (D2).

    Where training scores lie between the two, as they do when many rows are alike and tie at the percentile, the one
    above is taken, so that no score up to the trained threshold becomes an anomaly.

    Args:
        threshold: as trained, finite and above 0.
        scores: of the training items, float64 `[n]`.

    Raises:
        ValueError: when it is not a positive finite float32.
    """
    if not (np.isfinite(threshold) and 0 < threshold < float(np.finfo(np.float32).max) / 2):
        raise ValueError(f"threshold {threshold!r} is not a positive finite number; check the training data")
    near = np.float32(threshold)
    candidates = [
        (float(low) + float(np.nextafter(low, np.float32(np.inf)))) / 2
        for low in (np.nextafter(near, np.float32(0)), near)
    ]
    nearest = min(candidates, key=lambda candidate: abs(candidate - threshold))
    if scores is not None and bool(((nearest < scores) & (scores <= threshold)).any()):
        return next(candidate for candidate in candidates if candidate >= threshold)
    return nearest


def midpoint_below(threshold: float) -> float:
    """The largest midpoint of two neighbouring float32 numbers below a number (D2, EN5)."""
    near = np.float32(threshold)
    below = np.nextafter(near, np.float32(0))
    numbers = [np.nextafter(below, np.float32(0)), below, near, np.nextafter(near, np.float32(np.inf))]
    return max(middle for a, b in pairwise(numbers) if (middle := (float(a) + float(b)) / 2) < threshold)


def depth_threshold(threshold: float, rate: float) -> float:
    """The smallest multiple of 2^-40 whose score is not above the threshold, in exact arithmetic (IF5).

    Args:
        threshold: on the score, between 0 and 1.
        rate: `score_rate`, negative.
    """
    with localcontext() as context:
        context.prec = 60
        depth = Decimal(threshold).ln() / Decimal(2).ln() / Decimal(rate)
        steps = depth * Decimal(int(LEAF_GRID))
        return float(int(steps.to_integral_value(rounding="ROUND_CEILING"))) / LEAF_GRID


def calibration_scores(scores: np.ndarray, seed: int) -> np.ndarray:
    """At most 2,000 of the held-out scores, ascending (C1), drawn at random, which keeps them exchangeable."""
    scores = np.asarray(scores, np.float32)
    if len(scores) > MAX_CALIBRATION_SCORES:
        scores = np.random.default_rng(seed).choice(scores, MAX_CALIBRATION_SCORES, replace=False)
    return np.sort(scores)
