"""Exact distances and neighbours in numpy, in memory that does not grow with the number of samples (rules LF1, LF2)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp_training.detectors.base import Floats

CHUNK_NUMBERS = 4_000_000
"""Distances in memory at once, for as many samples as that allows and at least one."""


@dataclass(frozen=True)
class Nearest:
    """Neighbours of `n` samples, nearest first.

    Attributes:
        index: which rows they are, `[n, count]`.
        distance: how far they are, float64 `[n, count]`.
        tied: bool `[n]`: a row that is not among them is as far as the last of them.
    """

    index: NDArray[np.intp]
    distance: Floats
    tied: NDArray[np.bool_]


def squared_distances(samples: Floats, rows: Floats) -> Floats:
    """`d2` of LF1: float64 `[n, rows]` for scaled samples `[n, features]` and scaled rows `[rows, features]`.

    One addition after the other in the order of the features: the same bits as any other implementation.
    """
    total = np.zeros((len(samples), len(rows)))
    for j in range(samples.shape[1]):
        difference = np.subtract.outer(samples[:, j], rows[:, j])
        total += np.square(difference, out=difference)
    return total


def nearest(squared: Floats, count: int) -> Nearest:
    """The `count` smallest of each row, of equals those in the lower column first (LF2).

    Args:
        squared: squared distances `[n, rows]`, not changed.
        count: at most `rows`.
    """
    index = np.argpartition(squared, count - 1, axis=1)[:, :count]
    last = np.take_along_axis(squared, index, axis=1).max(axis=1, keepdims=True)
    tied = (squared <= last).sum(axis=1) > count
    for i in np.flatnonzero(tied):  # argpartition takes any of them
        index[i] = np.argsort(squared[i], kind="stable")[:count]
    index.sort(axis=1)
    found = np.take_along_axis(squared, index, axis=1)
    order = np.argsort(found, axis=1, kind="stable")
    return Nearest(np.take_along_axis(index, order, axis=1), np.sqrt(np.take_along_axis(found, order, axis=1)), tied)


def chunks(samples: int, rows: int) -> Iterator[slice]:
    """Slices of as many samples as may be compared with `rows` rows at once."""
    step = max(1, CHUNK_NUMBERS // rows)
    for start in range(0, samples, step):
        yield slice(start, min(start + step, samples))
