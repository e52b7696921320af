"""What all others are held against: scikit-learn, Keras and plain numpy in float64, from the by-products of training.

No exported graph computes anything here. Pickles are read: this is a test, not a serving process (A7).
"""

from pathlib import Path

from tests.conformance.reference.base import MissingByproductError, Reference, Wanted, joined_evaluation
from tests.conformance.reference.dense import DenseOracle
from tests.conformance.reference.forest import ForestOracle
from tests.conformance.reference.lstm import LstmOracle
from tests.conformance.reference.neighbors import NeighborsOracle
from tests.conformance.reference.svm import SvmOracle
from tests.conformance.sets import detectors_of

__all__ = ["REFERENCES", "MissingByproductError", "Reference", "Wanted", "joined_evaluation", "references_of"]

REFERENCES: dict[str, type[Reference]] = {
    "isolation_forest": ForestOracle,
    "lstm_autoencoder": LstmOracle,
    "dense_autoencoder": DenseOracle,
    "local_outlier_factor": NeighborsOracle,
    "one_class_svm": SvmOracle,
}
"""Detector to its reference."""


def references_of(models: Path) -> dict[str, Reference]:
    """The references of all detectors of a set, by name.

    Raises:
        MissingByproductError: when a by-product is not there.
    """
    return {detector: REFERENCES[detector](models) for detector in detectors_of(models)}
