"""Thresholds that normal scores exceed at a wanted rate: counted where there are enough scores, else extrapolated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ENOUGH = 5
"""Scores that must be expected above a threshold for it to be counted off; with fewer the tail is extrapolated."""

FEWEST_SCORES = 50
"""Scores that a tail can be fitted on: a fifth of them are its exceedances."""

FEWEST_EXCEEDANCES = 10

TAIL_SHARE = 0.1
"""Share of the scores that are the tail; a fifth of few scores, so that there are exceedances to fit."""


class TailError(ValueError):
    """There is no threshold for such a rate; the message says why."""


@dataclass(frozen=True)
class TailThreshold:
    """A threshold and where it comes from.

    Attributes:
        value: as computed; not yet a midpoint (D2).
        method: how it was found, in words.
        extrapolated: nothing that was measured lies where the threshold does.
    """

    value: float
    method: str
    extrapolated: bool


def counted_threshold(scores: NDArray[np.float64], share: float) -> float:
    """The smallest score that at most `share` of the scores are above: of `n` scores `floor(n * share)` at most.

    Args:
        scores: float64 ``[n]``, at least one.
        share: from 0 to 1.
    """
    above = min(len(scores) - 1, math.floor(len(scores) * share + 1e-9))
    return float(np.partition(scores, len(scores) - 1 - above)[len(scores) - 1 - above])


def tail_threshold(scores: NDArray[np.float64], share: float, upper: float | None = None) -> TailThreshold:
    """The threshold that a share of normal scores exceeds.

    With at least `ENOUGH` scores expected above it, it is counted off. With fewer it is extrapolated by peaks over
    threshold: the excesses of the largest scores over the start of the tail follow a generalised Pareto distribution
    (Pickands, Annals of Statistics 1975; Davison, Smith, JRSS B 1990), fitted by maximum likelihood. Where scores end
    at `upper`, so does the tail: minus the logarithm of the remaining share of the way from its start to `upper` is
    exponential, which is the generalised Pareto distribution with that end. More than `n * share` of the scores are
    above no threshold.

    Args:
        scores: of held-out normal items, float64 ``[n]``, finite.
        share: of normal items that may alarm, above 0 and below 1.
        upper: the largest score that there can be; None for scores without end.

    Raises:
        TailError: too few scores, scores that are too alike, or nothing left between them and `upper`.
    """
    from scipy.stats import genpareto

    expected = len(scores) * share
    if expected >= ENOUGH:
        method = f"{math.floor(expected):,} of {len(scores):,} held-out normal scores are above it"
        return TailThreshold(counted_threshold(scores, share), method, extrapolated=False)
    if len(scores) < FEWEST_SCORES:
        raise TailError(f"{len(scores):,} held-out normal scores are too few to extrapolate from: {FEWEST_SCORES}")
    largest = float(scores.max())
    if upper is not None and not largest < upper:
        raise TailError(f"normal data reaches {largest:g}, and no score is higher than {upper:g}")
    start = counted_threshold(scores, max(TAIL_SHARE, min(0.2, 50 / len(scores))))
    excesses = scores[scores > start] - start
    if len(excesses) < FEWEST_EXCEEDANCES or not excesses.std() > 1e-12 * abs(start):
        raise TailError(f"of {len(scores):,} held-out normal scores only {len(excesses):,} differ in the tail")
    times_rarer = len(excesses) / len(scores) / share
    if upper is None:
        shape, _, scale = genpareto.fit(excesses, floc=0)
        value = start + float(genpareto.isf(1 / times_rarer, shape, scale=scale))
        fitted = f"shape {shape:.3g}, scale {scale:.3g}"
    else:
        decay = float(np.mean(-np.log1p(-excesses / (upper - start))))
        value = start + (upper - start) * -math.expm1(-decay * math.log(times_rarer))
        fitted = f"ending at {upper:.6g}, shape {-decay:.3g}"
    value = max(value, counted_threshold(scores, share))
    if not math.isfinite(value) or (upper is not None and not np.float32(value) < np.float32(upper)):
        raise TailError(f"the tail of the scores ({fitted}) leaves no threshold for it: {value:g}")
    method = (
        f"generalised Pareto tail of the {len(excesses):,} largest of {len(scores):,} held-out normal scores ({fitted})"
    )
    return TailThreshold(value, method, extrapolated=True)
