"""What the references of all detectors share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf import json_format

from dwcp.anomaly.v1 import model_pb2
from dwcp_training.detectors.base import Evaluation, Floats
from tests.conformance.cases import DETECTORS, Case, Samples, is_plain, last_window
from tests.conformance.contract import Fault, fault_of, read_request
from tests.conformance.inputs import Source, Special
from tests.conformance.sets import METADATA, detectors_of


class MissingByproductError(RuntimeError):
    """The set has no by-products to hold it against; the message says what to do."""


@dataclass(frozen=True)
class Wanted:
    """Answers of the reference for `n` cases of one detector.

    Attributes:
        faults: the refusal of each case, or None.
        scored: index of each scored case, int64 `[m]`.
        evaluation: unrounded answers for these `m` cases.
    """

    faults: list[Fault | None]
    scored: np.ndarray
    evaluation: Evaluation


def joined_evaluation(parts: Sequence[Evaluation], rows: np.ndarray | slice = slice(None)) -> Evaluation:
    """Evaluations of one detector one after the other, and of these some rows."""
    columns = {}
    for name, first in vars(parts[0]).items():
        is_column = isinstance(first, np.ndarray)
        columns[name] = np.concatenate([getattr(part, name) for part in parts])[rows] if is_column else first
    return Evaluation(**columns)


class Reference:
    """The float64 reference of one detector.

    Args:
        models: folder of the model set with its by-products.
        detector: its name.

    Raises:
        MissingByproductError: when a by-product is not there.
    """

    def __init__(self, models: Path, detector: str) -> None:
        self.detector = detector
        self._folder = models
        self.metadata = model_pb2.ModelMetadata()
        json_format.Parse(self._read(METADATA[detector]), self.metadata)
        self.names = list(self.metadata.feature_names)
        self.timesteps = self.metadata.timesteps or 1
        self.exact = self.metadata.parity_class == model_pb2.PARITY_CLASS_EXACT
        self.served = detectors_of(models)

    def evaluate(self, items: Floats) -> Evaluation:
        """Evaluates finite raw items, float64 `[n, timesteps, features]`."""
        raise NotImplementedError

    def unsure(self, items: Floats, within: float) -> np.ndarray:
        """Whether the answer depends on a published number that is within a relative distance of the midpoint of two
        float32 numbers, so that another implementation may have worked with its neighbour (P2); bool `[n]`.
        """
        return np.zeros(len(items), bool)

    def items_of(self, cases: Sequence[Case]) -> Floats:
        """What is scored of cases that cannot be refused, float64 `[n, timesteps, features]`."""
        return np.stack([last_window(_samples_of(case), self.timesteps) for case in cases])

    def source(self) -> Source:
        """What inputs for this detector are made from."""
        absent = tuple(name for name in DETECTORS if name not in self.served)
        return Source(self.metadata, lambda items: self.evaluate(items).is_anomaly, absent, self._special())

    def _special(self) -> dict[str, Special]:
        """Makers of the inputs that only this detector needs."""
        return {}

    def answer(self, cases: Sequence[Case]) -> Wanted:
        """Answers of all cases; those that must be refused are found by the rules E2 and E5 alone."""
        faults: list[Fault | None] = []
        scored, items = [], []
        for i, case in enumerate(cases):
            samples, fault = case.samples, None
            if not is_plain(case, len(self.names), self.timesteps):
                request = read_request(case.line)
                if isinstance(request, Fault):
                    fault = request
                else:
                    detector, samples = request
                    fault = fault_of(detector, samples, self.names, self.timesteps, self.served)
            faults.append(fault)
            if fault is None:
                scored.append(i)
                items.append(last_window(samples, self.timesteps))
        if not items:
            raise ValueError(f"none of {len(cases)} cases of {self.detector} is to be scored: nothing would be proved")
        return Wanted(faults, np.array(scored), self.evaluate(np.stack(items)))

    def _decided(self, scores: Floats) -> np.ndarray:
        """`score > threshold` on published scores (D1); bool `[n]`."""
        return scores.astype(np.float32).astype(np.float64) > self.metadata.threshold

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise MissingByproductError(
                f"{self._folder / name}: {error.strerror}. The judge needs the by-products of training beside the set: "
                "train it here, or name a folder that has them."
            ) from None


def _samples_of(case: Case) -> Samples:
    if case.raw is None and case.samples is not None:
        return case.samples
    request = read_request(case.line)
    assert not isinstance(request, Fault), case.id
    return request[1]
