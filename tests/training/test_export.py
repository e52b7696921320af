"""The exported graphs score as the models they were made of: bit by bit where the contract says so."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest
from sklearn.ensemble._iforest import _average_path_length
from sklearn.preprocessing import StandardScaler

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit import LEAF_GRID, LSTM_LAYERS, MAX_DEPTH_SUM, is_midpoint
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.calibrate import depth_threshold, midpoint_threshold
from dwcp_training.data import forest_rows, lstm_series
from dwcp_training.detectors import keras_network
from dwcp_training.detectors.base import clamp_scaled
from dwcp_training.detectors.isolation_forest import fit_isolation_forest
from dwcp_training.export import forest as forest_export
from dwcp_training.export import lstm as lstm_export
from dwcp_training.export.crosscheck_forest import CrossCheckError, cross_check_forest, sklearn_bound
from dwcp_training.export.forest import average_path_length, export_forest, score_rate
from dwcp_training.export.graph import operator_counts
from dwcp_training.export.lstm import LstmWeights, export_lstm
from dwcp_training.export.lstm_float32 import export_lstm_float32
from dwcp_training.export.run import cpu_session
from dwcp_training.golden.make import boundary_distance
from dwcp_training.pipeline import train
from dwcp_training.profiles import IsolationForestDefaults, LstmAutoencoderDefaults, load_profile
from tests.training.conftest import untrained

NAMES = load_profile("dwcp").feature_schema.names
ROWS = 20_000
POSITIVE = st.floats(1e-30, 1e30, allow_nan=False)


def wide_rows(scaler: StandardScaler, n: int = ROWS) -> np.ndarray:
    """Rows from normal to absurd: normal, a hundred deviations away, on training values, and huge."""
    rng = np.random.default_rng(7)
    rows = scaler.mean_ + rng.standard_normal((n, len(scaler.mean_))) * scaler.scale_ * rng.choice(
        [0.5, 1, 3, 100], (n, 1)
    )
    rows[::50, 3] = 1e300
    rows[1::50] = scaler.mean_
    return rows


def forest_case(values: np.ndarray, **arguments: object) -> tuple[IsolationForest, StandardScaler, onnx.ModelProto]:
    scaler = StandardScaler().fit(values)
    forest = IsolationForest(random_state=42, **arguments).fit(scaler.transform(values))
    threshold = midpoint_threshold(-float(forest.offset_), -forest.score_samples(scaler.transform(values)))
    forest.offset_ = -threshold
    rate = score_rate(len(forest.estimators_), forest._max_samples)
    graph = export_forest(forest, scaler, np.median(values, axis=0), NAMES, threshold, depth_threshold(threshold, rate))
    return forest, scaler, graph


NORMAL = forest_rows(1_500).values
FEW_COLUMNS = NORMAL.copy()
FEW_COLUMNS[:, [1, 4]] = 3.0  # constant: the scaler divides them by 1
FORESTS = {
    "default": (NORMAL, {}),
    "one tree": (NORMAL, {"n_estimators": 1}),
    "300 trees": (NORMAL, {"n_estimators": 300}),
    "few features a tree": (NORMAL, {"max_features": 0.4}),
    "one feature a tree": (NORMAL, {"max_features": 1}),
    "two rows a tree": (NORMAL, {"max_samples": 2}),
    "bootstrap": (NORMAL, {"bootstrap": True, "max_samples": 0.9}),
    "constant columns": (FEW_COLUMNS, {"n_estimators": 30}),
    "only constant columns: trees of one leaf": (np.ones((300, 7)), {"n_estimators": 10}),
    "hardly any contamination": (NORMAL, {"contamination": 1e-6}),
    "as much contamination as there can be": (NORMAL, {"contamination": 0.5}),
}


@pytest.mark.parametrize("name", FORESTS)
def test_forest_graph_equals_scikit_learn(name: str) -> None:
    values, arguments = FORESTS[name]
    forest, scaler, graph = forest_case(values, **arguments)
    rows = wide_rows(scaler)
    depth, score, anomaly = cpu_session(graph.SerializeToString()).run(
        ["depth_sum", "score", "is_anomaly"], {"samples": rows, "occlusion": np.zeros((1, 7), bool)}
    )
    unrounded = np.exp2(depth * score_rate(len(forest.estimators_), forest._max_samples))
    scaled = np.clip((rows - scaler.mean_) / scaler.scale_, -1e15, 1e15)
    wanted = -forest.score_samples(scaled)
    # IF4 as it is for the seed's forest; rounding of the leaf weights bounds any other, however few its trees.
    bound = 3e-15 if name in ("default", "300 trees") else sklearn_bound(forest._max_samples)
    assert np.abs(unrounded - wanted).max() <= bound
    # Only a score that is nearer to a rounding boundary than the two implementations are to each other may differ.
    differing = score != wanted.astype(np.float32)
    assert (boundary_distance(wanted[differing]) < 1e-12).all()
    assert differing.sum() <= 1
    assert np.array_equal(anomaly, forest.predict(scaled) == -1)
    assert operator_counts(graph) == dict(sorted(forest_export.OPERATORS.items()))
    assert operator_counts(graph)["TreeEnsemble"] == 1
    assert (depth == np.rint(depth * LEAF_GRID) / LEAF_GRID).all()


def test_forest_occlusion_equals_replacing_by_hand() -> None:
    _, scaler, graph = forest_case(NORMAL, n_estimators=40)
    session = cpu_session(graph.SerializeToString())
    rows = wide_rows(scaler, 400)
    rows[::20] = np.median(NORMAL, axis=0)  # replacing these changes nothing
    base = {"samples": rows, "occlusion": np.zeros((1, 7), bool)}
    contributions, depth = session.run(["contributions", "depth_sum"], {"samples": rows})
    median = np.median(NORMAL, axis=0)
    gains = np.zeros_like(rows)
    for j in range(7):
        replaced = rows.copy()
        replaced[:, j] = median[j]
        gains[:, j] = np.maximum(session.run(["depth_sum"], base | {"samples": replaced})[0] - depth, 0)
    scaled = clamp_scaled(rows, scaler.mean_, scaler.scale_)
    parts = np.where(gains.sum(axis=1, keepdims=True) == 0, scaled**2, gains)
    total = parts.sum(axis=1, keepdims=True)
    shares = np.divide(parts, total, out=np.zeros_like(parts), where=total != 0)
    assert (gains.sum(axis=1) == 0).any(), "a row that nothing explains belongs into this test"
    assert np.array_equal(contributions, shares.astype(np.float32))
    assert np.allclose(contributions.sum(axis=1)[total[:, 0] > 0], 1, atol=1e-6)

    # The default of the optional input is one row for each metric; two metrics together make one group.
    single = np.vstack([np.zeros((1, 7), bool), np.eye(7, dtype=bool)])
    given_mask = session.run(["contributions"], {"samples": rows, "occlusion": single})[0]
    assert np.array_equal(given_mask, contributions)
    pair = np.zeros((3, 7), bool)
    pair[1, [0, 5]] = pair[2, 2] = True
    grouped = session.run(["contributions"], {"samples": rows, "occlusion": pair})[0]
    both = rows.copy()
    both[:, [0, 5]] = median[[0, 5]]
    gain = np.maximum(session.run(["depth_sum"], base | {"samples": both})[0] - depth, 0)
    some = gain + gains[:, 2] > 0
    assert np.array_equal(grouped[some, 0], (gain[some] / (gain + gains[:, 2])[some]).astype(np.float32))


def test_cross_check_finds_a_wrong_forest_graph() -> None:
    forest, scaler, graph = forest_case(NORMAL, n_estimators=15)
    assert set(cross_check_forest(graph, forest, scaler, NORMAL)) == {"scikit-learn", "skl2onnx"}
    rate = next(tensor for tensor in graph.graph.initializer if tensor.name == "depth_threshold")
    wrong = onnx.numpy_helper.to_array(rate) * 1.05
    rate.CopyFrom(onnx.numpy_helper.from_array(wrong, rate.name))
    with pytest.raises(CrossCheckError, match="decisions"):
        cross_check_forest(graph, forest, scaler, NORMAL)


def test_rows_that_tie_at_the_threshold_stay_normal() -> None:
    """scikit-learn calls a score equal to the threshold normal. Moving the threshold must not turn them all round."""
    values = np.ones((300, 7))
    forest, scaler, graph = forest_case(values, n_estimators=10)
    assert (forest.predict(scaler.transform(values)) == 1).all()
    assert not cpu_session(graph.SerializeToString()).run(["is_anomaly"], {"samples": values})[0].any()


@pytest.mark.parametrize(
    ("window", "encoding", "hidden", "size"),
    [(1, 32, 64, 1.0), (2, 1, 5, 1.0), (10, 32, 64, 1.0), (10, 16, 24, 30.0), (33, 7, 12, 1.0), (33, 3, 8, 4.0)],
)
def test_exact_lstm_graph_equals_keras_in_float64(window: int, encoding: int, hidden: int, size: float) -> None:
    chosen = LstmAutoencoderDefaults(window_size=window, encoding_dim=encoding, hidden_units=hidden)
    network = untrained(chosen, size=size)
    values = lstm_series(600).values
    scaler = StandardScaler().fit(values)
    rng = np.random.default_rng(3)
    items = values[rng.integers(0, len(values) - window, 200)[:, None] + np.arange(window)]
    items[::10] *= rng.choice([1e-3, 10, 1e4], (20, 1, 7))
    graph = export_lstm(LstmWeights.of(network), scaler.mean_, scaler.scale_, window, NAMES, midpoint_threshold(1.0))
    assert operator_counts(graph) == dict(sorted(lstm_export.operators(window).items()))
    session = cpu_session(graph.SerializeToString())
    names = ["score", "is_anomaly", "contributions", "expected"]
    score, anomaly, contributions, expected = session.run(names, {"samples": items})

    scaled = clamp_scaled(items, scaler.mean_, scaler.scale_)
    rebuilt = keras_network.reconstruct_float64(network, chosen, scaled)
    errors = ((scaled - rebuilt) ** 2).sum(axis=1)
    wanted = errors.sum(axis=1) / (window * 7)
    for got, unrounded in (
        (score, wanted),
        (contributions, errors / errors.sum(axis=1, keepdims=True)),
        (expected, rebuilt[:, -1] * scaler.scale_ + scaler.mean_),
    ):
        differing = got != unrounded.astype(np.float32)
        # P2's gap; expected values near 0 are differences of large numbers and so have it around them, too.
        assert (boundary_distance(unrounded[differing]) < 1e-9).all()
        assert differing.sum() <= 1
    assert np.array_equal(anomaly, wanted > 1.0)
    one_by_one = [session.run(names, {"samples": item[np.newaxis]}) for item in items[:20]]
    for answers, part in zip((score, anomaly, contributions, expected), zip(*one_by_one, strict=True), strict=True):
        assert np.array_equal(answers[:20], np.concatenate(part))


def test_float32_variant_is_in_the_tolerance_class(tmp_path: Path, no_training: None) -> None:
    chosen = LstmAutoencoderDefaults(window_size=4, encoding_dim=3)
    trained = train("lstm_autoencoder", lstm_series(200), chosen, tmp_path, precision="float32")
    assert trained.warning == ""
    models = ModelSet.open(tmp_path)  # runs the golden vectors
    metadata = models.metadata["lstm_autoencoder"]
    assert metadata.graph.operator_counts["LSTM"] == 4
    assert (metadata.graph.layout, metadata.graph.precision) == ("lstm.float32.v1", "float32")
    assert metadata.parity_class == model_pb2.PARITY_CLASS_TOLERANCE
    assert (metadata.tolerance.relative_score, metadata.tolerance.guard_band) == (1e-4, 1e-4)
    names = {tensor.name for tensor in onnx.load(tmp_path / "lstm_autoencoder.onnx").graph.initializer}
    assert {f"{layer}.{part}" for layer in LSTM_LAYERS for part in "WRB"} <= names
    assert len(models.golden["lstm_autoencoder"].cases) > 100
    assert not models.model("lstm_autoencoder").exact


@pytest.mark.slow
def test_float32_graph_does_not_depend_on_the_names_of_tf2onnx() -> None:
    """tf2onnx counts on from one conversion to the next, and its names depend on the seed of Python's hashes."""
    network = untrained(LstmAutoencoderDefaults(window_size=2, encoding_dim=2, hidden_units=3))
    export = lambda: export_lstm_float32(network, np.zeros(7), np.ones(7), NAMES, midpoint_threshold(1.0))  # noqa: E731
    assert export().SerializeToString(deterministic=True) == export().SerializeToString(deterministic=True)


def test_a_damaged_scaler_in_the_graph_is_refused(tmp_path: Path, forest_models: Path) -> None:
    """S2: the graph's scaler is held against the metadata's, bit by bit."""
    from dwcp_sidecar.audit import audit_graph
    from dwcp_sidecar.onnx_file import OnnxFile

    metadata = ModelSet.open(forest_models).metadata["isolation_forest"]
    graph = onnx.load(forest_models / "isolation_forest.onnx")
    for tensor in graph.graph.initializer:
        if tensor.name == "scaler_scale":
            moved = np.nextafter(onnx.numpy_helper.to_array(tensor), np.inf)
            tensor.CopyFrom(onnx.numpy_helper.from_array(moved, tensor.name))
    with pytest.raises(ContractError, match="scaler_scale is not what the metadata says") as caught:
        audit_graph(metadata, OnnxFile.parse(graph.SerializeToString(), "isolation_forest.onnx"))
    assert caught.value.code == "GRAPH_INVALID"


# --- the numbers behind the graphs ---


@given(st.integers(0, 10_000_000))
def test_average_path_length_is_that_of_scikit_learn(n: int) -> None:
    assert average_path_length(n) == pytest.approx(float(_average_path_length(np.array([n]))[0]), rel=1e-15, abs=0)


@given(POSITIVE)
def test_midpoint_threshold(threshold: float) -> None:
    midpoint = midpoint_threshold(threshold)
    assert is_midpoint(midpoint)
    assert abs(midpoint - threshold) <= threshold * 2.0**-23.9
    # D2: comparing the published and the unrounded score decide alike, on either side as near as float64 comes.
    for score in (math.nextafter(midpoint, 0), math.nextafter(midpoint, math.inf), threshold):
        if score != midpoint:
            assert (float(np.float32(score)) > midpoint) == (score > midpoint)


@given(POSITIVE, st.lists(st.floats(-3, 3), max_size=5))
def test_midpoint_threshold_keeps_normal_scores_normal(threshold: float, steps: list[float]) -> None:
    scores = np.array([threshold, *(threshold * (1 + step * 1e-7) for step in steps)])
    midpoint = midpoint_threshold(threshold, scores)
    assert is_midpoint(midpoint)
    assert abs(midpoint - threshold) <= threshold * 2.0**-22.9
    assert not (scores[scores <= threshold] > midpoint).any()


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.inf, math.nan, 1e39])
def test_midpoint_threshold_refuses_what_is_none(threshold: float) -> None:
    with pytest.raises(ValueError, match="check the training data"):
        midpoint_threshold(threshold)


@settings(deadline=None)
@given(st.floats(0.01, 0.99), st.integers(1, 1_000), st.integers(2, 100_000))
def test_depth_threshold_is_the_smallest_on_the_grid(threshold: float, trees: int, max_samples: int) -> None:
    """IF5: score at it <= threshold < score one step below, in exact arithmetic."""
    threshold, rate = midpoint_threshold(threshold), score_rate(trees, max_samples)
    depth = depth_threshold(threshold, rate)
    assume(depth < MAX_DEPTH_SUM)  # a set in which sums may be larger is refused (IF3)
    assert depth * LEAF_GRID == int(depth * LEAF_GRID)
    with localcontext() as context:
        context.prec = 80

        def score(steps: Decimal) -> Decimal:
            return (steps / Decimal(int(LEAF_GRID)) * Decimal(rate) * Decimal(2).ln()).exp()

        steps = Decimal(depth) * Decimal(int(LEAF_GRID))
        assert score(steps) <= Decimal(threshold) < score(steps - 1)


@given(st.floats(-1e30, 1e30, allow_subnormal=False), st.floats(-1, 1))
def test_boundary_distance_is_the_distance_from_the_nearest_midpoint(number: float, part: float) -> None:
    near = np.float32(number)
    up = (float(near) + float(np.nextafter(near, np.float32(np.inf)))) / 2
    assert boundary_distance(np.array([up]))[0] <= 1e-300
    distance = boundary_distance(np.array([number]))[0]
    assert 0 <= distance <= 1
    if abs(number) > 1e-30:
        assert distance <= 2.0**-23
        moved = up * (1 + part * 1e-9)
        assert boundary_distance(np.array([moved]))[0] == pytest.approx(abs(moved - up) / abs(moved), abs=1e-15)


def test_too_few_rows_for_a_forest_are_refused() -> None:
    from dwcp_training.data import DataError

    with pytest.raises(DataError, match="at least 2 rows"):
        fit_isolation_forest(forest_rows(3), IsolationForestDefaults())
    with pytest.raises(ValueError, match="at least 2 rows per tree"):
        score_rate(10, 1)
