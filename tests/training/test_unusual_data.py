"""Data that is not like the 7 metrics: large raw values, one metric, constants, windows longer than the runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import read_table
from dwcp_training.detectors.registry import DETECTORS
from dwcp_training.pipeline import train
from dwcp_training.profiles import IsolationForestDefaults, load_profile
from tests.training.test_cli import DENSE, FOREST, LOF, LSTM, SVM, invoke

PROFILE = (
    "feature_schema: {name: mine, version: 1}\ntimestamp_column: null\nreader: {features: numeric, series: files}\n"
)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(PROFILE)
    return path


def test_raw_values_too_large_for_float32(tmp_path: Path, profile: Path) -> None:
    """Byte counters near 10^12 that vary by thousands: skl2onnx's float32 cannot tell them apart, ours can."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", 1e12 + 1000 * rng.normal(size=(600, 3)))
    telemetry = read_table(tmp_path / "a.npy", load_profile(profile))
    trained = train("isolation_forest", telemetry, IsolationForestDefaults(n_estimators=5), tmp_path / "models")
    assert trained.warning == ""
    assert "of rows scaled in float64" in trained.facts["against skl2onnx"]
    model = ModelSet.open(tmp_path / "models").model("isolation_forest")
    far = model.score_batch(np.array([[1e12, 1e12, 1e12], [1e12 + 9000] * 3])).scores
    assert far[1] > far[0]


@pytest.mark.parametrize("size", [1e60, 1e300])
def test_raw_values_that_float32_cannot_hold(size: float, tmp_path: Path, profile: Path) -> None:
    np.save(tmp_path / "a.npy", size * np.random.default_rng(0).normal(size=(200, 2)))
    flags = ("--profile", profile, "--data", tmp_path / "a.npy", "--output", tmp_path / "models", "--n-estimators", "3")
    result = invoke(*FOREST, *flags)
    if size < 1e100:
        assert result.exit_code == 0, result.output
        assert "no ONNX graph" not in result.output
    else:  # their squares are infinite, and so is their deviation
        assert result.exit_code == 1
        assert "x0: values up to" in result.stderr
        assert "no finite mean and scale" in result.stderr


@pytest.mark.slow  # trains both detectors
def test_one_metric(tmp_path: Path, profile: Path, no_training: None, no_cross_check: None) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(200, 1)))
    flags = ("--profile", profile, "--data", tmp_path / "a.npy", "--output", tmp_path / "models")
    small = {FOREST: ("--n-estimators", "3"), LSTM: ("--window-size", "2", "--encoding-dim", "2")}
    for command in (FOREST, LSTM, DENSE, LOF, SVM):
        result = invoke(*command, *flags, *small.get(command, ()))
        assert result.exit_code == 0, result.output
        assert "no ONNX graph" not in result.output
    data = ("--profile", profile, "--data", tmp_path / "a.npy")
    result = invoke("train", "ensemble", *data, "--models", tmp_path / "models")
    assert result.exit_code == 0, result.output
    assert set(ModelSet.open(tmp_path / "models").models) == set(DETECTORS) - {"lstm_classifier"}  # it needs labels


@pytest.mark.parametrize("command", [LOF, SVM])
def test_values_far_outside_float32(
    tmp_path: Path, profile: Path, command: tuple[str, str], no_cross_check: None
) -> None:
    np.save(tmp_path / "a.npy", 1e60 * np.random.default_rng(0).normal(size=(120, 2)))
    result = invoke(*command, "--profile", profile, "--data", tmp_path / "a.npy", "--output", tmp_path / "models")
    assert result.exit_code == 0, result.output
    assert "no ONNX graph" not in result.output


@pytest.mark.parametrize("command", [LOF, SVM])
def test_columns_without_any_number_are_refused(tmp_path: Path, profile: Path, command: tuple[str, str]) -> None:
    values = np.random.default_rng(0).normal(size=(100, 3))
    values[:, 1] = np.nan
    np.save(tmp_path / "a.npy", values)
    flags = ("--profile", profile, "--data", tmp_path / "a.npy", "--output", tmp_path / "models")
    for dropping in ((), ("--on-bad-rows", "drop")):
        result = invoke(*command, *flags, *dropping)
        assert result.exit_code == 1
        assert "x1" in result.stderr
    assert not (tmp_path / "models").exists()


def test_a_profile_of_the_detectors_own_settings(tmp_path: Path, no_cross_check: None) -> None:
    (tmp_path / "mine.yaml").write_text(
        PROFILE + "detectors: {local_outlier_factor: {n_neighbors: 3, max_rows: 50}, one_class_svm: {gamma: auto}}\n"
    )
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(100, 2)))
    flags = ("--profile", tmp_path / "mine.yaml", "--data", tmp_path / "a.npy", "--output", tmp_path / "models")
    for command in (LOF, (*SVM, "--nu", "0.3")):
        result = invoke(*command, *flags)
        assert result.exit_code == 0, result.output
    assert "29 of 79 rows were left out of the fit" in " ".join(invoke(*LOF, *flags).output.replace("│", " ").split())
    metadata = ModelSet.open(tmp_path / "models").metadata
    found = metadata["local_outlier_factor"].neighbors
    assert (found.n_neighbors, found.rows) == (3, 50)
    assert (metadata["one_class_svm"].svm.gamma, metadata["one_class_svm"].svm.nu) == (0.5, 0.3)
    assert metadata["one_class_svm"].training.hyperparameters["contamination"] == "None"


def test_window_stride(tmp_path: Path, profile: Path, no_training: None, no_cross_check: None) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(205, 2)))
    flags = ("--profile", profile, "--data", tmp_path / "a.npy", "--window-size", "4", "--encoding-dim", "2")
    result = invoke(*LSTM, *flags, "--window-stride", "10", "--output", tmp_path / "models")
    assert result.exit_code == 0, result.output
    record = ModelSet.open(tmp_path / "models").metadata["lstm_autoencoder"].training
    assert (record.fitted_on, record.held_out) == (16, 4)  # of 160 rows and of 41
    assert record.hyperparameters["window_stride"] == "10"


def test_window_longer_than_every_run_is_refused(tmp_path: Path, profile: Path) -> None:
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=(30, 2)))
    result = invoke(*LSTM, "--profile", profile, "--data", tmp_path, "--window-size", "40", "--output", tmp_path / "m")
    assert result.exit_code == 1
    assert "no window of 40 samples fits: the longest run without a gap has" in result.stderr
    assert "shorter window" in result.stderr
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("command", [FOREST, LSTM, pytest.param(DENSE, marks=pytest.mark.slow), LOF, SVM])
def test_constant_columns(
    tmp_path: Path, profile: Path, command: tuple[str, str], no_training: None, no_cross_check: None
) -> None:
    values = np.ones((100, 3))
    np.save(tmp_path / "a.npy", values)
    flags = ("--profile", profile, "--data", tmp_path / "a.npy", "--output", tmp_path / "models")
    result = invoke(*command, *flags)
    assert result.exit_code == 1
    assert "no metric ever changes in 100 rows" in result.stderr
    values[:, 1] = np.arange(100)
    np.save(tmp_path / "a.npy", values)
    result = invoke(*command, *flags)
    assert result.exit_code == 0, result.output
    assert "x0, x2 never changes: a model learns nothing about it" in result.output
    assert "no ONNX graph" not in result.output


def test_labels_missing_where_they_are_asked_for(tmp_path: Path, profile: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n2,3\n")
    flags = ("--profile", profile, "--output", tmp_path / "models", "--label-column", "label")
    result = invoke(*FOREST, "--data", tmp_path / "a.csv", *flags)
    assert result.exit_code == 1
    assert "a.csv has no column 'label'" in result.stderr
    np.save(tmp_path / "a.npy", np.zeros((5, 2)))
    result = invoke(*FOREST, "--data", tmp_path / "a.npy", *flags)
    assert result.exit_code == 1
    assert "the columns of a .npy file have no names" in result.stderr


def test_flags_win_over_the_profile(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        PROFILE.replace("series: files", "label_column: kind, normal_labels: [idle]")
        + "detectors: {isolation_forest: {n_estimators: 3, contamination: 0.1}}\n"
    )
    rows = "".join(f"{i % 7},{i % 5},{'idle' if i % 2 else 'busy'}\n" for i in range(100))
    (tmp_path / "a.csv").write_text("a,b,kind\n" + rows)
    flags = ("--profile", tmp_path / "mine.yaml", "--data", tmp_path / "a.csv", "--output", tmp_path / "models")

    def trained(*more: str) -> tuple[int, float, int]:
        result = invoke(*FOREST, *flags, *more)
        assert result.exit_code == 0, result.output
        metadata = ModelSet.open(tmp_path / "models").metadata["isolation_forest"]
        return metadata.n_estimators, metadata.contamination, metadata.training.dropped["excluded_label"]

    assert trained() == (3, 0.1, 50)
    assert trained("--n-estimators", "2", "--normal-label", "busy", "--normal-label", "idle") == (2, 0.1, 0)


def test_made_up_data_is_of_one_profile(tmp_path: Path, profile: Path) -> None:
    result = invoke(*FOREST, "--synthetic", "--profile", profile, "--output", tmp_path / "models")
    assert result.exit_code == 2
    assert "--synthetic makes the metrics of the profile dwcp" in result.stderr
