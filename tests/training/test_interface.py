"""The one Python interface: the snippets of its document, bits equal to the serving core's, refusals."""

from __future__ import annotations

import doctest
import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dwcp_training.interface
import dwcp_training.interface.detectors
import dwcp_training.interface.sequences
from dwcp_sidecar.audit import is_midpoint
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import DataError, DataErrorCode
from dwcp_training.detectors import classifier_network, dense_network
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
from dwcp_training.interface.sequences import as_series, labels_of_series
from dwcp_training.profiles import DenseAutoencoderDefaults, LstmClassifierDefaults, ProfileError
from dwcp_training.publish import PublishError
from tests.training.conftest import leave_out_cross_checks, replace_training

WIDTH = 5


def normal_rows(n: int, width: int = WIDTH, seed: int = 0) -> np.ndarray:
    """Correlated rows around different levels."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width))
    return rng.normal(size=(n, width)) @ mixing + 10 * np.arange(width)


def labelled_rows(n: int, width: int = WIDTH, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Normal rows with anomalies of five rows in every twenty, and the labels."""
    labels = (np.arange(n) % 20 >= 15).astype(np.int64)
    return normal_rows(n, width, seed) + 30.0 * labels[:, np.newaxis], labels


SMALL: dict[str, dict[str, Any]] = {
    "isolation_forest": {"n_estimators": 10, "max_samples": 64},
    "lstm_autoencoder": {"sequence_length": 4, "hidden_units": 3, "encoding_dim": 2, "epochs": 1},
    "dense_autoencoder": {"encoder_units": [6], "bottleneck": 2, "epochs": 1},
    "local_outlier_factor": {"n_neighbors": 5},
    "one_class_svm": {"nu": 0.1},
    "lstm_classifier": {"sequence_length": 4, "units": [3, 3, 2], "epochs": 1},
    "mahalanobis": {"sequence_length": 3},
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

    def train_classifier(fitted: Any, held_out: Any, settings: LstmClassifierDefaults, on_epoch: Any) -> Any:
        network = classifier_network.build(settings, fitted[0].shape[-1], unroll=False)
        rng = np.random.default_rng(0)
        network.set_weights(
            [rng.normal(0, 1 / np.sqrt(array.shape[0]), array.shape) for array in network.get_weights()]
        )
        on_epoch(0, {"loss": 1.0, "val_loss": 1.0})
        return network, {"loss": [1.0], "val_loss": [1.0]}

    monkeypatch.setattr(dense_network, "train", train)
    monkeypatch.setattr(classifier_network, "train", train_classifier)


def test_every_registered_detector_has_a_class() -> None:
    assert BY_NAME.keys() == DETECTORS.keys()
    assert [kind.name for kind in BY_NAME.values()] == list(BY_NAME)


@pytest.mark.parametrize(
    "module", [dwcp_training.interface, dwcp_training.interface.detectors, dwcp_training.interface.sequences]
)
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


@pytest.mark.slow  # a hundred epochs, as the document has them
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
    if name == "lstm_classifier":
        rows, labels = labelled_rows(300)
        return LSTMDetector(**SMALL[name]).train_model(rows, labels), rows
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


# --- the classifier ---

LSTM = """
from dwcp_training.interface import LSTMDetector, create_sequences

# Create sequences from time-series data
X_seq, y_seq = create_sequences(X, y, sequence_length=100)

detector = LSTMDetector(input_dim=30, sequence_length=100)
detector.train_model(X_seq, y_seq, epochs=50)
detector.compute_threshold(X_val_seq)
scores, labels = detector.predict(X_test_seq)
"""


@pytest.mark.slow  # trains networks
def test_the_lstm_snippet(instant: None) -> None:
    X, y = labelled_rows(700, 30)
    sequences = [create_sequences(normal_rows(110, 30, seed))[0] for seed in (1, 2)]
    given: dict[str, Any] = {"X": X, "y": y, "X_val_seq": sequences[0], "X_test_seq": sequences[1]}
    exec(LSTM, given)
    detector, scores, labels = given["detector"], given["scores"], given["labels"]
    assert detector.settings.epochs == 50
    assert detector.facts["layers"] == "30-64-32-16-1"  # S4-4
    assert (scores.shape, labels.shape) == ((11,), (11,))
    assert detector.threshold == pytest.approx(0.5, abs=1e-7)
    assert np.array_equal(labels, (scores > 0.5).astype(np.int64))
    assert ((scores > 0) & (scores < 1)).all()
    hyperparameters = detector.metadata.training.hyperparameters
    assert hyperparameters["threshold"] == "a probability of one half"


@pytest.mark.slow  # trains networks
def test_the_classifier_learns_the_label_of_the_last_row() -> None:
    rows, labels = labelled_rows(600)
    X_seq, y_seq = create_sequences(rows, labels, sequence_length=3)
    detector = LSTMDetector(WIDTH, 3, units=(6, 5, 4), epochs=8, learning_rate=0.03)
    detector.train_model(X_seq[:400], y_seq[:400])
    found = detector.predict(X_seq[400:])[1]
    assert (found == y_seq[400:]).mean() > 0.95


def test_labelled_rows_and_labelled_sequences_are_the_same(instant: None) -> None:
    rows, labels = labelled_rows(300)
    X_seq, y_seq = create_sequences(rows, labels, sequence_length=4)
    by_rows = LSTMDetector(**SMALL["lstm_classifier"]).train_model(rows, labels)
    by_sequences = LSTMDetector(**SMALL["lstm_classifier"]).train_model(X_seq, y_seq.astype(bool))
    assert by_rows.metadata.classifier.anomalous_windows == by_sequences.metadata.classifier.anomalous_windows > 0
    assert np.array_equal(by_rows.predict(rows)[0], by_sequences.predict(X_seq)[0])


def test_labels_go_back_to_the_rows() -> None:
    rows, labels = labelled_rows(60)
    parts = [slice(0, 15), slice(20, 60)]
    made = [create_sequences(rows[part], labels[part].astype(bool), sequence_length=6) for part in parts]
    _, segments = as_series(np.concatenate([X for X, _ in made]))
    found = labels_of_series(np.concatenate([y for _, y in made]), segments, 6)
    wanted = np.concatenate([labels[part] for part in parts]).astype(bool)
    assert np.array_equal(found[5:15], wanted[5:15])
    assert np.array_equal(found[20:], wanted[20:])
    assert (found[:5] == wanted[5]).all()  # rows that are the last of no sequence
    assert (found[15:20] == wanted[20]).all()


BAD_LABELS: dict[str, tuple[Any, str, DataErrorCode | None]] = {
    "missing": (None, r"train_model\(X_seq, y_seq\)", DataErrorCode.NO_LABELS),
    "all normal": (np.zeros(300), r"(?s)a single class.*learns from normal data alone", DataErrorCode.SINGLE_CLASS),
    "all anomalous": (np.ones(300, bool), "all 300 labels are 1", DataErrorCode.SINGLE_CLASS),
    "too few": (np.arange(299) % 2, "one label for each of the rows", None),
    "others than 0 and 1": (np.arange(300) % 3, "label 2 is 2", None),
    "text": (["normal"] * 300, "label 0 is normal", None),
    "NaN": (np.full(300, np.nan), "label 0 is nan", None),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels_that_nothing_can_be_learned_from(case: str) -> None:
    y, said, code = BAD_LABELS[case]
    with pytest.raises(DataError, match=said) as caught:
        LSTMDetector(**SMALL["lstm_classifier"]).train_model(normal_rows(300), y)
    assert caught.value.field == "y_train"
    assert code is None or caught.value.code == code


def test_the_held_out_end_needs_both_classes() -> None:
    rows, labels = labelled_rows(300)
    labels[200:] = 0
    with pytest.raises(DataError, match="held-out part") as caught:
        LSTMDetector(**SMALL["lstm_classifier"]).train_model(rows, labels)
    assert caught.value.code == DataErrorCode.SINGLE_CLASS


# --- the ensemble ---

ENSEMBLE = """
from dwcp_training.interface import EnsembleDetector

# Load or create individual models
ensemble = EnsembleDetector(
    autoencoder=ae_detector,
    isolation_forest=if_detector,
    lstm=lstm_detector,
)

# Optional: adjust weights
ensemble.set_weights(autoencoder=0.5, isolation_forest=0.3, lstm=0.2)

# Make predictions
result = ensemble.predict(X_test, X_test_sequences)

print(f"Ensemble scores: {result['ensemble_scores']}")
print(f"Alert levels: {result['alert_levels']}")
print(f"Individual scores:")
print(f"  - Autoencoder: {result['autoencoder_scores']}")
print(f"  - Isolation Forest: {result['iforest_scores']}")
print(f"  - LSTM: {result['lstm_scores']}")
"""
RESULT_KEYS = ["ensemble_scores", "alert_levels", "autoencoder_scores", "iforest_scores", "lstm_scores"]
LENGTH = 4


@functools.cache
def trained_once(name: str) -> Detector:
    """A small detector for all tests of the ensemble, none of which changes its members. Not without `instant`."""
    return trained(name)[0]


@pytest.fixture
def members(instant: None) -> dict[str, Any]:
    """Trained members, by the arguments of the class."""
    names = {"autoencoder": "dense_autoencoder", "isolation_forest": "isolation_forest", "lstm": "lstm_classifier"}
    return {argument: trained_once(name) for argument, name in names.items()}


def rows_to_test() -> np.ndarray:
    return np.vstack([normal_rows(60, seed=7), normal_rows(20, seed=8) + 40.0, normal_rows(20, seed=9)])


def scaled(detector: Detector, scores: np.ndarray) -> np.ndarray:
    """EN8, from what is public about a member."""
    low = np.median(np.array(detector.metadata.calibration.scores, np.float64))
    u = np.maximum((scores.astype(np.float64) - low) / (detector.threshold - low), 0)
    return u / (u + 7 / 3)


def test_the_ensemble_snippet(members: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    X = rows_to_test()
    given: dict[str, Any] = {
        "ae_detector": members["autoencoder"],
        "if_detector": members["isolation_forest"],
        "lstm_detector": members["lstm"],
        "X_test": X,
        "X_test_sequences": create_sequences(X, sequence_length=LENGTH)[0],
    }
    exec(ENSEMBLE, given)
    result, ensemble = given["result"], given["ensemble"]
    assert list(result) == RESULT_KEYS
    assert "Ensemble scores: [" in capsys.readouterr().out
    assert {len(values) for values in result.values()} == {len(X) - LENGTH + 1}
    # scores of rows and sequences are of the same moments: those of the last rows
    for key, argument in (("autoencoder_scores", "autoencoder"), ("iforest_scores", "isolation_forest")):
        assert np.allclose(result[key], scaled(members[argument], members[argument].predict(X)[0][LENGTH - 1 :]))
    assert np.allclose(result["lstm_scores"], scaled(members["lstm"], members["lstm"].predict(X)[0]))
    joined = 0.5 * result["autoencoder_scores"] + 0.3 * result["iforest_scores"] + 0.2 * result["lstm_scores"]
    scores = result["ensemble_scores"]
    assert np.allclose(scores, joined, atol=1e-7)
    wanted = np.select([scores < 0.3, scores < 0.7], ["normal", "warning"], "critical")
    assert np.array_equal(result["alert_levels"], wanted)
    assert len(set(wanted)) > 1
    assert ensemble.weights == {"dense_autoencoder": 0.5, "isolation_forest": 0.3, "lstm_classifier": 0.2}


def test_a_member_that_alarms_on_half_of_normal_data_is_left_out(
    members: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    moved = IsolationForestDetector(profile="industrial").train_model(normal_rows(400))
    moved.metadata.threshold = float(moved.metadata.calibration.scores[0])
    rest = {"autoencoder": members["autoencoder"], "lstm": members["lstm"]}
    ensemble = EnsembleDetector(**rest, isolation_forest=moved)
    result = ensemble.predict(rows_to_test())
    assert list(ensemble.left_out) == ["isolation_forest"]
    assert "isolation_forest is left out of the ensemble: its threshold" in caplog.text
    assert result["iforest_scores"] is None
    assert np.array_equal(
        result["ensemble_scores"], EnsembleDetector(**rest).predict(rows_to_test())["ensemble_scores"]
    )
    assert not EnsembleDetector(**members).left_out
    alone = EnsembleDetector(isolation_forest=moved)
    with pytest.raises(DataError, match="no detector can be a member"):
        alone.predict(rows_to_test())


def test_weights_by_default_and_of_missing_members(members: dict[str, Any]) -> None:
    X = rows_to_test()
    ensemble = EnsembleDetector(**members)
    assert ensemble.weights == {"dense_autoencoder": 0.4, "isolation_forest": 0.3, "lstm_classifier": 0.3}
    del members["lstm"]
    without = EnsembleDetector(**members)
    assert without.sequence_length is None
    result = without.predict(X)
    assert list(result) == RESULT_KEYS
    assert result["lstm_scores"] is None
    assert len(result["ensemble_scores"]) == len(X)
    joined = (0.4 * result["autoencoder_scores"] + 0.3 * result["iforest_scores"]) / 0.7
    assert np.allclose(result["ensemble_scores"], joined, atol=1e-7)
    of_sequences = without.predict(X, create_sequences(X, sequence_length=9)[0])  # still of the last rows
    assert np.array_equal(of_sequences["ensemble_scores"], result["ensemble_scores"][8:])


def test_further_members(members: dict[str, Any]) -> None:
    svm, _ = trained("one_class_svm")
    with pytest.raises(DetectorError, match="one_class_svm is a member and has no weight"):
        EnsembleDetector(**members, one_class_svm=svm)
    weights = {"autoencoder": 0.25, "isolation_forest": 0.25, "lstm": 0.25, "one_class_svm": 0.25}
    result = EnsembleDetector(**members, one_class_svm=svm, weights=weights).predict(rows_to_test())
    assert list(result) == [*RESULT_KEYS, "one_class_svm_scores"]
    assert np.allclose(result["ensemble_scores"], np.mean([result[key] for key in list(result)[2:]], axis=0))


def test_rows_and_sequences_are_aligned_by_time(members: dict[str, Any]) -> None:
    ensemble, X = EnsembleDetector(**members), rows_to_test()
    sequences = create_sequences(X, sequence_length=LENGTH)[0]
    whole = ensemble.predict(X)["ensemble_scores"]
    for rows, some, where in (
        (X, sequences, slice(None)),
        (None, sequences, slice(None)),
        (sequences, None, slice(None)),
        (X[LENGTH - 1 :], sequences, slice(None)),  # a row for each sequence
        (X, sequences[::5], slice(None, None, 5)),
        (X, np.concatenate([sequences[:20], sequences[50:]]), np.r_[:20, 50 : len(whole)]),  # two runs
        (X, sequences[41:42], slice(41, 42)),
    ):
        assert np.array_equal(ensemble.predict(rows, some)["ensemble_scores"], whole[where])
    for rows, some in (
        (X[5:], sequences),
        (X, sequences[::-1]),
        (X, sequences + 1.0),
        (X[: len(sequences)], sequences),
    ):
        with pytest.raises(DataError, match="of different moments") as caught:
            ensemble.predict(rows, some)
        assert caught.value.field == "X_sequences"
        assert "create_sequences(X, sequence_length=4)" in caught.value.remedy


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((None, None), "neither rows nor sequences"),
        ((np.zeros((2, LENGTH, WIDTH)), np.zeros((2, LENGTH, WIDTH))), "given twice"),
        ((None, np.zeros((9, WIDTH))), "that of rows"),
        ((None, np.zeros((2, LENGTH + 1, WIDTH))), "sequences of 5 rows; the detector's have 4"),
        ((np.zeros((LENGTH - 1, WIDTH)), None), "3 rows hold no sequence of 4"),
        ((np.zeros((9, WIDTH + 1)), None), "6 columns; the detector has 5"),
        (([[1.0], [1.0, 2.0]], None), "no array of numbers"),
    ],
)
def test_what_an_ensemble_cannot_score(given: Any, said: str, members: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=said):
        EnsembleDetector(**members).predict(*given)


@pytest.mark.slow  # trains networks
def test_an_ensemble_is_saved_and_loaded(
    members: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, folder = rows_to_test(), tmp_path / "ensemble"
    ensemble = EnsembleDetector(**members).set_weights(autoencoder=0.2, isolation_forest=0.2, lstm=0.6)
    before = ensemble.predict(X)
    models = ensemble.save(folder)
    assert "0.6" in ensemble.facts["members"]
    assert set(models.models) == {"isolation_forest", "dense_autoencoder", "lstm_classifier", "ensemble"}
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".npy", ".keras", ".h5")]
    assert len(models.golden["ensemble"].cases) > 50

    def refuse(*_: Any) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    loaded = EnsembleDetector.load(folder)
    after = loaded.predict(X)
    served = models.model("ensemble").score_batch(X, series=True)
    for scores in (after["ensemble_scores"], served.scores):
        assert np.array_equal(before["ensemble_scores"].view(np.uint32), scores.view(np.uint32))
    assert all(np.array_equal(before[key], after[key]) for key in RESULT_KEYS)
    assert loaded.weights == pytest.approx(ensemble.weights)
    assert loaded.threshold == ensemble.threshold == models.model("ensemble").threshold
    assert loaded.sequence_length == LENGTH
    assert loaded.save(tmp_path / "copy").id == models.id
    assert AutoencoderDetector.load(folder).threshold == members["autoencoder"].threshold

    # other weights are another ensemble, which needs normal rows, as nobody here has any
    loaded.set_weights(autoencoder=0.4, isolation_forest=0.3, lstm=0.3)
    changed = loaded.predict(X)["ensemble_scores"]
    assert np.array_equal(changed, EnsembleDetector(**members).predict(X)["ensemble_scores"])
    with pytest.raises(NotTrainedError, match=r"Call train_model\(X\) of the ensemble"):
        loaded.save(folder)
    loaded.train_model(normal_rows(300)).save(folder)
    again = EnsembleDetector.load(folder)
    assert np.array_equal(again.predict(X)["ensemble_scores"], changed)
    assert again.metadata.training.data_fingerprint == members["autoencoder"].metadata.training.data_fingerprint


def test_the_score_of_one_moment_depends_on_no_other(members: dict[str, Any]) -> None:
    ensemble, X = EnsembleDetector(**members), rows_to_test()
    sequences = create_sequences(X, sequence_length=LENGTH)[0]
    whole = ensemble.predict(X, sequences)["ensemble_scores"]
    for i in (0, 40, 70, 96):
        alone = ensemble.predict(None, sequences[i : i + 1])["ensemble_scores"]
        assert alone.view(np.uint32)[0] == whole.view(np.uint32)[i]  # S4-6


@pytest.mark.slow  # trains networks
def test_the_threshold_of_an_ensemble(members: dict[str, Any], tmp_path: Path) -> None:
    ensemble, normal = EnsembleDetector(**members), normal_rows(200 + LENGTH - 1, seed=5)
    default = ensemble.threshold
    assert default == pytest.approx(0.3, abs=1e-7)
    moved = ensemble.compute_threshold(normal, percentile=80)
    assert is_midpoint(moved)
    assert moved == ensemble.threshold != default
    result = ensemble.predict(normal)
    assert (result["alert_levels"] != "normal").sum() == 0.2 * 200
    assert moved == ensemble.save(tmp_path).model("ensemble").threshold == EnsembleDetector.load(tmp_path).threshold
    assert ensemble.compute_threshold(normal) == default
    with pytest.raises(DataError, match=r"warns above 0 and below 0\.5"):
        EnsembleDetector(**members, critical_threshold=0.5).compute_threshold(normal + 1e6, percentile=50)
    with pytest.raises(DataError, match="101 is no percentile"):
        ensemble.compute_threshold(normal, percentile=101)
    assert ensemble.threshold == default


@pytest.mark.slow  # trains networks
def test_a_retrained_member_is_used_at_once(members: dict[str, Any], tmp_path: Path) -> None:
    EnsembleDetector(**members).save(tmp_path)
    loaded, X = EnsembleDetector.load(tmp_path), rows_to_test()
    before = loaded.predict(X)["iforest_scores"]
    loaded.members["isolation_forest"].train_model(normal_rows(300, seed=3), n_estimators=5, max_samples=32)
    assert not np.array_equal(loaded.predict(X)["iforest_scores"], before)
    models = loaded.save(tmp_path)
    assert models.metadata["ensemble"].ensemble.members[0].threshold == models.metadata["isolation_forest"].threshold


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"autoencoder": 0.5, "isolation_forest": 0.3, "lstm": 0.3}, "sum to 1.1, and must sum to 1"),
        ({"autoencoder": 0.7, "isolation_forest": 0.3, "lstm": 0.0}, "lstm_classifier"),
        ({"autoencoder": 0.7, "isolation_forest": 0.3, "lstm": float("nan")}, "lstm_classifier"),
        ({"autoencoder": 0.5, "forest": 0.5}, "forest"),
        ({"autoencoder": 0.5, "dense_autoencoder": 0.5}, "twice"),
        ({}, "there are none"),
    ],
)
def test_weights_that_cannot_be(weights: dict[str, float], said: str, members: dict[str, Any]) -> None:
    ensemble = EnsembleDetector(**members)
    with pytest.raises(ProfileError, match=said):
        ensemble.set_weights(**weights)
    with pytest.raises(ProfileError, match=said):
        EnsembleDetector(**members, weights=weights)
    with pytest.raises(DetectorError, match=r"lstm_classifier is a member and has no weight.*leave the member out"):
        ensemble.set_weights(autoencoder=0.5, isolation_forest=0.5)
    assert ensemble.weights["dense_autoencoder"] == 0.4


def test_members_that_cannot_be(members: dict[str, Any], tmp_path: Path) -> None:
    rows = normal_rows(20)
    with pytest.raises(DetectorError, match=r"isolation_forest: it is a OneClassSVMDetector\. Give a IsolationForest"):
        EnsembleDetector(isolation_forest=OneClassSVMDetector())  # type: ignore[arg-type]  # wrong on purpose
    untrained = EnsembleDetector(autoencoder=members["autoencoder"], isolation_forest=IsolationForestDetector())
    for ensemble, said in (
        (EnsembleDetector(), r"no member\. Give it detectors.*EnsembleDetector\.load"),
        (untrained, r"isolation_forest has no model yet\. Call train_model\(X\) of it"),
    ):
        calls: list[Callable[[], Any]] = [
            lambda ensemble=ensemble: ensemble.predict(rows),
            lambda ensemble=ensemble: ensemble.train_model(rows),
            lambda ensemble=ensemble: ensemble.compute_threshold(rows),
            lambda ensemble=ensemble: ensemble.save(tmp_path),
            lambda ensemble=ensemble: ensemble.metadata,
        ]
        for call in calls:
            with pytest.raises(NotTrainedError, match=said):
                call()
        with pytest.raises(NoThresholdError, match=said):
            _ = ensemble.threshold
    named = IsolationForestDetector(feature_names=list("abcde"), n_estimators=3).train_model(normal_rows(200))
    with pytest.raises(DetectorError, match=r"features.*Train the members on the same columns"):
        EnsembleDetector(autoencoder=members["autoencoder"], isolation_forest=named).predict(rows)
    alone = EnsembleDetector(isolation_forest=members["isolation_forest"])
    assert np.allclose(alone.predict(rows)["ensemble_scores"], alone.predict(rows)["iforest_scores"])
    with pytest.raises(DataError, match="joins two or more"):
        alone.save(tmp_path)
    with pytest.raises(ContractError, match="MANIFEST_MISSING"):
        EnsembleDetector.load(tmp_path)
