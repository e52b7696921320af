"""Order and cadence of timestamps: which rows are out of order, where the gaps are, which rows form a segment."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data.telemetry import Segments

GAP_FACTOR = 1.5
"""A step of more than this many cadences is a gap."""

_SECOND = np.timedelta64(1, "s")


def in_order(timestamps: NDArray[np.datetime64]) -> NDArray[np.bool_]:
    """Marks the longest strictly increasing subsequence of ``[n]`` times without NaT.

    Leaving out the fewest rows, rather than every row that is earlier than one before it, keeps a single time in the
    far future from condemning all rows after it. Of several longest subsequences, the one that keeps a row rather than
    a later row that goes back in time is taken; of equal times, the first.
    """
    if len(timestamps) < 2 or (timestamps[1:] > timestamps[:-1]).all():
        return np.ones(len(timestamps), dtype=bool)
    numbers = timestamps.astype(np.int64)
    # A row later than all before it and earlier than all after it is in every longest subsequence.
    settled = np.ones(len(numbers), dtype=bool)
    settled[1:] &= numbers[1:] > np.maximum.accumulate(numbers)[:-1]
    settled[:-1] &= numbers[:-1] < np.minimum.accumulate(numbers[::-1])[::-1][1:]
    disputed = np.flatnonzero(~settled)
    kept = settled
    kept[disputed] = _longest_increasing(numbers[disputed])
    return kept


def _longest_increasing(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Patience sorting from the end on negated numbers: from that side ties fall as `in_order` promises."""
    negated = (-numbers)[::-1].tolist()
    tails: list[int] = []
    tail_rows: list[int] = []
    previous = [-1] * len(negated)
    for row, value in enumerate(negated):
        place = bisect_left(tails, value)
        if place:
            previous[row] = tail_rows[place - 1]
        if place == len(tails):
            tails.append(value)
            tail_rows.append(row)
        else:
            tails[place] = value
            tail_rows[place] = row
    kept = np.zeros(len(negated), dtype=bool)
    row = tail_rows[-1]
    while row >= 0:
        kept[row] = True
        row = previous[row]
    return kept[::-1]


def steps_seconds(timestamps: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Seconds between neighbours, float64 ``[n - 1]``."""
    return np.asarray(np.diff(timestamps) / _SECOND, dtype=np.float64)


def median_step(timestamps: NDArray[np.datetime64]) -> float | None:
    """The median step in seconds of increasing times; None for fewer than two."""
    return float(np.median(steps_seconds(timestamps))) if len(timestamps) > 1 else None


def rows_after_gaps(timestamps: NDArray[np.datetime64], cadence_seconds: float | None) -> NDArray[np.intp]:
    """Indices of the rows before which time jumps by more than `GAP_FACTOR` cadences."""
    if cadence_seconds is None:
        return np.zeros(0, dtype=np.intp)
    return np.flatnonzero(steps_seconds(timestamps) > GAP_FACTOR * cadence_seconds) + 1


def segments_between(breaks: NDArray[np.intp], n: int) -> Segments:
    """The row ranges of ``[0, n)`` that start at 0 and at each of the ascending `breaks`."""
    edges = [0, *breaks.tolist(), n]
    return tuple((start, stop) for start, stop in pairwise(edges) if start < stop)
