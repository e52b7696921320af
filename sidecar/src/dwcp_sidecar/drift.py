"""Whether recent rows are distributed as the training rows were: PSI and Wasserstein distance (rules DR1 to DR5)."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar import detectors

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

_LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Bins:
    """How the training rows of one feature were distributed (DR1).

    Attributes:
        edges: float64 `[n]`, ascending, raw units.
        counts: int64 `[n + 1]`, training rows in each bin.
        scale: standard deviation of the training rows, raw units, above 0.
    """

    edges: Floats
    counts: Counts
    scale: float

    @cached_property
    def rows(self) -> int:
        """Number of training rows."""
        return int(self.counts.sum())

    @cached_property
    def _groups(self) -> NDArray[np.intp]:
        """First bin of each group of DR2: the first bin, joined inner ones, the last bin."""
        starts, last = [0], len(self.edges)
        held, begin = 0, 1
        for i in range(1, last):
            held += int(self.counts[i])
            if 10 * held >= self.rows:
                starts.append(begin)
                held, begin = 0, i + 1
        if begin < last and len(starts) == 1:  # only where nearly all rows lie in the first and the last bin
            starts.append(begin)
        # Inner bins that are left over have no start of their own: they belong to the group before them.
        return np.array([*starts, last])

    @cached_property
    def _shares(self) -> Floats:
        """Share of the training rows up to each edge, float64 `[n]`."""
        return np.cumsum(self.counts)[:-1] / self.rows

    def place(self, values: Floats) -> NDArray[np.intp]:
        """The bin of each value (DR1), same shape."""
        return np.searchsorted(self.edges, values, side="left")

    def beyond(self, values: Floats) -> float:
        """Sum of the distances of values below the first and above the last edge, raw units."""
        low, high = self.edges[0], self.edges[-1]
        with np.errstate(over="ignore"):
            return float((low - values[values < low]).sum() + (values[values > high] - high).sum())

    def psi(self, counts: Counts) -> Floats:
        """Population stability index (DR2).

        Args:
            counts: recent rows in each bin, int64 `[..., n + 1]`, at least one in all.

        Returns:
            float64 `[...]`, 0 or more.
        """
        recent, training = (_smoothed(np.add.reduceat(part, self._groups, axis=-1)) for part in (counts, self.counts))
        index: Floats = ((recent - training) * np.log(recent / training)).sum(axis=-1)
        return index

    def wasserstein(self, counts: Counts, beyond: float | Floats = 0.0) -> Floats:
        """Wasserstein distance in training standard deviations (DR3).

        Source: the area between two distribution functions, Vallender: Calculation of the Wasserstein distance between
        probability distributions on the line, 1974.

        Args:
            counts: as of `psi`.
            beyond: sum of the distances of recent rows beyond the edges, `[...]`.

        Returns:
            float64 `[...]`, finite.
        """
        rows = counts.sum(axis=-1)
        apart = np.abs(np.cumsum(counts, axis=-1)[..., :-1] / rows[..., np.newaxis] - self._shares)
        between = ((apart[..., 1:] + apart[..., :-1]) / 2 * np.diff(self.edges)).sum(axis=-1)
        with np.errstate(over="ignore"):
            return np.minimum((between + beyond / rows) / self.scale, _LARGEST)


def _smoothed(counts: Counts) -> Floats:
    """Shares of the groups, none of them 0 (DR2)."""
    return (counts + 0.5) / (counts.sum(axis=-1, keepdims=True) + 0.5 * counts.shape[-1])


@dataclass(frozen=True)
class FeatureDrift:
    """What recent rows of one feature are compared to. Critical values as of `Reference.compare`.

    Attributes:
        name: of the feature.
        psi, wasserstein: the statistics (DR2, DR3).
        psi_critical, wasserstein_critical: what rows without drift exceed at the nominal rate (DR4).
        drifted: whether a statistic exceeds both its critical value and its threshold (DR5).
    """

    name: str
    psi: float
    psi_critical: float
    wasserstein: float
    wasserstein_critical: float
    drifted: bool


@dataclass(frozen=True)
class Reference:
    """What recent rows are compared with, for all features of a model.

    Attributes:
        names: of the features, in schema order.
        features: their bins.
        sizes: int64 `[s]`, ascending numbers of rows.
        psi_critical, wasserstein_critical: float64 `[features, s]` (DR4).
        rate: share of comparisons without drift in which any feature exceeds its critical value.
        psi_threshold, wasserstein_threshold: statistics up to these are no drift.
    """

    names: tuple[str, ...]
    features: tuple[Bins, ...]
    sizes: Counts
    psi_critical: Floats
    wasserstein_critical: Floats
    rate: float
    psi_threshold: float
    wasserstein_threshold: float

    @classmethod
    def of(cls, metadata: model_pb2.ModelMetadata) -> "Reference | None":
        """That of audited metadata; None where they have none."""
        if not metadata.HasField("drift"):
            return None
        drift = metadata.drift
        return cls(
            names=tuple(metadata.feature_names),
            features=tuple(Bins(np.array(f.edges), np.array(f.counts, np.int64), f.scale) for f in drift.features),
            sizes=np.array(drift.sizes, np.int64),
            psi_critical=np.array([feature.psi_critical for feature in drift.features]),
            wasserstein_critical=np.array([feature.wasserstein_critical for feature in drift.features]),
            rate=drift.rate,
            psi_threshold=drift.psi_threshold,
            wasserstein_threshold=drift.wasserstein_threshold,
        )

    @property
    def rows(self) -> int:
        """Number of training rows."""
        return self.features[0].rows

    @property
    def least(self) -> int:
        """Fewer rows than these are not compared (DR4)."""
        return int(self.sizes[0])

    def message(self) -> model_pb2.DriftReference:
        """As it stands in metadata."""
        return model_pb2.DriftReference(
            features=[
                model_pb2.DriftFeature(
                    edges=bins.edges, counts=bins.counts, scale=bins.scale, psi_critical=psi, wasserstein_critical=far
                )
                for bins, psi, far in zip(self.features, self.psi_critical, self.wasserstein_critical, strict=True)
            ],
            sizes=self.sizes,
            rate=self.rate,
            psi_threshold=self.psi_threshold,
            wasserstein_threshold=self.wasserstein_threshold,
        )

    def with_thresholds(self, psi: float | None, wasserstein: float | None) -> "Reference":
        """The same with other thresholds, where they are given."""
        return replace(
            self,
            psi_threshold=self.psi_threshold if psi is None else psi,
            wasserstein_threshold=self.wasserstein_threshold if wasserstein is None else wasserstein,
        )

    def critical(self, rows: int) -> tuple[Floats, Floats]:
        """Critical PSI and distance for so many recent rows, at least `least` (DR4), float64 `[features]` each."""
        k = int(np.searchsorted(self.sizes, rows, side="right")) - 1
        psi, far = self.psi_critical, self.wasserstein_critical
        if k == len(self.sizes) - 1:
            return psi[:, k], far[:, k]
        low, high = math.log(self.sizes[k]), math.log(self.sizes[k + 1])
        share = (math.log(rows) - low) / (high - low)
        return psi[:, k] + share * (psi[:, k + 1] - psi[:, k]), far[:, k] + share * (far[:, k + 1] - far[:, k])

    def compare(self, recent: "Sketch") -> list[FeatureDrift]:
        """Compares recent rows, at least `least`, feature by feature in schema order."""
        psi_critical, far_critical = self.critical(recent.rows)
        found = []
        for j, (name, bins) in enumerate(zip(self.names, self.features, strict=True)):
            psi = float(bins.psi(recent.counts[j]))
            far = float(bins.wasserstein(recent.counts[j], recent.beyond[j]))
            least_psi, least_far = float(psi_critical[j]), float(far_critical[j])
            drifted = psi > max(least_psi, self.psi_threshold) or far > max(least_far, self.wasserstein_threshold)
            found.append(FeatureDrift(name, psi, least_psi, far, least_far, drifted))
        return found


class Sketch:
    """Recent rows, as far as they matter: counts of bins and distances beyond the edges. Rows come in pieces.

    Args:
        reference: whose bins are counted.

    Attributes:
        rows: how many came.
        counts: for each feature, rows in each bin.
        beyond: for each feature, the sum of the distances beyond its edges.
    """

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self.rows = 0
        self.counts: list[Counts] = [np.zeros(len(bins.counts), np.int64) for bins in reference.features]
        self.beyond = [0.0] * len(reference.features)

    def add(self, rows: Floats) -> "Sketch":
        """Takes raw finite rows, float64 `[n, features]`, in schema order."""
        self.rows += len(rows)
        for j, bins in enumerate(self._reference.features):
            values = np.ascontiguousarray(rows[:, j])
            self.counts[j] += np.bincount(bins.place(values), minlength=len(bins.counts))
            self.beyond[j] += bins.beyond(values)
        return self


def references(metadata: Mapping[str, model_pb2.ModelMetadata], names: Iterable[str]) -> dict[str, Reference]:
    """Detector to reference, of those detectors that have one.

    An ensemble has that of its first member that has one: all of them score the same rows (DR6).

    Args:
        metadata: detector to audited metadata, of a set.
        names: the detectors that are asked for.
    """
    found = {}
    for name in names:
        own = [name, *(detectors.NAMES[member.detector] for member in metadata[name].ensemble.members)]
        there = (Reference.of(metadata[other]) for other in own if other in metadata)
        reference = next(filter(None, there), None)
        if reference is not None:
            found[name] = reference
    return found
