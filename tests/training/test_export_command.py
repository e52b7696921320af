"""`dwcp export`: the file is the published graph, or scores as it does, and says what it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from dwcp_sidecar.model import Explain
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.console import RefusedError
from dwcp_training.data import forest_rows
from dwcp_training.export_graph import check_scores, in_float32, items_to_check, with_batch
from dwcp_training.pipeline import train
from dwcp_training.profiles import (
    DenseAutoencoderDefaults,
    LocalOutlierFactorDefaults,
    MahalanobisDefaults,
    OneClassSvmDefaults,
)
from tests.training.conftest import REPOSITORY, leave_out_cross_checks
from tests.training.test_cli import invoke

REFERENCE = REPOSITORY / "models/reference/v1"
NETWORKS = ("lstm_autoencoder", "dense_autoencoder")
DETECTORS = ("isolation_forest", "local_outlier_factor", "one_class_svm", "mahalanobis", *NETWORKS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with the reference models and small ones of the others."""
    output = tmp_path_factory.mktemp("export") / "models"
    shutil.copytree(REFERENCE, output)
    rows = forest_rows(600)
    with pytest.MonkeyPatch.context() as patch:
        leave_out_cross_checks(patch)
        train("local_outlier_factor", rows, LocalOutlierFactorDefaults(max_rows=200), output)
        train("one_class_svm", rows, OneClassSvmDefaults(max_rows=200), output)
        train("mahalanobis", rows, MahalanobisDefaults(lags=2), output)
        train("dense_autoencoder", rows, DenseAutoencoderDefaults(encoder_units=(8,), bottleneck=3, epochs=1), output)
    return output


@pytest.fixture(scope="module")
def models(folder: Path) -> ModelSet:
    return ModelSet.open(folder)


def unframed(text: str) -> str:
    """What a table says, however its lines are broken."""
    return " ".join(text.replace("│", " ").split())


def session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_published_graph_byte_for_byte(detector: str, folder: Path, models: ModelSet, tmp_path: Path) -> None:
    result = invoke("export", "--models", folder, "--detector", detector, "--output", tmp_path / "g.onnx")
    assert result.exit_code == 0, result.output
    assert "equal in every bit" in unframed(result.stdout)
    published = models.path / models.metadata[detector].graph.file
    assert (tmp_path / "g.onnx").read_bytes() == published.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["g.onnx"]


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("detector", DETECTORS)
def test_fixed_batch_scores_to_the_same_bits(
    detector: str, batch: int, folder: Path, models: ModelSet, tmp_path: Path
) -> None:
    """Scored here by itself, not by the command's own check."""
    flags = ("--models", folder, "--detector", detector, "--batch", str(batch), "--output", tmp_path / "g.onnx")
    result = invoke("export", *flags)
    assert result.exit_code == 0, result.output
    graph = session(tmp_path / "g.onnx")
    model = models.model(detector)
    width = len(model.feature_names)
    (samples,) = graph.get_inputs()
    assert samples.shape == [batch, *([model.timesteps] if model.windowed else []), width]
    for output in graph.get_outputs():
        assert output.shape in ([batch], [batch, width])
    rng = np.random.default_rng(1)
    rows = np.array(model.metadata.scaler.mean) * rng.uniform(0.2, 3, (batch, model.timesteps, width))
    wanted = model.run(rows, Explain.ALWAYS)
    feed = rows if model.windowed else rows[:, 0]
    got = graph.run(["score", "is_anomaly", "contributions", "expected"], {"samples": feed})
    for found, answer in zip(
        got, (wanted.scores, wanted.is_anomaly, wanted.contributions, wanted.expected), strict=True
    ):
        assert found.tobytes() == answer.tobytes()
    properties = {entry.key: entry.value for entry in onnx.load(tmp_path / "g.onnx").metadata_props}
    assert properties["dwcp.model_set"] == models.id
    assert properties["dwcp.threshold"] == repr(model.threshold)


@pytest.mark.parametrize("detector", NETWORKS)
def test_float32_throughout_within_the_stated_bound(
    detector: str, folder: Path, models: ModelSet, tmp_path: Path
) -> None:
    flags = ("--detector", detector, "--precision", "float32", "--batch", "4", "--output", tmp_path / "g.onnx")
    result = invoke("export", "--models", folder, *flags)
    assert result.exit_code == 0, result.output
    assert "largest relative difference of a score" in unframed(result.stdout)
    graph = onnx.load(tmp_path / "g.onnx")
    known = onnx.shape_inference.infer_shapes(graph, strict_mode=True).graph
    kinds = {value.type.tensor_type.elem_type for value in (*known.value_info, *known.input, *known.output)}
    kinds |= {tensor.data_type for tensor in known.initializer}
    assert onnx.TensorProto.DOUBLE not in kinds
    assert onnx.TensorProto.FLOAT in kinds
    model = models.model(detector)
    rng = np.random.default_rng(2)
    mean, scale = (np.array(values) for values in (model.metadata.scaler.mean, model.metadata.scaler.scale))
    rows = mean + scale * rng.standard_normal((4, model.timesteps, 7))
    feed = (rows if model.windowed else rows[:, 0]).astype(np.float32)
    got = session(tmp_path / "g.onnx").run(["score"], {"samples": feed})[0]
    np.testing.assert_allclose(got, model.run(rows, Explain.NEVER).scores, rtol=1e-3)


@pytest.mark.parametrize("detector", [name for name in DETECTORS if name not in NETWORKS])
def test_exact_comparisons_are_not_offered_in_float32(detector: str, folder: Path, tmp_path: Path) -> None:
    flags = ("--detector", detector, "--precision", "float32", "--output", tmp_path / "g.onnx")
    result = invoke("export", "--models", folder, *flags)
    assert result.exit_code == 1
    assert "exact in float64" in result.stderr
    assert list(tmp_path.iterdir()) == []


def loaded(models: ModelSet, detector: str) -> onnx.ModelProto:
    return onnx.load(models.path / models.metadata[detector].graph.file)


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_graph_that_scores_differently_is_refused(detector: str, models: ModelSet) -> None:
    """The check can fail: one mean of the scaler is off by a part in a million."""
    graph = with_batch(loaded(models, detector), 8)
    (mean,) = [tensor for tensor in graph.graph.initializer if tensor.name == "scaler_mean"]
    values = onnx.numpy_helper.to_array(mean) * (1 + 1e-6)
    mean.CopyFrom(onnx.numpy_helper.from_array(values, "scaler_mean"))
    model = models.model(detector)
    with pytest.raises(RefusedError, match="is not that of the set"):
        check_scores(graph, model, *items_to_check(models, model), 8)


def test_float32_of_a_metric_with_a_large_mean_is_refused(models: ModelSet) -> None:
    """A counter of 10^10 that moves by 10 has two digits left in float32."""
    graph = loaded(models, "dense_autoencoder")
    model = models.model("dense_autoencoder")
    items, golden = items_to_check(models, model)
    far = np.array(model.metadata.scaler.mean) + 1e9 * np.array(model.metadata.scaler.scale)
    for tensor in graph.graph.initializer:
        if tensor.name == "scaler_mean":
            tensor.CopyFrom(onnx.numpy_helper.from_array(far, "scaler_mean"))

    class Moved:
        """The model of the same network around that mean."""

        threshold, windowed, bitwise, metadata = model.threshold, False, True, model.metadata

        def run(self, items: np.ndarray, explain: Explain) -> object:
            return model.run(items - (far - np.array(model.metadata.scaler.mean)), explain)

    moved: Any = Moved()  # as much of a model as the check asks for
    with pytest.raises(RefusedError, match="mean is too large beside its spread"):
        check_scores(in_float32(graph), moved, items + 1e9 * np.array(model.metadata.scaler.scale), golden, None)


def test_threshold_in_float32_decides_as_in_float64(models: ModelSet) -> None:
    """The threshold is between two float32 numbers: the lower one must not alarm, the upper one must (D2)."""
    for detector in NETWORKS:
        wide = models.model(detector).threshold
        graph = in_float32(loaded(models, detector)).graph
        (narrow,) = [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name == "threshold"]
        assert narrow.dtype == np.float32
        assert float(narrow) < wide < float(np.nextafter(narrow, np.float32(np.inf)))


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        (["--output", "g.txt", "--detector", "isolation_forest"], 2, "--output g.txt"),
        (["--output", "g.onnx", "--detector", "isolation_forest", "--batch", "0"], 2, "--batch 0"),
        (["--output", "g.onnx", "--detector", "isolation_forest", "--batch", "5000"], 2, "--batch 5000"),
        (["--output", "g.onnx", "--detector", "forest"], 1, "'forest' is no detector"),
        (["--output", "g.onnx", "--detector", "one_class_svm"], 1, "DETECTOR_UNAVAILABLE"),
        (["--output", "g.onnx"], 2, "--detector"),
    ],
)
def test_refusals_leave_nothing(
    flags: list[str], status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("export", "--models", REFERENCE, *flags)
    assert result.exit_code == status, result.output
    assert words in result.output
    assert list(tmp_path.iterdir()) == []
