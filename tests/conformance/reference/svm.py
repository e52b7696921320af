"""One-class SVM in numpy, on the support vectors and weights of scikit-learn's model (SV1 to SV6)."""

import pickle
from pathlib import Path

import numpy as np

from dwcp_training.detectors.base import Evaluation, Floats, clamp_scaled, shares
from tests.conformance.inputs import Special
from tests.conformance.reference.base import Reference
from tests.conformance.reference.distances import around_rows, pieces, published_rows, squared_distances

_LEAST_INSIDE = 2.0**-100
"""What `inside` counts at least (SV2)."""


class SvmOracle(Reference):
    """Rate, support vectors and weights from the pickle; `1 - K` by `expm1` where graphs use `tanh` (SV3)."""

    def __init__(self, models: Path) -> None:
        super().__init__(models, "one_class_svm")
        self.model = pickle.loads(self._read("one_class_svm.pkl"))
        scaler = pickle.loads(self._read("one_class_svm_scaler.pkl"))
        self._mean, self._scale = scaler.mean_, scaler.scale_
        weights = self.model.dual_coef_.ravel()
        self._scaled: Floats = self.model.support_vectors_[weights > 0]
        self._alpha: Floats = weights[weights > 0]
        self._gamma = float(self.model._gamma)
        # Inputs are made around raw rows, and of these the pickle has none. Scores do not come from them.
        self._rows = published_rows(models / self.metadata.graph.file)
        if not np.array_equal(clamp_scaled(self._rows, self._mean, self._scale), self._scaled):
            raise ValueError(f"{models}: the rows of the graph are not the support vectors of scikit-learn's model")
        self._reference = np.array(self.metadata.reference_values)

    def inside(self, items: Floats) -> Floats:
        """Weighted sum of the kernel (SV2); scikit-learn's decision function is this less `rho`. float64 `[n]`."""
        return self._sums(clamp_scaled(items[:, -1], self._mean, self._scale))[0]

    def evaluate(self, items: Floats) -> Evaluation:
        scaled = clamp_scaled(items[:, -1], self._mean, self._scale)
        inside, outside = self._sums(scaled)
        scores = outside / np.maximum(inside, _LEAST_INSIDE)
        reference = clamp_scaled(self._reference, self._mean, self._scale)
        return Evaluation(
            scores=scores,
            is_anomaly=self._decided(scores),
            contributions=shares((scaled - reference) ** 2),
            expected=np.broadcast_to(self._reference, scaled.shape),
            expected_is_stored=True,
        )

    def sklearn_decisions(self, items: Floats) -> Floats:
        """scikit-learn's own decision function, below 0 where the sample is outside; float64 `[n]`."""
        return self.model.decision_function(clamp_scaled(items[:, -1], self._mean, self._scale))

    def _sums(self, scaled: Floats) -> tuple[Floats, Floats]:
        inside, outside = [], []
        for piece in pieces(scaled, self._scaled):
            u = squared_distances(piece, self._scaled) * self._gamma
            inside.append((np.exp(-u) * self._alpha).sum(axis=1))
            outside.append((-np.expm1(-u) * self._alpha).sum(axis=1))
        return np.concatenate(inside), np.concatenate(outside)

    def _special(self) -> dict[str, Special]:
        return {**around_rows(self._rows), "kernel": self._along_the_kernel}

    def _along_the_kernel(self, items: Floats, rng: np.random.Generator) -> Floats:
        """Away from a support vector, to kernel values from `1 - 1e-14` down to `exp(-900)` (SV2, SV3)."""
        starts = self._rows[rng.integers(len(self._rows), size=len(items))]
        directions = rng.normal(size=starts.shape)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        u = 10.0 ** rng.uniform(-14, np.log10(900), (len(items), 1))
        items[:, -1] = starts + np.sqrt(u / self._gamma) * directions * self._scale
        return items
