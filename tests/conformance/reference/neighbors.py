"""Local outlier factor by brute force in numpy, on the training rows of scikit-learn's model (LF1 to LF7)."""

import pickle
from pathlib import Path

import numpy as np

from dwcp_training.detectors.base import Evaluation, Floats, clamp_scaled, shares
from tests.conformance.inputs import Special
from tests.conformance.reference.base import Reference
from tests.conformance.reference.distances import around_rows, pieces, published_rows, squared_distances

_RAISE = 1e-10
"""Added to the mean of reach (LF3)."""

_BISECTIONS = 60


class NeighborsOracle(Reference):
    """k-distances and densities anew: every training row against every other.

    The pickle has scaled rows alone. The raw ones, of which expected values are means (LF6), are those of the
    graph, after a check that they scale to the pickle's to the last bit.
    """

    def __init__(self, models: Path) -> None:
        super().__init__(models, "local_outlier_factor")
        self.model = pickle.loads(self._read("local_outlier_factor.pkl"))
        scaler = pickle.loads(self._read("local_outlier_factor_scaler.pkl"))
        self._mean, self._scale = scaler.mean_, scaler.scale_
        self.scaled: Floats = self.model._fit_X
        self.rows = published_rows(models / self.metadata.graph.file)
        if not np.array_equal(clamp_scaled(self.rows, self._mean, self._scale), self.scaled):
            raise ValueError(f"{models}: the rows of the graph are not those that scikit-learn was fitted on")
        self.count: int = self.model.n_neighbors_
        every = np.arange(len(self.scaled))
        nearest, squared = self._nearest(self.scaled, itself=every)
        self.k_distance = np.sqrt(squared[:, -1])
        self.density = 1 / self._raised_reach(nearest, squared)

    def evaluate(self, items: Floats) -> Evaluation:
        scaled = clamp_scaled(items[:, -1], self._mean, self._scale)
        nearest, squared = self._nearest(scaled)
        scores = self._mean_of(self.density[nearest]) * self._raised_reach(nearest, squared)
        errors = ((scaled[:, np.newaxis] - self.scaled[nearest]) ** 2).sum(axis=1)
        return Evaluation(
            scores=scores,
            is_anomaly=self._decided(scores),
            contributions=shares(errors),
            expected=self._mean_of(self.rows[nearest]),
        )

    def sklearn_scores(self, items: Floats) -> Floats:
        """scikit-learn's own scores with their sign turned, for LF4; float64 `[n]`."""
        return -self.model.score_samples(clamp_scaled(items[:, -1], self._mean, self._scale))

    def ties(self, items: Floats) -> np.ndarray:
        """Whether two training rows tie for the last place among the neighbours; bool `[n]`."""
        scaled = clamp_scaled(items[:, -1], self._mean, self._scale)
        squared = np.sort(np.concatenate([squared_distances(p, self.scaled) for p in pieces(scaled, self.scaled)]))
        return squared[:, self.count - 1] == squared[:, self.count]

    def _nearest(self, scaled: Floats, itself: np.ndarray | None = None) -> tuple[np.ndarray, Floats]:
        """Neighbours (LF2) as `[n, neighbours]`: indices, and squared distances in ascending order."""
        indices, distances, done = [], [], 0
        for piece in pieces(scaled, self.scaled):
            squared = squared_distances(piece, self.scaled)
            if itself is not None:
                squared[np.arange(len(piece)), itself[done : done + len(piece)]] = np.inf
            order = np.argsort(squared, axis=1, kind="stable")[:, : self.count]
            indices.append(order)
            distances.append(np.take_along_axis(squared, order, axis=1))
            done += len(piece)
        return np.concatenate(indices), np.concatenate(distances)

    def _raised_reach(self, nearest: np.ndarray, squared: Floats) -> Floats:
        return self._mean_of(np.maximum(self.k_distance[nearest], np.sqrt(squared))) + _RAISE

    def _mean_of(self, values: Floats) -> Floats:
        return values.sum(axis=1) / self.count

    def _special(self) -> dict[str, Special]:
        return {**around_rows(self.rows), "tie": self._on_ties}

    def _on_ties(self, items: Floats, rng: np.random.Generator) -> Floats:
        """Moved to where the last neighbour and the next row are equally far, or a float64 step from there (LF2).

        The straight line from one of the two to the other is bisected; where rounding leaves an exact tie, it is hit.
        """
        if self.count == len(self.scaled):
            return items
        scaled = clamp_scaled(items[:, -1], self._mean, self._scale)
        order = np.concatenate(
            [np.argsort(squared_distances(p, self.scaled), axis=1, kind="stable") for p in pieces(scaled, self.scaled)]
        )
        last, following = order[:, self.count - 1], order[:, self.count]
        towards = self.rows[following] - self.rows[last]
        start, low, high = items[:, -1].copy(), np.zeros(len(items)), np.ones(len(items))
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            z = clamp_scaled(start + middle[:, np.newaxis] * towards, self._mean, self._scale)
            apart = _each(z, self.scaled[following]) - _each(z, self.scaled[last])
            # An exact tie ends its line: both ends stay there.
            low, high = np.where(apart >= 0, middle, low), np.where(apart <= 0, middle, high)
        items[:, -1] = start + low[:, np.newaxis] * towards
        return items


def _each(samples: Floats, rows: Floats) -> Floats:
    """LF1 of each sample and the row beside it; float64 `[n]`."""
    total = (samples[:, 0] - rows[:, 0]) ** 2
    for j in range(1, samples.shape[1]):
        total = total + (samples[:, j] - rows[:, j]) ** 2
    return total
