"""The one Python interface: the snippets of its document, bits equal to the serving core's, refusals."""

from __future__ import annotations

import doctest
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dwcp_training.interface
import dwcp_training.interface.sequences
from dwcp_sidecar.audit import is_midpoint
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import DataError
from dwcp_training.detectors import dense_network
from dwcp_training.detectors.registry import DETECTORS
from dwcp_training.interface import (
    BY_NAME,
    SINGLE,
    AutoencoderDetector,
    Detector,
    DetectorError,
    EnsembleDetector,
    ExportFailedError,
    IsolationForestDetector,
    LocalOutlierFactorDetector,
    LSTMAutoencoderDetector,
    LSTMDetector,
    NoThresholdError,
    NotTrainedError,
    OneClassSVMDetector,
    create_sequences,
)
from dwcp_training.interface.sequences import as_series
from dwcp_training.profiles import DenseAutoencoderDefaults, ProfileError
from dwcp_training.publish import PublishError
from tests.training.conftest import leave_out_cross_checks, replace_training

WIDTH = 5


def normal_rows(n: int, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """Correlated rows around different levels."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width))
    return rng.normal(size=(n, width)) @ mixing + 10 * np.arange(width)


SMALL: dict[str, dict[str, Any]] = {
    "isolation_forest": {"n_estimators": 10, "max_samples": 64},
    "lstm_autoencoder": {"sequence_length": 4, "hidden_units": 3, "encoding_dim": 2, "epochs": 1},
    "dense_autoencoder": {"encoder_units": [6], "bottleneck": 2, "epochs": 1},
    "local_outlier_factor": {"n_neighbors": 5},
    "one_class_svm": {"nu": 0.1},
    "lstm_classifier": {"sequence_length": 4, "units": [3, 3, 2], "epochs": 1},
}
"""Settings with which a detector trains in no time."""


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks keep random weights, and no other converter is asked."""
    replace_training(monkeypatch)
    leave_out_cross_checks(monkeypatch)

    def train(fitted: np.ndarray, held_out: np.ndarray, settings: DenseAutoencoderDefaults, on_epoch: Any) -> Any:
        network = dense_network.build(settings, fitted.shape[-1])
        rng = np.random.default_rng(0)
        network.set_weights(
            [rng.normal(0, 1 / np.sqrt(array.shape[-1]), array.shape) for array in network.get_weights()]
        )
        on_epoch(0, {"loss": 1.0, "val_loss": 1.0})
        return network, {"loss": [1.0], "val_loss": [1.0]}

    monkeypatch.setattr(dense_network, "train", train)


def test_every_registered_detector_has_a_class() -> None:
    assert BY_NAME.keys() == DETECTORS.keys()
    assert [kind.name for kind in BY_NAME.values()] == list(BY_NAME)


@pytest.mark.parametrize("module", [dwcp_training.interface, dwcp_training.interface.sequences])
def test_examples_in_docstrings(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# --- the document's snippets, with only the import changed ---

AUTOENCODER = """
from dwcp_training.interface import AutoencoderDetector

detector = AutoencoderDetector(input_dim=30)
detector.train_model(X_train_normal, epochs=100)
detector.compute_threshold(X_val_normal, percentile=95)
scores, labels = detector.predict(X_test)
"""
ISOLATION_FOREST = """
from dwcp_training.interface import IsolationForestDetector

detector = IsolationForestDetector()
detector.train_model(X_train)
scores, labels = detector.predict(X_test)
"""
SEQUENCES = """
from dwcp_training.interface import create_sequences

# Create sequences from time-series data
X_seq, y_seq = create_sequences(X, y, sequence_length=100)
"""
SAVE = """
# Save
detector.save("models/detector_name/")
"""
LOAD = """
# Load
from dwcp_training.interface import AutoencoderDetector
detector = AutoencoderDetector.load("models/detector_name/")
"""


def test_the_autoencoder_snippets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    X_test = np.vstack([normal_rows(50, 30, seed=2), normal_rows(10, 30, seed=3) + 40.0])
    given = {
        "X_train_normal": normal_rows(150, 30, seed=0),
        "X_val_normal": normal_rows(100, 30, seed=1),
        "X_test": X_test,
    }
    exec(AUTOENCODER, given)
    detector, scores, labels = given["detector"], given["scores"], given["labels"]
    assert (scores.dtype, scores.shape, labels.dtype, labels.shape) == (np.float32, (60,), np.int64, (60,))
    assert labels[50:].all()
    assert labels[:50].sum() < 25
    assert detector.facts["layers"] == "30-128-64-32-16-32-64-128-30, relu"  # S4-2
    assert detector.settings.epochs == 100
    above = detector.predict(given["X_val_normal"])[1].sum()
    assert above == 5  # of 100 rows

    exec(SAVE, given)
    for name in ("dense_autoencoder.keras", "dense_autoencoder_scaler.pkl"):
        (tmp_path / "models" / "detector_name" / name).resolve().unlink()  # nobody who loads reads them (A7)
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("something was unpickled"))
    monkeypatch.setattr(pickle, "load", lambda *_: pytest.fail("something was unpickled"))
    loaded: dict[str, Any] = {}
    exec(LOAD, loaded)
    again, labels_again = loaded["detector"].predict(X_test)
    assert np.array_equal(again.view(np.uint32), scores.view(np.uint32))
    assert np.array_equal(labels_again, labels)
    assert loaded["detector"].threshold == detector.threshold
    metadata = loaded["detector"].metadata
    assert metadata.training.hyperparameters["threshold"] == "percentile 95 of 100 scores given to compute_threshold"
    assert metadata.training.hyperparameters["epochs"] == "100"


def test_the_forest_snippet() -> None:
    given = {"X_train": normal_rows(600), "X_test": np.vstack([normal_rows(30, seed=1), normal_rows(5) + 100.0])}
    exec(ISOLATION_FOREST, given)
    assert given["labels"].tolist()[30:] == [1] * 5
    settings = given["detector"].settings
    assert (settings.n_estimators, settings.contamination, settings.max_samples) == (100, 0.1, 256)  # S4-3
    assert given["detector"].predict(given["X_train"][:480])[1].mean() == pytest.approx(0.1, abs=0.003)


def test_the_sequences_snippet() -> None:
    rows, labels = normal_rows(250, 30), np.arange(250)
    given: dict[str, Any] = {"X": rows, "y": labels}
    exec(SEQUENCES, given)
    X_seq, y_seq = given["X_seq"], given["y_seq"]
    assert (X_seq.shape, y_seq.shape) == ((151, 100, 30), (151,))
    assert np.array_equal(X_seq[7], rows[7:107])
    assert y_seq[7] == 106  # the label of the last row
    assert y_seq[-1] == 249


# --- every detector ---


def trained(name: str) -> tuple[Detector, np.ndarray]:
    """A small detector and the rows that it was trained on."""
    rows = normal_rows(300)
    return SINGLE[name](**SMALL[name]).train_model(rows), rows


@pytest.mark.parametrize("name", SINGLE)
def test_scores_are_those_of_the_serving_core(name: str, instant: None, tmp_path: Path) -> None:
    detector, rows = trained(name)
    X = np.vstack([rows[:60], normal_rows(20, seed=1) + 30.0, np.full((4, WIDTH), 1e300)])
    scores, labels = detector.predict(X)
    length = detector.sequence_length or 1
    assert len(scores) == len(labels) == len(X) - length + 1
    models = detector.save(tmp_path / "models")
    assert models.id == ModelSet.open(tmp_path / "models").id
    verdicts = models.model(name).score_batch(X, series=True)
    assert np.array_equal(scores.view(np.uint32), verdicts.scores.view(np.uint32))
    assert np.array_equal(labels, verdicts.is_anomaly.astype(np.int64))
    assert detector.threshold == models.model(name).threshold
    loaded = SINGLE[name].load(tmp_path / "models")
    assert np.array_equal(loaded.predict(X)[0].view(np.uint32), scores.view(np.uint32))
    assert loaded.sequence_length == detector.sequence_length
    assert loaded.metadata.training.hyperparameters["seed" if name != "one_class_svm" else "nu"]
    assert len(models.golden[name].cases) > 50


@pytest.mark.parametrize("name", SINGLE)
def test_a_moved_threshold_is_in_everything_that_is_saved(name: str, instant: None, tmp_path: Path) -> None:
    detector, _ = trained(name)
    before = detector.threshold
    normal = normal_rows(200, seed=5)
    scores_before, _ = detector.predict(normal)
    moved = detector.compute_threshold(normal, contamination=0.25)
    scores, labels = detector.predict(normal)
    assert np.array_equal(scores.view(np.uint32), scores_before.view(np.uint32))  # only the decision changes
    assert moved == detector.threshold != before
    assert is_midpoint(moved)
    assert np.array_equal(labels, (scores > moved).astype(np.int64))
    assert labels.sum() == round(0.25 * len(scores))
    assert moved == detector.compute_threshold(normal, percentile=75)  # the same said otherwise
    higher = detector.compute_threshold(normal, percentile=99.9)
    assert higher > moved  # D3

    detector.compute_threshold(normal, percentile=100)
    assert not detector.predict(normal)[1].any()
    assert not detector.save(tmp_path / "all").model(name).score_batch(normal, series=True).is_anomaly.any()

    detector.compute_threshold(normal, percentile=75)
    model = detector.save(tmp_path).model(
        name
    )  # the graph, the metadata and the golden vectors agree, or it would fail
    assert model.threshold == moved
    assert np.array_equal(model.score_batch(normal, series=True).is_anomaly, labels.astype(bool))
    golden = ModelSet.open(tmp_path).golden[name]
    decisions = {case.score.is_anomaly for case in golden.cases if "threshold" in case.flags}
    assert decisions == {True, False}  # cases on both sides of the new threshold, not of the old one


@pytest.mark.parametrize("name", ["isolation_forest", "local_outlier_factor", "one_class_svm"])
def test_the_pickle_decides_at_the_moved_threshold(name: str, tmp_path: Path) -> None:
    """By-products are for people; opened by hand, they agree with the set. Cross-checks run, with the new threshold."""
    detector, _ = trained(name)
    normal = normal_rows(200, seed=5)
    detector.compute_threshold(normal, contamination=0.3)
    detector.save(tmp_path)
    estimator = pickle.loads((tmp_path / f"{name}.pkl").read_bytes())
    scaler_file = "scaler.pkl" if name == "isolation_forest" else f"{name}_scaler.pkl"
    scaler = pickle.loads((tmp_path / scaler_file).read_bytes())
    by_hand = estimator.predict(scaler.transform(normal)) == -1
    assert np.array_equal(by_hand, detector.predict(normal)[1].astype(bool))


def test_detectors_share_a_folder(tmp_path: Path, instant: None) -> None:
    for name in ("isolation_forest", "local_outlier_factor"):
        trained(name)[0].save(tmp_path)
    IsolationForestDetector.load(tmp_path).save(tmp_path / "copy")
    assert set(ModelSet.open(tmp_path).models) == {"isolation_forest", "local_outlier_factor"}
    assert set(ModelSet.open(tmp_path / "copy").models) == {"isolation_forest"}
    rows = normal_rows(10)
    copied = IsolationForestDetector.load(tmp_path / "copy").predict(rows)[0]
    assert np.array_equal(copied, IsolationForestDetector.load(tmp_path).predict(rows)[0])
    with pytest.raises(ContractError, match="DETECTOR_UNAVAILABLE"):
        OneClassSVMDetector.load(tmp_path)


def test_more_rows_than_a_request_may_carry() -> None:
    detector, _ = trained("isolation_forest")
    rows = normal_rows(20_000)
    scores, _ = detector.predict(rows)
    assert np.array_equal(scores[-3:], detector.predict(rows[-3:])[0])


def test_names_and_profile() -> None:
    rows = normal_rows(200)
    names = ["flow", "pressure", "current", "heat", "noise"]
    detector = IsolationForestDetector(feature_names=names, n_estimators=3).train_model(rows)
    assert list(detector.metadata.feature_names) == names
    assert list(trained("isolation_forest")[0].metadata.feature_names) == ["x0", "x1", "x2", "x3", "x4"]
    dwcp = IsolationForestDetector(profile="dwcp", n_estimators=3).train_model(normal_rows(200, 7))
    assert dwcp.metadata.feature_names[0] == "bandwidth"
    assert dwcp.settings.contamination == 0.01
    with pytest.raises(DataError, match=r"7 names .* for 5 columns"):
        IsolationForestDetector(profile="dwcp").train_model(rows)


# --- sequences ---


def test_sequences_and_rows_are_the_same_to_a_detector_with_a_window(instant: None) -> None:
    rows = normal_rows(120)
    X_seq, none = create_sequences(rows, sequence_length=4)
    assert none is None
    by_rows = LSTMAutoencoderDetector(**SMALL["lstm_autoencoder"]).train_model(rows)
    by_sequences = LSTMAutoencoderDetector(**SMALL["lstm_autoencoder"]).train_model(X_seq)
    assert by_rows.metadata.training.data_fingerprint == by_sequences.metadata.training.data_fingerprint
    assert by_rows.threshold == by_sequences.threshold
    for X in (rows, X_seq):
        assert np.array_equal(by_rows.predict(X)[0], by_sequences.predict(rows)[0])
    # 20 % of 120 rows are held out behind a gap of a window: no sequence shares a row with both parts (C3)
    assert by_sequences.metadata.training.held_out == 24 - 3
    assert by_sequences.metadata.training.fitted_on == 120 - 24 - 4 - 3


def test_sequences_become_rows_again() -> None:
    rows = normal_rows(40)
    for parts in ([rows], [rows[:15], rows[20:]], [rows[:6], rows[6:12], rows[30:36]]):
        sequences = np.concatenate([create_sequences(part, sequence_length=6)[0] for part in parts])
        joined, segments = as_series(sequences)
        assert np.array_equal(joined, np.concatenate(parts))
        assert [stop - start for start, stop in segments] == [len(part) for part in parts]
    single, segments = as_series(rows[:, np.newaxis])
    assert np.array_equal(single, rows)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (([1.0, 2.0], [0, 1], 2), "X"),
        (([[1.0], [2.0]], [0, 1], 3), "X"),
        (([[1.0], [2.0]], [0, 1], 0), "sequence_length"),
        (([[1.0], [2.0]], [0, 1, 1], 2), "y"),
        (([[1.0], [2.0]], [[0], [1]], 2), "y"),
    ],
)
def test_sequences_that_cannot_be_made(arguments: tuple[Any, ...], field: str) -> None:
    with pytest.raises(DataError) as caught:
        create_sequences(*arguments)
    assert caught.value.field == field


def test_sequence_length_is_the_window_size() -> None:
    assert LSTMAutoencoderDetector().sequence_length == 100  # of the document
    assert LSTMAutoencoderDetector(30, 20).settings.window_size == 20
    assert LSTMAutoencoderDetector(window_size=7).sequence_length == 7
    with pytest.raises(ProfileError, match="window_size"):
        LSTMAutoencoderDetector(sequence_length=5, window_size=7)


# --- refusals ---


@pytest.mark.parametrize("kind", SINGLE.values())
def test_before_there_is_a_model(kind: type[Detector], tmp_path: Path) -> None:
    detector = kind()
    rows = normal_rows(10)
    wanted: list[tuple[type[Exception], Callable[[], Any]]] = [
        (NotTrainedError, lambda: detector.predict(rows)),
        (NotTrainedError, lambda: detector.compute_threshold(rows)),
        (NotTrainedError, lambda: detector.save(tmp_path)),
        (NotTrainedError, lambda: detector.metadata),
        (NoThresholdError, lambda: detector.threshold),
    ]
    for error, call in wanted:
        with pytest.raises(error, match=r"Call train_model\(X\)") as caught:
            call()
        assert kind.__name__ in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_model_keeps_its_threshold(tmp_path: Path, instant: None) -> None:
    trained("isolation_forest")[0].save(tmp_path)
    loaded = IsolationForestDetector.load(tmp_path)
    with pytest.raises(NoThresholdError, match="was loaded") as caught:
        loaded.compute_threshold(normal_rows(50))
    assert "train_model" in caught.value.remedy


BAD_ROWS: dict[str, tuple[Any, str]] = {
    "not numbers": ([["a", "b"]], "no array of numbers"),
    "rows of different lengths": ([[1.0], [1.0, 2.0]], "no array of numbers"),
    "one row": (np.zeros(WIDTH), r"X.reshape\(1, -1\)"),
    "sequences for a detector of rows": (np.zeros((2, 3, WIDTH)), "its shape is"),
    "nothing": (np.zeros((0, WIDTH)), "is empty"),
    "too wide": (np.zeros((2, WIDTH + 1)), "6 columns; the detector has 5 features: x0, x1"),
    "NaN": (np.where(np.arange(20).reshape(4, WIDTH) == 7, np.nan, 1.0), "x2 is nan in row 1; 1 numbers"),
    "infinity": (np.where(np.arange(20).reshape(4, WIDTH) > 17, np.inf, 1.0), "x3 is inf in row 3; 2 numbers"),
    "a column of NaN": (np.where(np.arange(WIDTH) == 1, np.nan, np.ones((4, WIDTH))), "x1 has no finite number"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_rows_that_cannot_be_scored(case: str) -> None:
    X, said = BAD_ROWS[case]
    detector, _ = trained("isolation_forest")
    for call in (detector.predict, detector.compute_threshold):
        with pytest.raises(DataError, match=said) as caught:
            call(X)
        assert caught.value.field == "X"
        assert caught.value.remedy


def test_rows_that_cannot_be_trained_on() -> None:
    with pytest.raises(DataError, match="too few to hold out"):
        IsolationForestDetector().train_model(normal_rows(2))
    with pytest.raises(DataError, match="no metric ever changes"):
        LocalOutlierFactorDetector().train_model(np.ones((100, 3)))
    with pytest.raises(DataError, match="5 columns; input_dim is 30"):
        AutoencoderDetector(input_dim=30).train_model(normal_rows(100))
    with pytest.raises(DataError, match="column 2 has no finite number"):
        IsolationForestDetector().train_model(np.where(np.arange(WIDTH) == 2, np.nan, normal_rows(100)))
    with pytest.raises(DataError, match="no window of 100 samples fits"):
        LSTMAutoencoderDetector().train_model(normal_rows(300))
    constant = normal_rows(200)
    constant[:, 3] = 4.0
    detector = IsolationForestDetector(n_estimators=3).train_model(constant)  # one constant column is a warning
    assert any("x3 never changes" in warning for warning in detector.metadata.training.warnings)


def test_a_failed_training_changes_nothing() -> None:
    detector, rows = trained("isolation_forest")
    scores, _ = detector.predict(rows)
    with pytest.raises(DataError):
        detector.train_model(rows[:2], n_estimators=7)
    assert detector.settings.n_estimators == 10
    assert np.array_equal(detector.predict(rows)[0], scores)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"percentile": 0}, "percentile"),
        ({"percentile": 101}, "percentile"),
        ({"percentile": np.nan}, "percentile"),
        ({"contamination": 0.0}, "contamination"),
        ({"contamination": 1.0}, "contamination"),
        ({"contamination": 0.1, "percentile": 90}, "contamination"),
    ],
)
def test_thresholds_that_make_no_sense(arguments: dict[str, float], field: str) -> None:
    detector, rows = trained("isolation_forest")
    before = detector.threshold
    with pytest.raises(DataError) as caught:
        detector.compute_threshold(rows, **arguments)
    assert caught.value.field == field
    assert detector.threshold == before


def test_without_arguments_the_threshold_is_that_of_training(instant: None) -> None:
    detector, rows = trained("isolation_forest")
    assert detector.compute_threshold(rows) == detector.compute_threshold(rows, contamination=0.1)
    detector, rows = trained("dense_autoencoder")
    assert detector.compute_threshold(rows) == detector.compute_threshold(rows, percentile=95)


def test_hyperparameters_that_do_not_exist() -> None:
    with pytest.raises(ProfileError, match="Did you mean 'n_estimators'"):
        IsolationForestDetector(estimators=5)
    with pytest.raises(ProfileError, match="epochs"):
        AutoencoderDetector().train_model(normal_rows(100), epochs=0)


def test_a_graph_that_scores_otherwise_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def differs(*_: Any) -> dict[str, str]:
        raise RuntimeError("scores differ")

    monkeypatch.setattr("dwcp_training.detectors.isolation_forest.cross_check_forest", differs)
    detector, _ = trained("isolation_forest")
    with pytest.raises(ExportFailedError, match="scores differ"):
        detector.save(tmp_path)
    assert not (tmp_path / "manifest.json").exists()
    (tmp_path / "file").touch()
    with pytest.raises(PublishError):
        detector.save(tmp_path / "file" / "below")
