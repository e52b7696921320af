"""What each detector's metadata and graphs must have: one line each, the checks in a file for each detector."""

from collections.abc import Callable
from dataclasses import dataclass, field

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit import classifier, dense, ensemble, forest, lstm, mahalanobis, neighbors, svm
from dwcp_sidecar.audit.checks import GraphAudit, Require


@dataclass(frozen=True)
class Parameters:
    """What only some detectors have in their metadata; all other such fields must be unset (A3).

    Attributes:
        required: fields that are set.
        optional: fields that may be set.
        check: refuses values that contradict each other or the contract.
    """

    required: frozenset[str]
    check: Callable[[model_pb2.ModelMetadata, Require], None]
    optional: frozenset[str] = field(default=frozenset())


@dataclass(frozen=True)
class Layout:
    """A form of graph (G2).

    Attributes:
        detector: whose graphs have it.
        precision: the arithmetic inside.
        exact: whether such a model may be in the EXACT class.
        audit: checks initializers and, for a forest, its trees.
    """

    detector: str
    precision: str
    exact: bool
    audit: Callable[[GraphAudit], None]


PARAMETERS: dict[str, Parameters] = {
    "isolation_forest": Parameters(frozenset({"forest", "n_estimators", "contamination"}), forest.check_parameters),
    "lstm_autoencoder": Parameters(frozenset({"lstm", "timesteps"}), lstm.check_parameters),
    "dense_autoencoder": Parameters(frozenset({"dense"}), dense.check_parameters),
    "local_outlier_factor": Parameters(frozenset({"neighbors", "contamination"}), neighbors.check_parameters),
    "one_class_svm": Parameters(frozenset({"svm"}), svm.check_parameters, frozenset({"contamination"})),
    "lstm_classifier": Parameters(frozenset({"classifier", "timesteps"}), classifier.check_parameters),
    # It has a window when one of its members has (EN6).
    ensemble.NAME: Parameters(frozenset({"ensemble"}), ensemble.check_parameters, frozenset({"timesteps"})),
    # It scores a window where it has timesteps, else one sample (MD1).
    "mahalanobis": Parameters(
        frozenset({"mahalanobis"}), mahalanobis.check_parameters, frozenset({"timesteps", "contamination"})
    ),
}
"""Detector to the parameters of its metadata."""

LAYOUTS: dict[str, Layout] = {
    "forest.v1": Layout("isolation_forest", "float64", True, forest.audit),
    "lstm.v1": Layout("lstm_autoencoder", "float64", True, lstm.audit),
    "lstm.float32.v1": Layout("lstm_autoencoder", "float32", False, lstm.audit),
    "lstm.int8.v1": Layout("lstm_autoencoder", "int8", False, lstm.audit),
    "dense.v1": Layout("dense_autoencoder", "float64", True, dense.audit),
    "dense.int8.v1": Layout("dense_autoencoder", "int8", False, dense.audit),
    "neighbors.v1": Layout("local_outlier_factor", "float64", True, neighbors.audit),
    "svm.v1": Layout("one_class_svm", "float64", True, svm.audit),
    "classifier.v1": Layout("lstm_classifier", "float64", True, classifier.audit),
    "mahalanobis.v1": Layout("mahalanobis", "float64", True, mahalanobis.audit),
}
"""Name to layout, those of G2. An ensemble has no graph (EN7)."""
