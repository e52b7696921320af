"""Keras' own LSTM and dense layers in float64, on the weights of training (LC1 to LC6)."""

import pickle
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dwcp_training.detectors.base import Evaluation, Floats, clamp_scaled, shares
from tests.conformance.inputs import Special
from tests.conformance.reference.base import Reference
from tests.conformance.reference.networks import in_pieces, traced


class ClassifierOracle(Reference):
    """Layers, activations and weights from the saved network; metadata say threshold and reference values alone."""

    def __init__(self, models: Path) -> None:
        super().__init__(models, "lstm_classifier")
        self._scaler = pickle.loads(self._read("lstm_classifier_scaler.pkl"))
        self._read("lstm_classifier.keras")  # says so when it is missing
        self._reference = np.array(self.metadata.reference_values)

    @cached_property
    def _logit(self) -> Callable[[Floats], Any]:
        """The network up to the sum of its output unit: the sigmoid is taken in numpy, careful below one half."""
        import keras

        network = keras.models.load_model(self._folder / "lstm_classifier.keras", compile=False)
        trained = [layer for layer in network.layers if layer.get_weights()]  # dropout has none (LC1)
        window = x = keras.Input((self.timesteps, len(self.names)), dtype="float64")
        for layer in trained:
            if isinstance(layer, keras.layers.LSTM):
                x = keras.layers.LSTM(layer.units, return_sequences=layer.return_sequences, dtype="float64")(x)
            else:
                last = layer is trained[-1]
                x = keras.layers.Dense(layer.units, None if last else layer.activation, dtype="float64")(x)
        wide = keras.Model(window, x)
        wide.set_weights([array for layer in trained for array in layer.get_weights()])
        return traced(wide)

    def evaluate(self, items: Floats) -> Evaluation:
        mean, scale = self._scaler.mean_, self._scaler.scale_
        scaled = clamp_scaled(items, mean, scale)
        with np.errstate(over="ignore"):
            scores = 1 / (1 + np.exp(-in_pieces(self._logit, scaled)[:, 0]))
        apart = (scaled - clamp_scaled(self._reference, mean, scale)) ** 2
        return Evaluation(
            scores=scores,
            is_anomaly=self._decided(scores),
            contributions=shares(apart.sum(axis=1)),
            expected=np.broadcast_to(self._reference, (len(items), items.shape[2])),
            expected_is_stored=True,
        )

    def _special(self) -> dict[str, Special]:
        return {"saturated": self._saturated}

    def _saturated(self, items: Floats, rng: np.random.Generator) -> Floats:
        """Metrics that stay 3 to 1e6 scales away from the mean: cells at their limits, scores near 0 and 1 (LC2)."""
        shape = (len(items), 1, items.shape[2])
        away = rng.choice([-1.0, 1.0], shape) * 10.0 ** rng.uniform(0.5, 6, (len(items), 1, 1))
        chosen = rng.random(shape) < 0.5
        return items + np.where(chosen, away, 0.0) * self._scaler.scale_
