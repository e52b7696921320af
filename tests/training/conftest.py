"""Fixtures of the training tests: small data, one published set a session, networks that need no training."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import Telemetry, forest_rows, lstm_series, write_csv
from dwcp_training.pipeline import train
from dwcp_training.profiles import IsolationForestDefaults, LstmAutoencoderDefaults
from tests.shared import made_once

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = Path(sys.executable).with_name("dwcp")
SMALL_LSTM = ("--window-size", "3", "--encoding-dim", "4", "--epochs", "2")
"""Flags of a network that trains in seconds."""


@pytest.fixture(scope="session")
def csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 rows of normal data in the seed's format."""
    path = tmp_path_factory.mktemp("data") / "normal.csv"
    write_csv(lstm_series(300), path)
    return path


@pytest.fixture(scope="session")
def dwcp() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command `dwcp` in its own process."""

    def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=200, **options)

    return run


@pytest.fixture(scope="session")
def forest_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a published forest of 20 trees. Tests that write copy it."""
    output = tmp_path_factory.mktemp("forest")
    train("isolation_forest", forest_rows(2_000), IsolationForestDefaults(n_estimators=20), output)
    return output


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever needs the twins may have to wait for two trainings in new processes, on a machine that is busy."""
    for item in items:
        if "lstm_twins" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(600))


@dataclass(frozen=True)
class Twins:
    """Two folders that the same command wrote in two processes, and what the first printed."""

    folders: tuple[Path, Path]
    printed: str


WITHOUT_CROSS_CHECKS = (
    "import pytest; from dwcp_training.cli import main; from tests.training import conftest; "
    "conftest.leave_out_cross_checks(pytest.MonkeyPatch()); main()"
)
"""The command `dwcp` without the comparison with other converters, which must not change what is written."""


@pytest.fixture(scope="session")
def lstm_twins(csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """A small LSTM autoencoder, trained twice, at the same time, once for all files that look at it."""
    flags = ["train", "lstm-autoencoder", "--data", csv, *SMALL_LSTM, "--output"]
    programs = [[COMMAND], [sys.executable, "-c", WITHOUT_CROSS_CHECKS]]

    def make(folder: Path) -> None:
        running = [
            subprocess.Popen(
                [*program, *flags, folder / name],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY,
            )
            for program, name in zip(programs, ("first", "second"), strict=True)
        ]  # fmt: skip
        try:
            printed = [process.communicate(timeout=280)[0] for process in running]
        finally:
            for process in running:
                process.kill()  # one that has ended does not mind
        assert [process.returncode for process in running] == [0, 0], printed
        (folder / "printed").write_text(printed[0])

    folder = made_once(tmp_path_factory, "lstm_twins", make)
    return Twins((folder / "first", folder / "second"), (folder / "printed").read_text())


@pytest.fixture(scope="session")
def lstm_models(lstm_twins: Twins) -> Path:
    """A folder with a published, really trained LSTM autoencoder."""
    return lstm_twins.folders[0]


def untrained(settings: LstmAutoencoderDefaults, features: int = 7, seed: int = 0, size: float = 1.0) -> Any:
    """A Keras network with random weights, normal with a deviation of `size` over the square root of the width."""
    from dwcp_training.detectors import keras_network

    network = keras_network.build(settings, features, unroll=False)
    rng = np.random.default_rng(seed)
    network.set_weights(
        [rng.normal(0, size / np.sqrt(weights.shape[-1]), weights.shape) for weights in network.get_weights()]
    )
    return network


def replace_training(patch: pytest.MonkeyPatch) -> None:
    """Makes fitting an LSTM autoencoder instant: its network keeps random weights."""
    from dwcp_training.detectors import keras_network

    def train(fitted: np.ndarray, held_out: np.ndarray, settings: LstmAutoencoderDefaults, on_epoch: Any) -> Any:
        logs = {"loss": 1.0, "val_loss": 1.0, "learning_rate": 1e-3}
        on_epoch(0, logs)
        return untrained(settings, fitted.shape[-1]), {name: [value] for name, value in logs.items()}

    patch.setattr(keras_network, "train", train)


def leave_out_cross_checks(patch: pytest.MonkeyPatch) -> None:
    """Leaves out the comparison with skl2onnx and tf2onnx, which takes most of the time of training little data."""
    patch.setattr("dwcp_training.detectors.isolation_forest.cross_check_forest", lambda *_: {})
    patch.setattr("dwcp_training.detectors.lstm_autoencoder.cross_check_lstm", lambda *_, **__: {})
    patch.setattr("dwcp_training.detectors.local_outlier_factor.cross_check_neighbors", lambda *_: {})
    patch.setattr("dwcp_training.detectors.one_class_svm.cross_check_svm", lambda *_: {})
    patch.setattr("dwcp_training.detectors.lstm_classifier.cross_check_classifier", lambda *_: {})
    patch.setattr("dwcp_training.detectors.mahalanobis.cross_check_mahalanobis", lambda *_: {})


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_training(monkeypatch)


@pytest.fixture
def no_cross_check(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_cross_checks(monkeypatch)


def check_crossings_and_pickles(detector: str, telemetry: Telemetry, models: ModelSet) -> None:
    """Golden cases stand on both sides of the threshold, and who opens the pickles by hand decides as the set does."""
    cases = {case.id: case for case in models.golden[detector].cases}
    crossings = [id for id in cases if id.startswith("threshold/") and id.endswith("/anomaly")]
    assert len(crossings) >= 5
    for id, case in cases.items():
        if id.startswith("threshold/"):
            assert case.score.is_anomaly == id.endswith("/anomaly")
    estimator, scaler = (
        pickle.loads((models.path / name).read_bytes()) for name in (f"{detector}.pkl", f"{detector}_scaler.pkl")
    )
    samples = telemetry.values * np.random.default_rng(0).uniform(0.3, 2, telemetry.values.shape)
    verdicts = models.model(detector).score_batch(samples)
    assert verdicts.is_anomaly.any()
    assert not verdicts.is_anomaly.all()
    assert np.array_equal(verdicts.is_anomaly, estimator.predict(scaler.transform(samples)) == -1)


def contents(folder: Path) -> dict[str, bytes]:
    """File name to bytes of the set that a folder has in use."""
    return {path.name: path.read_bytes() for path in ModelSet.open(folder).path.iterdir()}
