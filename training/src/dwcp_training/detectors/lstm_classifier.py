"""LSTM classifier: scaler, Keras network trained on labelled windows, exact export (S4-4; rules LC1 to LC6)."""

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwcp.anomaly.v1 import model_pb2
from dwcp_training.calibrate import midpoint_threshold
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.data.windows import time_split, window_starts, windows
from dwcp_training.detectors import classifier_network
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
from dwcp_training.detectors.lstm_cells import hidden_states, sigmoid, widened
from dwcp_training.export import classifier
from dwcp_training.export.classifier import ClassifierWeights
from dwcp_training.export.crosscheck_classifier import cross_check_classifier
from dwcp_training.profiles import LstmClassifierDefaults

EVEN = 0.5
"""Probability above which a window is an anomaly when no percentile is asked for."""


class ClassifierReference:
    """The network in numpy float64, step by step as LC1 says."""

    def __init__(self, weights: ClassifierWeights, metadata: model_pb2.ModelMetadata) -> None:
        self._layers = [widened(layer) for layer in weights.layers]
        self._dense = weights.dense_kernel.astype(np.float64), weights.dense_bias.astype(np.float64)
        self._output = weights.output_kernel.astype(np.float64), weights.output_bias.astype(np.float64)
        self._metadata = metadata
        self._mean, self._scale = np.array(metadata.scaler.mean), np.array(metadata.scaler.scale)
        self._reference = np.array(metadata.reference_values)

    def scores(self, scaled: Floats) -> Floats:
        """Probabilities, float64 `[n]`, of scaled windows `[n, timesteps, features]` (LC2)."""
        hidden = [scaled[:, t] for t in range(scaled.shape[1])]
        for layer in self._layers:
            hidden = hidden_states(layer, hidden)
        dense = np.maximum(hidden[-1] @ self._dense[0] + self._dense[1], 0.0)
        return sigmoid(dense @ self._output[0] + self._output[1])[:, 0]

    def evaluate(self, items: Floats) -> Evaluation:
        parts = [self._evaluate(items[i : i + 1024]) for i in range(0, len(items), 1024)]
        scores, is_anomaly, contributions = (np.concatenate([part[i] for part in parts]) for i in range(3))
        return Evaluation(
            scores,
            is_anomaly,
            contributions,
            expected=np.broadcast_to(self._reference, (len(items), items.shape[2])),
            expected_is_stored=True,
        )

    def _evaluate(self, items: Floats) -> tuple[Floats, Any, Floats]:
        scaled = clamp_scaled(items, self._mean, self._scale)
        scores = self.scores(scaled)
        apart = (scaled - (self._reference - self._mean) / self._scale) ** 2
        return scores, scores > self._metadata.threshold, shares(apart.sum(axis=1))


@dataclass(frozen=True)
class LabelledWindows:
    """Windows with the label of their last sample (LC3): `items` `[n, timesteps, features]`, `labels` bool `[n]`."""

    items: Floats
    labels: NDArray[np.bool_]

    @classmethod
    def of(cls, telemetry: Telemetry, settings: LstmClassifierDefaults) -> "LabelledWindows":
        """The windows of labelled rows that stay inside segments."""
        assert telemetry.labels is not None
        length, stride = settings.window_size, settings.window_stride
        items = windows(telemetry.values, telemetry.segments, length, stride)
        return cls(items, telemetry.labels[window_starts(telemetry.segments, length, stride) + length - 1])

    @property
    def normal(self) -> Floats:
        return self.items[~self.labels]

    def counted(self) -> str:
        """How many of which class, in words."""
        return f"{int((~self.labels).sum()):,} normal and {int(self.labels.sum()):,} anomalous"

    def require_both(self, part: str) -> None:
        """Raises DataError unless there are windows of both classes."""
        if self.labels.all() or not self.labels.any():
            missing = "normal" if self.labels.all() else "anomalous"
            raise DataError(
                "labels",
                f"none of the {len(self.labels):,} windows of the {part} is {missing}: their last samples all have one "
                "label. A classifier learns from both classes.",
                "Use data in which normal operation and anomalies come early and late, another validation_split, or a "
                "detector that learns from normal data alone.",
                code=DataErrorCode.SINGLE_CLASS,
            )


def fit_lstm_classifier(telemetry: Telemetry, settings: LstmClassifierDefaults, progress: Progress = silent) -> Fitted:
    """Fits the scaler on the normal rows, and the network on all, of all but the last `validation_split` of the series.

    The held-out part stops training early, and its normal windows calibrate p-values and give the threshold where a
    percentile is asked for.

    Args:
        telemetry: rows with labels, normal and anomalous ones.

    Raises:
        DataError: the rows have no labels; the fitted or the held-out windows are all of one class; no window fits into
            a run; training did not settle on finite weights; the percentile is no threshold.
        MissingLibraryError: when Keras or TensorFlow is not installed.
    """
    progress(0, settings.epochs, "preparing windows")
    if telemetry.labels is None:
        raise DataError(
            "labels",
            "an LSTM classifier learns from labelled rows, and these have no labels.",
            "Name a column with --label-column, or files of intervals with --labels.",
            code=DataErrorCode.NO_LABELS,
        )
    fit_part, held_out = time_split(telemetry, settings.validation_split, gap=settings.window_size)
    to_fit, to_check = LabelledWindows.of(fit_part, settings), LabelledWindows.of(held_out, settings)
    to_fit.require_both("fitted part")
    to_check.require_both(f"held-out part, the last {settings.validation_split:.0%} of the time")
    normal_rows = fit_part.normal()
    scaler = fitted_scaler(normal_rows)

    network, history = classifier_network.train(
        (clamp_scaled(to_fit.items, scaler.mean_, scaler.scale_).astype(np.float32), to_fit.labels),
        (clamp_scaled(to_check.items, scaler.mean_, scaler.scale_).astype(np.float32), to_check.labels),
        settings,
        shown_epochs(progress, settings.epochs),
    )
    weights = ClassifierWeights.of(network)
    if not weights.finite:
        raise DataError(
            "learning_rate",
            f"training with {settings.learning_rate:g} did not settle: a weight is not finite.",
            "Use a smaller learning rate.",
        )
    metadata = common_metadata(telemetry, "lstm_classifier", scaler.mean_, scaler.scale_, normal_rows.values)
    metadata.timesteps = settings.window_size
    metadata.parity_class = model_pb2.PARITY_CLASS_EXACT
    metadata.classifier.units.extend(weights.units)
    metadata.classifier.normal_windows = int((~to_fit.labels).sum())
    metadata.classifier.anomalous_windows = int(to_fit.labels.sum())
    metadata.training.seed = settings.seed
    metadata.training.fitted_on, metadata.training.held_out = len(to_fit.items), len(to_check.items)
    for name, values in history.items():
        metadata.training.history[name].values.extend(values)

    reference = ClassifierReference(weights, metadata)
    checked = reference.evaluate(to_check.items).scores
    threshold = _threshold(checked[~to_check.labels], settings)
    metadata.threshold = threshold
    false_alarms = float((checked[~to_check.labels] > threshold).mean())
    missed = float((checked[to_check.labels] <= threshold).mean())
    metadata.training.history["held_out_false_alarms"].values.append(false_alarms)
    metadata.training.history["held_out_missed"].values.append(missed)
    percentile = settings.threshold_percentile

    return Fitted(
        metadata=metadata,
        graph=lambda: classifier.export_classifier(
            weights,
            np.array(metadata.reference_values),
            scaler.mean_,
            scaler.scale_,
            settings.window_size,
            metadata.feature_names,
            metadata.threshold,
        ),
        cross_check=lambda model: cross_check_classifier(model, network, settings, metadata, to_fit.items),
        operators=classifier.operators(settings.window_size),
        layout=classifier.LAYOUT,
        precision="float64",
        reference=reference,
        fitted_items=to_fit.items,
        held_out_items=to_check.normal,
        byproducts={**classifier_network.saved(network), "lstm_classifier_scaler.pkl": pickle.dumps(scaler)},
        metadata_file="lstm_classifier_metadata.json",
        graph_file="lstm_classifier.onnx",
        facts={
            "windows": f"{to_fit.counted()} fitted, {to_check.counted()} held out, "
            f"of {settings.window_size} samples each",
            "layers": "-".join(map(str, (metadata.n_features, *weights.units, 1))),
            "epochs": epochs_said(history, settings.epochs),
            "threshold": f"{threshold:.6f}: "
            + (
                "a window that is more likely anomalous than not"
                if percentile is None
                else f"percentile {percentile:g} of the held-out normal windows' scores"
            ),
            "held-out windows": f"{false_alarms:.1%} of the normal ones alarm, {missed:.1%} of the anomalous ones "
            "are missed",
        },
    )


def _threshold(normal_scores: Floats, settings: LstmClassifierDefaults) -> float:
    """The threshold of D2; raises DataError where a percentile leaves no score above it, or none below."""
    if settings.threshold_percentile is None:
        return midpoint_threshold(EVEN)
    trained = float(np.percentile(normal_scores, settings.threshold_percentile))
    try:
        threshold = midpoint_threshold(trained, normal_scores)
    except ValueError:
        threshold = 0.0
    if not 0 < threshold < 1:
        raise DataError(
            "threshold_percentile",
            f"percentile {settings.threshold_percentile:g} of the held-out normal windows' scores is {trained:g}, and "
            "a threshold lies between 0 and 1.",
            "Use another percentile, or none: the threshold is then a probability of one half.",
        )
    return threshold
