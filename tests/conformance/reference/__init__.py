"""What all others are held against: scikit-learn, Keras and plain numpy in float64, from the by-products of training.

No exported graph computes anything here. Pickles are read: this is a test, not a serving process (A7).
"""

from pathlib import Path

from tests.conformance.cases import ENSEMBLE
from tests.conformance.reference.base import MissingByproductError, Reference, Wanted, joined_evaluation
from tests.conformance.reference.ensemble import MEMBERS, EnsembleOracle
from tests.conformance.sets import detectors_of

__all__ = ["REFERENCES", "MissingByproductError", "Reference", "Wanted", "joined_evaluation", "references_of"]

REFERENCES: dict[str, type[Reference]] = {**MEMBERS, ENSEMBLE: EnsembleOracle}
"""Detector to its reference."""


def references_of(models: Path) -> dict[str, Reference]:
    """The references of all detectors of a set, by name.

    Raises:
        MissingByproductError: when a by-product is not there.
    """
    return {detector: REFERENCES[detector](models) for detector in detectors_of(models)}
