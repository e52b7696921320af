"""One Python interface over all detectors: `train_model`, `compute_threshold`, `predict`, `save`, `load` (S4-1).

Arrays in, arrays out. What is saved is a model set, the same that `dwcp train` writes; what is loaded is opened and
verified as a server does it, and nothing is ever unpickled (A7). Scores come from the serving core, so they have the
same bits here, in the sidecars and in Go (P2).

Example:
    >>> import numpy as np
    >>> from dwcp_training.interface import IsolationForestDetector
    >>> X_train = np.random.default_rng(0).normal(size=(400, 5))
    >>> detector = IsolationForestDetector(n_estimators=20)
    >>> _ = detector.train_model(X_train)
    >>> scores, labels = detector.predict(np.array([X_train.mean(axis=0), [9.0, -9.0, 9.0, -9.0, 9.0]]))
    >>> labels
    array([0, 1])

    A detector that has learned nothing yet says so:

    >>> IsolationForestDetector().predict(X_train)  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    dwcp_training.interface.errors.NotTrainedError: predict: IsolationForestDetector has no model yet.
        Call train_model(X) or IsolationForestDetector.load(folder) first.

Sequences for a detector that looks at windows:

    >>> from dwcp_training.interface import create_sequences
    >>> X_seq, y_seq = create_sequences(X_train, np.zeros(400), sequence_length=100)
    >>> X_seq.shape, y_seq.shape
    ((301, 100, 5), (301,))
"""

from dwcp_training.interface.detector import Detector
from dwcp_training.interface.detectors import (
    SINGLE,
    AutoencoderDetector,
    IsolationForestDetector,
    LocalOutlierFactorDetector,
    LSTMAutoencoderDetector,
    LSTMDetector,
    MahalanobisDetector,
    OneClassSVMDetector,
)
from dwcp_training.interface.ensemble import BY_NAME, EnsembleDetector
from dwcp_training.interface.errors import DetectorError, ExportFailedError, NoThresholdError, NotTrainedError
from dwcp_training.interface.sequences import create_sequences

__all__ = [
    "BY_NAME",
    "SINGLE",
    "AutoencoderDetector",
    "Detector",
    "DetectorError",
    "EnsembleDetector",
    "ExportFailedError",
    "IsolationForestDetector",
    "LSTMAutoencoderDetector",
    "LSTMDetector",
    "LocalOutlierFactorDetector",
    "MahalanobisDetector",
    "NoThresholdError",
    "NotTrainedError",
    "OneClassSVMDetector",
    "create_sequences",
]
