"""The detectors that can be trained: one line each."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from pydantic import BaseModel

from dwcp_training.detectors.base import Fitted
from dwcp_training.profiles import (
    DenseAutoencoderDefaults,
    EnsembleDefaults,
    IsolationForestDefaults,
    LocalOutlierFactorDefaults,
    LstmAutoencoderDefaults,
    LstmClassifierDefaults,
    MahalanobisDefaults,
    OneClassSvmDefaults,
)


@dataclass(frozen=True)
class Registered:
    """How to train one detector.

    Attributes:
        settings: its hyperparameters.
        name: its name: `detectors/<name>.py` has the function `fit_<name>`, imported when needed (Keras is heavy).
    """

    settings: type[BaseModel]
    name: str

    @property
    def fit(self) -> Callable[..., Fitted]:
        """Fits it: takes telemetry, settings, a Progress and the detector's own options."""
        function: Callable[..., Fitted] = getattr(
            import_module(f"dwcp_training.detectors.{self.name}"), f"fit_{self.name}"
        )
        return function


DETECTORS: dict[str, Registered] = {
    registered.name: registered
    for registered in (
        Registered(IsolationForestDefaults, "isolation_forest"),
        Registered(LstmAutoencoderDefaults, "lstm_autoencoder"),
        Registered(DenseAutoencoderDefaults, "dense_autoencoder"),
        Registered(LocalOutlierFactorDefaults, "local_outlier_factor"),
        Registered(OneClassSvmDefaults, "one_class_svm"),
        Registered(LstmClassifierDefaults, "lstm_classifier"),
        Registered(EnsembleDefaults, "ensemble"),
        Registered(MahalanobisDefaults, "mahalanobis"),
    )
}
