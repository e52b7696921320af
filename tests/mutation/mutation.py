"""One kind of damage to a model set, and the refusals that are right for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx

from tests.conformance.cases import DETECTORS, ENSEMBLE
from tests.mutation.set_copy import METADATA, SetCopy

GOLDEN = {detector: f"{detector}.golden.json" for detector in DETECTORS}
GRAPH = {detector: f"{detector}.onnx" for detector in DETECTORS if detector != ENSEMBLE}

Refusals = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Mutation:
    """One kind of damage.

    Attributes:
        name: path-like.
        detector: whose set is damaged.
        apply: damages a copy.
        refusals: code and file of each right refusal. Mostly one; two where readers differ in what they audit
            before the golden vectors run.
        scores: whether its graph must then disagree with the reference on the golden vectors.
        answers: whether its golden answers must then disagree with it.
    """

    name: str
    detector: str
    apply: Callable[[SetCopy], None]
    refusals: Refusals
    scores: bool = False
    answers: bool = False


@dataclass(frozen=True)
class Makers:
    """Make the mutations of one detector, `prefix` before their names."""

    detector: str
    prefix: str

    def everywhere(
        self, name: str, change: Callable[[SetCopy], object], refusals: Refusals, scores: bool = True
    ) -> Mutation:
        """Of anything in the set."""
        return Mutation(f"{self.prefix}/{name}", self.detector, change, refusals, scores)

    def graph(
        self, name: str, change: Callable[[onnx.ModelProto], object], refusals: Refusals, scores: bool = True
    ) -> Mutation:
        """Of the graph alone."""
        return self.everywhere(name, lambda copy: copy.edit_graph(self.detector, change), refusals, scores)

    def metadata(
        self, name: str, change: Callable[[dict[str, Any]], object], refusals: Refusals, scores: bool = False
    ) -> Mutation:
        """Of the metadata alone, which compute no scores but those of an ensemble."""
        return self.everywhere(name, lambda copy: copy.edit_json(METADATA[self.detector], change), refusals, scores)


def found(detector: str, *, audit_may: bool = False) -> Refusals:
    """Found by a golden vector, or also by an audit of the graph's nodes."""
    refusals = (("GOLDEN_MISMATCH", GOLDEN[detector]),)
    return (*refusals, ("GRAPH_INVALID", GRAPH[detector])) if audit_may else refusals


def audited(detector: str) -> Refusals:
    """Found by the audit of the graph."""
    return (("GRAPH_INVALID", GRAPH[detector]),)


def contradiction(detector: str) -> Refusals:
    """Found by the audit of the metadata."""
    return (("METADATA_INVALID", METADATA[detector]),)
