"""How sure a difference between two models is.

Paired event bootstrap: both models saw the same faults, so the events are drawn anew, with what both did on them (Efron
and Tibshirani: An Introduction to the Bootstrap, 1993, chapters 8 and 13). Moving blocks for rows, whose alarms follow
one another in time (Künsch: The jackknife and the bootstrap for general stationary observations, 1989).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def paired_difference(
    before: NDArray[np.bool_], after: NDArray[np.bool_], confidence: float, resamples: int, seed: int = 42
) -> tuple[float, float]:
    """Percentile interval of ``mean(after) - mean(before)`` over the same events.

    Only how often the two disagree matters: events drawn anew have multinomial counts of (lost, same, won).

    Args:
        before, after: bool ``[events]``, which of them each model found; at least one event.
        confidence: of the interval, two-sided.
        resamples: number of draws.
    """
    difference = after.astype(np.int8) - before.astype(np.int8)
    counts = np.array([(difference == value).sum() for value in (-1, 0, 1)])
    draws = np.random.Generator(np.random.PCG64(seed)).multinomial(len(before), counts / len(before), size=resamples)
    return _interval((draws[:, 2] - draws[:, 0]) / len(before), confidence)


def block_share(
    marks: NDArray[np.bool_], block: int, confidence: float, resamples: int, seed: int = 42
) -> tuple[float, float]:
    """Percentile interval of ``mean(marks)`` over rows in time, by circular moving blocks.

    Args:
        marks: bool ``[rows]``, in the order of time; at least one.
        block: rows in a block, at least as long as marks depend on each other.
        confidence, resamples: as of `paired_difference`.
    """
    count = len(marks)
    block = max(1, min(block, count))
    sums = np.concatenate([[0], np.cumsum(np.concatenate([marks, marks[:block]]))])
    of_block = (sums[block:] - sums[:-block])[:count]
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = -(-count // block)
    means = [of_block[generator.integers(count, size=drawn)].sum() / (drawn * block) for _ in range(resamples)]
    return _interval(np.array(means), confidence)


def rate_at_least(events: int, duration: float, confidence: float) -> float:
    """Smallest rate, events per unit of `duration`, that so many events do not contradict, one-sided.

    The exact limit for a Poisson count (Garwood: Fiducial limits for the Poisson distribution, 1936).
    """
    from scipy.stats import chi2  # here: see `evaluation.bootstrap`

    return float(chi2.ppf(1 - confidence, 2 * events) / 2 / duration) if events else 0.0


def _interval(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
