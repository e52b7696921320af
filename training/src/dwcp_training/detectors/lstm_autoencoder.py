"""LSTM autoencoder: scaler, Keras network, exact or float32 export (S1-11; rules LA1 to LA8)."""

import pickle
from typing import Any

import numpy as np
import onnx
from sklearn.preprocessing import StandardScaler

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit import LSTM_LAYERS
from dwcp_training.calibrate import midpoint_threshold
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.data.windows import time_split, windows
from dwcp_training.detectors import keras_network
from dwcp_training.detectors.base import (
    Evaluation,
    Fitted,
    Floats,
    Progress,
    clamp_scaled,
    common_metadata,
    fitted_scaler,
    shares,
    silent,
)
from dwcp_training.detectors.keras_network import epochs_said, shown_epochs
from dwcp_training.detectors.lstm_cells import hidden_states, rounding_error, widened
from dwcp_training.export import lstm, lstm_float32
from dwcp_training.export.crosscheck_lstm import cross_check_lstm
from dwcp_training.export.lstm import LstmWeights
from dwcp_training.profiles import LstmAutoencoderDefaults

FLOAT32_TOLERANCE = model_pb2.Tolerance(relative_score=1e-4, guard_band=1e-4)
"""Bound of the float32 variant (P3). Measured: 1e-7 on typical windows, up to 1e-5 where errors nearly cancel."""


class LstmReference:
    """The network in numpy float64, step by step as LA3 says."""

    def __init__(self, weights: LstmWeights, metadata: model_pb2.ModelMetadata) -> None:
        self._layers = [widened(layer) for layer in weights.layers]
        self._kernel, self._bias = weights.dense_kernel.astype(np.float64), weights.dense_bias.astype(np.float64)
        self._metadata = metadata
        self._mean, self._scale = np.array(metadata.scaler.mean), np.array(metadata.scaler.scale)

    def reconstruct(self, scaled: Floats) -> Floats:
        """Reconstruction of scaled windows, `[n, timesteps, features]` in and out."""
        steps = scaled.shape[1]
        encoder_1, encoder_2, decoder_1, decoder_2 = self._layers
        hidden = hidden_states(encoder_1, [scaled[:, t] for t in range(steps)])
        code = hidden_states(encoder_2, hidden)[-1]
        hidden = hidden_states(decoder_2, hidden_states(decoder_1, [code] * steps))
        return np.stack([h @ self._kernel + self._bias for h in hidden], axis=1)

    def rounding_error(self, items: Floats) -> float:
        """Bound of what the order of sums can change inside the network, of raw items (see `lstm_cells`)."""
        scaled = clamp_scaled(items, self._mean, self._scale)
        inputs = [scaled[:, t] for t in range(scaled.shape[1])]
        worst = 0.0
        for name, layer in zip(LSTM_LAYERS, self._layers, strict=True):
            if name == "decoder_1":
                inputs = inputs[-1:] * len(inputs)
            worst = max(worst, rounding_error(layer, inputs))
            inputs = hidden_states(layer, inputs)
        return worst

    def evaluate(self, items: Floats) -> Evaluation:
        parts = [self._evaluate(items[i : i + 1024]) for i in range(0, len(items), 1024)]
        return Evaluation(*(np.concatenate([part[i] for part in parts]) for i in range(4)))

    def _evaluate(self, items: Floats) -> tuple[Floats, Any, Floats, Floats]:
        scaled = clamp_scaled(items, self._mean, self._scale)
        reconstructed = self.reconstruct(scaled)
        errors = ((scaled - reconstructed) ** 2).sum(axis=1)
        scores = errors.sum(axis=1) / (items.shape[1] * items.shape[2])
        return (
            scores,
            scores > self._metadata.threshold,
            shares(errors),
            reconstructed[:, -1] * self._scale + self._mean,
        )


def fit_lstm_autoencoder(
    telemetry: Telemetry,
    settings: LstmAutoencoderDefaults,
    progress: Progress = silent,
    precision: str = "float64",
) -> Fitted:
    """Fits scaler and network on all but the last `validation_split` of the series.

    The held-out part stops training early and calibrates p-values. That makes it slightly easier than data never seen;
    the forest, which needs no early stopping, has no such bias.

    Args:
        precision: `float64` for the EXACT graph, `float32` for tf2onnx's in the TOLERANCE class.

    Raises:
        DataError: when there are too few rows for a window.
    """
    progress(0, settings.epochs, "preparing windows")
    fit_part, held_out = time_split(telemetry, settings.validation_split, gap=settings.window_size)
    scaler = fitted_scaler(fit_part)
    fitted_items = windows(fit_part.values, fit_part.segments, settings.window_size, settings.window_stride)
    held_out_items = windows(held_out.values, held_out.segments, settings.window_size, settings.window_stride)

    network, history = keras_network.train(
        clamp_scaled(fitted_items, scaler.mean_, scaler.scale_).astype(np.float32),
        clamp_scaled(held_out_items, scaler.mean_, scaler.scale_).astype(np.float32),
        settings,
        shown_epochs(progress, settings.epochs),
    )
    weights = LstmWeights.of(network)
    metadata = common_metadata(telemetry, "lstm_autoencoder", scaler.mean_, scaler.scale_, fit_part.values)
    describe_network(metadata, weights, settings, precision)
    metadata.training.fitted_on, metadata.training.held_out = len(fitted_items), len(held_out_items)
    for name, values in history.items():
        metadata.training.history[name].values.extend(values)

    scores = LstmReference(weights, metadata).evaluate(fitted_items).scores
    threshold = midpoint_threshold(float(np.percentile(scores, settings.threshold_percentile)), scores)
    metadata.threshold = threshold
    return assembled(
        network,
        scaler,
        metadata,
        settings,
        fitted_items,
        held_out_items,
        {
            "windows": f"{len(fitted_items):,} fitted, {len(held_out_items):,} held out, "
            f"of {settings.window_size} samples each" + _too_short(telemetry, settings.window_size),
            "epochs": epochs_said(history, settings.epochs),
            "scores": f"{scores.min():.5f} to {scores.max():.5f} on the fitted windows",
            "threshold": f"{threshold:.6f}: percentile {settings.threshold_percentile:g} of the fitted windows' scores",
        },
        precision,
    )


def describe_network(
    metadata: model_pb2.ModelMetadata, weights: LstmWeights, settings: LstmAutoencoderDefaults, precision: str
) -> None:
    """Writes down what the metadata of an LSTM autoencoder have beside what all have."""
    metadata.timesteps = settings.window_size
    metadata.lstm.units.extend(layer.units for layer in weights.layers)
    metadata.lstm.encoding_dim = settings.encoding_dim
    metadata.lstm.threshold_percentile = settings.threshold_percentile
    metadata.training.seed = settings.seed
    exact = precision == "float64"
    metadata.parity_class = model_pb2.PARITY_CLASS_EXACT if exact else model_pb2.PARITY_CLASS_TOLERANCE
    if not exact:
        metadata.tolerance.CopyFrom(FLOAT32_TOLERANCE)


def assembled(
    network: Any,
    scaler: StandardScaler,
    metadata: model_pb2.ModelMetadata,
    settings: LstmAutoencoderDefaults,
    fitted_items: Floats,
    held_out_items: Floats,
    facts: dict[str, str],
    precision: str = "float64",
) -> Fitted:
    """A trained network, its scaler and its whole metadata as a fitted detector; items as of `Fitted`."""
    weights = LstmWeights.of(network)
    exact = precision == "float64"

    def build() -> onnx.ModelProto:
        if exact:
            return lstm.export_lstm(
                weights,
                scaler.mean_,
                scaler.scale_,
                settings.window_size,
                metadata.feature_names,
                metadata.threshold,
            )
        return lstm_float32.export_lstm_float32(
            network, scaler.mean_, scaler.scale_, metadata.feature_names, metadata.threshold
        )

    return Fitted(
        metadata=metadata,
        graph=build,
        cross_check=lambda model: cross_check_lstm(model, network, settings, metadata, fitted_items, exact=exact),
        operators=lstm.operators(settings.window_size) if exact else None,
        layout=lstm.LAYOUT if exact else lstm_float32.LAYOUT,
        precision=precision,
        reference=LstmReference(weights, metadata),
        fitted_items=fitted_items,
        held_out_items=held_out_items,
        byproducts={**keras_network.saved(network), "lstm_scaler.pkl": pickle.dumps(scaler)},
        metadata_file="lstm_metadata.json",
        graph_file="lstm_autoencoder.onnx",
        facts=facts,
    )


def _too_short(telemetry: Telemetry, window_size: int) -> str:
    """What to say about runs that are shorter than a window."""
    short = sum(stop - start < window_size for start, stop in telemetry.segments)
    return f"; {short:,} of {len(telemetry.segments):,} unbroken runs are shorter and give none" if short else ""
