"""Keras' own dense network with every layer in float64, on the weights of training (DA1 to DA6)."""

import pickle
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dwcp_training.detectors.base import Evaluation, Floats, clamp_scaled, shares
from tests.conformance.inputs import Special
from tests.conformance.reference.base import Reference
from tests.conformance.reference.networks import in_pieces

_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
"""No score is above it (DA3)."""


class DenseOracle(Reference):
    """Layers, activation and weights from the saved network; metadata say the threshold alone."""

    def __init__(self, models: Path) -> None:
        super().__init__(models, "dense_autoencoder")
        self._scaler = pickle.loads(self._read("dense_autoencoder_scaler.pkl"))
        self._read("dense_autoencoder.keras")  # says so when it is missing

    @cached_property
    def _trained(self) -> list[Any]:
        """The dense layers of the saved network; dropout does not exist when scoring (DA1)."""
        import keras

        network = keras.models.load_model(self._folder / "dense_autoencoder.keras", compile=False)
        return [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]

    @cached_property
    def _reconstruct(self) -> Any:
        import keras

        sample = x = keras.Input((len(self.names),), dtype="float64")
        for layer in self._trained:
            x = keras.layers.Dense(layer.units, layer.activation, dtype="float64")(x)
        wide = keras.Model(sample, x)
        wide.set_weights([array for layer in self._trained for array in layer.get_weights()])
        return wide

    def evaluate(self, items: Floats) -> Evaluation:
        mean, scale = self._scaler.mean_, self._scaler.scale_
        scaled = clamp_scaled(items[:, -1], mean, scale)
        reconstructed = in_pieces(self._reconstruct, scaled)
        errors = (scaled - reconstructed) ** 2
        scores = np.minimum(errors.sum(axis=1) / len(self.names), _LARGEST_FLOAT32)
        return Evaluation(
            scores=scores,
            is_anomaly=self._decided(scores),
            contributions=shares(errors),
            expected=reconstructed * scale + mean,
        )

    def _special(self) -> dict[str, Special]:
        return {"kink": self._on_kinks}

    def _on_kinks(self, items: Floats, rng: np.random.Generator) -> Floats:
        """One value moved so that the sum of a unit of the first layer is 0, or as near as float64 comes (DA1)."""
        kernel, bias = (np.asarray(array, np.float64) for array in self._trained[0].get_weights())
        mean, scale = self._scaler.mean_, self._scaler.scale_
        for item in items[:, -1]:
            unit = rng.integers(kernel.shape[1])
            weights = kernel[:, unit]
            j = np.abs(weights).argmax()
            z = clamp_scaled(item, mean, scale)
            others = weights @ z - weights[j] * z[j] + bias[unit]
            if weights[j] != 0:
                item[j] = -others / weights[j] * scale[j] + mean[j]
        return items
