"""The detectors, one class each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from dwcp_training.interface.detector import Detector
from dwcp_training.profiles import LstmAutoencoderDefaults
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


class LSTMAutoencoderDetector(Detector):
    """LSTM autoencoder: an anomaly is a sequence of rows that the network cannot reconstruct (LA1 to LA8).

    `train_model`, `compute_threshold` and `predict` take sequences `[n, sequence_length, features]`, with one score for
    each, or the rows of one unbroken series `[n, features]`, with one score for every full sequence in it,
    `n - sequence_length + 1` in all.

    Args:
        input_dim, feature_names, profile, hyperparameters: as of every detector.
        sequence_length: rows in a sequence; the hyperparameter `window_size` under its other name.
    """

    name = "lstm_autoencoder"

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
    def _length(settings: LstmAutoencoderDefaults) -> int:
        return settings.window_size

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        detector = super().load(folder)
        detector.settings = detector._with(detector.settings, {"window_size": detector.metadata.timesteps})
        return detector


BY_NAME: dict[str, type[Detector]] = {
    kind.name: kind
    for kind in (
        IsolationForestDetector,
        LSTMAutoencoderDetector,
        AutoencoderDetector,
        LocalOutlierFactorDetector,
        OneClassSVMDetector,
    )
}
"""Name of a detector in the contract to its class."""
