"""Weights in int8 (rules Q1 to Q4): what is stored, how far scores move, and that all implementations agree."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit.int8 import LARGEST
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model import Explain
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.onnx_file import OnnxFile
from dwcp_training.cli import app
from dwcp_training.data import lstm_series, write_csv
from dwcp_training.data.windows import windows
from dwcp_training.detectors.lstm_cells import rounding_error
from dwcp_training.export.int8 import Quantized
from dwcp_training.export.lstm import LayerWeights
from dwcp_training.export_graph import items_to_check
from dwcp_training.pipeline import train
from dwcp_training.profiles import DenseAutoencoderDefaults
from dwcp_training.quantize import MARGIN, quantize
from tests.conformance.go_program import GO_FOLDER, contract_score
from tests.conformance.sets import MORE_SET, REFERENCE_SET
from tests.sidecar.damaged import edited
from tests.sidecar.ensemble_set import digest
from tests.training.test_dense_autoencoder import wide_telemetry

WAIT = 120
HOMES = {"lstm_autoencoder": REFERENCE_SET, "dense_autoencoder": MORE_SET}
BOTH = ["dense_autoencoder", pytest.param("lstm_autoencoder", marks=pytest.mark.slow)]
"""For tests of what both have in common: the larger one with `make test-slow`."""
pytestmark = pytest.mark.timeout(300)


def invoke(*arguments: str | Path, status: int = 0) -> str:
    """Runs `dwcp` and gives what it printed."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == status, done.output
    assert "Traceback" not in done.output
    return done.output


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Detector to a set with its int8 variant, made by the command, measured on data, with figures beside it."""
    root = tmp_path_factory.mktemp("int8")
    write_csv(lstm_series(600, seed=3), root / "normal.csv")
    for name, home in HOMES.items():
        flags = ("--data", root / "normal.csv", "--json", root / f"{name}.json")
        invoke("quantize", "--models", home, "--output", root / name, "--detector", name, *flags)
    return {name: root / name for name in HOMES}


@pytest.fixture(params=["dense_autoencoder", "lstm_autoencoder"])
def detector(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def wide(detector: str) -> ModelSet:
    return ModelSet.open(HOMES[detector])


@pytest.fixture
def narrow(detector: str, quantized: dict[str, Path]) -> ModelSet:
    return ModelSet.open(quantized[detector])


def test_a_matrix_in_int8():
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(20, 7)) * rng.uniform(1e-3, 1e3, 7)
    matrix[:, 3] = 0.0
    matrix[:, 4] = 1e-50  # below every float32 number
    small = Quantized(matrix)
    assert (small.units.dtype, small.scale.dtype) == (np.int8, np.float32)
    assert np.abs(small.units.astype(int)).max() == LARGEST
    assert (small.scale > 0).all()
    assert (small.values[:, 3:5] == 0).all()
    assert (np.abs(small.values - matrix) <= 0.5001 * small.scale + 1e-50).all()
    assert (np.abs(small.units[:, [0, 1, 2, 5, 6]].astype(int)).max(axis=0) == LARGEST).all(), "a column uses all units"


def test_what_the_metadata_say(detector, wide, narrow):
    before, after = wide.metadata[detector], narrow.metadata[detector]
    assert after.parity_class == model_pb2.PARITY_CLASS_TOLERANCE
    assert (after.graph.precision, after.graph.layout) == ("int8", f"{before.graph.layout[:-3]}.int8.v1")
    assert 0 < after.tolerance.relative_score < 1
    assert 0 < after.tolerance.guard_band < 1
    assert after.training.hyperparameters["quantized_from"] == wide.id
    assert after.threshold == before.threshold
    assert list(after.calibration.scores) == list(before.calibration.scores)
    assert "float64 model" in after.calibration.source
    assert not narrow.models[detector].exact
    assert narrow.models[detector].bitwise


def test_the_graph_has_no_other_weights(detector, wide, narrow):
    """Every weight of float64 is there in int8, or in float32 where it is a bias; the file is a fraction as large."""
    file = narrow.metadata[detector].graph.file
    before = OnnxFile.parse((wide.path / file).read_bytes(), file).initializers
    after = OnnxFile.parse((narrow.path / file).read_bytes(), file).initializers
    weights = {name for name in before if name.endswith((".kernel", ".recurrent", ".bias"))}
    assert weights
    for name in weights:
        assert name not in after
        if before[name].ndim == 1:
            assert (after[f"{name}.float32"].astype(np.float64) == before[name]).all()
            continue
        values = after[f"{name}.int8"].astype(np.float64) * after[f"{name}.scale"].astype(np.float64)
        step = after[f"{name}.scale"].astype(np.float64)
        assert after[f"{name}.int8"].dtype == np.int8
        assert (np.abs(values - before[name]) <= 0.5001 * step).all()
    assert set(before) - weights == set(after) - {
        f"{name}.{part}" for name in weights for part in ("int8", "scale", "float32")
    }
    assert (narrow.path / file).stat().st_size < 0.3 * (wide.path / file).stat().st_size


def held_out(models: ModelSet, detector: str, seed: int) -> np.ndarray:
    """Items that nobody measured on: normal ones, and ones with a metric that is off by a growing amount."""
    model = models.models[detector]
    series = lstm_series(1_200, seed=seed)
    items = windows(series.values, series.segments, model.timesteps)
    rng = np.random.default_rng(seed)
    off = items.copy()
    columns = rng.integers(0, items.shape[2], len(items))
    heights = np.linspace(0, 12, len(items)) * np.array(model.metadata.scaler.scale)[columns]
    off[np.arange(len(items)), -1, columns] += heights
    return np.concatenate([items, off])


def test_the_tolerance_holds_on_what_it_was_not_measured_on(detector, wide, narrow):
    """P3: scores within the tolerance of the float64 model's; no decision changes outside of the guard band."""
    items = held_out(wide, detector, seed=11)
    before = wide.models[detector].run(items, Explain.NEVER)
    after = narrow.models[detector].run(items, Explain.NEVER)
    tolerance, threshold = narrow.metadata[detector].tolerance, wide.models[detector].threshold
    scores = before.scores.astype(np.float64)
    apart = np.abs(after.scores - scores) / scores
    assert apart.max() <= tolerance.relative_score
    assert apart.max() > 1e-4, "these are the same weights"
    outside = np.abs(scores - threshold) > tolerance.guard_band * threshold
    assert (before.is_anomaly == after.is_anomaly)[outside].all()
    assert 200 < before.is_anomaly.sum() < len(items) - 200, "these items decide nothing"


def test_the_report(detector, wide, narrow, quantized):
    figures = json.loads((quantized[detector].parent / f"{detector}.json").read_text())
    assert (figures["model_set"], figures["quantized_from"]) == (narrow.id, wide.id)
    report = figures["detectors"][detector]
    tolerance = narrow.metadata[detector].tolerance
    assert (report["relative_score"], report["guard_band"]) == (tolerance.relative_score, tolerance.guard_band)
    assert set(report["changes"]) == {"golden", "made up", "data", "held out"}
    for change in report["changes"].values():
        assert 0 < change["median"] <= change["largest"] <= tolerance.relative_score
        assert change["outside_guard_band"] == 0
    measured = [report["changes"][name]["largest"] for name in ("golden", "made up", "data")]
    assert tolerance.relative_score >= MARGIN * max(measured)
    assert tolerance.relative_score <= 1.2 * MARGIN * max(measured), "the margin is no excuse for any tolerance"
    graph = narrow.metadata[detector].graph.file
    assert report["bytes_after"] == (narrow.path / graph).stat().st_size < report["bytes_before"]
    assert report["single_microseconds_after"] > 0


def test_the_report_counts_what_changed(quantized):
    detector = "dense_autoencoder"
    wide, narrow = ModelSet.open(HOMES[detector]), ModelSet.open(quantized[detector])
    items = held_out(wide, detector, seed=12)
    _, report = quantize(wide, detector, items)
    half = report.changes["held out"]
    assert half.items == len(items) - round(0.8 * len(items))
    kept = items[round(0.8 * len(items)) :]
    before, after = wide.models[detector].run(kept, Explain.NEVER), narrow.models[detector].run(kept, Explain.NEVER)
    assert half.alarms_before == before.is_anomaly.sum()
    assert half.alarms_after == after.is_anomaly.sum()
    assert half.decided_otherwise == (before.is_anomaly != after.is_anomaly).sum()
    scores = before.scores.astype(np.float64)
    assert half.largest == pytest.approx((np.abs(after.scores - scores) / scores).max())


# The same bits everywhere (Q2).


@pytest.mark.parametrize("backend", ["native", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def test_go_gives_the_same_bits(detector, narrow, backend):
    items, golden = items_to_check(narrow, narrow.models[detector], seed=5)
    items = items[golden : golden + 300]
    lines = [json.dumps({"id": i, "detector": detector, "samples": item.tolist()}) for i, item in enumerate(items)]
    done = subprocess.run(
        [contract_score(backend), "--models", narrow.path, "--backend", backend, "--batch", "7"],
        cwd=GO_FOLDER, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    wanted = narrow.models[detector].run(items, Explain.ALWAYS)
    assert [answer["score_bits"] for answer in answers] == wanted.scores.view(np.uint32).tolist()
    assert [answer["is_anomaly"] for answer in answers] == wanted.is_anomaly.tolist()
    for name in ("contributions", "expected"):
        assert (np.array([a[name] for a in answers], np.float32) == getattr(wanted, name)).all()


def test_no_score_depends_on_its_batch(detector, narrow):
    """W4: what quantises whole tensors at run time would fail here."""
    model = narrow.models[detector]
    items, golden = items_to_check(narrow, model, seed=6)
    items = items[golden : golden + 200]
    together = model.run(items, Explain.NEVER).scores
    huge = items[:1] * 1e9
    for i in range(0, 200, 9):
        beside = model.run(np.concatenate([items[i : i + 1], huge]), Explain.NEVER).scores
        assert beside[0] == together[i] == model.run(items[i : i + 1], Explain.NEVER).scores[0]


def test_golden_vectors_are_compared_to_the_bit(detector, narrow, tmp_path):
    """The tolerance is about the float64 model: a reader that is off by one bit is wrong."""
    copied = Path(shutil.copytree(narrow.path, tmp_path / "set"))
    golden = f"{detector}.golden.json"

    def change(data: dict) -> None:
        score = next(case for case in data["cases"] if "score" in case)["score"]
        score["score"] = float(np.nextafter(np.float32(score["score"]), np.float32(9)))
        score["score_bits"] += 1

    edited(copied, golden, change)
    refused(copied, "GOLDEN_MISMATCH", golden)


def refused(models: Path, code: str, file: str) -> None:
    """Python and Go refuse a set with one code and file."""
    with pytest.raises(ContractError) as error:
        ModelSet.open(models)
    assert (error.value.code, error.value.field) == (code, file), error.value.message
    done = subprocess.run(
        [contract_score("native"), "--models", models, "--backend", "native"],
        cwd=GO_FOLDER, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"{code} {file}" in done.stderr, done.stderr


def weight(detector: str) -> str:
    return {"dense_autoencoder": "layer_2.kernel", "lstm_autoencoder": "decoder_1.recurrent"}[detector]


def put(model: onnx.ModelProto, name: str, array: np.ndarray) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def get(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name)).copy()


def one_unit(model: onnx.ModelProto, name: str) -> None:
    units = get(model, f"{name}.int8")
    units[0, 0] += -1 if units[0, 0] > 0 else 1
    put(model, f"{name}.int8", units)


def one_scale_step(model: onnx.ModelProto, name: str) -> None:
    scale = get(model, f"{name}.scale")
    put(model, f"{name}.scale", np.nextafter(scale, np.float32(9)))


def transposed_scales(model: onnx.ModelProto, name: str) -> None:
    put(model, f"{name}.scale", get(model, f"{name}.scale")[::-1])


def lowest_unit(model: onnx.ModelProto, name: str) -> None:
    units = get(model, f"{name}.int8")
    units[0, 0] = -128
    put(model, f"{name}.int8", units)


def scale_of(value: float):
    def change(model: onnx.ModelProto, name: str) -> None:
        scale = get(model, f"{name}.scale")
        scale[0] = value
        put(model, f"{name}.scale", scale)

    return change


def one_scale_for_all(model: onnx.ModelProto, name: str) -> None:
    put(model, f"{name}.scale", get(model, f"{name}.scale")[:1])


def unsigned(model: onnx.ModelProto, name: str) -> None:
    put(model, f"{name}.int8", get(model, f"{name}.int8").view(np.uint8))


def typed_field(model: onnx.ModelProto, name: str) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == f"{name}.int8")
    values = get(model, f"{name}.int8").ravel().tolist()
    tensor.ClearField("raw_data")
    tensor.int32_data.extend([*values[:-1], 300])


def dropped(model: onnx.ModelProto, name: str) -> None:
    tensors = [tensor for tensor in model.graph.initializer if tensor.name != f"{name}.scale"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)


DAMAGES = {
    "one_unit": (one_unit, "GOLDEN_MISMATCH"),
    "one_scale_step": (one_scale_step, "GOLDEN_MISMATCH"),
    "scales_in_reverse": (transposed_scales, "GOLDEN_MISMATCH"),
    "lowest_unit": (lowest_unit, "GRAPH_INVALID"),
    "scale_zero": (scale_of(0.0), "GRAPH_INVALID"),
    "scale_negative": (scale_of(-0.01), "GRAPH_INVALID"),
    "scale_nan": (scale_of(np.nan), "GRAPH_INVALID"),
    "scale_infinite": (scale_of(np.inf), "GRAPH_INVALID"),
    "one_scale_for_all": (one_scale_for_all, "GRAPH_INVALID"),
    "unsigned": (unsigned, "GRAPH_INVALID"),
    "typed_field": (typed_field, "GRAPH_INVALID"),
    "no_scale": (dropped, "GRAPH_INVALID"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("detector", BOTH, indirect=True)
def test_damaged_weights_are_refused(detector, narrow, tmp_path, damage):
    copied = Path(shutil.copytree(narrow.path, tmp_path / "set"))
    change, code = DAMAGES[damage]
    graph = copied / f"{detector}.onnx"
    model = onnx.load(graph)
    change(model, weight(detector))
    before = graph.read_bytes()
    graph.write_bytes(model.SerializeToString())
    assert graph.read_bytes() != before
    digest(copied)
    refused(copied, code, f"{detector}.golden.json" if code == "GOLDEN_MISMATCH" else graph.name)


@pytest.mark.parametrize("detector", BOTH, indirect=True)
def test_nodes_in_another_order_are_refused_in_go(detector, narrow, tmp_path):
    """Operator counts are right and the scores are, but the native scorer only knows one wiring (G2)."""
    copied = Path(shutil.copytree(narrow.path, tmp_path / "set"))
    graph = copied / f"{detector}.onnx"
    model = onnx.load(graph)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([nodes[1], nodes[0], *nodes[2:]])
    graph.write_bytes(model.SerializeToString())
    digest(copied)
    assert ModelSet.open(copied)
    done = subprocess.run(
        [contract_score("native"), "--models", copied, "--backend", "native"],
        cwd=GO_FOLDER, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    assert done.returncode == 1
    assert "GRAPH_INVALID" in done.stderr


@pytest.mark.parametrize("detector", BOTH, indirect=True)
@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(parity_class="PARITY_CLASS_EXACT") or data.pop("tolerance"),
        lambda data: data["graph"].update(precision="float64"),
        lambda data: (
            data["graph"].update(layout="dense.v1", precision="float64")
            if "dense" in data
            else data["graph"].update(layout="lstm.v1", precision="float64")
        ),
        lambda data: data["tolerance"].update(relative_score=1.5),
    ],
    ids=["exact", "precision", "layout", "tolerance"],
)
def test_metadata_that_claim_more_are_refused(detector, narrow, tmp_path, change):
    copied = Path(shutil.copytree(narrow.path, tmp_path / "set"))
    name = {"lstm_autoencoder": "lstm_metadata.json"}.get(detector, f"{detector}_metadata.json")
    edited(copied, name, change)
    with pytest.raises(ContractError) as error:
        ModelSet.open(copied)
    assert error.value.code in ("METADATA_INVALID", "GRAPH_INVALID")
    refused(copied, error.value.code, error.value.field)


def test_sums_that_cancel_are_no_golden_vectors(narrow, detector):
    """Inputs on which the order of a sum decides are left out: two right implementations may differ there."""
    if detector == "lstm_autoencoder":
        cases = {case.id for case in narrow.golden[detector].cases}
        assert "extreme/huge/everywhere" not in cases
        assert {"extreme/zero/everywhere", "extreme/denormal/everywhere"} <= cases
        assert len(cases) > 100
    flat = LayerWeights(np.array([[1.0], [-1.0]]), np.zeros((1, 4))[:, :1], np.zeros(1))
    assert rounding_error(_cells(flat), [np.array([[1e15, 1e15]])]) > 0.1
    assert rounding_error(_cells(flat), [np.array([[1.0, 1.0]])]) < 1e-14
    assert rounding_error(_cells(flat), [np.array([[1e15, 1.0]])]) == 0, "saturated whatever the order"


def _cells(one: LayerWeights) -> LayerWeights:
    """A layer of one unit whose four gates have the same weights."""
    return LayerWeights(*(np.repeat(part, 4, axis=-1) for part in (one.kernel, one.recurrent, one.bias)))


# The command.


def test_the_set_has_the_other_models_too(quantized):
    models = ModelSet.open(quantized["dense_autoencoder"])
    assert set(models.models) == {"dense_autoencoder", "local_outlier_factor", "one_class_svm"}
    assert models.models["one_class_svm"].exact
    assert not [path for path in models.path.iterdir() if path.suffix in (".pkl", ".keras", ".h5")]


@pytest.mark.slow
def test_an_ensemble_is_left_out(tmp_path):
    from tests.conformance.sets import ENSEMBLE_SET

    said = invoke("quantize", "--models", ENSEMBLE_SET, "--output", tmp_path / "out")
    assert "ensemble is left out" in said
    assert "ensemble" not in ModelSet.open(tmp_path / "out").metadata


@pytest.mark.slow
def test_signed_int8(tmp_path):
    from dwcp_sidecar.signatures import PublicKeys

    invoke("keys", "new", "--output", tmp_path)
    flags = ("--sign-key", tmp_path / "signing-key.pem")
    invoke("quantize", "--models", MORE_SET, "--output", tmp_path / "out", *flags)
    assert ModelSet.open(tmp_path / "out", public_keys=PublicKeys.read(tmp_path / "signing-key.pub.pem"))


def test_equal_input_gives_equal_sets(tmp_path):
    made = []
    for name in ("a", "b"):
        invoke("quantize", "--models", MORE_SET, "--output", tmp_path / name)
        made.append(ModelSet.open(tmp_path / name).id)
    assert made[0] == made[1]


def test_what_cannot_be_quantised(tmp_path, quantized):
    out = tmp_path / "out"
    assert "no network" in invoke("quantize", "--models", quantized["lstm_autoencoder"], "--output", out, status=1)
    said = invoke("quantize", "--models", MORE_SET, "--output", out, "--detector", "one_class_svm", status=1)
    assert "layout svm.v1" in said
    said = invoke("quantize", "--models", MORE_SET, "--output", out, "--detector", "isolation_forest", status=1)
    assert "DETECTOR_UNAVAILABLE" in said
    copied = Path(shutil.copytree(MORE_SET, tmp_path / "models"))
    assert "another" in invoke("quantize", "--models", copied, "--output", copied, status=2)
    assert not out.exists()


def test_a_network_whose_scores_change_too_much_is_refused(tmp_path, monkeypatch):
    """Two bits instead of eight."""
    monkeypatch.setattr("dwcp_training.export.int8.LARGEST", 1)
    said = invoke("quantize", "--models", MORE_SET, "--output", tmp_path / "out", status=1)
    assert "Use the float64 model" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_fixed_input_of_64_metrics(tmp_path):
    """S3-3: input [1, 64], a score, and a second file that is smaller."""
    train("dense_autoencoder", wide_telemetry(600, 64), DenseAutoencoderDefaults(epochs=3), tmp_path / "wide")
    invoke("quantize", "--models", tmp_path / "wide", "--output", tmp_path / "narrow")
    files = []
    for name in ("wide", "narrow"):
        file = tmp_path / f"{name}.onnx"
        flags = ("--detector", "dense_autoencoder", "--batch", "1", "--output", file)
        assert "equal in every bit" in invoke("export", "--models", tmp_path / name, *flags)
        graph = onnx.load(file).graph
        assert [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] == [1, 64]
        files.append(file)
    assert files[1].stat().st_size < 0.25 * files[0].stat().st_size
    flags = ("--detector", "dense_autoencoder", "--batch", "1", "--precision", "float32")
    invoke("export", "--models", tmp_path / "narrow", *flags, "--output", tmp_path / "float32.onnx")


@pytest.mark.slow
def test_the_judge_holds_it_to_its_tolerance(quantized, tmp_path):
    """Against Keras in float64 on the weights before they were quantised: P3 on inputs of every kind."""
    from tests.conformance.judge import main

    models = Path(shutil.copytree(ModelSet.open(quantized["dense_autoencoder"]).path, tmp_path / "set"))
    for file in MORE_SET.iterdir():
        if file.suffix in (".keras", ".pkl"):
            shutil.copy(file, models)
    judged = ["--models", str(models), "--inputs", "300", "--implementations", "python-core,go-native"]
    assert main([*judged, "--batches", "1,64"]) == 0
