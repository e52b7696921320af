"""Mahalanobis distance by numpy alone, from the covariances that training estimated (MD1 to MD7).

No triangular factor of the graph is read: distances come from eigenvectors, and expected values from solving the
equations of the conditional mean. The limits are those of the metadata, which nothing else says.
"""

import io
import pickle
from pathlib import Path

import numpy as np

from dwcp_training.detectors.base import Evaluation, Floats, clamp_scaled, shares
from tests.conformance.inputs import Special
from tests.conformance.reference.base import Reference

_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
"""No score is above it (MD3)."""

_BISECTIONS = 60


class MahalanobisOracle(Reference):
    """Covariances and scaler from the by-products; ridge, limits and threshold from the metadata."""

    def __init__(self, models: Path) -> None:
        super().__init__(models, "mahalanobis")
        scaler = pickle.loads(self._read("mahalanobis_scaler.pkl"))
        self._mean, self._scale = scaler.mean_, scaler.scale_
        own = self.metadata.mahalanobis
        self._start, self._slope = np.array(own.limit_start), np.array(own.limit_slope)
        with np.load(io.BytesIO(self._read("mahalanobis.npz"))) as file:
            covariances = {name: file[name] for name in file.files}
        if ("window" in covariances) != (self.timesteps > 1):
            raise ValueError(f"{models}: mahalanobis.npz has {sorted(covariances)} for {self.timesteps} samples")
        self._whitening = {name: _whitening(values, own.ridge) for name, values in covariances.items()}
        form = self._whitening["row"] @ self._whitening["row"].T
        width = len(form)
        if self.timesteps > 1:
            whole = self._whitening["window"] @ self._whitening["window"].T / self.timesteps
            whole[-width:, -width:] += form
            form = whole / 2
        self._form = form / width
        """The squared distance is `w form w'`."""
        self._regression = np.stack([self._coefficients(j) for j in range(width)], axis=1)

    def distances(self, items: Floats) -> Floats:
        """MD2 for raw items `[n, timesteps, features]`; float64 `[n]`."""
        return self._distances(self._scaled(items))

    def evaluate(self, items: Floats) -> Evaluation:
        flat = self._scaled(items)
        z = flat[:, -len(self.names) :]
        distance = self._distances(flat)
        terms = self._terms(z)
        limit = terms.max(axis=1)
        scores = np.minimum(np.maximum(distance, limit), _LARGEST_FLOAT32)
        expected = flat @ self._regression
        gains = np.diagonal(self._form)[-len(self.names) :] * (z - expected) ** 2
        with np.errstate(over="ignore"):
            raw = expected * self._scale + self._mean
        return Evaluation(
            scores=scores,
            is_anomaly=self._decided(scores),
            contributions=_rounded(shares(np.where((limit > distance)[:, np.newaxis], terms, gains))),
            expected=raw,
        )

    def _scaled(self, items: Floats) -> Floats:
        return clamp_scaled(items, self._mean, self._scale).reshape(len(items), -1)

    def _distances(self, flat: Floats) -> Floats:
        width = len(self.names)
        row = np.mean((flat[:, -width:] @ self._whitening["row"]) ** 2, axis=1)
        if self.timesteps == 1:
            return np.sqrt(row)
        return np.sqrt((row + np.mean((flat @ self._whitening["window"]) ** 2, axis=1)) / 2)

    def _terms(self, z: Floats) -> Floats:
        terms = self._slope * (z - self._start)
        return np.where(terms > 0, terms, 0.0)

    def _coefficients(self, j: int) -> Floats:
        """Column `j` of `E` (MD4): the slope of the form in value `j` of the last sample is 0 at the mean."""
        own = len(self._form) - len(self.names) + j
        column = -self._form[:, own] / self._form[own, own]
        column[own] = 0.0
        return column

    def _special(self) -> dict[str, Special]:
        return {"turn": self._on_turns} if self._slope.any() else {}

    def _on_turns(self, items: Floats, rng: np.random.Generator) -> Floats:
        """One metric of the last sample moved to where its limit takes over from the distance, or next to it (MD3)."""
        metrics = rng.choice(np.flatnonzero(self._slope), len(items))
        every = np.arange(len(items))
        sign = np.sign(self._slope[metrics])
        low, high = np.zeros(len(items)), np.full(len(items), 1e4)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            items[every, -1, metrics] = self._beyond(metrics, sign * middle)
            flat = self._scaled(items)
            decides = self._terms(flat[:, -len(self.names) :]).max(axis=1) > self._distances(flat)
            low, high = np.where(decides, low, middle), np.where(decides, middle, high)
        # A part in a million beside it: where both are equal but for rounding either may decide, and so may the shares.
        items[every, -1, metrics] = self._beyond(metrics, sign * low * (1 + rng.choice([-1e-6, 1e-6], len(items))))
        return items

    def _beyond(self, metrics: np.ndarray, steps: Floats) -> Floats:
        """Raw values so many scales beyond the start of the limits of these metrics."""
        return self._mean[metrics] + (self._start[metrics] + steps) * self._scale[metrics]


def _rounded(shares: Floats) -> Floats:
    """To multiples of 2^-24 (MD5)."""
    return np.ldexp(np.rint(np.ldexp(shares, 24)), -24)


def _whitening(covariance: Floats, ridge: float) -> Floats:
    """A matrix `A` with `A A' = inv(covariance + ridge I)`, of eigenvectors, float64 like `covariance`."""
    variances, directions = np.linalg.eigh(covariance + ridge * np.eye(len(covariance)))
    return directions / np.sqrt(variances)
