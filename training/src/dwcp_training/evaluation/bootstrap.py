"""Confidence intervals of figures of a time series: the circular moving block bootstrap, and Wilson's for counts.

Rows of telemetry depend on their neighbours: drawing single rows would make intervals too narrow. Blocks of
neighbouring rows are drawn instead, from the series joined end to start (Politis, Romano: A circular block-resampling
procedure for stationary data, 1992).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95

RESAMPLES = 200

_AT_ONCE = 1 << 17  # weights of rows


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval of 95 % confidence; None where it cannot be known."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, samples: NDArray[np.float64]) -> Estimate:
        """From the figure of the data, then those of its resamples, ``[1 + resamples]``; NaN where there is none.

        The interval is between percentiles of the resamples. One that fewer than half of the resamples know has none.
        """
        value, others = float(samples[0]), samples[1:]
        if not np.isfinite(value):
            return cls(None)
        known = others[np.isfinite(others)]
        if len(known) * 2 < len(others) or len(known) < 2:
            return cls(value)
        low, high = np.percentile(known, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
        return cls(value, float(min(low, value)), float(max(high, value)))

    @classmethod
    def share(cls, found: int, of: int) -> Estimate:
        """The share of `found` in `of` events that have nothing to do with each other, with Wilson's interval:
        resampling 20 found of 20 would give an interval of no width."""
        if not of:
            return cls(None)
        from scipy.stats import binomtest  # here: it takes a second, and most commands that come by estimate nothing

        interval = binomtest(found, of).proportion_ci(CONFIDENCE, method="wilson")
        return cls(found / of, float(interval.low), float(interval.high))


def block_length(rows: int, timesteps: int, event_rows: Sequence[int]) -> int:
    """Rows in a block: the cube root of all, a window, or the median fault with its surroundings, whichever is longest;
    at most a fifth of all rows."""
    event = int(np.median(event_rows)) if len(event_rows) else 0
    return max(1, min(max(round(rows ** (1 / 3)), timesteps, event), rows // 5))


def resamples(rows: int, block: int, count: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each of ``n`` rows is drawn, float64 ``[n]``: first each once, then in `count` resamples.

    Args:
        rows: n.
        block: rows in a block.
    """
    yield np.ones(rows)
    generator = np.random.default_rng(seed)
    whole, rest = divmod(rows, block)
    for _ in range(count):
        starts = generator.integers(rows, size=whole + (rest > 0))
        lengths = np.full(len(starts), block)
        if rest:
            lengths[-1] = rest
        # +1 where a block begins and -1 behind it, round the end; the sum says how many blocks a row is in.
        steps = np.zeros(2 * rows + 1)
        np.add.at(steps, starts, 1.0)
        np.add.at(steps, starts + lengths, -1.0)
        drawn = np.cumsum(steps)[:-1]
        yield drawn[:rows] + drawn[rows:]


def in_batches(rows: int, block: int, count: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """The same as `resamples`, many at a time, float64 ``[b, n]``: few enough to stay in the processor's caches."""
    every = resamples(rows, block, count, seed)
    at_once = max(1, _AT_ONCE // max(1, rows))
    while part := list(islice(every, at_once)):
        yield np.array(part)


def mean_over(samples: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean of several figures in the data and in each resample, of those that are known."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # none of them is known
        return np.nanmean(np.array(samples), axis=0)
