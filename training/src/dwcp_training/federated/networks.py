"""The networks of the autoencoders as a client trains them for a round: weights in, weights out."""

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.data.windows import windows
from dwcp_training.detectors import dense_network, keras_network
from dwcp_training.detectors.base import Floats, clamp_scaled
from dwcp_training.detectors.dense_autoencoder import DenseReference
from dwcp_training.detectors.libraries import MissingLibraryError, require_keras
from dwcp_training.detectors.lstm_autoencoder import LstmReference
from dwcp_training.export.lstm import LstmWeights
from dwcp_training.federated.errors import FederatedError

Weights = list[np.ndarray]

STEPS = 8
"""Batches between two returns from TensorFlow to Python, where a client has as many."""


def warm_up() -> None:
    """Imports Keras, which takes seconds, before a server waits for an answer; where there is none, forests do."""
    with suppress(MissingLibraryError):
        require_keras("dense_autoencoder")


def items_of(detector: str, part: Telemetry, settings: Any) -> Floats:
    """What the detector looks at, raw, float64 `[n, timesteps, features]`."""
    if detector == "lstm_autoencoder":
        return windows(part.values, part.segments, settings.window_size, settings.window_stride)
    return part.values[:, np.newaxis]


def built(detector: str, settings: Any, features: int, *, training: bool = False) -> Any:
    """The uncompiled Keras network; `training` adds the penalty that makes weights decay."""
    require_keras(detector)
    if detector == "dense_autoencoder":
        return dense_network.build(settings, features, decay=training)
    unroll = training and settings.window_size <= keras_network.LONGEST_UNROLLED
    return keras_network.build(settings, features, unroll=unroll)


def first_weights(detector: str, settings: Any, features: int) -> Weights:
    """The weights that the first round begins with, by the seed of the settings."""
    require_keras(detector).utils.set_random_seed(settings.seed)
    return [np.asarray(array, np.float32) for array in built(detector, settings, features).get_weights()]


@dataclass
class LocalNetwork:
    """A compiled network, used again in every round: Keras takes seconds to trace one."""

    detector: str
    settings: Any
    network: Any

    @classmethod
    def of(cls, detector: str, settings: Any, features: int, items: int) -> "LocalNetwork":
        """The one of this process for these settings, to be trained on so many items."""
        many = items >= STEPS * settings.batch_size
        return _local(detector, settings.model_dump_json(), type(settings), features, STEPS if many else 1)

    def load(self, weights: Weights) -> None:
        """Raises FederatedError for weights of another network, or that are not finite."""
        wanted = [tuple(array.shape) for array in self.network.weights]
        found = [tuple(array.shape) for array in weights]
        if wanted != found or not all(np.isfinite(array).all() for array in weights):
            raise FederatedError("weights", "are not those of this network, or not finite.", "Train anew.")
        self.network.set_weights(weights)

    def trained(self, weights: Weights, items: np.ndarray, epochs: int, seed: int) -> tuple[Weights, float]:
        """Trains from weights on scaled items, float32 `[n, ...]`; gives the new weights and the last epoch's loss.

        The optimizer begins anew, as if the client had no memory: a client that was restarted gives the same.
        """
        keras = require_keras(self.detector)
        keras.utils.set_random_seed(seed)
        self.load(weights)
        for variable in self.network.optimizer.variables:
            if "learning_rate" not in variable.path:
                variable.assign(np.zeros(variable.shape, variable.dtype))
        for k, layer in enumerate(self.network.layers):
            if hasattr(layer, "seed_generator"):  # dropout goes on where it was, whatever the seed
                layer.seed_generator.state.assign(np.array([seed, k], layer.seed_generator.state.dtype))
        done = self.network.fit(items, items, epochs=epochs, batch_size=self.settings.batch_size, verbose=0)
        weights = [np.asarray(array, np.float32) for array in self.network.get_weights()]
        return weights, float(done.history[self.settings.loss][-1])

    def loss(self, weights: Weights, items: np.ndarray) -> float:
        """Mean reconstruction loss of scaled items, without dropout and penalty."""
        self.load(weights)
        apart = keras_network.outputs(self.network, self.network, items).astype(np.float64) - items
        return float(np.mean(np.abs(apart) if self.settings.loss == "mae" else apart**2))


@lru_cache(maxsize=4)
def _local(detector: str, settings: str, model: type, features: int, steps: int) -> LocalNetwork:
    chosen = model.model_validate_json(settings)
    keras = require_keras(detector)
    network = built(detector, chosen, features, training=True)
    config = {"learning_rate": chosen.learning_rate}
    if chosen.optimizer == "adamw":
        config["weight_decay"] = chosen.weight_decay
    optimizer = keras.optimizers.get({"class_name": chosen.optimizer, "config": config})
    network.compile(optimizer=optimizer, loss=chosen.loss, metrics=[chosen.loss], steps_per_execution=steps)
    optimizer.build(network.trainable_variables)
    return LocalNetwork(detector, chosen, network)


def scaled(items: Floats, mean: Floats, scale: Floats) -> np.ndarray:
    """Items as a network takes them, float32."""
    return clamp_scaled(items, mean, scale).astype(np.float32)


def inputs_of(detector: str, items: Floats, mean: Floats, scale: Floats) -> np.ndarray:
    """Raw items as the network of a detector takes them: rows, or windows; float32."""
    return scaled(items if detector == "lstm_autoencoder" else items[:, -1], mean, scale)


def scores_of(detector: str, settings: Any, weights: Weights, items: Floats, mean: Floats, scale: Floats) -> Floats:
    """Reconstruction errors of raw items `[n, timesteps, features]`, float64 `[n]`, as the published model has them."""
    metadata = model_pb2.ModelMetadata(scaler=model_pb2.Scaler(mean=mean, scale=scale))
    network = built(detector, settings, items.shape[2])
    network.set_weights(weights)
    if detector == "dense_autoencoder":
        return DenseReference(dense_network.weights_of(network, settings.activation), metadata).evaluate(items).scores
    return LstmReference(LstmWeights.of(network), metadata).evaluate(items).scores
