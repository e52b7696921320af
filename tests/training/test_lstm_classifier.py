"""The LSTM classifier: labels, an exact graph for any window, training from labelled data, refusals (LC1 to LC6)."""

from __future__ import annotations

import pickle
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.cli import app
from dwcp_training.data import DataError, DataErrorCode, Exclusion, Telemetry, labelled_series, read_table, write_csv
from dwcp_training.data.windows import time_split
from dwcp_training.detectors import classifier_network
from dwcp_training.detectors.base import fitted_scaler
from dwcp_training.detectors.lstm_classifier import ClassifierReference, LabelledWindows, fit_lstm_classifier
from dwcp_training.evaluate import alarms
from dwcp_training.export.classifier import ClassifierWeights, export_classifier, operators
from dwcp_training.export.crosscheck_forest import CrossCheckError
from dwcp_training.export.graph import operator_counts
from dwcp_training.export.lstm import LayerWeights
from dwcp_training.export.run import cpu_session
from dwcp_training.golden.make import boundary_distance
from dwcp_training.pipeline import train
from dwcp_training.profiles import LstmClassifierDefaults, load_profile
from tests.training.conftest import COMMAND, REPOSITORY, contents

PROFILE = load_profile("dwcp")
SMALL = LstmClassifierDefaults(window_size=5, units=(6, 4, 8), epochs=4, learning_rate=0.01)
SMALL_FLAGS = ("--window-size", "5", "--units", "6,4,8", "--epochs", "4")
OUTPUTS = ["score", "is_anomaly", "contributions", "expected"]


def random_weights(width: int, units: tuple[int, int, int], seed: int = 0, bias: float = 0.0) -> ClassifierWeights:
    """Random float32 weights; `bias` is that of the output."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 1.5 / np.sqrt(shape[0]), shape).astype(np.float32)

    first, second, dense = units
    layers = tuple(
        LayerWeights(normal(into, 4 * out), normal(out, 4 * out), normal(4 * out))
        for into, out in ((width, first), (first, second))
    )
    return ClassifierWeights(
        layers, normal(second, dense), normal(dense), normal(dense, 1), np.array([bias], np.float32)
    )


def metadata_of(mean: np.ndarray, scale: np.ndarray, reference: np.ndarray, threshold: float) -> Any:
    """As much of a model's metadata as its reference reads."""
    scaler = model_pb2.Scaler(mean=mean, scale=scale)
    return model_pb2.ModelMetadata(threshold=threshold, scaler=scaler, reference_values=reference)


SHAPES = {
    "industrial": (30, 100, (64, 32, 16), 0.0),
    "dwcp": (7, 10, (64, 32, 16), 0.0),
    "improbable": (7, 10, (8, 4, 4), -60.0),
    "all but impossible": (3, 4, (5, 5, 5), -800.0),
    "certain": (7, 10, (8, 4, 4), 60.0),
    "one sample": (7, 1, (6, 5, 4), 0.0),
    "one feature": (1, 12, (3, 2, 1), 0.0),
    "longest window": (2, 256, (4, 3, 2), 0.0),
}


LONG = ("longest window", "industrial")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=(pytest.mark.slow,) if name in LONG else ()) for name in SHAPES]
)
def test_graph_equals_the_reference(name: str) -> None:
    width, timesteps, units, bias = SHAPES[name]
    rng = np.random.default_rng(1)
    mean, scale = rng.normal(50, 20, width), rng.uniform(0.1, 30, width)
    reference = mean + scale / 7
    weights = random_weights(width, units, bias=bias)
    threshold = 0.5 - 2.0**-26
    graph = export_classifier(weights, reference, mean, scale, timesteps, [f"x{j}" for j in range(width)], threshold)
    assert operator_counts(graph) == dict(sorted(operators(timesteps).items()))
    count = 200 if timesteps * width > 1000 else 2_000
    items = mean + rng.standard_normal((count, timesteps, width)) * scale * rng.choice([0.3, 1, 3, 1e4], (count, 1, 1))
    items[::97] = mean
    items[1::97, 0], items[2::97], items[3::97] = 1e300, -1e300, 1e-310
    items[4::97] = reference

    session = cpu_session(graph.SerializeToString())
    score, is_anomaly, contributions, expected = session.run(OUTPUTS, {"samples": items})
    wanted = ClassifierReference(weights, metadata_of(mean, scale, reference, threshold)).evaluate(items)
    unequal = score.view(np.uint32) != wanted.scores.astype(np.float32).view(np.uint32)
    assert (boundary_distance(wanted.scores[unequal]) < 1e-12).all()  # P2's gap, and nothing else
    assert unequal.sum() <= 1
    assert np.array_equal(is_anomaly, score.astype(np.float64) > threshold)
    assert ((score >= 0) & (score <= 1)).all()
    assert (expected == reference.astype(np.float32)).all()
    assert (contributions != wanted.contributions.astype(np.float32)).mean() < 1e-4
    total = contributions.astype(np.float64).sum(axis=1)
    assert (total[4::97] == 0).all()  # at the reference values nothing is to blame (LC4)
    assert np.abs(np.delete(total, np.s_[4::97]) - 1).max() < 1e-5
    for i in range(0, count, count // 20):  # an item alone has the bits that it has among others (W4)
        alone = session.run(OUTPUTS, {"samples": items[i : i + 1]})
        assert alone[0].view(np.uint32)[0] == score.view(np.uint32)[i]


def test_improbable_scores_keep_their_digits() -> None:
    """ONNX Runtime's own sigmoid gives 0 or two digits where the probability is 1e-17."""
    weights = random_weights(2, (3, 3, 3), bias=-40.0)
    names = ["a", "b"]
    zeros, ones = np.zeros(2), np.ones(2)
    graph = export_classifier(weights, zeros, zeros, ones, 3, names, 0.5 - 2.0**-26)
    items = np.random.default_rng(0).standard_normal((500, 3, 2))
    (score,) = cpu_session(graph.SerializeToString()).run(["score"], {"samples": items})
    wanted = ClassifierReference(weights, metadata_of(zeros, ones, zeros, 0.5)).evaluate(items).scores
    assert wanted.max() < 1e-15
    assert len(np.unique(wanted)) > 400
    assert np.array_equal(score, wanted.astype(np.float32))


def test_windows_have_the_label_of_their_last_sample_and_cross_no_gap() -> None:
    telemetry = labelled_series(700)
    rows = telemetry.values
    telemetry = replace(telemetry, segments=((0, 100), (100, 103), (103, 700)))
    found = LabelledWindows.of(telemetry, LstmClassifierDefaults(window_size=5))
    ends = [*range(4, 100), *range(107, 700)]
    assert len(found.items) == len(ends)
    assert telemetry.labels is not None
    for window, label, end in zip(found.items, found.labels, ends, strict=True):
        assert np.array_equal(window, rows[end - 4 : end + 1])
        assert label == telemetry.labels[end]
    strided = LabelledWindows.of(telemetry, LstmClassifierDefaults(window_size=5, window_stride=7))
    assert np.array_equal(strided.labels[:14], found.labels[:96:7])


@pytest.mark.slow
def test_scaler_and_medians_are_those_of_normal_rows() -> None:
    telemetry = labelled_series(1_500)
    fitted = fit_lstm_classifier(telemetry, SMALL.model_copy(update={"epochs": 1}))
    fit_part, held_out = time_split(telemetry, 0.2, gap=5)
    assert fit_part.labels is not None
    assert held_out.labels is not None
    normal = fit_part.values[~fit_part.labels]
    assert np.array_equal(fit_part.normal().values, normal)
    scaler = fitted_scaler(replace(fit_part, values=normal))
    assert np.array_equal(fitted.metadata.scaler.mean, scaler.mean_)
    assert np.array_equal(fitted.metadata.reference_values, np.median(normal, axis=0))
    assert len(fitted.held_out_items) == int((~held_out.labels[4:]).sum())
    assert fitted.metadata.classifier.normal_windows == int((~fit_part.labels[4:]).sum())
    assert fitted.metadata.classifier.anomalous_windows == int(fit_part.labels[4:].sum())
    assert list(fitted.metadata.classifier.units) == [6, 4, 8]
    assert fitted.metadata.timesteps == 5


def test_class_weights() -> None:
    labels = np.array([True] * 10 + [False] * 30)
    assert classifier_network.class_weights(labels, SMALL).tolist() == pytest.approx([40 / 60, 2.0])
    none = SMALL.model_copy(update={"class_weights": "none"})
    assert classifier_network.class_weights(labels, none).tolist() == [1.0, 1.0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published classifier that has learned something: 3,000 rows, 15 epochs."""
    output = tmp_path_factory.mktemp("classifier")
    settings = SMALL.model_copy(update={"epochs": 15})
    outcome = train("lstm_classifier", labelled_series(3_000), settings, output)
    assert outcome.warning == ""
    assert "equal in every bit" in outcome.facts["against Keras float64"]
    return output


@pytest.mark.slow  # trains a network of its own
def test_it_finds_what_it_was_trained_to_find(trained: Path) -> None:
    model = ModelSet.open(trained).model("lstm_classifier")
    fresh = labelled_series(2_000, seed=7)
    assert fresh.labels is not None
    scored, alarmed = alarms(model, fresh.values, fresh.segments)
    assert (alarmed & scored & ~fresh.labels).sum() / (scored & ~fresh.labels).sum() < 0.15
    assert (alarmed & fresh.labels).sum() / (scored & fresh.labels).sum() > 0.5


def test_golden_vectors_metadata_and_byproducts(trained: Path) -> None:
    models = ModelSet.open(trained)  # runs the golden vectors
    metadata = models.metadata["lstm_classifier"]
    assert metadata.threshold == 0.5 - 2.0**-26
    assert metadata.graph.layout == "classifier.v1"
    assert metadata.parity_class == model_pb2.PARITY_CLASS_EXACT
    assert not metadata.HasField("contamination")
    cases = {case.id: case for case in models.golden["lstm_classifier"].cases}
    assert {"typical/normal/0", "typical/anomaly/0", "shape/reversed", "window/short"} & cases.keys()
    beside = {id: case for id, case in cases.items() if id.startswith("threshold/")}
    assert len(beside) >= 8
    for id, case in beside.items():
        assert case.score.is_anomaly == id.endswith("/anomaly")
        assert abs(case.score.score - 0.5) < 1e-6
    kept = {path.name for path in models.path.iterdir()}
    assert {"lstm_classifier.keras", "lstm_classifier_scaler.pkl", "lstm_classifier_metadata.json"} <= kept
    scaler = pickle.loads((models.path / "lstm_classifier_scaler.pkl").read_bytes())
    assert np.array_equal(scaler.mean_, metadata.scaler.mean)


@pytest.mark.slow  # trains a network of its own
def test_threshold_from_a_percentile_of_held_out_normal_windows() -> None:
    settings = SMALL.model_copy(update={"threshold_percentile": 90.0, "epochs": 10})
    fitted = fit_lstm_classifier(labelled_series(1_500), settings)
    above = fitted.reference.evaluate(fitted.held_out_items).is_anomaly.mean()
    assert abs(above - 0.1) < 2 / len(fitted.held_out_items)
    assert "percentile 90 of the held-out normal windows" in fitted.facts["threshold"]


@pytest.mark.slow  # trains twice in new processes
def test_training_again_gives_the_same_bytes(tmp_path: Path) -> None:
    write_csv(labelled_series(900), tmp_path / "data.csv")
    intervals_of(labelled_series(900), tmp_path / "faults.csv")
    flags = ["--data", tmp_path / "data.csv", "--labels", tmp_path / "faults.csv", *SMALL_FLAGS]
    running = [
        subprocess.Popen(
            [COMMAND, "train", "lstm-classifier", *flags, "--output", tmp_path / name],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for name in ("a", "b")
    ]  # fmt: skip
    printed = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], printed
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first == second
    assert "labels: " in printed[0]
    assert "anomalous fitted" in printed[0]


def intervals_of(telemetry: Telemetry, path: Path) -> None:
    """Writes the labels of telemetry as intervals."""
    assert telemetry.labels is not None
    assert telemetry.timestamps is not None
    edges = np.flatnonzero(np.diff(np.concatenate([[0], telemetry.labels.astype(int), [0]])))
    lines = [
        f"{telemetry.timestamps[first]}Z,{telemetry.timestamps[last - 1]}Z\n" for first, last in edges.reshape(-1, 2)
    ]
    path.write_text("start,end\n" + "".join(lines))


def test_labels_from_intervals_and_from_a_column(tmp_path: Path) -> None:
    telemetry = labelled_series(700)
    assert telemetry.labels is not None
    write_csv(telemetry, tmp_path / "data.csv")
    intervals_of(telemetry, tmp_path / "faults.csv")
    read = read_table(tmp_path / "data.csv", PROFILE, anomalies=[tmp_path / "faults.csv"])
    assert np.array_equal(read.labels, telemetry.labels)
    assert len(read) == 700

    lines = (tmp_path / "data.csv").read_text().splitlines()
    marks = ["state", *("bad" if label else "fine" for label in telemetry.labels)]
    (tmp_path / "marked.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(lines, marks, strict=True)))
    exclude = Exclusion(label_column="state", normal_labels=("fine",))
    marked = read_table(tmp_path / "marked.csv", PROFILE, exclude=exclude, anomalies=())
    assert np.array_equal(marked.labels, telemetry.labels)
    assert np.array_equal(marked.values, read.values)
    # Detectors that learn from normal rows alone leave the same rows out.
    normal = read_table(tmp_path / "marked.csv", PROFILE, exclude=exclude)
    assert normal.labels is None
    assert np.array_equal(normal.values, marked.normal().values)


def test_grace_and_excluded_times_are_neither(tmp_path: Path) -> None:
    telemetry = labelled_series(700)
    write_csv(telemetry, tmp_path / "data.csv")
    (tmp_path / "faults.csv").write_text("start,end\n2024-01-01T01:00:00Z,2024-01-01T01:09:00Z\n")
    (tmp_path / "maintenance.csv").write_text("start,end\n2024-01-01T05:00:00Z,2024-01-01T05:29:00Z\n")
    read = read_table(
        tmp_path / "data.csv",
        PROFILE,
        exclude=Exclusion([tmp_path / "maintenance.csv"], grace_seconds=120),
        anomalies=[tmp_path / "faults.csv"],
    )
    assert read.labels is not None
    assert read.labels.sum() == 10
    assert dict(read.report.dropped) == {"excluded_interval": 30, "excluded_grace": 4}
    assert read.segments == ((0, 70), (70, 70 + 228), (298, 666))


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        (None, DataErrorCode.NO_LABELS, "nothing says which rows are anomalies"),
        (
            "start,end\n2030-01-01T00:00:00Z,2030-01-02T00:00:00Z\n",
            DataErrorCode.SINGLE_CLASS,
            "all 300 rows are normal",
        ),
        ("start,end\n2020-01-01T00:00:00Z,2030-01-02T00:00:00Z\n", DataErrorCode.SINGLE_CLASS, "rows are anomalous"),
    ],
)
def test_reading_refuses_labels_that_tell_nothing(
    csv: Path, tmp_path: Path, text: str | None, code: DataErrorCode, message: str
) -> None:
    given = []
    if text is not None:
        (tmp_path / "faults.csv").write_text(text)
        given.append(tmp_path / "faults.csv")
    with pytest.raises(DataError, match=message) as caught:
        read_table(csv, PROFILE, anomalies=given)
    assert caught.value.code is code
    assert caught.value.field == "labels"
    assert caught.value.remedy


def labelled(labels: np.ndarray, **changes: Any) -> Telemetry:
    return replace(labelled_series(700), labels=labels, **changes)


MARKS = np.arange(700) % 50 < 5


@pytest.mark.parametrize(
    ("telemetry", "settings", "field", "message"),
    [
        (replace(labelled_series(700), labels=None), {}, "labels", "these have no labels"),
        (labelled(MARKS & (np.arange(700) < 400)), {}, "labels", "held-out part, the last 20% of the time is anom"),
        (labelled(MARKS & (np.arange(700) > 600)), {}, "labels", "windows of the fitted part is anomalous"),
        (labelled(MARKS | (np.arange(700) > 500)), {}, "labels", "of the time is normal"),
        (labelled(MARKS, segments=tuple((i, i + 50) for i in range(0, 700, 50))), {"window_size": 51}, "window_size",
         "no window of 51 samples fits: the longest run without a gap has 50"),
    ],
    ids=["no labels", "late part normal", "early part normal", "late part anomalous", "window too long"],
)  # fmt: skip
def test_training_refuses(telemetry: Telemetry, settings: dict[str, Any], field: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        fit_lstm_classifier(telemetry, SMALL.model_copy(update=settings))
    assert caught.value.field == field
    assert caught.value.remedy


@pytest.mark.slow  # trains a network of its own
def test_a_percentile_that_is_no_threshold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClassifierReference, "scores", lambda self, scaled: np.ones(len(scaled)))
    with pytest.raises(DataError, match="a threshold lies between 0 and 1") as caught:
        fit_lstm_classifier(labelled_series(700), SMALL.model_copy(update={"threshold_percentile": 99.0, "epochs": 1}))
    assert caught.value.field == "threshold_percentile"


@pytest.mark.slow  # trains a network of its own
def test_weights_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClassifierWeights, "finite", False)
    with pytest.raises(DataError, match="did not settle"):
        fit_lstm_classifier(labelled_series(700), SMALL.model_copy(update={"epochs": 1}))


@pytest.mark.parametrize("name", ["output.bias", "lstm_2.recurrent", "scaler_mean"])
@pytest.mark.slow  # Keras anew for each
def test_cross_check_finds_a_wrong_graph(name: str) -> None:
    fitted = fit_lstm_classifier(labelled_series(700), SMALL.model_copy(update={"epochs": 1}))
    graph = fitted.graph()
    assert set(fitted.cross_check(graph)) == {"Keras float64", "tf2onnx float32"}
    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + 1e-6, tensor.name))
    with pytest.raises(CrossCheckError, match="differ from Keras in float64"):
        fitted.cross_check(graph)


def test_command_line_refusals(
    csv: Path, tmp_path: Path, dwcp: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    def invoke(*arguments: str | Path) -> Any:
        return CliRunner().invoke(app, ["train", "lstm-classifier", *map(str, arguments), "--output", str(tmp_path)])

    (tmp_path / "faults.csv").write_text("start,end\n2024-01-01T01:00:00Z,2024-01-01T01:09:00Z\n")
    for arguments, status, words in (
        (("--data", csv), 1, "--label-column"),
        (("--synthetic", "--labels", tmp_path / "faults.csv"), 2, "labels of its own"),
        (("--data", csv, "--labels", tmp_path / "faults.csv", "--units", "6,4"), 2, "--units"),
        (("--data", csv, "--labels", tmp_path / "faults.csv", *SMALL_FLAGS), 1, "held-out part"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == status, result.output
        assert words in result.stderr.replace("\n", " ")
        assert not (tmp_path / "manifest.json").exists()


def test_defaults_are_those_of_the_document() -> None:
    settings = load_profile("industrial").detectors.lstm_classifier
    assert settings.units == (64, 32, 16)
    assert settings.window_size == 100
    assert settings.epochs == 50
    network = classifier_network.build(settings, 30, unroll=False)
    found = [(type(layer).__name__, getattr(layer, "units", None)) for layer in network.layers]
    assert [pair for pair in found if pair[1]] == [("LSTM", 64), ("LSTM", 32), ("Dense", 16), ("Dense", 1)]
    assert [layer.activation.__name__ for layer in network.layers if hasattr(layer, "activation")][-2:] == [
        "relu", "sigmoid",
    ]  # fmt: skip


PROFILE_OF_PLANT = """\
feature_schema: {name: plant, version: 1}
timestamp_column: null
reader:
  {features: numeric, delimiter: ";", metadata: [datetime, anomaly, changepoint], label_column: anomaly, series: files}
"""


@pytest.fixture(scope="module")
def skab() -> Path:
    folder = REPOSITORY.parent / "shared" / "data" / "skab"
    if not folder.is_dir():
        pytest.skip("training on measured faults left out: ../shared/data/skab is not here")
    return folder


@pytest.mark.slow  # half a minute of training
def test_measured_faults_of_a_plant(skab: Path, tmp_path: Path, no_cross_check: None) -> None:
    """Trained on 12 experiments with a valve, published, and scored on 4 others: 35 % of their samples are faulty."""
    (tmp_path / "plant.yaml").write_text(PROFILE_OF_PLANT)
    flags = ["--profile", tmp_path / "plant.yaml", "--output", tmp_path / "models"]
    flags += ["--window-size", 20, "--window-stride", 5, "--units", "16,8,8", "--epochs", 12, "--batch-size", 16]
    data = [part for i in range(12) for part in ("--data", skab / "valve1" / f"{i}.csv")]
    result = CliRunner().invoke(app, ["train", "lstm-classifier", *map(str, (*data, *flags))], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert "labels: 4,708 of 13,591 rows are anomalies" in result.stdout

    unseen = [skab / "valve1" / f"{i}.csv" for i in range(12, 16)]
    plant = load_profile(tmp_path / "plant.yaml")
    telemetry = read_table(unseen, plant, exclude=Exclusion(label_column="anomaly"), anomalies=())
    assert len(telemetry.segments) == 4  # a window never crosses from one experiment to the next
    assert telemetry.labels is not None
    model = ModelSet.open(tmp_path / "models").model("lstm_classifier")
    scored, alarmed = alarms(model, telemetry.values, telemetry.segments)
    assert scored.sum() == len(telemetry) - 4 * 19
    false_alarms = alarmed[scored & ~telemetry.labels].mean()
    missed = 1 - alarmed[scored & telemetry.labels].mean()
    print(f"false alarms {false_alarms:.1%}, missed alarms {missed:.1%}")
    assert false_alarms < 0.15
    assert missed < 0.3
