"""Sums of answers of which some may be lies: shares are averaged without the extremes, every client with one voice."""

from collections.abc import Sequence

import numpy as np

from dwcp_training.detectors.base import Floats
from dwcp_training.federated.site import Arrays


def usable(answers: Sequence[Arrays], shapes: Sequence[tuple[int, ...]]) -> list[Arrays]:
    """Those answers that have the right shapes and are finite."""
    return [
        answer
        for answer in answers
        if [np.shape(array) for array in answer] == list(shapes) and all(np.isfinite(array).all() for array in answer)
    ]


def trimmed(stacked: Floats, liars: int) -> Floats:
    """The mean over the first axis without the `liars` lowest and as many of the highest, at each place by itself.

    Source: Yin, Chen, Ramchandran, Bartlett: Byzantine-robust distributed learning, 2018, definition 2.
    """
    ascending = np.sort(stacked, axis=0)
    return ascending[liars : len(stacked) - liars].mean(axis=0)


def robust_total(answers: Sequence[Arrays], liars: int, histograms: bool = False) -> Arrays:
    """What the sum of the answers would be if all clients were alike and none lied.

    A client's number of rows could be a lie as well: so each counts as much as any other, and the total is that of
    clients of the median size. Answers begin with the number that they stand for.

    Args:
        liars: as many may lie.
        histograms: the answers are counts in bins, along the last axis: shares up to an edge are averaged, as a bin
            that few clients have a value in would lose it.
    """
    numbers = np.array([max(float(answer[0][0]), 1.0) for answer in answers])
    total = float(np.median(numbers)) * len(answers)
    sums = []
    for k in range(1, len(answers[0])):
        means = np.stack([answer[k] / number for answer, number in zip(answers, numbers, strict=True)])
        if histograms:
            shares = trimmed(np.cumsum(means, axis=-1), liars)
            sums.append(np.diff(shares, prepend=0.0, axis=-1) * total)
        else:
            sums.append(trimmed(means, liars) * total)
    return [np.array([total]), *sums]
