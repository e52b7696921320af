"""Cases for the local outlier factor: rows that coincide, rows that are equally far, found by search."""

from collections.abc import Iterator

import numpy as np

from dwcp_training.detectors.base import Floats, clamp_scaled
from dwcp_training.detectors.local_outlier_factor import NeighborReference
from dwcp_training.detectors.nearest import nearest, squared_distances
from dwcp_training.golden.case import Draft
from dwcp_training.golden.crossings import spike_drafts
from dwcp_training.golden.rows import nearest_drafts, row_drafts, typical_row

_ROWS = 2_000
"""Training rows that cases are chosen from."""

_TIES = 4
_TRIES = 40
"""Ties that are wanted, and samples from which one is looked for."""

_STEPS = np.arange(-40, 41)
"""Steps of a float64 that each metric is moved by, one at a time, until two distances are equal in every bit."""


def neighbor_drafts(
    reference: NeighborReference, names: list[str], mean: Floats, scale: Floats, seed: int
) -> Iterator[Draft]:
    """Cases made for one set of training rows.

    Args:
        reference: the detector in float64, with its rows.
        names: feature names.
        mean, scale: of the scaler.
        seed: of the choice of rows.
    """
    rng = np.random.default_rng(seed)
    rows = reference.rows[:_ROWS]
    evaluated = reference.evaluate(rows[:, np.newaxis])
    yield from row_drafts(rows, names, scale, rng)
    yield from _coinciding_drafts(reference, scale)
    yield from _tie_drafts(reference, rows, mean, scale, rng)
    yield from nearest_drafts(evaluated, rows)
    yield from spike_drafts(reference, typical_row(evaluated, rows), names, scale)


def _coinciding_drafts(reference: NeighborReference, scale: Floats) -> Iterator[Draft]:
    """Rows that have more than `n_neighbors` copies, so that their k-distance is 0 and their density the largest."""
    for k, place in enumerate(np.flatnonzero(reference.neighborhood.k_distance == 0)[:2]):
        row = reference.rows[place]
        for name, words, sample in (
            ("on", "A training row with more copies than neighbours: all distances are 0.", row),
            ("beside", "A thousandth of a scale beside a training row with many copies.", row + scale / 1000),
        ):
            yield Draft(f"copies/{k}/{name}", words, ("tie",), sample[np.newaxis], nudge=False)


def _tie_drafts(
    reference: NeighborReference, rows: Floats, mean: Floats, scale: Floats, rng: np.random.Generator
) -> Iterator[Draft]:
    found = 0
    for row, other in rows[rng.choice(len(rows), (_TRIES, 2))]:
        sample = _tied(reference, row + (other - row) / 3, mean, scale)
        if sample is None:
            continue
        yield Draft(
            f"tie/last/{found}",
            "Two training rows are equally far, to the last bit, and there is place for one among the neighbours: the "
            "one that comes first in training (LF2).",
            ("tie",),
            sample[np.newaxis],
            nudge=False,
        )
        found += 1
        if found == _TIES:
            return


def _tied(reference: NeighborReference, start: Floats, mean: Floats, scale: Floats) -> Floats | None:
    """A sample near `start` for which a row that is no neighbour is as far as the last neighbour, or None.

    It lies on the line from `start` to the first row that is no neighbour, where that row overtakes the last neighbour.
    """
    count = reference.neighborhood.n_neighbors
    rows = reference.neighborhood.scaled

    def squared(samples: Floats) -> Floats:
        return squared_distances(clamp_scaled(samples, mean, scale), rows)

    if len(rows) <= count:
        return None
    last, next_ = nearest(squared(start[np.newaxis]), count + 1).index[0, -2:]
    towards = reference.rows[next_] - start
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        distances = squared((start + middle * towards)[np.newaxis])[0]
        if distances[last] <= distances[next_]:
            low = middle
        else:
            high = middle
    edge = start + low * towards
    candidates = np.repeat(edge[np.newaxis], len(edge) * len(_STEPS), axis=0)
    for j in range(len(edge)):
        candidates[j * len(_STEPS) : (j + 1) * len(_STEPS), j] += _STEPS * np.spacing(edge[j])
    pair = squared_distances(clamp_scaled(candidates, mean, scale), rows[[last, next_]])
    for sample in candidates[pair[:, 0] == pair[:, 1]]:
        if nearest(squared(sample[np.newaxis]), count).tied[0]:
            return sample
    return None
