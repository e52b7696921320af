"""The profiles that come with the program: the documents' defaults, and mistakes in a profile of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dwcp_training.profiles import ProfileError, load_profile, profile_names, profile_yaml
from tests.training.test_cli import invoke

DEFAULTS: dict[str, dict[str, Any]] = {
    "dwcp": {  # S1-2, S1-3, S1-5, S1-10, S1-11, S1-14
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
            "bandwidth",
            "latency",
            "packet_loss",
            "jitter",
            "cpu_usage",
            "memory_usage",
            "error_rate",
        ),
    },
    "telemetry-runs": {  # S0-1, S0-3, S0-4
        "reader.format": "runs",
        "reader.features": "numeric",
        "reader.label_column": "label",
        "reader.normal_labels": ("idle", "normal"),
        "timestamp_column": "t_wall",
        "reader.timestamp_format": "seconds",
        "detectors.lstm_autoencoder.window_size": 50,
        "detectors.lstm_autoencoder.window_stride": 5,
        "detectors.lstm_autoencoder.threshold_percentile": 99.0,
    },
    "bearing": {  # S2-2, S2-6
        "reader.baseline.first": 20,
        "reader.features": "numeric",
        "scaling.method": "minmax",
        "recommended.samples": 2400,
        "detectors.isolation_forest.contamination": 0.1,
        "detectors.dense_autoencoder.encoder_units": (64, 32, 16),
        "detectors.dense_autoencoder.bottleneck": 8,
        "detectors.dense_autoencoder.activation": "relu",
        "detectors.dense_autoencoder.epochs": 50,
        "detectors.dense_autoencoder.batch_size": 32,
        "detectors.dense_autoencoder.learning_rate": 0.001,
        "detectors.dense_autoencoder.dropout": 0.2,
        "detectors.dense_autoencoder.weight_decay": 0.0001,
        "detectors.dense_autoencoder.early_stopping_patience": 10,
        "detectors.dense_autoencoder.validation_split": 0.1,
        "detectors.dense_autoencoder.threshold_percentile": 90.0,
        "detectors.local_outlier_factor.contamination": 0.1,
        "detectors.one_class_svm.contamination": 0.1,
    },
    "edge-host": {  # S3-1
        "reader.padded_to": 64,
        "drift.psi_threshold": 0.25,  # S3-4
        "drift.wasserstein_threshold": 0.15,
        "scaling.method": "divisors",
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
    },
    "industrial": {  # S4-2, S4-3, S4-4
        "reader.series": "files",
        "detectors.isolation_forest.n_estimators": 100,
        "detectors.isolation_forest.contamination": 0.1,
        "detectors.isolation_forest.max_samples": 256,
        "detectors.lstm_autoencoder.window_size": 100,
        "detectors.lstm_autoencoder.threshold_percentile": 95.0,
        "detectors.dense_autoencoder.encoder_units": (128, 64, 32),
        "detectors.dense_autoencoder.bottleneck": 16,
        "detectors.dense_autoencoder.epochs": 100,
        "detectors.dense_autoencoder.threshold_percentile": 95.0,
    },
}


@pytest.mark.parametrize(
    ("name", "path", "wanted"), [(name, path, value) for name, rows in DEFAULTS.items() for path, value in rows.items()]
)
def test_default_of_the_document(name: str, path: str, wanted: Any) -> None:
    value: Any = load_profile(name)
    for part in path.split("."):
        value = getattr(value, part)
    assert value == wanted


def test_every_profile_says_what_it_is_for_and_shows_itself(tmp_path: Path) -> None:
    assert set(profile_names()) == {"dwcp", *DEFAULTS}
    listed = invoke("profile", "list").stdout
    for name in profile_names():
        profile = load_profile(name)
        assert profile.description
        assert f"{profile.description}\n" in listed
        assert profile.feature_schema.name == name
        result = invoke("profile", "show", name)
        assert result.exit_code == 0
        (tmp_path / "shown.yaml").write_text(result.stdout)
        assert load_profile(tmp_path / "shown.yaml") == profile


def test_a_profile_of_ones_own_is_shown_with_its_defaults(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("feature_schema: {name: mine, version: 1}\nreader: {features: numeric}\n")
    shown = yaml.safe_load(invoke("profile", "show", tmp_path / "mine.yaml").stdout)
    assert shown["detectors"]["isolation_forest"]["n_estimators"] == 100
    wrong = invoke("profile", "show", "industral")
    assert wrong.exit_code == 1
    assert "Did you mean 'industrial'?" in wrong.stderr


@pytest.mark.parametrize(
    ("name", "old", "new", "field", "hint"),
    [
        ("telemetry-runs", "format: runs", "format: run", "reader.format", "'runs'"),
        ("telemetry-runs", "  normal_labels:", "  normal_label:", "reader.normal_label", "'normal_labels'"),
        ("telemetry-runs", "normal_labels: [idle, normal]", "normal_labels: idle", "reader.normal_labels", "idle"),
        ("telemetry-runs", "window_stride: 5 ", "window_stride: 0 ", "detectors.lstm_autoencoder.window_stride", "1"),
        ("telemetry-runs", "features: numeric", "features: listed", "profile", "list the metrics"),
        ("bearing", "{column: file", "{colum: file", "reader.baseline.colum", "'column'"),
        ("bearing", "first: 20", "first: 0", "reader.baseline.first", "at least 1"),
        ("bearing", "method: minmax", "method: min-max", "scaling.method", "'minmax'"),
        ("bearing", "scaling:", "scalling:", "scalling", "'scaling'"),
        ("edge-host", "    bytes_sent: 1.0e+9", "    byte_sent: 1.0e+9", "profile", "'bytes_sent'"),
        ("edge-host", "    bytes_sent: 1.0e+9\n", "", "profile", "missing are bytes_sent"),
        ("edge-host", "process_count: 1000", "process_count: 0", "scaling.divisors.process_count", "greater than 0"),
        ("edge-host", "process_count: 1000", "process_count: many", "scaling.divisors.process_count", "many"),
        ("edge-host", "unit: characters, minimum: 0", "unit: s, warning: 3", "feature_schema.features[5]", "both"),
        ("edge-host", "padded_to: 64", "features: numeric", "profile", "lists some"),
        ("industrial", "series: files", "series: filed", "reader.series", "'files'"),
        ("industrial", "series: files", 'delimiter: "."', "reader.delimiter", "';'"),
    ],
)  # fmt: skip
def test_wrong_key_or_value_names_itself(tmp_path: Path, name: str, old: str, new: str, field: str, hint: str) -> None:
    from dwcp_training import profiles

    text = (Path(profiles.__file__).parent / f"{name}.yaml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "mine.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ProfileError) as caught:
        load_profile(tmp_path / "mine.yaml")
    assert caught.value.field == field, caught.value
    assert hint in str(caught.value)


def test_yaml_of_a_profile_keeps_every_number(tmp_path: Path) -> None:
    profile = load_profile("edge-host")
    (tmp_path / "again.yaml").write_text(profile_yaml(profile))
    assert load_profile(tmp_path / "again.yaml") == profile
