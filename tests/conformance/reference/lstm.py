"""Keras' own LSTM network under the float64 policy, on the weights of training (LA1 to LA8)."""

import pickle
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from dwcp_training.detectors import keras_network
from dwcp_training.detectors.base import Evaluation, Floats, clamp_scaled, shares
from dwcp_training.profiles import LstmAutoencoderDefaults
from tests.conformance.reference.base import Reference
from tests.conformance.reference.networks import in_pieces, traced


class LstmOracle(Reference):
    """The network of training with every layer in float64."""

    def __init__(self, models: Path) -> None:
        super().__init__(models, "lstm_autoencoder")
        self._scaler = pickle.loads(self._read("lstm_scaler.pkl"))
        self._read("lstm_autoencoder.keras")  # says so when it is missing
        self._settings = LstmAutoencoderDefaults(
            window_size=self.timesteps,
            hidden_units=self.metadata.lstm.units[0],
            encoding_dim=self.metadata.lstm.encoding_dim,
        )

    @cached_property
    def _reconstruct(self) -> Callable[[Floats], Any]:
        """`keras_network.reconstruct_float64`, traced once instead of built for each call."""
        import keras

        network = keras.models.load_model(self._folder / "lstm_autoencoder.keras", compile=False)
        wide = keras_network.build(self._settings, len(self.names), unroll=False, dtype="float64")
        wide.set_weights(network.get_weights())
        return traced(wide)

    def evaluate(self, items: Floats) -> Evaluation:
        mean, scale = self._scaler.mean_, self._scaler.scale_
        scaled = clamp_scaled(items, mean, scale)
        reconstructed = in_pieces(self._reconstruct, scaled)
        errors = ((scaled - reconstructed) ** 2).sum(axis=1)
        scores = errors.sum(axis=1) / (items.shape[1] * items.shape[2])
        return Evaluation(
            scores=scores,
            is_anomaly=self._decided(scores),
            contributions=shares(errors),
            expected=reconstructed[:, -1] * scale + mean,
        )
