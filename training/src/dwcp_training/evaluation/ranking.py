"""How well scores rank faulty rows above normal ones, whatever the threshold: average precision, ROC AUC, VUS-PR.

Everything takes a weight for each row, so that thousands of resamples of the same rows cost one sort. The tests compare
the first two with scikit-learn's, and the last with a slow implementation that follows the paper word by word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LARGEST_BUFFER = 100
"""Longest buffer of VUS-PR in rows: for longer faults nothing changes at their edges."""

BUFFERS = 6
"""Lengths of buffer that VUS-PR is averaged over, from none to the longest."""


class Ranking:
    """Scores of rows, sorted once.

    Args:
        scores: float64 ``[n]``, higher is worse.
        faulty: bool ``[n]``.
    """

    def __init__(self, scores: Floats, faulty: NDArray[np.bool_]) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ranked = scores[self._order]
        # Rows with equal scores are above or below any threshold together.
        self._ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        self._faulty = faulty[self._order]
        self._surfaces: list[_Surface] = []

    def average_precision(self, weights: Floats) -> float:
        """Sum over the thresholds of precision times the gain in recall; NaN without a faulty row."""
        found, called = self._counts(weights)
        if not found[-1] > 0:
            return float("nan")
        precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
        return float(np.sum(np.diff(found, prepend=0.0) * precision) / found[-1])

    def roc_auc(self, weights: Floats) -> float:
        """Area under the ROC curve; NaN without rows of both classes."""
        found, called = self._counts(weights)
        false = called - found
        if not (found[-1] > 0 and false[-1] > 0):
            return float("nan")
        heights = found + np.concatenate([[0.0], found[:-1]])
        return float(np.sum(np.diff(false, prepend=0.0) * heights) / 2 / found[-1] / false[-1])

    def _counts(self, weights: Floats) -> tuple[Floats, Floats]:
        """Weight of the faulty rows, and of all, at or above each distinct score."""
        ordered = weights[self._order]
        return np.cumsum(ordered * self._faulty)[self._ends], np.cumsum(ordered)[self._ends]

    def add_buffers(self, buffers: Sequence[tuple[Floats, NDArray[np.intp]]]) -> None:
        """Takes the labels that VUS-PR is averaged over, as `buffered` gives them for these rows."""
        for labels, segments in buffers:
            ranked, numbers = labels[self._order], segments[self._order]
            inside = np.flatnonzero(numbers >= 0)
            self._surfaces.append(_Surface(ranked, inside, numbers[inside]))

    def vus_pr(self, weights: Floats) -> float:
        """Volume under the surface of precision and recall (Paparrizos, Boniol, Palpanas, Tsay, Elmore, Franklin: Volume
        Under the Surface, PVLDB 15 (11), 2022): the mean over buffer lengths of the range-based area under the curve.

        Rows near a fault count in part, by how near they are; recall is multiplied by the share of the faults that are
        found at all. The area is summed in steps, as for the average precision, over all thresholds. NaN without a
        faulty row.
        """
        ordered = weights[self._order]
        called = np.cumsum(ordered)[self._ends]
        faulty = float(np.sum(ordered * self._faulty))
        if not faulty > 0 or not self._surfaces:
            return float("nan")
        return float(np.mean([self._area(surface, ordered, called, faulty) for surface in self._surfaces]))

    def _area(self, surface: _Surface, ordered: Floats, called: Floats, faulty: float) -> float:
        found = np.cumsum(ordered * surface.labels)[self._ends]
        wanted = (faulty + found[-1]) / 2
        drawn = ordered[surface.inside] > 0
        inside, numbers = surface.inside[drawn], surface.numbers[drawn]
        first = inside[np.unique(numbers, return_index=True)[1]]  # the highest score of each fault
        existence = np.searchsorted(np.sort(first), self._ends, side="right") / len(first)
        recall = np.minimum(found / wanted, 1.0) * existence
        precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
        return float(np.sum(np.diff(recall, prepend=0.0) * precision))


@dataclass(frozen=True, slots=True)
class _Surface:
    """Labels of one buffer length in the order of the scores; the rows with one above 0, and the fault of each."""

    labels: Floats
    inside: NDArray[np.intp]
    numbers: NDArray[np.intp]


def buffer_lengths(longest: int) -> list[int]:
    """Lengths of buffer, rows, ascending from 0 to `longest`, at most `BUFFERS` of them."""
    longest = max(0, min(longest, LARGEST_BUFFER))
    return sorted({round(length) for length in np.linspace(0, longest, BUFFERS)})


def buffered(faulty: NDArray[np.bool_], length: int) -> tuple[Floats, NDArray[np.intp]]:
    """Labels of all rows with a buffer around each fault, and the fault that a row belongs to.

    A row at distance `d` of at most half of the length before or after a fault has the label `sqrt(1 - d / length)`;
    of several faults near it, the sum of theirs, at most 1. Faults whose buffers touch are one.

    Args:
        faulty: bool ``[n]``, all rows in the order of time.
        length: of the buffer, rows; half of it on each side.

    Returns:
        Labels, float64 ``[n]``, and the number of the fault, -1 for rows outside, ``[n]``.
    """
    labels = faulty.astype(np.float64)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], faulty.astype(np.int8), [0]]))).reshape(-1, 2)
    near = np.arange(1, length // 2 + 1)
    weights = np.sqrt(1 - near / length) if length else np.zeros(0)
    for first, stop in edges.tolist():
        for rows in (first - near, stop - 1 + near):
            inside = (rows >= 0) & (rows < len(labels))
            labels[rows[inside]] += weights[inside]
    labels = np.minimum(labels, 1.0)
    begins = (labels > 0) & ~np.concatenate([[False], labels[:-1] > 0])
    numbers = np.where(labels > 0, np.cumsum(begins) - 1, -1)
    return labels, numbers.astype(np.intp)
