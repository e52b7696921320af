"""The dense autoencoder: an exact graph for any widths, training that keeps its best weights, refusals (DA1 to DA6)."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit import is_midpoint
from dwcp_sidecar.model import Explain
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import DataError, Telemetry, forest_rows
from dwcp_training.data.layout import completed
from dwcp_training.detectors import dense_autoencoder, dense_network
from dwcp_training.detectors.dense_autoencoder import DenseReference, fit_dense_autoencoder
from dwcp_training.export.crosscheck_dense import cross_check_dense
from dwcp_training.export.crosscheck_forest import CrossCheckError
from dwcp_training.export.dense import DenseLayer, DenseWeights, export_dense, operators
from dwcp_training.export.graph import operator_counts
from dwcp_training.export.run import cpu_session
from dwcp_training.golden.make import boundary_distance
from dwcp_training.pipeline import Trained, train
from dwcp_training.profiles import DenseAutoencoderDefaults, Feature, FeatureSchema, Scaling
from tests.training.conftest import contents

SMALL = {"encoder_units": [6], "bottleneck": 2, "epochs": 2}
"""Settings of a network that trains in no time once TensorFlow is loaded."""

OUTPUTS = ["score", "is_anomaly", "contributions", "expected"]


def random_weights(widths: tuple[int, ...], activation: str, seed: int = 0) -> DenseWeights:
    """Random float32 weights of layers between neighbouring widths."""
    rng = np.random.default_rng(seed)
    layers = tuple(
        DenseLayer(
            rng.normal(0, 1.5 / np.sqrt(into), (into, out)).astype(np.float32),
            rng.normal(0, 0.3, out).astype(np.float32),
        )
        for into, out in itertools.pairwise(widths)
    )
    return DenseWeights(layers, activation)


def metadata_of(mean: np.ndarray, scale: np.ndarray, threshold: float) -> model_pb2.ModelMetadata:
    """As much of a model's metadata as its reference reads."""
    return model_pb2.ModelMetadata(threshold=threshold, scaler=model_pb2.Scaler(mean=mean, scale=scale))


def wide_telemetry(rows: int = 500, width: int = 87) -> Telemetry:
    """Correlated features, as vibration has them, that need fewer numbers than there are features."""
    rng = np.random.default_rng(5)
    values = rng.normal(size=(rows, 12)) @ rng.normal(size=(12, width)) + 0.3 * rng.normal(size=(rows, width))
    schema = FeatureSchema(name="bearing", version=1, features=[Feature(name=f"x{j}", unit="") for j in range(width)])
    return replace(forest_rows(rows), schema=completed(schema, values), values=values, scaling=Scaling(method="minmax"))


SHAPES = {
    "bearing": ((87, 64, 32, 16, 8, 16, 32, 64, 87), "relu"),
    "industrial": ((30, 128, 64, 32, 16, 32, 64, 128, 30), "relu"),
    "industrial, tanh": ((30, 128, 64, 32, 16, 32, 64, 128, 30), "tanh"),
    "one hidden layer": ((38, 5, 38), "tanh"),
    "one feature": ((1, 3, 1), "relu"),
    "odd widths": ((7, 13, 3, 11, 7), "relu"),
    "wider inside than outside": ((3, 200, 3), "tanh"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_graph_equals_the_reference(name: str) -> None:
    widths, activation = SHAPES[name]
    rng = np.random.default_rng(1)
    width = widths[0]
    mean, scale = rng.normal(50, 20, width), rng.uniform(0.1, 30, width)
    weights = random_weights(widths, activation)
    threshold = 1.0 + 2.0**-24
    graph = export_dense(weights, mean, scale, [f"x{j}" for j in range(width)], threshold)
    assert operator_counts(graph) == dict(sorted(operators(len(widths) - 2, activation).items()))
    rows = mean + rng.standard_normal((5_000, width)) * scale * rng.choice([0.3, 1, 3, 1e4], (5_000, 1))
    rows[::97] = mean
    rows[1::97, 0], rows[2::97], rows[3::97] = 1e300, -1e300, 1e-310

    session = cpu_session(graph.SerializeToString())
    score, is_anomaly, contributions, expected = session.run(OUTPUTS, {"samples": rows})
    wanted = DenseReference(weights, metadata_of(mean, scale, threshold)).evaluate(rows[:, np.newaxis])
    unequal = score.view(np.uint32) != wanted.scores.astype(np.float32).view(np.uint32)
    assert (boundary_distance(wanted.scores[unequal]) < 1e-12).all()  # P2's gap, and nothing else
    assert unequal.sum() <= 1
    assert np.array_equal(is_anomaly, score.astype(np.float64) > threshold)
    assert np.isfinite(score).all()
    assert is_anomaly.any()
    if width > 1:
        assert not is_anomaly.all()
    # What is nearly zero after a subtraction has fewer good digits: those few may round the other way.
    for got, exact in ((contributions, wanted.contributions), (expected, wanted.expected)):
        assert (got != exact.astype(np.float32)).mean() < 1e-4
        size = np.abs(exact).max(axis=1, keepdims=True)
        assert (np.abs(got - exact) <= 1e-6 * size).all()
    total = contributions.astype(np.float64).sum(axis=1)
    assert np.abs(total - 1).max() < 1e-4

    for i in range(0, 300, 7):  # a row alone has the bits that it has among others (W4)
        alone = session.run(OUTPUTS, {"samples": rows[i : i + 1]})
        assert alone[0].view(np.uint32)[0] == score.view(np.uint32)[i]


def test_a_score_is_never_larger_than_the_largest_float32() -> None:
    """DA3: a network that amplifies an absurd sample a million times."""
    weights = random_weights((2, 4, 2), "relu")
    large = DenseWeights(
        tuple(DenseLayer(layer.kernel * np.float32(1e6), layer.bias) for layer in weights.layers), "relu"
    )
    zero, one = np.zeros(2), np.ones(2)
    graph = export_dense(large, zero, one, ["a", "b"], 1.0 + 2.0**-24)
    rows = np.array([[1e300, -1e300], [1e300, 1e300], [-1e300, 1e300]])
    score, is_anomaly = cpu_session(graph.SerializeToString()).run(OUTPUTS[:2], {"samples": rows})
    assert score.max() == np.finfo(np.float32).max
    assert is_anomaly.all()
    wanted = DenseReference(large, metadata_of(zero, one, 1.0)).evaluate(rows[:, np.newaxis])
    assert np.array_equal(score, wanted.scores.astype(np.float32))


def test_a_perfect_reconstruction_has_no_contributions() -> None:
    """DA4: the sum of the errors is 0."""
    identity = DenseWeights((DenseLayer(np.eye(3, dtype=np.float32), np.zeros(3, np.float32)),) * 2, "relu")
    graph = export_dense(identity, np.zeros(3), np.ones(3), ["a", "b", "c"], 1.0 + 2.0**-24)
    score, _, contributions, expected = cpu_session(graph.SerializeToString()).run(
        OUTPUTS, {"samples": np.array([[1.0, 2.0, 0.5], [-1.0, 0.0, 1.0]])}
    )
    assert np.array_equal(score, np.array([0, 1 / 3], np.float32))
    assert np.array_equal(contributions, [[0, 0, 0], [1, 0, 0]])
    assert np.array_equal(expected, [[1, 2, 0.5], [0, 0, 1]])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    """The network of the bearing data's document on 87 features, published."""
    folder = tmp_path_factory.mktemp("dense")
    return train("dense_autoencoder", wide_telemetry(), DenseAutoencoderDefaults(epochs=3), folder), folder


def test_the_published_set(trained: tuple[Trained, Path]) -> None:
    outcome, folder = trained
    assert outcome.warning == ""
    assert outcome.facts["layers"] == "87-64-32-16-8-16-32-64-87, relu"
    metadata = outcome.models.metadata["dense_autoencoder"]
    assert list(metadata.dense.units) == [64, 32, 16, 8, 16, 32, 64]
    assert (metadata.dense.activation, metadata.dense.threshold_percentile) == ("relu", 95)
    assert not metadata.HasField("timesteps")
    assert metadata.parity_class == model_pb2.PARITY_CLASS_EXACT
    assert is_midpoint(metadata.threshold)
    assert (metadata.training.fitted_on, metadata.training.held_out) == (449, 50)  # 90 % and 10 %, one row between
    assert len(metadata.training.history["loss"].values) == len(metadata.training.history["val_loss"].values) == 3
    assert metadata.training.hyperparameters["encoder_units"] == "(64, 32, 16)"
    assert set(contents(folder)) == {
        "manifest.json",
        "dense_autoencoder_metadata.json",
        "dense_autoencoder.onnx",
        "dense_autoencoder.golden.json",
        "dense_autoencoder.keras",
        "dense_autoencoder_scaler.pkl",
    }


def test_the_threshold_is_the_percentile_of_the_fitted_rows(trained: tuple[Trained, Path]) -> None:
    model = trained[0].models.model("dense_autoencoder")
    verdicts = model.score_batch(wide_telemetry().values[:449])
    assert verdicts.is_anomaly.sum() == 23  # 5 % of 449 rows, rounded up
    wanted = np.percentile(verdicts.scores.astype(np.float64), 95)
    assert abs(model.threshold - wanted) < 1e-6 * wanted


def test_by_products_score_as_the_set_does(trained: tuple[Trained, Path]) -> None:
    """Who opens the Keras file and the scaler gets the scores of the set, within what float32 allows."""
    import keras

    outcome, folder = trained
    network = keras.models.load_model(folder / "dense_autoencoder.keras", compile=False)
    scaler = pickle.loads((folder / "dense_autoencoder_scaler.pkl").read_bytes())
    rows = wide_telemetry().values
    scaled = scaler.transform(rows)
    by_hand = ((scaled - network.predict(scaled, verbose=0)) ** 2).mean(axis=1)
    scores = outcome.models.model("dense_autoencoder").score_batch(rows).scores
    np.testing.assert_allclose(by_hand, scores, rtol=1e-4)


def test_the_set_scores_as_the_reference_to_the_bit(trained: tuple[Trained, Path]) -> None:
    outcome, folder = trained
    metadata = outcome.models.metadata["dense_autoencoder"]
    import keras

    network = keras.models.load_model(folder / "dense_autoencoder.keras", compile=False)
    reference = DenseReference(dense_network.weights_of(network, "relu"), metadata)
    mean, scale = np.array(metadata.scaler.mean), np.array(metadata.scaler.scale)
    rng = np.random.default_rng(3)
    rows = mean + rng.standard_normal((10_000, 87)) * scale * rng.choice([0.1, 1, 50], (10_000, 1))
    verdicts = outcome.models.model("dense_autoencoder").run(rows[:, np.newaxis], Explain.ALWAYS)
    wanted = reference.evaluate(rows[:, np.newaxis])
    unequal = verdicts.scores != wanted.scores.astype(np.float32)
    assert (boundary_distance(wanted.scores[unequal]) < 1e-12).all()
    assert unequal.sum() <= 1
    assert np.array_equal(verdicts.is_anomaly, wanted.is_anomaly)


def test_golden_cases_of_every_kind(trained: tuple[Trained, Path]) -> None:
    golden = trained[0].models.golden["dense_autoencoder"]
    ids = {case.id for case in golden.cases}
    assert {"typical/0", "constant/median", "constant/three_above", "far/x0/up"} <= ids
    assert any(id.startswith("far/any/1e+12/") for id in ids)
    assert {f"kink/layer_{i}/{side}" for i in range(1, 8) for side in ("before", "behind")} <= ids
    sides = {case.id.rpartition("/")[2]: case.score for case in golden.cases if case.id.startswith("threshold/x0/")}
    assert not sides["normal"].is_anomaly
    assert sides["anomaly"].is_anomaly
    assert sides["anomaly"].score_bits - sides["normal"].score_bits <= 2  # as near as two published scores come
    assert {"typical", "constant", "far", "kink", "threshold", "limit", "extreme", "error"} <= set(golden.flags)


@pytest.mark.slow  # trains a network of its own
def test_early_stopping_restores_the_best_weights() -> None:
    values = wide_telemetry(300, 10).values
    scaled = ((values - values.mean(axis=0)) / values.std(axis=0)).astype(np.float32)
    settings = DenseAutoencoderDefaults(
        **SMALL | {"epochs": 40, "learning_rate": 0.2, "early_stopping_patience": 3, "dropout": 0.0}
    )
    epochs: list[int] = []
    network, history = dense_network.train(scaled[:250], scaled[250:], settings, lambda epoch, _: epochs.append(epoch))
    best = int(np.argmin(history["val_loss"]))
    assert best == len(history["val_loss"]) - 4  # stopped after three epochs without progress
    assert epochs == list(range(best + 4))
    held_out = float(((network.predict(scaled[250:], verbose=0) - scaled[250:]) ** 2).mean())
    assert held_out == pytest.approx(history["val_loss"][best], rel=1e-4)
    assert abs(held_out - history["val_loss"][-1]) > 1e-3 * held_out


def test_weights_decay_by_their_own_size() -> None:
    """In a step of plain descent a weight loses `learning_rate * weight_decay` of itself, whatever the slope."""
    import keras

    rows = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    common = SMALL | {"epochs": 1, "optimizer": "sgd", "learning_rate": 0.1, "dropout": 0.0, "activation": "tanh"}
    plain, decayed = (
        dense_network.train(rows, rows, DenseAutoencoderDefaults(**common, weight_decay=decay), lambda *_: None)
        for decay in (0.0, 0.5)
    )
    keras.utils.set_random_seed(42)
    start = dense_network.build(DenseAutoencoderDefaults(**common), 4)
    for before, without, with_decay in zip(
        start.get_weights(), plain[0].get_weights(), decayed[0].get_weights(), strict=True
    ):
        np.testing.assert_allclose(with_decay, without - 0.1 * 0.5 * before, atol=1e-6)
    assert plain[1]["loss"] == decayed[1]["loss"]  # the curves are those of the reconstruction alone


@pytest.mark.slow
def test_adamw_decays_by_itself() -> None:
    rows = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    common = SMALL | {"epochs": 1, "optimizer": "adamw", "dropout": 0.0, "activation": "tanh"}
    plain, decayed = (
        dense_network.train(rows, rows, DenseAutoencoderDefaults(**common, weight_decay=decay), lambda *_: None)[0]
        for decay in (0.0, 0.5)
    )
    import keras

    keras.utils.set_random_seed(42)
    start = dense_network.build(DenseAutoencoderDefaults(**common), 4)
    for before, without, with_decay in zip(
        start.get_weights(), plain.get_weights(), decayed.get_weights(), strict=True
    ):
        np.testing.assert_allclose(with_decay, without - 1e-3 * 0.5 * before, atol=1e-6)


def test_layers_and_dropout_are_those_of_the_document() -> None:
    network = dense_network.build(DenseAutoencoderDefaults(), 87)
    layers = [
        (layer.units, layer.activation.__name__) if hasattr(layer, "units") else layer.rate
        for layer in network.layers[1:]
    ]
    assert layers == [
        (64, "relu"), 0.2, (32, "relu"), 0.2, (16, "relu"), 0.2, (8, "relu"), (16, "relu"), 0.2, (32, "relu"), 0.2,
        (64, "relu"), 0.2, (87, "linear"),
    ]  # fmt: skip


SAME_AGAIN = """
import sys
from pathlib import Path
from dwcp_training.data import forest_rows
from dwcp_training.pipeline import train
from dwcp_training.profiles import DenseAutoencoderDefaults
outcome = train("dense_autoencoder", forest_rows(300), DenseAutoencoderDefaults(epochs=3), Path(sys.argv[1]))
assert outcome.warning == "", outcome.warning
"""


@pytest.mark.slow  # trains in new processes
def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SAME_AGAIN, tmp_path / name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in "ab"
    ]
    printed = [process.communicate(timeout=200)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], printed
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert ModelSet.open(tmp_path / "a").id == ModelSet.open(tmp_path / "b").id


@pytest.mark.parametrize(
    "wrong",
    [
        {"encoder_units": []},
        {"encoder_units": [8] * 32},
        {"encoder_units": [5000]},
        {"encoder_units": [0]},
        {"bottleneck": 0},
        {"activation": "gelu"},
    ],
)
def test_networks_that_no_reader_opens_cannot_be_asked_for(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        DenseAutoencoderDefaults(**wrong)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="too few to hold out"):
        fit_dense_autoencoder(forest_rows(3), DenseAutoencoderDefaults(**SMALL))


def test_training_that_diverges_is_refused(tmp_path: Path) -> None:
    telemetry = replace(forest_rows(200), scaling=Scaling(method="none"))
    telemetry = replace(telemetry, values=telemetry.values * 1e9)
    settings = DenseAutoencoderDefaults(**SMALL | {"optimizer": "sgd", "learning_rate": 1.0, "activation": "relu"})
    with pytest.raises(DataError, match="did not settle") as caught:
        train("dense_autoencoder", telemetry, settings, tmp_path)
    assert caught.value.field == "learning_rate"
    assert "smaller learning rate" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("factor", "refused"), [(1e30, False), (1e34, True), (np.inf, True), (np.nan, True)])
def test_weights_that_could_overflow_are_refused(factor: float, refused: bool) -> None:
    """DA2: 1e15 times the layers' largest column sums may not pass 1e150."""
    weights = random_weights((4, 4, 4, 4, 4), "relu")
    with np.errstate(over="ignore", invalid="ignore"):
        layers = tuple(DenseLayer(layer.kernel * np.float32(factor), layer.bias) for layer in weights.layers)
    large = DenseWeights(layers, "relu")
    bound = large.largest_reconstruction
    if refused:
        with pytest.raises(DataError, match="did not settle"):
            dense_autoencoder._check_bounded(large, DenseAutoencoderDefaults())
    else:
        dense_autoencoder._check_bounded(large, DenseAutoencoderDefaults())
        assert bound >= 1e15 * np.prod([np.abs(layer.kernel.astype(float)).sum(axis=0).max() for layer in layers])


def test_a_threshold_of_zero_is_refused() -> None:
    with pytest.raises(DataError, match="which is no threshold") as caught:
        dense_autoencoder._threshold(np.zeros(10), 95.0)
    assert caught.value.field == "threshold_percentile"


def test_a_wrong_graph_is_found_by_the_cross_check(trained: tuple[Trained, Path]) -> None:
    import keras

    outcome, folder = trained
    network = keras.models.load_model(folder / "dense_autoencoder.keras", compile=False)
    metadata = outcome.models.metadata["dense_autoencoder"]
    mean, scale = np.array(metadata.scaler.mean), np.array(metadata.scaler.scale)
    rows = wide_telemetry().values
    for activation, layers in (("tanh", slice(None)), ("relu", None)):
        weights = dense_network.weights_of(network, activation)
        if layers is None:  # one bias is off by one float32 step
            first = weights.layers[0]
            bias = np.nextafter(first.bias, np.float32(np.inf))
            weights = DenseWeights((DenseLayer(first.kernel, bias), *weights.layers[1:]), activation)
        graph = export_dense(weights, mean, scale, list(metadata.feature_names), metadata.threshold)
        with pytest.raises(CrossCheckError, match="differ from Keras in float64"):
            cross_check_dense(graph, network, DenseAutoencoderDefaults(), metadata, rows)


WITHOUT_TENSORFLOW = """
import importlib.metadata, sys
for name in ("keras", "tensorflow", "tf2onnx"):
    sys.modules[name] = None  # as if it were not installed
known = importlib.metadata.version
def version(name):
    if name in ("keras", "tensorflow-cpu", "tf2onnx"):
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)
importlib.metadata.version = version
from dwcp_training.cli import main
main()
"""


AUTOENCODERS = ("dense-autoencoder", "lstm-autoencoder")


@pytest.mark.parametrize("detector", [*AUTOENCODERS, "isolation-forest", "local-outlier-factor", "one-class-svm"])
@pytest.mark.slow  # a new process for each command
def test_without_tensorflow(detector: str, csv: Path, tmp_path: Path) -> None:
    """S2-7: scikit-learn's detectors train; the autoencoders say what to install."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, "train", detector, "--data", csv, "--output", tmp_path / "models"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    if detector in AUTOENCODERS:
        assert done.returncode == 1
        assert "is not installed" in done.stderr
        assert "pip install keras tensorflow-cpu" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "models" / "manifest.json").exists()
    else:
        assert done.returncode == 0, done.stderr
        (metadata,) = ModelSet.open(tmp_path / "models").metadata.values()
        assert metadata.graph.available
        assert "keras" not in metadata.training.library_versions
