"""The same data and seed give the same model set, byte for byte, in another process too."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import forest_rows
from dwcp_training.detectors import keras_network
from dwcp_training.pipeline import train
from dwcp_training.profiles import IsolationForestDefaults, LstmAutoencoderDefaults
from tests.training.conftest import Twins, contents, untrained


@pytest.mark.slow  # trains in new processes
@pytest.mark.parametrize(
    "command",
    [
        ("isolation-forest", "--n-estimators", "5"),
        ("local-outlier-factor", "--max-rows", "200"),
        ("one-class-svm", "--max-rows", "200"),
    ],
    ids=lambda command: command[0],
)
def test_the_same_in_another_process(csv: Path, dwcp: Callable, tmp_path: Path, command: tuple[str, ...]) -> None:
    # Two new processes, as two runs of the command are: how a pickle shares strings depends on a process's past.
    flags = ["train", *command, "--data", csv, "--output"]
    for name in "ab":
        assert dwcp(*flags, tmp_path / name).returncode == 0
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert ModelSet.open(tmp_path / "a").id == ModelSet.open(tmp_path / "b").id


@pytest.mark.slow  # trains a network in new processes
def test_lstm_is_the_same_in_another_process(lstm_twins: Twins) -> None:
    first, second = map(contents, lstm_twins.folders)
    assert "warning: no ONNX" not in lstm_twins.printed
    assert {"lstm_autoencoder.h5", "lstm_autoencoder.keras", "lstm_autoencoder.onnx", "lstm_scaler.pkl"} <= first.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert ModelSet.open(lstm_twins.folders[0]).id == ModelSet.open(lstm_twins.folders[1]).id


def test_saved_networks_can_be_loaded_again(lstm_models: Path) -> None:
    import keras

    for name in ("lstm_autoencoder.keras", "lstm_autoencoder.h5"):
        network = keras.models.load_model(lstm_models / name, compile=False)
        assert network.input_shape == (None, 3, 7)


def test_a_keras_file_holds_neither_time_nor_addresses() -> None:
    archive = keras_network.saved(untrained(LstmAutoencoderDefaults(window_size=2, hidden_units=3, encoding_dim=2)))
    with zipfile.ZipFile(io.BytesIO(archive["lstm_autoencoder.keras"])) as file:
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert b"1980-01-01@00:00:00" in file.read("metadata.json")
        ids = [int(found[2]) for found in keras_network._SHARED_ID.finditer(file.read("config.json"))]
    assert sorted(set(ids)) == list(range(len(set(ids))))


def test_publishing_the_same_again_changes_nothing_and_another_seed_does(tmp_path: Path, no_cross_check: None) -> None:
    settings = IsolationForestDefaults(n_estimators=3)
    first = train("isolation_forest", forest_rows(200), settings, tmp_path).models
    inode = first.path.stat().st_ino
    other = train("isolation_forest", forest_rows(200), settings.model_copy(update={"seed": 43}), tmp_path / "b").models
    assert other.id != first.id
    second = train("isolation_forest", forest_rows(200), settings, tmp_path).models
    assert (second.id, second.path) == (first.id, first.path)
    assert second.path.stat().st_ino == inode  # the release in use was never taken away, not even for a moment
