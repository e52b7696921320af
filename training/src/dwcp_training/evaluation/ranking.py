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
        buffers: the labels that VUS-PR is averaged over, as `buffered` gives them for these rows; none for no VUS-PR.
    """

    def __init__(
        self,
        scores: Floats,
        faulty: NDArray[np.bool_],
        buffers: Sequence[tuple[Floats, NDArray[np.intp]]] = (),
    ) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ranked = scores[self._order]
        # Rows with equal scores are above or below any threshold together.
        self._ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        self._faulty = faulty[self._order]
        self._surfaces = [
            _Surface.of(labels[self._order], numbers[self._order], self._ends) for labels, numbers in buffers
        ]

    def weighed(self, weights: Floats) -> Weighed:
        """The figures when rows weigh that much in each of ``b`` resamples, float64 ``[b, n]``."""
        ordered = weights[:, self._order]
        found, called = np.cumsum(ordered * self._faulty, axis=1), np.cumsum(ordered, axis=1)
        return Weighed(ordered, found[:, self._ends], called[:, self._ends], self._surfaces)


@dataclass(frozen=True, slots=True)
class Weighed:
    """A ranking whose rows have weights, in ``b`` resamples. Every figure is float64 ``[b]``.

    Attributes:
        ordered: the weights in the order of the scores.
        found, called: weight of the faulty rows, and of all, at or above each distinct score.
        surfaces: labels with buffers.
    """

    ordered: Floats
    found: Floats
    called: Floats
    surfaces: Sequence[_Surface]

    def average_precision(self) -> Floats:
        """Sum over the thresholds of precision times the gain in recall; NaN without a faulty row."""
        area = (_gains(self.found) * _ratio(self.found, self.called)).sum(axis=1)
        return _ratio(area, self.found[:, -1], np.nan)

    def roc_auc(self) -> Floats:
        """Area under the ROC curve; NaN without rows of both classes."""
        false = self.called - self.found
        area = (_gains(false) * (self.found - _gains(self.found) / 2)).sum(axis=1)
        return _ratio(area, self.found[:, -1] * false[:, -1], np.nan)

    def vus_pr(self) -> Floats:
        """Volume under the surface of precision and recall (Paparrizos, Boniol, Palpanas, Tsay, Elmore, Franklin:
        Volume Under the Surface, PVLDB 15 (11), 2022): the mean over buffer lengths of the range-based area under the
        curve.

        Rows near a fault count in part, by how near they are; recall is multiplied by the share of the faults that are
        found at all. The area is summed in steps, as for the average precision, over all thresholds. NaN without a
        faulty row.
        """
        if not self.surfaces:
            return np.full(len(self.found), np.nan)
        areas = np.mean([self._area(surface) for surface in self.surfaces], axis=0)
        return np.where(self.found[:, -1] > 0, areas, np.nan)

    def _area(self, surface: _Surface) -> Floats:
        """The area for one buffer length. It grows only at scores of rows that have a part in a fault."""
        weights = self.ordered[:, surface.rows]
        found = np.cumsum(weights * surface.labels, axis=1)[:, surface.lasts]
        wanted = (self.found[:, -1:] + found[:, -1:]) / 2
        recall = np.minimum(_ratio(found, wanted), 1.0) * surface.existence(weights > 0)
        return (_gains(recall) * _ratio(found, self.called[:, surface.groups])).sum(axis=1)


def _gains(values: Floats) -> Floats:
    """Each value less the one before it in its row."""
    gains = values.copy()
    gains[:, 1:] -= values[:, :-1]
    return gains


def _ratio(part: Floats, whole: Floats, otherwise: float = 0.0) -> Floats:
    """`part / whole`, and something else where the whole is 0."""
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.full(part.shape, otherwise), where=whole > 0)


@dataclass(frozen=True, slots=True)
class _Surface:
    """Labels of one buffer length.

    Attributes:
        rows: in the order of the scores, those with a label above 0, and `labels`, theirs.
        groups: the distinct scores among them, by number, and `lasts`: the last of `rows` that has each.
        own: the number of the score of each of `rows`, counted within `groups`.
        by_fault: `rows` fault by fault, and `firsts`: where each fault begins there.
    """

    rows: NDArray[np.intp]
    labels: Floats
    groups: NDArray[np.intp]
    lasts: NDArray[np.intp]
    own: NDArray[np.intp]
    by_fault: NDArray[np.intp]
    firsts: NDArray[np.intp]

    @classmethod
    def of(cls, labels: Floats, numbers: NDArray[np.intp], ends: NDArray[np.intp]) -> _Surface:
        rows = np.flatnonzero(numbers >= 0)
        group = np.searchsorted(ends, rows)
        lasts = np.flatnonzero(np.append(group[1:] != group[:-1], True)) if len(rows) else rows
        groups = group[lasts]
        by_fault = np.argsort(numbers[rows], kind="stable")
        sorted_numbers = numbers[rows][by_fault]
        firsts = np.flatnonzero(np.concatenate([[True], sorted_numbers[1:] != sorted_numbers[:-1]])[: len(rows)])
        return cls(rows, labels[rows], groups, lasts, np.searchsorted(groups, group), by_fault, firsts)

    def existence(self, drawn: NDArray[np.bool_]) -> Floats:
        """Share of the faults with a drawn row at or above each of the `groups`, in each resample, ``[b, groups]``."""
        nowhere = len(self.groups)
        place = np.where(drawn, self.own, nowhere)[:, self.by_fault]
        best = np.minimum.reduceat(place, self.firsts, axis=1)
        counts = np.zeros((len(drawn), nowhere + 1))
        np.add.at(counts, (np.arange(len(drawn))[:, np.newaxis], best), 1.0)
        known = best.shape[1] - counts[:, -1:]
        return _ratio(np.cumsum(counts[:, :-1], axis=1), known)


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
