"""An ensemble of the references of its members (EN1 to EN8): what they would publish, joined in numpy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_training.detectors.base import Evaluation, Floats
from dwcp_training.golden.make import boundary_distance
from tests.conformance.cases import DETECTORS, ENSEMBLE
from tests.conformance.inputs import Source, Special, on_splits
from tests.conformance.reference.base import Reference
from tests.conformance.reference.classifier import ClassifierOracle
from tests.conformance.reference.dense import DenseOracle
from tests.conformance.reference.forest import ForestOracle
from tests.conformance.reference.lstm import LstmOracle
from tests.conformance.reference.mahalanobis import MahalanobisOracle
from tests.conformance.reference.neighbors import NeighborsOracle
from tests.conformance.reference.svm import SvmOracle

MEMBERS: dict[str, type[Reference]] = {
    "isolation_forest": ForestOracle,
    "lstm_autoencoder": LstmOracle,
    "dense_autoencoder": DenseOracle,
    "local_outlier_factor": NeighborsOracle,
    "one_class_svm": SvmOracle,
    "lstm_classifier": ClassifierOracle,
    "mahalanobis": MahalanobisOracle,
}
"""Detector that can be a member to its reference."""

_ALARM = 0.3
"""Where a member's threshold lies on the common scale (EN3, EN8)."""

_CLAMPED = "ensemble.v1"
"""The layout whose common scale ends at 1 (EN3)."""


@dataclass(frozen=True)
class _Member:
    """A member with its scale, anew from its own metadata. `high` is 0 where the scale has no upper end (EN8)."""

    reference: Reference
    weight: float
    low: float
    high: float

    @classmethod
    def of(cls, models: Path, entry: model_pb2.EnsembleMember, layout: str) -> "_Member":
        reference = MEMBERS[DETECTORS[entry.detector - 1]](models)
        low = float(np.median(np.array(reference.metadata.calibration.scores, np.float64)))
        high = low + (reference.metadata.threshold - low) / _ALARM if layout == _CLAMPED else 0.0
        return cls(reference, entry.weight, low, high)

    def evaluate(self, items: Floats) -> Evaluation:
        return self.reference.evaluate(items[:, -self.reference.timesteps :])

    def normalized(self, scores: Floats) -> Floats:
        above = _published(scores) - self.low
        if self.high:
            return np.clip(above / (self.high - self.low), 0.0, 1.0)
        u = np.clip(above / (self.reference.metadata.threshold - self.low), 0.0, None)
        return u / (u + 7 / 3)


class EnsembleOracle(Reference):
    """Weights and threshold from the metadata; scales from those of the members, which must be the same (EN3).

    Raises:
        ValueError: a scale of the metadata is another one.
    """

    def __init__(self, models: Path) -> None:
        super().__init__(models, ENSEMBLE)
        entries = [e for e in self.metadata.ensemble.members if DETECTORS[e.detector - 1] in self.served]
        self._members = [_Member.of(models, entry, self.metadata.graph.layout) for entry in entries]
        for entry, member in zip(entries, self._members, strict=True):
            if (entry.low, entry.high) != (member.low, member.high):
                name = member.reference.detector
                raise ValueError(f"{models}: {name} has the scale {entry.low!r} to {entry.high!r}, not {member}")

    def evaluate(self, items: Floats) -> Evaluation:
        said = [member.evaluate(items) for member in self._members]
        parts = [
            member.weight * member.normalized(evaluation.scores)
            for member, evaluation in zip(self._members, said, strict=True)
        ]
        total = _sum(parts)
        scores = total / sum(member.weight for member in self._members)
        blamed = _sum(
            [
                part[:, np.newaxis] * _published(evaluation.contributions)
                for part, evaluation in zip(parts, said, strict=True)
            ]
        )
        leaders = np.argmax(parts, axis=0)
        expected = np.choose(leaders[:, np.newaxis], [_published(evaluation.expected) for evaluation in said])
        return Evaluation(
            scores=scores,
            is_anomaly=self._decided(scores),
            contributions=np.divide(blamed, total[:, np.newaxis], out=np.zeros_like(blamed), where=blamed > 0),
            expected=expected,
            expected_is_stored=True,  # published already, by a member
        )

    def unsure(self, items: Floats, within: float) -> np.ndarray:
        """Whether a member may publish a neighbour (P2), which the ensemble then works with; bool `[n]`."""
        unsure = np.zeros(len(items), bool)
        for member in self._members:
            evaluation = member.evaluate(items)
            columns = [evaluation.scores[:, np.newaxis], evaluation.contributions]
            if not evaluation.expected_is_stored:
                columns.append(evaluation.expected)
            unsure |= (boundary_distance(np.concatenate(columns, axis=1)) <= within).any(axis=1)
        return unsure

    def source(self) -> Source:
        """Around the data that the members were trained on."""
        metadata = model_pb2.ModelMetadata()
        metadata.CopyFrom(self.metadata)
        metadata.scaler.CopyFrom(self._members[0].reference.metadata.scaler)
        return replace(super().source(), metadata=metadata)

    def _special(self) -> dict[str, Special]:
        special: dict[str, Special] = {}
        for member in self._members:
            source = member.reference.source()
            special |= {kind: partial(_at_the_end, make, source.timesteps) for kind, make in source.special.items()}
            if source.splits:
                special["row_on_split"] = partial(_last_on_split, source)
        return special


def _at_the_end(make: Special, timesteps: int, items: Floats, rng: np.random.Generator) -> Floats:
    """What a member needs to be tried with, in the samples that it scores."""
    items[:, -timesteps:] = make(items[:, -timesteps:].copy(), rng)
    return items


def _last_on_split(source: Source, items: Floats, rng: np.random.Generator) -> Floats:
    items[:, -1:] = on_splits(source, rng, len(items))
    return items


def _published(numbers: Floats) -> Floats:
    with np.errstate(over="ignore"):  # an expected value may be beyond float32 (P1)
        return numbers.astype(np.float32).astype(np.float64)


def _sum(parts: Sequence[Floats]) -> Floats:
    """One addition after the other (EN4)."""
    total = np.zeros_like(parts[0])
    for part in parts:
        total = total + part
    return total
