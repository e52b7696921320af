"""The detectors that can be trained: one line each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dwcp_training.detectors.base import Fitted
from dwcp_training.profiles import IsolationForestDefaults, LstmAutoencoderDefaults


@dataclass(frozen=True)
class Registered:
    """How to train one detector: its settings, and the function that fits it, imported when needed (Keras is heavy)."""

    settings: type
    fit: Callable[..., Fitted]


def _forest(*args: Any, **kwargs: Any) -> Fitted:
    from dwcp_training.detectors.isolation_forest import fit_isolation_forest

    return fit_isolation_forest(*args, **kwargs)


def _lstm(*args: Any, **kwargs: Any) -> Fitted:
    from dwcp_training.detectors.lstm_autoencoder import fit_lstm_autoencoder

    return fit_lstm_autoencoder(*args, **kwargs)


DETECTORS: dict[str, Registered] = {
    "isolation_forest": Registered(IsolationForestDefaults, _forest),
    "lstm_autoencoder": Registered(LstmAutoencoderDefaults, _lstm),
}
