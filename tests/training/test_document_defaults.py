"""Every default that one of the five source documents states, against the profile that stands for it (S0 to S4)."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest

from dwcp_training.profiles import load_profile

LINKS = {  # document 001
    "detectors.isolation_forest.contamination": 0.01,
    "detectors.isolation_forest.n_estimators": 100,
    "detectors.isolation_forest.max_samples": "auto",
    "detectors.isolation_forest.max_features": 1.0,
    "detectors.isolation_forest.bootstrap": False,
    "detectors.isolation_forest.seed": 42,
    "detectors.lstm_autoencoder.window_size": 10,
    "detectors.lstm_autoencoder.epochs": 50,
    "detectors.lstm_autoencoder.batch_size": 32,
    "detectors.lstm_autoencoder.encoding_dim": 32,
    "detectors.lstm_autoencoder.hidden_units": 64,
    "detectors.lstm_autoencoder.dropout": 0.2,
    "detectors.lstm_autoencoder.optimizer": "adam",
    "detectors.lstm_autoencoder.learning_rate": 1e-3,
    "detectors.lstm_autoencoder.loss": "mse",
    "detectors.lstm_autoencoder.validation_split": 0.2,
    "detectors.lstm_autoencoder.early_stopping_patience": 10,
    "detectors.lstm_autoencoder.learning_rate_patience": 5,
    "detectors.lstm_autoencoder.learning_rate_factor": 0.5,
    "detectors.lstm_autoencoder.learning_rate_floor": 1e-5,
    "detectors.lstm_autoencoder.threshold_percentile": 95.0,
    "scaling.method": "standard",
    "recommended.samples": 10_000,
    "recommended.days": 7.0,
    "feature_schema.names": (
        "bandwidth", "latency", "packet_loss", "jitter", "cpu_usage", "memory_usage", "error_rate"
    ),
}  # fmt: skip

RUNS = {  # document 000
    "detectors.lstm_autoencoder.window_size": 50,
    "detectors.lstm_autoencoder.window_stride": 5,
    "detectors.lstm_autoencoder.threshold_percentile": 99.0,
    "reader.format": "runs",
    "reader.normal_labels": ("idle", "normal"),
    "scaling.method": "standard",
}

BEARING = {  # document 002
    "detectors.dense_autoencoder.encoder_units": (64, 32, 16),
    "detectors.dense_autoencoder.bottleneck": 8,
    "detectors.dense_autoencoder.activation": "relu",
    "detectors.dense_autoencoder.loss": "mse",
    "detectors.dense_autoencoder.epochs": 50,
    "detectors.dense_autoencoder.batch_size": 32,
    "detectors.dense_autoencoder.learning_rate": 1e-3,
    "detectors.dense_autoencoder.dropout": 0.2,
    "detectors.dense_autoencoder.weight_decay": 1e-4,
    "detectors.dense_autoencoder.early_stopping_patience": 10,
    "detectors.dense_autoencoder.validation_split": 0.1,
    "detectors.dense_autoencoder.threshold_percentile": 90.0,  # contamination 0.1
    "reader.baseline.first": 20,
    "recommended.samples": 2400,
    "scaling.method": "minmax",
}

HOST = {  # document 003; its drift thresholds are tested with `dwcp drift`
    "reader.padded_to": 64,
    "recommended.samples": 5000,
    "scaling.divisors": {
        "process_count": 1000,
        "network_count": 1000,
        "file_count": 1000,
        "privilege_count": 1000,
        "unique_process_names": 500,
        "average_command_length": 1000,
        "bytes_sent": 1e9,
        "bytes_received": 1e9,
        "unique_file_paths": 1000,
        "total_file_size": 1e9,
        "privilege_success": 100,
        "privilege_fail": 100,
    },
}

PLANT = {  # document 004
    "detectors.dense_autoencoder.encoder_units": (128, 64, 32),
    "detectors.dense_autoencoder.bottleneck": 16,
    "detectors.dense_autoencoder.epochs": 100,
    "detectors.dense_autoencoder.threshold_percentile": 95.0,
    "detectors.isolation_forest.n_estimators": 100,
    "detectors.isolation_forest.contamination": 0.1,
    "detectors.isolation_forest.max_samples": 256,
    "detectors.lstm_classifier.window_size": 100,
    "detectors.lstm_classifier.units": (64, 32, 16),
    "detectors.lstm_classifier.epochs": 50,
    "detectors.ensemble.weights": {"dense_autoencoder": 0.4, "isolation_forest": 0.3, "lstm_classifier": 0.3},
    "detectors.ensemble.warning_threshold": 0.3,
    "detectors.ensemble.critical_threshold": 0.7,
}

TABLE = [
    (profile, path, value)
    for profile, defaults in {
        "dwcp": LINKS, "telemetry-runs": RUNS, "bearing": BEARING, "edge-host": HOST, "industrial": PLANT
    }.items()
    for path, value in defaults.items()
]  # fmt: skip


@pytest.mark.parametrize(("profile", "path", "stated"), TABLE, ids=[f"{p}-{path}" for p, path, _ in TABLE])
def test_default(profile: str, path: str, stated: Any) -> None:
    assert reduce(getattr, path.split("."), load_profile(profile)) == stated
