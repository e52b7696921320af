"""Dense autoencoder: scaler, Keras network, exact export (S2-2 to S2-5; rules DA1 to DA6)."""

import pickle
from typing import Any

import numpy as np
from sklearn.preprocessing import StandardScaler

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit.dense import LARGEST_RECONSTRUCTION
from dwcp_training.calibrate import midpoint_threshold
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.data.windows import time_split
from dwcp_training.detectors import dense_network
from dwcp_training.detectors.base import (
    Evaluation,
    Fitted,
    Floats,
    Progress,
    clamp_scaled,
    common_metadata,
    counted_rows,
    fitted_scaler,
    shares,
    silent,
)
from dwcp_training.detectors.keras_network import epochs_said, shown_epochs
from dwcp_training.export import dense
from dwcp_training.export.crosscheck_dense import cross_check_dense
from dwcp_training.export.dense import LARGEST_SCORE, DenseWeights
from dwcp_training.profiles import DenseAutoencoderDefaults


class DenseReference:
    """The network in numpy float64, layer by layer as DA1 says, on the weights read from Keras."""

    def __init__(self, weights: DenseWeights, metadata: model_pb2.ModelMetadata) -> None:
        self._layers = [(layer.kernel.astype(np.float64), layer.bias.astype(np.float64)) for layer in weights.layers]
        self._activation = {"relu": lambda x: np.maximum(x, 0.0), "tanh": np.tanh}[weights.activation]
        self._metadata = metadata
        self._mean, self._scale = np.array(metadata.scaler.mean), np.array(metadata.scaler.scale)

    def sums(self, rows: Floats) -> list[Floats]:
        """The sums of every hidden layer before its activation, `[n, units]` each, of raw rows `[n, features]`."""
        return self._sums(clamp_scaled(rows, self._mean, self._scale))[:-1]

    def _sums(self, scaled: Floats) -> list[Floats]:
        sums: list[Floats] = []
        x = scaled
        for kernel, bias in self._layers:
            sums.append(x @ kernel + bias)
            x = self._activation(sums[-1])
        return sums

    def evaluate(self, items: Floats) -> Evaluation:
        parts = [self._evaluate(items[i : i + 8192, -1]) for i in range(0, len(items), 8192)]
        return Evaluation(*(np.concatenate([part[i] for part in parts]) for i in range(4)))

    def _evaluate(self, rows: Floats) -> tuple[Floats, Any, Floats, Floats]:
        scaled = clamp_scaled(rows, self._mean, self._scale)
        reconstructed = self._sums(scaled)[-1]
        errors = (scaled - reconstructed) ** 2
        scores = np.minimum(errors.sum(axis=1) / rows.shape[1], LARGEST_SCORE)
        with np.errstate(over="ignore"):
            expected = reconstructed * self._scale + self._mean
        return scores, scores > self._metadata.threshold, shares(errors), expected


def fit_dense_autoencoder(
    telemetry: Telemetry, settings: DenseAutoencoderDefaults, progress: Progress = silent
) -> Fitted:
    """Fits scaler and network on all but the last `validation_split` of the rows.

    The held-out part stops training early and calibrates p-values, as for the LSTM autoencoder: that makes it slightly
    easier than data never seen.

    Raises:
        DataError: when there are too few rows, or training did not settle on finite weights.
        MissingLibraryError: when Keras or TensorFlow is not installed.
    """
    progress(0, settings.epochs, "fitting the scaler")
    fit_part, held_out = time_split(telemetry, settings.validation_split, gap=1)
    if len(fit_part) < 2:
        raise DataError(
            "rows",
            f"a dense autoencoder needs at least 2 rows to fit, and {settings.validation_split:.0%} to hold out.",
            "Use more data.",
            code=DataErrorCode.TOO_SHORT,
        )
    scaler = fitted_scaler(fit_part)

    network, history = dense_network.train(
        clamp_scaled(fit_part.values, scaler.mean_, scaler.scale_).astype(np.float32),
        clamp_scaled(held_out.values, scaler.mean_, scaler.scale_).astype(np.float32),
        settings,
        shown_epochs(progress, settings.epochs),
    )
    weights = dense_network.weights_of(network, settings.activation)
    metadata = common_metadata(telemetry, "dense_autoencoder", scaler.mean_, scaler.scale_, fit_part.values)
    describe_network(metadata, weights, settings)
    metadata.training.fitted_on, metadata.training.held_out = len(fit_part), len(held_out)
    for name, values in history.items():
        metadata.training.history[name].values.extend(values)

    fitted_items = fit_part.values[:, np.newaxis]
    scores = DenseReference(weights, metadata).evaluate(fitted_items).scores
    threshold = _threshold(scores, settings.threshold_percentile)
    metadata.threshold = threshold
    metadata.training.history["score_range"].values.extend([scores.min(), scores.max()])
    above = int((scores > threshold).sum())
    return assembled(
        network,
        scaler,
        metadata,
        settings,
        fitted_items,
        held_out.values[:, np.newaxis],
        {
            "rows": counted_rows(telemetry, len(fit_part), len(held_out)),
            "layers": layers_said(metadata),
            "epochs": epochs_said(history, settings.epochs),
            "scores": f"{scores.min():.5f} to {scores.max():.5f} on the fitted rows, "
            f"mean {scores.mean():.5f}, standard deviation {scores.std():.5f}",
            "threshold": f"{threshold:.6f}: percentile {settings.threshold_percentile:g} of the fitted rows' scores, "
            f"{above:,} of {len(scores):,} above it ({above / len(scores):.1%})",
        },
    )


def describe_network(
    metadata: model_pb2.ModelMetadata, weights: DenseWeights, settings: DenseAutoencoderDefaults
) -> None:
    """Writes down what the metadata of a dense autoencoder have beside what all have.

    Raises:
        DataError: training did not settle on finite weights (DA2).
    """
    _check_bounded(weights, settings)
    metadata.dense.units.extend(weights.units)
    metadata.dense.activation = settings.activation
    metadata.dense.threshold_percentile = settings.threshold_percentile
    metadata.parity_class = model_pb2.PARITY_CLASS_EXACT
    metadata.training.seed = settings.seed


def layers_said(metadata: model_pb2.ModelMetadata) -> str:
    """The widths of the layers and the activation, in words."""
    widths = (metadata.n_features, *metadata.dense.units, metadata.n_features)
    return f"{'-'.join(map(str, widths))}, {metadata.dense.activation}"


def assembled(
    network: Any,
    scaler: StandardScaler,
    metadata: model_pb2.ModelMetadata,
    settings: DenseAutoencoderDefaults,
    fitted_items: Floats,
    held_out_items: Floats,
    facts: dict[str, str],
) -> Fitted:
    """A trained network, its scaler and its whole metadata as a fitted detector; items as of `Fitted`."""
    weights = dense_network.weights_of(network, settings.activation)
    return Fitted(
        metadata=metadata,
        graph=lambda: dense.export_dense(
            weights, scaler.mean_, scaler.scale_, metadata.feature_names, metadata.threshold
        ),
        cross_check=lambda model: cross_check_dense(model, network, settings, metadata, fitted_items[:, -1]),
        operators=dense.operators(len(weights.units), settings.activation),
        layout=dense.LAYOUT,
        precision="float64",
        reference=DenseReference(weights, metadata),
        fitted_items=fitted_items,
        held_out_items=held_out_items,
        byproducts={**dense_network.saved(network), "dense_autoencoder_scaler.pkl": pickle.dumps(scaler)},
        metadata_file="dense_autoencoder_metadata.json",
        graph_file="dense_autoencoder.onnx",
        facts=facts,
    )


def _check_bounded(weights: DenseWeights, settings: DenseAutoencoderDefaults) -> None:
    """DA2: whatever the sample, nothing inside the network overflows. Also refuses weights that are not finite."""
    largest = weights.largest_reconstruction
    if not largest <= LARGEST_RECONSTRUCTION:
        raise DataError(
            "learning_rate",
            f"training with {settings.learning_rate:g} did not settle: a reconstruction could reach {largest:g}, "
            f"and {LARGEST_RECONSTRUCTION:g} is the limit.",
            "Use a smaller learning rate, more weight decay or fewer layers.",
        )


def _threshold(scores: Floats, percentile: float) -> float:
    """The percentile as a threshold of D2; raises DataError where the network reconstructs everything perfectly."""
    trained = float(np.percentile(scores, percentile))
    try:
        return midpoint_threshold(trained, scores)
    except ValueError:
        raise DataError(
            "threshold_percentile",
            f"percentile {percentile:g} of the fitted rows' scores is {trained:g}, which is no threshold.",
            "Check the data for rows that are all alike, or use another percentile.",
        ) from None
