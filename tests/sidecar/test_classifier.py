"""The LSTM classifier: what is refused, and its answers against numpy and Python against Go (rules LC1 to LC6)."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dwcp_sidecar.client import Client, Sample
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.server.messages import to_message
from dwcp_sidecar.verdicts import Explain
from dwcp_training.export.classifier import LAYOUT, ClassifierWeights, export_classifier, operators
from dwcp_training.export.lstm import LayerWeights
from tests.conformance.server import serving
from tests.sidecar.damaged import assert_refused, edited
from tests.sidecar.ensemble_set import digest, midpoint_below

pytestmark = pytest.mark.timeout(300)
CLASSIFIER = "lstm_classifier"
METADATA, GRAPH, GOLDEN = f"{CLASSIFIER}_metadata.json", f"{CLASSIFIER}.onnx", f"{CLASSIFIER}.golden.json"
NAMES = ["temperature", "vibration", "current"]
STEPS, UNITS = 4, (5, 3, 6)
MEAN, SCALE = np.array([40.0, 0.2, 7.0]), np.array([5.0, 0.1, 1.5])
REFERENCE = np.array([41.0, 0.19, 7.25])
THRESHOLD = midpoint_below(0.5)
LAST_BIAS = -1.05


def network() -> ClassifierWeights:
    """Weights drawn at random; the last bias is such that windows of both classes are common."""
    rng = np.random.default_rng(11)

    def drawn(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.9, shape).astype(np.float32)

    layers = [
        LayerWeights(drawn(width, 4 * units), drawn(units, 4 * units), drawn(4 * units))
        for width, units in ((len(NAMES), UNITS[0]), (UNITS[0], UNITS[1]))
    ]
    output = drawn(UNITS[2], 1) * np.float32(3)
    return ClassifierWeights(tuple(layers), drawn(UNITS[1], UNITS[2]), drawn(UNITS[2]), output, np.float32([LAST_BIAS]))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """`1 / (1 + exp(-x))`; 0 where `exp` overflows."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def plain(weights: ClassifierWeights, window: np.ndarray) -> tuple[float, np.ndarray]:
    """LC1, LC2 and LC4 for one window, cell by cell: score and contributions, unrounded."""
    z = np.clip((window - MEAN) / SCALE, -1e15, 1e15)
    steps = list(z)
    for layer in weights.layers:
        kernel, recurrent, bias = (np.float64(part) for part in (layer.kernel, layer.recurrent, layer.bias))
        units = recurrent.shape[0]
        h, c, passed_on = np.zeros(units), np.zeros(units), []
        for x in steps:
            gates = x @ kernel + bias + h @ recurrent
            i, f, o = (sigmoid(gates[k * units : (k + 1) * units]) for k in range(3))
            c = f * c + i * np.tanh(gates[3 * units :])
            h = o * np.tanh(c)
            passed_on.append(h)
        steps = passed_on
    dense = np.maximum(steps[-1] @ np.float64(weights.dense_kernel) + weights.dense_bias, 0)
    logit = (dense @ np.float64(weights.output_kernel) + weights.output_bias)[0]
    apart = ((z - (REFERENCE - MEAN) / SCALE) ** 2).sum(axis=0)
    return sigmoid(logit), apart / apart.sum() if apart.sum() else apart


@pytest.fixture(scope="module")
def items() -> np.ndarray:
    """Windows around the mean and far from it, one that is the reference throughout; float64 `[n, 4, 3]`."""
    rng = np.random.default_rng(5)
    near = MEAN + rng.normal(0, 1.5, (60, STEPS, 3)) * SCALE
    far = MEAN + rng.standard_t(1.2, (40, STEPS, 3)) * SCALE
    return np.concatenate([near, far, np.full((1, STEPS, 3), REFERENCE)])


@pytest.fixture(scope="module")
def model_set(items, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with a classifier alone, its golden vectors answered by numpy. Never changed."""
    path = tmp_path_factory.mktemp("classifier") / "set"
    path.mkdir()
    weights = network()
    graph = export_classifier(weights, REFERENCE, MEAN, SCALE, STEPS, NAMES, THRESHOLD)
    (path / GRAPH).write_bytes(graph.SerializeToString())
    features = [{"name": name, "unit": "1", "minimum": -1e9, "maximum": 1e9} for name in NAMES]
    metadata = {
        "schema_version": 1, "model_type": CLASSIFIER, "n_features": 3, "feature_names": NAMES, "timesteps": STEPS,
        "threshold": THRESHOLD, "feature_schema": {"name": "machine", "version": 1, "features": features},
        "scaler": {"mean": MEAN.tolist(), "scale": SCALE.tolist()}, "reference_values": REFERENCE.tolist(),
        "parity_class": "PARITY_CLASS_EXACT", "calibration": {"scores": [0.01, 0.1, 0.2, 0.3], "source": "made up"},
        "graph": {
            "file": GRAPH, "available": True, "layout": LAYOUT, "precision": "float64",
            "operator_counts": operators(STEPS),
        },
        "classifier": {"units": UNITS, "normal_windows": 3, "anomalous_windows": 2},
    }  # fmt: skip
    (path / METADATA).write_text(json.dumps(metadata))
    cases = []
    for k, item in enumerate(items):
        score, contributions = plain(weights, item)
        published = np.float32(score)
        answer = {
            "score": float(published), "score_bits": int(published.view(np.uint32)),
            "is_anomaly": bool(published > THRESHOLD), "contributions": contributions.astype("f4").tolist(),
            "expected": REFERENCE.astype("f4").tolist(),
        }  # fmt: skip
        samples = [{"values": sample} for sample in item.tolist()]
        cases.append({"id": f"{k}", "comment": "Drawn.", "flags": ["plain"], "samples": samples, "score": answer})
    golden = {"schema_version": 1, "model_type": CLASSIFIER, "flags": {"plain": "Answered by numpy."}, "cases": cases}
    (path / GOLDEN).write_text(json.dumps(golden))
    entry = {"detector": "DETECTOR_LSTM_CLASSIFIER", "metadata": METADATA, "graph": GRAPH, "golden": GOLDEN}
    (path / "manifest.json").write_text(json.dumps({"schema_version": 1, "models": [entry], "files": []}))
    digest(path)
    return path


@pytest.fixture(scope="module")
def models(model_set: Path) -> ModelSet:
    return ModelSet.open(model_set)


def test_answers_are_those_of_numpy(models, items):
    model, weights = models.model(CLASSIFIER), network()
    wanted = [plain(weights, item) for item in items]
    batch = model.score_batch(items, Explain.ALWAYS)
    assert batch.scores.tobytes() == np.array([score for score, _ in wanted], np.float32).tobytes()
    assert batch.contributions.tobytes() == np.array([shares for _, shares in wanted], np.float32).tobytes()
    assert batch.expected.tobytes() == np.tile(REFERENCE.astype("f4"), (len(items), 1)).tobytes()
    assert 10 < batch.is_anomaly.sum() < len(items) - 10
    assert [model.verdict(item.tolist()) for item in items] == list(batch.each())
    assert batch.contributions[-1].tolist() == [0.0, 0.0, 0.0]


def test_a_score_far_below_half_keeps_its_digits():
    """Neither 0 nor the digits of 1 - sigmoid: a normal window has a score that can be told from another's (LC2)."""
    weights = network()
    quiet = ClassifierWeights(
        weights.layers, weights.dense_kernel, weights.dense_bias, weights.output_kernel, np.float32([-60.0])
    )
    graph = export_classifier(quiet, REFERENCE, MEAN, SCALE, STEPS, NAMES, THRESHOLD)
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    window = MEAN + np.arange(12.0).reshape(4, 3) * SCALE / 6
    (score,) = session.run(["score"], {"samples": window[np.newaxis]})
    wanted = plain(quiet, window)[0]
    assert 0 < wanted < 1e-15
    assert score[0] == np.float32(wanted)


def with_graph(path: Path, change: Callable[[dict[str, onnx.TensorProto]], object]) -> Path:
    graph = onnx.load(path / GRAPH)
    change({tensor.name: tensor for tensor in graph.graph.initializer})
    (path / GRAPH).write_bytes(graph.SerializeToString())
    digest(path)
    return path


def put(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, onnx.TensorProto]], None]:
    def apply(tensors: dict[str, onnx.TensorProto]) -> None:
        old = numpy_helper.to_array(tensors[name])
        tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(old.copy()), old.dtype), name))

    return apply


@pytest.mark.parametrize(
    ("change", "code", "file"),
    [
        (lambda d: d["classifier"].update(units=[5, 3]), "METADATA_INVALID", METADATA),
        (lambda d: d["classifier"].update(units=[5, 3, 0]), "METADATA_INVALID", METADATA),
        (lambda d: d["classifier"].update(units=[5, 3, 5000]), "METADATA_INVALID", METADATA),
        (lambda d: d["classifier"].update(units=[5, 3, 7]), "GRAPH_INVALID", GRAPH),
        (lambda d: d["classifier"].update(units=[3, 5, 6]), "GRAPH_INVALID", GRAPH),
        (lambda d: d["classifier"].pop("normal_windows"), "METADATA_INVALID", METADATA),
        (lambda d: d["classifier"].update(anomalous_windows=0), "METADATA_INVALID", METADATA),
        (lambda d: d.pop("classifier"), "METADATA_INVALID", METADATA),
        (lambda d: d.pop("timesteps"), "METADATA_INVALID", METADATA),
        (lambda d: d.update(timesteps=0), "METADATA_INVALID", METADATA),
        (lambda d: d.update(timesteps=257), "METADATA_INVALID", METADATA),
        (lambda d: d.update(contamination=0.1), "METADATA_INVALID", METADATA),
        (lambda d: d.update(ensemble={}), "METADATA_INVALID", METADATA),
        (lambda d: d.update(threshold=midpoint_below(0.4)), "GRAPH_INVALID", GRAPH),
        (lambda d: d["reference_values"].reverse(), "GRAPH_INVALID", GRAPH),
        (lambda d: d["graph"].update(layout="lstm.v1"), "METADATA_INVALID", METADATA),
        (lambda d: d["graph"].update(precision="float32"), "METADATA_INVALID", METADATA),
        (lambda d: d["graph"].update(unavailable_reason="none"), "METADATA_INVALID", METADATA),
    ],
)
def test_metadata_that_contradict_are_refused(change, code, file, model_set, tmp_path):
    assert_refused(edited(shutil.copytree(model_set, tmp_path / "set"), METADATA, change), code, file)


@pytest.mark.parametrize(
    ("change", "code", "file"),
    [
        (put("lstm_1.kernel", lambda w: w[:, ::-1]), "GOLDEN_MISMATCH", GOLDEN),
        (put("lstm_2.recurrent", lambda w: w.T.reshape(w.shape)), "GOLDEN_MISMATCH", GOLDEN),
        (put("output.bias", lambda w: np.nextafter(np.float32(w), np.float32(9))), "GOLDEN_MISMATCH", GOLDEN),
        (put("dense_1.kernel", lambda w: np.where(w == w.max(), np.nan, w)), "GRAPH_INVALID", GRAPH),
        (put("dense_1.bias", lambda w: np.where(w == w.max(), 1e39, w)), "GRAPH_INVALID", GRAPH),
        (put("lstm_1.bias", lambda w: w[:-1]), "GRAPH_INVALID", GRAPH),
        (put("threshold", lambda w: np.float64(midpoint_below(0.4))), "GRAPH_INVALID", GRAPH),
        (put("scaler_mean", lambda w: w[::-1]), "GRAPH_INVALID", GRAPH),
        (put("reference_scaled", lambda w: w * (1 + 1e-15)), "GRAPH_INVALID", GRAPH),
        (put("reference_values", lambda w: w[::-1]), "GRAPH_INVALID", GRAPH),
    ],
)
def test_graphs_that_differ_are_refused(change, code, file, model_set, tmp_path):
    assert_refused(with_graph(shutil.copytree(model_set, tmp_path / "set"), change), code, file)


@pytest.mark.parametrize("kind", ["python", "go"])
def test_both_sidecars_have_the_bits_of_the_core(kind, model_set, models, items):
    model = models.model(CLASSIFIER)
    with serving(model_set, kind) as address, Client(address, timeout=60) as client:
        for item in items[::5].tolist():
            response = client.score(CLASSIFIER, item, explain=Explain.ALWAYS)
            assert response.verdict == to_message(model, model.verdict(item))
            assert not response.verdict.members
        series = items.reshape(-1, 3)
        response = client.score_batch(CLASSIFIER, series, series=True)
        assert list(response.scores) == model.score_batch(series, series=True).scores.tolist()
        with client.open_stream([CLASSIFIER]) as stream:
            results = stream.score([Sample("a", row) for row in series[:40].tolist()])
        scores = [result.verdicts[0].score for result in results[STEPS - 1 :]]
        assert scores == list(response.scores)[: 40 - STEPS + 1]
