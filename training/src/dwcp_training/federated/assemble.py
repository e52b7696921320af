"""What a federated run learned, as an ordinary fitted detector, at a server that has never seen a row.

Golden vectors and cross-checks need rows. They are drawn from the histograms of the scaled values, each metric by
itself and nearer to the median than the data: they look like normal rows and are nobody's.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.limits import MAX_CALIBRATION_SCORES
from dwcp_training.calibrate import midpoint_threshold
from dwcp_training.data.layout import completed
from dwcp_training.data.report import Report
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.detectors import dense_autoencoder, dense_network, isolation_forest, lstm_autoencoder
from dwcp_training.detectors.base import Fitted, Floats, common_metadata
from dwcp_training.export.lstm import LstmWeights
from dwcp_training.federated import sketch
from dwcp_training.federated.errors import FederatedError
from dwcp_training.federated.networks import built
from dwcp_training.federated.privacy import epsilon
from dwcp_training.federated.state import State
from dwcp_training.federated.trees import pooled
from dwcp_training.pipeline import record_settings
from dwcp_training.profiles import Feature, FeatureSchema, Profile

ROWS = 2000
"""Drawn rows, also in the windows together that are drawn."""

NO_DRIFT = (
    "no drift reference: its critical values need the rows of all clients in the order of time, which nobody has "
    "together"
)


def assembled(state: State, profile: Profile) -> Fitted:
    """The fitted detector of a finished run.

    Args:
        state: of `Run.finish`.
        profile: names units and ranges of the metrics, where it has them.

    Raises:
        FederatedError: the scores give no threshold.
    """
    plan, settings = state.plan, state.plan.hyperparameters
    telemetry = _telemetry(state, profile)
    scaler = _scaler(state)
    metadata = common_metadata(telemetry, plan.detector, state.mean, state.scale, telemetry.values)
    del metadata.reference_values[:]
    metadata.reference_values.extend(medians(state))
    bins = sketch.ISOLATION if plan.detector == "isolation_forest" else sketch.RECONSTRUCTION
    share = 1 - settings.contamination if plan.detector == "isolation_forest" else settings.threshold_percentile / 100
    metadata.threshold = _threshold(bins, state.scores, share)
    _record(metadata, state, bins)
    rows = telemetry.values[:, np.newaxis]
    calibration = bins.drawn(state.scores, MAX_CALIBRATION_SCORES)
    held_out = int(state.scores.sum())
    facts = {
        "clients": f"{state.rounds[-1].clients} in the last round, {int(state.rows):,} rows fitted, {held_out:,} "
        "samples held out",
        "threshold": f"{metadata.threshold:.6f}: percentile {100 * share:g} of held-out scores, from a histogram whose "
        f"bins are {bins.error}",
    }
    if plan.detector == "isolation_forest":
        facts["trees"] = f"{len(state.trees)} pooled"
        forest = pooled(state.trees, len(plan.features), plan.rows_in_a_tree, settings.seed)
        fitted = isolation_forest.assembled(forest, scaler, metadata, settings, rows, rows, facts)
    else:
        facts["rounds"] = f"{len(state.rounds)}, best was {state.best_round}: held-out loss {state.best_loss:.6f}"
        fitted = _autoencoder(state, metadata, scaler, settings, rows, facts)
    source = (
        f"{len(calibration)} quantiles of {held_out} held-out scores, each client's end by time, as upper bin edges"
    )
    return replace(fitted, calibration=(calibration, source), no_drift=NO_DRIFT)


def _autoencoder(
    state: State,
    metadata: model_pb2.ModelMetadata,
    scaler: StandardScaler,
    settings: Any,
    rows: Floats,
    facts: dict[str, str],
) -> Fitted:
    network = built(state.plan.detector, settings, len(state.plan.features))
    network.set_weights(state.best)
    for name in ("loss", "held_out_loss"):
        curve = metadata.training.history["loss" if name == "loss" else "val_loss"].values
        curve.extend(getattr(done, name) for done in state.rounds)
    if state.plan.detector == "dense_autoencoder":
        weights = dense_network.weights_of(network, settings.activation)
        dense_autoencoder.describe_network(metadata, weights, settings)
        facts["layers"] = dense_autoencoder.layers_said(metadata)
        return dense_autoencoder.assembled(network, scaler, metadata, settings, rows, rows, facts)
    lstm_autoencoder.describe_network(metadata, LstmWeights.of(network), settings, "float64")
    number = len(rows) // settings.window_size
    windows = rows[: number * settings.window_size, 0].reshape(number, settings.window_size, -1)
    return lstm_autoencoder.assembled(network, scaler, metadata, settings, windows, windows, facts)


def medians(state: State) -> Floats:
    """Medians of the metrics in raw units, `[features]`, from the histograms: to a 64th of a scale."""
    scaled = [sketch.SCALED.quantile(counts, 0.5) for counts in state.values]
    width = float(np.diff(sketch.SCALED.edges[:2])[0])
    return (np.array(scaled) - width / 2) * state.scale + state.mean + 0.0  # the middle of the bin


def drawn_rows(state: State, number: int, seed: int) -> Floats:
    """Rows as the histograms have them, metrics independent, each drawn towards the medians: `[number, features]`."""
    rng = np.random.default_rng(seed)
    edges, width = sketch.SCALED.edges, float(np.diff(sketch.SCALED.edges[:2])[0])
    columns = []
    for counts in state.values:
        places = rng.choice(len(counts), number, p=counts / counts.sum())
        columns.append(edges[np.minimum(places, len(edges) - 1)] - width * rng.random(number))
    raw = np.column_stack(columns) * state.scale + state.mean
    middle = medians(state)
    return middle + rng.random((number, 1)) * (raw - middle) + 0.0


def _telemetry(state: State, profile: Profile) -> Telemetry:
    """Drawn rows with the schema of the run, in the place of training data."""
    names = state.plan.features
    schema = profile.feature_schema
    if schema.names != names:
        features = tuple(Feature(name=name, unit="") for name in names)
        schema = FeatureSchema(name=schema.name, version=schema.version, features=features)
    values = drawn_rows(state, ROWS, state.plan.hyperparameters.seed)
    for j, feature in enumerate(schema.features):
        values[:, j] = np.clip(values[:, j], feature.minimum, feature.maximum)
    rows = int(state.rows)
    return Telemetry(
        schema=completed(schema, values),
        values=values,
        timestamps=None,
        timestamp_column=profile.timestamp_column,
        cadence_seconds=state.cadence or None,
        segments=((0, len(values)),),
        source=f"{state.rounds[-1].clients} clients, federated",
        report=Report(rows_read=rows, rows_used=rows),
        scaling=profile.scaling,
        drift=profile.drift,
    )


def _scaler(state: State) -> StandardScaler:
    scaler = StandardScaler()
    scaler.mean_, scaler.scale_, scaler.var_ = state.mean.copy(), state.scale.copy(), state.scale**2
    scaler.n_features_in_, scaler.n_samples_seen_ = len(state.mean), int(state.rows)
    return scaler


def _threshold(bins: sketch.Bins, counts: NDArray[np.int64], share: float) -> float:
    try:
        return midpoint_threshold(bins.quantile(counts, share))
    except ValueError as error:
        raise FederatedError("threshold", f"{error}.", "Check the clients' data for rows that are all alike.") from None


def _record(metadata: model_pb2.ModelMetadata, state: State, bins: sketch.Bins) -> None:
    """How the model came about, in its training record."""
    plan, record = state.plan, metadata.training
    record_settings(record, plan.hyperparameters)
    record.fitted_on, record.held_out = int(state.rows), int(state.scores.sum())
    said = {
        "clients": str(state.rounds[-1].clients),
        "minimum_clients": str(plan.minimum),
        "rounds": str(len(state.rounds)),
        "local_epochs": str(plan.local_epochs),
        "secure_aggregation": "SecAgg+" if plan.secure else "none",
        "robust": f"{plan.robust}, {plan.liars} liars" if plan.liars else "none",
    }
    if plan.privacy is not None:
        spent = epsilon(plan.privacy, len(state.rounds))
        said["differential_privacy"] = (
            f"of the weights: clipping norm {plan.privacy.clipping_norm:g}, noise multiplier "
            f"{plan.privacy.noise_multiplier:g}, epsilon {spent:.3g} at delta {plan.privacy.delta:g}"
        )
    for name, text in said.items():
        record.hyperparameters[f"federated.{name}"] = text
    record.warnings.append(f"threshold and calibration are from a histogram of scores; bins are {bins.error}")
    if plan.detector == "isolation_forest" and plan.secure:
        record.warnings.append("the server has read the trees, which hold single values of clients' rows")
    record.warnings.append(NO_DRIFT)
