"""What all others are held against: scikit-learn and Keras in float64, from the by-products of training.

No exported graph is read here. Pickles are: this is a test, not a serving process (A7).
"""

import json
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format

from dwcp.anomaly.v1 import model_pb2
from dwcp_training.calibrate import depth_threshold
from dwcp_training.detectors import keras_network
from dwcp_training.detectors.base import Evaluation, Floats, clamp_scaled, shares
from dwcp_training.detectors.isolation_forest import ForestReference
from dwcp_training.export.forest import score_rate
from dwcp_training.profiles import LstmAutoencoderDefaults
from tests.conformance.cases import DETECTORS, Case, is_plain, last_window
from tests.conformance.contract import Fault, fault_of, read_request
from tests.conformance.inputs import Source

_PIECE = 4096
"""Windows that Keras gets at once."""

METADATA = {"isolation_forest": "model_metadata.json", "lstm_autoencoder": "lstm_metadata.json"}


class MissingByproductError(RuntimeError):
    """The set has no by-products to hold it against; the message says what to do."""


@dataclass(frozen=True)
class Wanted:
    """Answers of the reference for `n` cases of one detector.

    Attributes:
        faults: the refusal of each case, or None.
        scored: index of each scored case, int64 `[m]`.
        evaluation: unrounded answers for these `m` cases.
    """

    faults: list[Fault | None]
    scored: np.ndarray
    evaluation: Evaluation


class Reference:
    """The float64 reference of one detector.

    Args:
        models: folder of the model set with its by-products.
        detector: its name.

    Raises:
        MissingByproductError: when a by-product is not there.
    """

    def __init__(self, models: Path, detector: str) -> None:
        self.detector = detector
        self._folder = models
        self.metadata = model_pb2.ModelMetadata()
        json_format.Parse(self._read(METADATA[detector]), self.metadata)
        self.names = list(self.metadata.feature_names)
        self.timesteps = self.metadata.timesteps or 1
        self.exact = self.metadata.parity_class == model_pb2.PARITY_CLASS_EXACT
        self.served = [
            name
            for name in DETECTORS
            if (models / METADATA[name]).exists()
            and json.loads((models / METADATA[name]).read_bytes())["graph"].get("available")
        ]

    def evaluate(self, items: Floats) -> Evaluation:
        """Evaluates finite raw items, float64 `[n, timesteps, features]`."""
        raise NotImplementedError

    def source(self) -> Source:
        """What inputs for this detector are made from."""
        return Source(self.metadata, lambda items: self.evaluate(items).is_anomaly)

    def answer(self, cases: Sequence[Case]) -> Wanted:
        """Answers of all cases; those that must be refused are found by the rules E2 and E5 alone."""
        faults: list[Fault | None] = []
        scored, items = [], []
        for i, case in enumerate(cases):
            samples, fault = case.samples, None
            if not is_plain(case, len(self.names), self.timesteps):
                request = read_request(case.line)
                if isinstance(request, Fault):
                    fault = request
                else:
                    detector, samples = request
                    fault = fault_of(detector, samples, self.names, self.timesteps, self.served)
            faults.append(fault)
            if fault is None:
                scored.append(i)
                items.append(last_window(samples, self.timesteps))
        if not items:
            raise ValueError(f"none of {len(cases)} cases of {self.detector} is to be scored: nothing would be proved")
        return Wanted(faults, np.array(scored), self.evaluate(np.stack(items)))

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise MissingByproductError(
                f"{self._folder / name}: {error.strerror}. The judge needs the by-products of training beside the set: "
                "train it here, or name a folder that has them."
            ) from None


class ForestOracle(Reference):
    """scikit-learn's trees, walked by scikit-learn; rate and threshold anew from the pickled forest (IF1 to IF8)."""

    def __init__(self, models: Path) -> None:
        super().__init__(models, "isolation_forest")
        self.forest = pickle.loads(self._read("isolation_forest.pkl"))
        self.scaler = pickle.loads(self._read("scaler.pkl"))
        own = model_pb2.ModelMetadata(reference_values=self.metadata.reference_values)
        own.forest.score_rate = score_rate(len(self.forest.estimators_), self.forest._max_samples)
        own.forest.depth_threshold = depth_threshold(-float(self.forest.offset_), own.forest.score_rate)
        self._trees = ForestReference(self.forest, self.scaler, own)

    def evaluate(self, items: Floats) -> Evaluation:
        return self._trees.evaluate(items)

    def source(self) -> Source:
        return Source(self.metadata, lambda items: self.evaluate(items).is_anomaly, self._trees.splits())

    def sklearn_scores(self, items: Floats) -> Floats:
        """scikit-learn's own scores with their sign turned, for IF4; float64 `[n]`."""
        return -self.forest.score_samples(clamp_scaled(items[:, -1], self.scaler.mean_, self.scaler.scale_))


class LstmOracle(Reference):
    """Keras' own network under the float64 policy, on the weights of training (LA1 to LA8)."""

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
        import tensorflow as tf

        network = keras.models.load_model(self._folder / "lstm_autoencoder.keras", compile=False)
        shape = (self.timesteps, len(self.names))
        wide = keras_network.build(self._settings, shape[1], unroll=False, dtype="float64")
        wide.set_weights(network.get_weights())
        return tf.function(
            lambda scaled: wide(scaled, training=False), input_signature=[tf.TensorSpec((None, *shape), tf.float64)]
        )

    def evaluate(self, items: Floats) -> Evaluation:
        mean, scale = self._scaler.mean_, self._scaler.scale_
        scaled = clamp_scaled(items, mean, scale)
        parts = [self._reconstruct(scaled[i : i + _PIECE]).numpy() for i in range(0, len(scaled), _PIECE)]
        reconstructed = np.concatenate(parts)
        errors = ((scaled - reconstructed) ** 2).sum(axis=1)
        scores = errors.sum(axis=1) / (items.shape[1] * items.shape[2])
        published = scores.astype(np.float32).astype(np.float64)
        return Evaluation(
            scores=scores,
            is_anomaly=published > self.metadata.threshold,
            contributions=shares(errors),
            expected=reconstructed[:, -1] * scale + mean,
        )


REFERENCES: dict[str, type[Reference]] = {"isolation_forest": ForestOracle, "lstm_autoencoder": LstmOracle}
"""Detector to its reference."""
