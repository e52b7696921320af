"""Weights of an ensemble's members from labelled data: the best on a grid (EN1, S4-5)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.detectors.base import Floats

MOST_WEIGHTS = 1_000
"""Most weights that are tried on the finer grid."""


@dataclass(frozen=True)
class FittedWeights:
    """The weights with the highest average precision, and what they were chosen by.

    Attributes:
        weights: one a member, above 0, summing to 1.
        equal: average precision of equal weights.
        best: that of the chosen ones, on the same data: never less.
        items, anomalous: labelled items, and those of them that are anomalies.
        tried: weights that were compared.
    """

    weights: tuple[float, ...]
    equal: float
    best: float
    items: int
    anomalous: int
    tried: int

    def words(self) -> str:
        """The outcome, for people."""
        return (
            f"fitted on {self.items:,} labelled items, {self.anomalous:,} of them anomalies "
            f"({self.anomalous / self.items:.1%}): average precision {self.best:.4f}, with equal weights "
            f"{self.equal:.4f}; best of {self.tried:,}"
        )


def fit_weights(normalized: Floats, labels: NDArray[np.bool_]) -> FittedWeights:
    """Tries equal weights and a grid of all others, and takes the first that none other beats.

    Args:
        normalized: the members' scores on the common scale, float64 `[members, n]`.
        labels: bool `[n]`, which items are anomalies.

    Raises:
        DataError: the labels are all of one class.
    """
    if labels.all() or not labels.any():
        raise DataError(
            "labels",
            f"all {len(labels):,} labelled items are {'anomalous' if labels.all() else 'normal'}: any weights fit.",
            "Use labelled data with both, or give weights with --weights.",
            code=DataErrorCode.SINGLE_CLASS,
        )
    members = len(normalized)
    equal = (1.0 / members,) * members
    best, found, tried = equal, precision_of(normalized, labels, equal), 1
    of_equal = found
    for weights in grid(members):
        precision = precision_of(normalized, labels, weights)
        tried += 1
        if precision > found:
            best, found = weights, precision
    return FittedWeights(best, of_equal, found, len(labels), int(labels.sum()), tried)


def precision_of(normalized: Floats, labels: NDArray[np.bool_], weights: tuple[float, ...]) -> float:
    """Average precision of the published scores with these weights."""
    scores = (np.array(weights) @ normalized / sum(weights)).astype(np.float32)
    return float(average_precision_score(labels, scores))


def grid(members: int) -> Iterator[tuple[float, ...]]:
    """All weights above 0 that sum to 1 in steps of a twentieth, or of a tenth where those are more than
    `MOST_WEIGHTS`."""
    steps = 20 if comb(19, members - 1) <= MOST_WEIGHTS else 10
    for cut in combinations(range(1, steps), members - 1):
        edges = (0, *cut, steps)
        yield tuple((b - a) / steps for a, b in pairwise(edges))
