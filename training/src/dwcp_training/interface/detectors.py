"""The detectors, one class each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.calibrate import midpoint_threshold
from dwcp_training.detectors.base import Progress, silent
from dwcp_training.detectors.lstm_classifier import EVEN
from dwcp_training.interface.arrays import labels_for, table
from dwcp_training.interface.detector import Detector
from dwcp_training.profiles import LstmAutoencoderDefaults, LstmClassifierDefaults, MahalanobisDefaults
from dwcp_training.profiles.errors import ProfileError


class IsolationForestDetector(Detector):
    """Isolation forest: an anomaly is separated from the other rows by few random splits (IF1 to IF8)."""

    name = "isolation_forest"


class AutoencoderDetector(Detector):
    """Dense autoencoder: an anomaly is a row that the network cannot reconstruct (DA1 to DA6)."""

    name = "dense_autoencoder"


class LocalOutlierFactorDetector(Detector):
    """Local outlier factor: an anomaly lies apart from its neighbours, as they do not from theirs (LF1 to LF7)."""

    name = "local_outlier_factor"


class OneClassSVMDetector(Detector):
    """One-class SVM: an anomaly lies outside the boundary around the normal rows (SV1 to SV6)."""

    name = "one_class_svm"


class _SequenceDetector(Detector):
    """A detector with a window."""

    def __init__(
        self,
        input_dim: int | None = None,
        sequence_length: int | None = None,
        *,
        feature_names: Sequence[str] | None = None,
        profile: str | Path = "industrial",
        **hyperparameters: Any,
    ) -> None:
        if sequence_length is not None:
            if hyperparameters.get("window_size", sequence_length) != sequence_length:
                raise ProfileError("window_size", "differs from sequence_length.", "Give one of the two.")
            hyperparameters["window_size"] = sequence_length
        super().__init__(input_dim, feature_names=feature_names, profile=profile, **hyperparameters)

    @staticmethod
    def _length(settings: LstmAutoencoderDefaults | LstmClassifierDefaults) -> int:
        return settings.window_size

    @classmethod
    def of_set(cls, models: ModelSet) -> Self:
        detector = super().of_set(models)
        detector.settings = detector._with(detector.settings, {"window_size": detector.metadata.timesteps})
        return detector


class LSTMAutoencoderDetector(_SequenceDetector):
    """LSTM autoencoder: an anomaly is a sequence of rows that the network cannot reconstruct (LA1 to LA8).

    `train_model`, `compute_threshold` and `predict` take sequences `[n, sequence_length, features]`, with one score for
    each, or the rows of one unbroken series `[n, features]`, with one score for every full sequence in it,
    `n - sequence_length + 1` in all.

    Args:
        input_dim, feature_names, profile, hyperparameters: as of every detector.
        sequence_length: rows in a sequence; the hyperparameter `window_size` under its other name.
    """

    name = "lstm_autoencoder"


class LSTMDetector(_SequenceDetector):
    """LSTM classifier: an anomaly is a sequence that is like those with the label of one (LC1 to LC6).

    The one detector that learns from labels. Sequences, rows and arguments are as of `LSTMAutoencoderDetector`; the
    score is a probability.
    """

    name = "lstm_classifier"

    def train_model(
        self,
        X_train: ArrayLike,
        y_train: ArrayLike | None = None,
        *,
        progress: Progress = silent,
        **hyperparameters: Any,
    ) -> Self:
        """Trains on labelled sequences, the last of which are held out to stop early and to calibrate (C3).

        Args:
            X_train: `[n, sequence_length, features]` or rows `[n, features]`, oldest first, raw units.
            y_train: `[n]`: 1 for a sequence whose last row is anomalous, or for an anomalous row; 0 for normal.
            progress, hyperparameters: as of every detector.

        Returns:
            The detector itself.

        Raises:
            DataError: as of every detector; or there are no labels, or one class alone, of all or of those held out.
            ProfileError, MissingLibraryError, ExportFailedError: as of every detector.
        """
        settings = self._with(self.settings, hyperparameters)
        values = table(X_train, "X_train", self._length(settings))
        return self._train(values, labels_for(y_train, "y_train", values), settings, progress)

    def compute_threshold(
        self, X: ArrayLike, percentile: float | None = None, contamination: float | None = None
    ) -> float:
        """As of every detector; without percentile and contamination it is what training used: a probability of one
        half, or the `threshold_percentile` that was asked for."""
        if percentile is None and contamination is None and self.settings.threshold_percentile is None:
            fitted = self._movable()
            self.predict(X)  # refuses what it would refuse with a percentile
            threshold = midpoint_threshold(EVEN)
            self._move(fitted, threshold, "a probability of one half")
            return threshold
        return super().compute_threshold(X, percentile, contamination)

    @staticmethod
    def _threshold_at(trained: float, scores: NDArray[np.float64]) -> float:
        threshold = midpoint_threshold(trained, scores)
        if threshold >= 1:
            raise ValueError("no probability is above")
        return threshold

    def _note_percentile(self, metadata: model_pb2.ModelMetadata, percentile: float, count: int) -> None:
        """The training record has it, and nothing else."""


class MahalanobisDetector(Detector):
    """Mahalanobis distance: an anomaly lies far from normal rows, as their covariance counts it, by itself or with the
    rows before it (MD1 to MD7).

    Rows, sequences and scores are as of `LSTMAutoencoderDetector`; with `lags=0` it takes single rows alone. A profile
    whose metrics have critical values makes them alarms; those limits move with the threshold (MD3).

    Example:
        >>> import numpy as np
        >>> both = np.random.default_rng(0).normal(size=(600, 1)) @ np.ones((1, 2))
        >>> X_train = both + np.random.default_rng(1).normal(scale=0.1, size=(600, 2))
        >>> detector = MahalanobisDetector(lags=0).train_model(X_train)
        >>> scores, labels = detector.predict([[1.5, 1.5], [1.5, -1.5]])
        >>> labels
        array([0, 1])

    Args:
        input_dim, feature_names, profile, hyperparameters: as of every detector.
        sequence_length: rows in a sequence: one more than the hyperparameter `lags`.
    """

    name = "mahalanobis"

    def __init__(
        self,
        input_dim: int | None = None,
        sequence_length: int | None = None,
        *,
        feature_names: Sequence[str] | None = None,
        profile: str | Path = "industrial",
        **hyperparameters: Any,
    ) -> None:
        if sequence_length is not None:
            if hyperparameters.get("lags", sequence_length - 1) != sequence_length - 1:
                raise ProfileError("lags", "is not one less than sequence_length.", "Give one of the two.")
            hyperparameters["lags"] = sequence_length - 1
        super().__init__(input_dim, feature_names=feature_names, profile=profile, **hyperparameters)

    @staticmethod
    def _length(settings: MahalanobisDefaults) -> int | None:
        return settings.lags + 1 if settings.lags else None

    @classmethod
    def of_set(cls, models: ModelSet) -> Self:
        detector = super().of_set(models)
        timesteps = detector.metadata.timesteps if detector.metadata.HasField("timesteps") else 1
        detector.settings = detector._with(detector.settings, {"lags": timesteps - 1})
        return detector


SINGLE: dict[str, type[Detector]] = {
    kind.name: kind
    for kind in (
        IsolationForestDetector,
        LSTMAutoencoderDetector,
        AutoencoderDetector,
        LocalOutlierFactorDetector,
        OneClassSVMDetector,
        LSTMDetector,
        MahalanobisDetector,
    )
}
"""Name of a detector in the contract to its class: of all that can be members of an ensemble."""
