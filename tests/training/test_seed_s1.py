"""The checklist S1 of the source document, row by row: what it promises its readers, ours keeps."""

from __future__ import annotations

import json
import pickle
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_training import cli, run
from dwcp_training.data import forest_rows, lstm_series, write_csv
from dwcp_training.detectors.isolation_forest import fit_isolation_forest
from dwcp_training.detectors.lstm_autoencoder import fit_lstm_autoencoder
from dwcp_training.pipeline import train
from dwcp_training.profiles import IsolationForestDefaults, LstmAutoencoderDefaults, load_profile
from tests.training.conftest import REPOSITORY

TRAINING = REPOSITORY / "training"
COMMANDS = [
    "python train_isolation_forest.py --synthetic --output ../models",
    "python train_isolation_forest.py --data /path/to/normal_data.csv --output ../models",
    """python train_isolation_forest.py \\
    --data training_data.csv \\
    --output ../models \\
    --contamination 0.01 \\
    --n-estimators 200""",
    "python train_lstm_autoencoder.py --synthetic --output ../models",
    "python train_lstm_autoencoder.py --data /path/to/timeseries_data.csv --output ../models",
    """python train_lstm_autoencoder.py \\
    --data training_data.csv \\
    --output ../models \\
    --window-size 10 \\
    --epochs 100 \\
    --batch-size 64 \\
    --encoding-dim 32""",
]
"""The command lines of the document, verbatim."""

FOREST_FILES = ["isolation_forest.pkl", "scaler.pkl", "isolation_forest.onnx", "model_metadata.json"]
LSTM_FILES = [
    "lstm_autoencoder.h5", "lstm_autoencoder.keras", "lstm_scaler.pkl", "lstm_autoencoder.onnx", "lstm_metadata.json",
]  # fmt: skip
FEATURES = ["bandwidth", "latency", "packet_loss", "jitter", "cpu_usage", "memory_usage", "error_rate"]


def test_commands_are_those_of_the_document() -> None:
    seed = next((REPOSITORY.parent / "shared" / "seeds").glob("001_*.txt"), None)
    if seed is None:
        pytest.skip("comparison of the command lines with the document left out: ../shared/seeds is not here")
    blocks = re.findall(r"```bash\n(.*?)```", seed.read_text(), re.DOTALL)
    text = re.sub(r"^#.*\n", "", "\n".join(blocks), flags=re.MULTILINE)
    found = re.findall(r"^(?:python|pip) (?:.*\\\n)*.*$", text, re.MULTILINE)
    assert found == ["pip install -r requirements.txt", *COMMANDS]


@pytest.fixture
def workplace(tmp_path: Path, csv: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of training/ as the document sees it, with the data it names beside it; the current folder."""
    folder = tmp_path / "training"
    folder.mkdir()
    for script in TRAINING.glob("train_*.py"):
        shutil.copy(script, folder)
    shutil.copy(csv, folder / "training_data.csv")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=lambda text: " ".join(text.split()[1:4]))
def test_s1_1_command_lines_run_verbatim(
    command: str,
    workplace: Path,
    csv: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    no_training: None,  # `make train-synthetic` and test_determinism.py train; here the command line is tested
    no_cross_check: None,
) -> None:
    monkeypatch.setitem(run.SYNTHETIC, "lstm_autoencoder", lambda seed: lstm_series(300, seed))
    words = shlex.split(command.replace("\\\n", ""))
    arguments = [str(csv) if word.startswith("/path/to/") else word for word in words[1:]]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(arguments[0], run_name="__main__")
    assert ended.value.code == 0, capsys.readouterr()
    models = workplace.parent / "models"
    forest = "forest" in command
    for name in FOREST_FILES if forest else LSTM_FILES:
        assert (models / name).is_file(), name
    printed = capsys.readouterr().out
    assert "rows" in printed
    assert "scores" in printed
    assert "threshold" in printed
    opened = ModelSet.open(models, self_test=False)  # the command has run the golden vectors
    metadata = opened.metadata["isolation_forest" if forest else "lstm_autoencoder"]
    parameters = metadata.training.hyperparameters
    if "--n-estimators" in command:
        assert (metadata.n_estimators, metadata.contamination) == (200, 0.01)
    if "--epochs" in command:
        assert (parameters["epochs"], parameters["batch_size"], parameters["encoding_dim"]) == ("100", "64", "32")
        assert metadata.timesteps == 10


def test_s1_1_files_of_the_document_are_there_and_requirements_are_what_is_installed() -> None:
    names = ("train_isolation_forest.py", "train_lstm_autoencoder.py", "requirements.txt")
    assert [name for name in names if not (TRAINING / name).is_file()] == []
    lines = [line.split("#")[0].strip() for line in (TRAINING / "requirements.txt").read_text().splitlines()]
    pins = dict(line.split("==") for line in lines if "==" in line)
    assert pins == {name: version(name) for name in pins}
    assert {"tensorflow-cpu", "tf2onnx", "skl2onnx", "scikit-learn", "onnxruntime", "pandas", "protobuf"} <= pins.keys()
    assert [line for line in lines if line.startswith("-e")] == ["-e ../sidecar", "-e ."]


def options(command: Callable) -> dict[str, Any]:
    """Flag to default, as typer sees it."""
    from typer.main import get_command_from_info
    from typer.models import CommandInfo

    info = CommandInfo(callback=command)
    built = get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode=None)
    return {parameter.opts[0]: parameter for parameter in built.params}


@pytest.mark.parametrize(
    ("command", "detector", "documented"),
    [
        (cli.isolation_forest, "isolation_forest", {"--contamination": 0.01, "--n-estimators": 100}),
        (
            cli.lstm_autoencoder,
            "lstm_autoencoder",
            {
                "--window-size": 10,
                "--epochs": 50,
                "--batch-size": 32,
                "--encoding-dim": 32,
                "--threshold-percentile": 95,
            },
        ),
    ],
)
def test_s1_2_and_3_flags_and_their_defaults(command: Callable, detector: str, documented: dict[str, float]) -> None:
    flags = options(command)
    assert {"--synthetic", "--data", "--output", *documented} <= flags.keys()
    assert str(flags["--output"].default) == "../models"
    assert flags["--synthetic"].default is False
    settings = getattr(load_profile("dwcp").detectors, detector)
    for flag, default in documented.items():
        assert getattr(settings, flag.removeprefix("--").replace("-", "_")) == default
        assert f"default {default:g}" in flags[flag].help  # what the help says is what the profile does
        assert flags[flag].default is None  # so that a profile can decide


def test_s1_4_columns_are_read_by_name(tmp_path: Path, csv: Path, no_cross_check: None) -> None:
    lines = [line.split(",") for line in csv.read_text().splitlines()]
    assert lines[0] == ["timestamp", *FEATURES]
    order = [5, 0, 7, 3, 1, 6, 4, 2]
    shuffled = [[*(line[i] for i in order), "extra"] for line in lines]
    (tmp_path / "shuffled.csv").write_text("\n".join(",".join(line) for line in shuffled))
    models = []
    for path in (csv, tmp_path / "shuffled.csv"):
        telemetry = run.read_table(path, load_profile("dwcp"))
        models.append(
            train("isolation_forest", telemetry, IsolationForestDefaults(n_estimators=5), tmp_path / path.stem).models
        )
    for name in ("isolation_forest.onnx", "scaler.pkl", "isolation_forest.pkl", "isolation_forest.golden.json"):
        assert (models[0].path / name).read_bytes() == (models[1].path / name).read_bytes(), name


def test_s1_5_to_8_artifacts_and_metadata_keys(forest_models: Path, lstm_models: Path) -> None:
    schema = [("Mbps"), ("ms"), ("%"), ("ms"), ("%"), ("%"), ("%")]
    for folder, name, files, keys in (
        (
            forest_models,
            "model_metadata.json",
            FOREST_FILES,
            {"model_type": "isolation_forest", "n_estimators": 20, "contamination": 0.01},
        ),
        (lstm_models, "lstm_metadata.json", LSTM_FILES, {"model_type": "lstm_autoencoder", "timesteps": 3}),
    ):
        for file in files:
            assert (folder / file).is_file(), file
        metadata = json.loads((folder / name).read_text())
        assert {key: metadata[key] for key in keys} == keys
        assert metadata["n_features"] == 7
        assert metadata["feature_names"] == FEATURES
        assert metadata["threshold"] > 0
        assert [feature["unit"] for feature in metadata["feature_schema"]["features"]] == schema
    assert "threshold" in json.loads((lstm_models / "lstm_metadata.json").read_text())


def test_s1_6_pickles_decide_as_the_graph_does(forest_models: Path) -> None:
    forest = pickle.loads((forest_models / "isolation_forest.pkl").read_bytes())
    scaler = pickle.loads((forest_models / "scaler.pkl").read_bytes())
    rows = forest_rows(500, seed=5).values
    verdicts = ModelSet.open(forest_models).model("isolation_forest").score_batch(rows)
    assert np.array_equal(verdicts.is_anomaly, forest.predict(scaler.transform(rows)) == -1)


@pytest.mark.parametrize("detector", ["isolation_forest", "lstm_autoencoder"])
@pytest.mark.parametrize("place", ["convert", "cross_check", "golden"])
def test_s1_9_a_failing_export_is_a_warning(
    detector: str,
    place: str,
    csv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    no_training: None,
    no_cross_check: None,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the converter is broken [/red]")

    targets = {
        "convert": {
            "isolation_forest": "detectors.isolation_forest.export_forest",
            "lstm_autoencoder": "export.lstm.export_lstm",
        },
        "cross_check": {
            "isolation_forest": "detectors.isolation_forest.cross_check_forest",
            "lstm_autoencoder": "detectors.lstm_autoencoder.cross_check_lstm",
        },
        "golden": dict.fromkeys(("isolation_forest", "lstm_autoencoder"), "pipeline.make_golden"),
    }
    monkeypatch.setattr(f"dwcp_training.{targets[place][detector]}", fail)
    flags = {"n_estimators": 3} if detector == "isolation_forest" else {"window_size": 2}
    assert run.run(detector, run.Source(data=[csv]), tmp_path / "models", flags) == 0
    printed = capsys.readouterr().out
    assert "warning: no ONNX graph: RuntimeError: the converter is broken [/red]" in printed
    assert "cannot be served" in printed

    forest = detector == "isolation_forest"
    written = {path.name for path in (tmp_path / "models").iterdir()}
    assert {name for name in (FOREST_FILES if forest else LSTM_FILES) if not name.endswith(".onnx")} <= written
    assert not [name for name in written if name.endswith((".onnx", ".golden.json"))]
    metadata = json.loads(
        (tmp_path / "models" / ("model_metadata.json" if forest else "lstm_metadata.json")).read_text()
    )
    assert metadata["graph"]["available"] is False
    assert metadata["graph"]["file"] == ""
    assert "the converter is broken" in metadata["graph"]["unavailable_reason"]
    models = ModelSet.open(tmp_path / "models")
    assert dict(models.models) == {}
    with pytest.raises(ContractError, match="the converter is broken") as caught:
        models.model(detector)
    assert caught.value.code == "DETECTOR_UNAVAILABLE"


def test_s1_10_forest_is_the_documented_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = fit_isolation_forest(forest_rows(400), IsolationForestDefaults())
    forest = pickle.loads(fitted.byproducts["isolation_forest.pkl"])
    parameters = forest.get_params()
    assert (parameters["max_samples"], parameters["max_features"], parameters["bootstrap"]) == ("auto", 1.0, False)
    assert (parameters["random_state"], parameters["n_estimators"], parameters["contamination"]) == (42, 100, 0.01)
    scaler = pickle.loads(fitted.byproducts["scaler.pkl"])
    assert type(scaler).__name__ == "StandardScaler"
    assert np.allclose(scaler.mean_, fitted.fitted_items[:, 0].mean(axis=0))
    assert {"rows", "scores", "threshold"} <= fitted.facts.keys()  # counts and score range are printed


@pytest.fixture
def fit_call(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the network is compiled and fitted with, without the fitting."""
    import keras

    call: dict[str, Any] = {}

    def fit(self: Any, x: Any, y: Any, **arguments: Any) -> Any:
        call.update(arguments, network=self, x=x, y=y)
        logs = {"loss": [1.0], "val_loss": [1.0]}
        return type("History", (), {"history": logs})()

    monkeypatch.setattr(keras.Model, "fit", fit)
    return call


def test_s1_11_architecture_and_training(fit_call: dict[str, Any]) -> None:
    fitted = fit_lstm_autoencoder(lstm_series(200), LstmAutoencoderDefaults())
    network = fit_call["network"]
    layers = [(type(layer).__name__, layer.get_config()) for layer in network.layers]
    assert [name for name, _ in layers] == [
        "InputLayer", "LSTM", "Dropout", "LSTM", "RepeatVector", "LSTM", "Dropout", "LSTM", "TimeDistributed",
    ]  # fmt: skip
    assert [config["units"] for name, config in layers if name == "LSTM"] == [64, 32, 32, 64]
    assert [config["return_sequences"] for name, config in layers if name == "LSTM"] == [True, False, True, True]
    assert {(config["activation"], config["recurrent_activation"]) for name, config in layers if name == "LSTM"} == {
        ("tanh", "sigmoid")
    }
    assert [config["rate"] for name, config in layers if name == "Dropout"] == [0.2, 0.2]
    assert [config["n"] for name, config in layers if name == "RepeatVector"] == [10]
    assert network.layers[-1].layer.units == 7
    assert type(network.optimizer).__name__ == "Adam"
    assert float(network.optimizer.learning_rate) == pytest.approx(1e-3)
    assert network.loss == "mse"
    assert (fit_call["epochs"], fit_call["batch_size"]) == (50, 32)

    callbacks = {type(callback).__name__: callback for callback in fit_call["callbacks"]}
    early, plateau = callbacks["EarlyStopping"], callbacks["ReduceLROnPlateau"]
    assert (early.monitor, early.patience, early.restore_best_weights) == ("val_loss", 10, True)
    assert (plateau.monitor, plateau.factor, plateau.patience, plateau.min_lr) == ("val_loss", 0.5, 5, 1e-5)

    # Validation on the last 20 % of the series; the parts share no sample.
    assert fit_call["x"] is fit_call["y"]
    assert len(fit_call["validation_data"][0]) == 40 - 9
    assert len(fit_call["x"]) == 200 - 40 - 10 - 9
    # The threshold is the 95th percentile of the windows' mean squared errors in scaled units.
    scores = fitted.reference.evaluate(fitted.fitted_items).scores
    assert fitted.metadata.threshold == pytest.approx(np.percentile(scores, 95), rel=2e-7)
    scaled = (fitted.fitted_items - np.array(fitted.metadata.scaler.mean)) / np.array(fitted.metadata.scaler.scale)
    rebuilt = fitted.reference.reconstruct(scaled)
    assert scores == pytest.approx(((scaled - rebuilt) ** 2).mean(axis=(1, 2)), rel=1e-12)


@pytest.mark.slow  # trains a network of its own
def test_s1_11_best_weights_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    from dwcp_training.detectors import keras_network

    seen = []
    original = keras.Model.fit

    def fit(self: Any, *arguments: Any, **named: Any) -> Any:
        remember = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(self.get_weights()))
        named["callbacks"] = [remember, *named["callbacks"]]
        return original(self, *arguments, **named)

    monkeypatch.setattr(keras.Model, "fit", fit)
    settings = LstmAutoencoderDefaults(
        window_size=1, encoding_dim=2, hidden_units=2, epochs=12, learning_rate=0.5, early_stopping_patience=3
    )
    windows = np.random.default_rng(1).normal(size=(64, 1, 7)).astype(np.float32)
    epochs = []
    network, curves = keras_network.train(
        windows[:48], windows[48:], settings, lambda epoch, logs: epochs.append(epoch)
    )
    best = int(np.argmin(curves["val_loss"]))
    assert best < len(seen) - 1, "with this learning rate the last epoch must not be the best"
    assert len(epochs) == len(seen) == len(curves["val_loss"]) == min(12, best + 1 + 3)  # stopped early
    kept = network.get_weights()
    assert all(np.array_equal(part, wanted) for part, wanted in zip(kept, seen[best], strict=True))
    assert not all(np.array_equal(part, last) for part, last in zip(kept, seen[-1], strict=True))


def test_s1_13_the_scaler_is_inside_the_graph(forest_models: Path) -> None:
    """Raw values in, and the pickled scaler is not needed to serve (S2 is tested in test_export.py)."""
    models = ModelSet.open(forest_models)
    manifest = json.loads((forest_models / "manifest.json").read_text())
    roles = {entry["path"]: entry["role"] for entry in manifest["files"]}
    assert roles["scaler.pkl"] == roles["isolation_forest.pkl"] == "FILE_ROLE_BYPRODUCT"
    scaler = pickle.loads((forest_models / "scaler.pkl").read_bytes())
    assert list(models.metadata["isolation_forest"].scaler.mean) == scaler.mean_.tolist()
    assert list(models.metadata["isolation_forest"].scaler.scale) == scaler.scale_.tolist()


def test_s1_14_little_data_is_a_warning_in_the_metadata(lstm_models: Path, lstm_twins: Any) -> None:
    record = ModelSet.open(lstm_models).metadata["lstm_autoencoder"].training
    warnings = " ".join(record.warnings)
    assert "300 samples: fewer than the 10,000" in warnings
    assert "less than the 7 days" in warnings
    for warning in record.warnings:
        assert warning in lstm_twins.printed
    assert (record.rows_read, record.fitted_on, record.held_out) == (300, 300 - 60 - 3 - 2, 60 - 2)
    assert (record.first_timestamp, record.last_timestamp) == ("2024-01-01T00:00:00Z", "2024-01-01T04:59:00Z")


def test_s1_15_only_confirmed_normal_data_is_used(
    csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_cross_check: None
) -> None:
    (tmp_path / "labels.csv").write_text("start,end,kind\n2024-01-01T01:00:00Z,2024-01-01T01:09:00Z,outage\n")
    source = run.Source(data=[csv], exclude=[tmp_path / "labels.csv"], grace_seconds=120)
    assert run.run("isolation_forest", source, tmp_path / "models", {"n_estimators": 3}) == 0
    printed = capsys.readouterr().out
    assert "288 of 300 rows" in printed
    assert "left out: 10 rows, excluded interval" in printed
    assert "left out: 2 rows, excluded grace" in printed
    assert "12 of kind outage" in printed
    record = ModelSet.open(tmp_path / "models").metadata["isolation_forest"].training
    assert dict(record.dropped) == {"excluded_interval": 10, "excluded_grace": 2}


def test_s1_16_more_contamination_means_more_alarms() -> None:
    fresh = forest_rows(20_000, seed=1)
    rates = []
    for contamination in (0.005, 0.01, 0.05):
        settings = IsolationForestDefaults(contamination=contamination, n_estimators=30)
        fitted = fit_isolation_forest(forest_rows(4_000), settings)
        depth = fitted.reference.depths(fresh.values)
        rates.append(float((depth < fitted.metadata.forest.depth_threshold).mean()))
    assert rates[0] < rates[1] < rates[2]
    assert rates == pytest.approx([0.005, 0.01, 0.05], rel=0.8)  # near the rate that is asked for


def test_s1_16_a_higher_percentile_means_fewer_alarms(no_training: None) -> None:
    fresh = np.lib.stride_tricks.sliding_window_view(lstm_series(2_000, seed=1).values, 4, axis=0).transpose(0, 2, 1)
    rates = []
    for percentile in (90.0, 95.0, 99.0):
        settings = LstmAutoencoderDefaults(window_size=4, threshold_percentile=percentile)
        fitted = fit_lstm_autoencoder(lstm_series(1_000), settings)
        rates.append(float(fitted.reference.evaluate(fresh).is_anomaly.mean()))
    assert rates[0] > rates[1] > rates[2] > 0


def test_s1_18_retraining_replaces_the_set_in_one_step(tmp_path: Path, no_cross_check: None) -> None:
    settings = IsolationForestDefaults(n_estimators=3)
    first = train("isolation_forest", forest_rows(300), settings, tmp_path).models
    second = train("isolation_forest", forest_rows(300, seed=2), settings, tmp_path).models
    assert ModelSet.open(tmp_path).id == second.id != first.id
    assert ModelSet.open(first.path).id == first.id  # what a service has open stays whole


def test_s1_20_a_week_of_minutes_is_enough_data(tmp_path: Path) -> None:
    write_csv(forest_rows(7 * 24 * 60 + 1), tmp_path / "week.csv")
    assert run.read_table(tmp_path / "week.csv", load_profile("dwcp")).report.warnings == ()
