"""The Mahalanobis distance: factors, expected values, limits, thresholds, and the graph beside scipy (MD1 to MD7)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import mahalanobis
from sklearn.linear_model import Ridge

from dwcp.anomaly.v1 import features_pb2
from dwcp_sidecar.model import Explain, Model
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.alarm_budget import AlarmBudget
from dwcp_training.data import DataError, Telemetry, forest_rows, lstm_series
from dwcp_training.data.layout import guessed_limits
from dwcp_training.detectors.base import Fitted, Floats
from dwcp_training.detectors.covariance import covariance, inverse_factor
from dwcp_training.detectors.critical_limits import critical_limits
from dwcp_training.detectors.mahalanobis import MOST_VALUES, fit_mahalanobis
from dwcp_training.export.crosscheck_forest import CrossCheckError
from dwcp_training.export.graph import operator_counts
from dwcp_training.export.mahalanobis import operators
from dwcp_training.pipeline import built, fit, train
from dwcp_training.profiles import (
    EnsembleDefaults,
    Feature,
    FeatureSchema,
    IsolationForestDefaults,
    MahalanobisDefaults,
    Scaling,
    load_profile,
)

ROWS = 1_200
NAMES = load_profile("dwcp").feature_schema.names


def series(rows: int = ROWS, seed: int = 3) -> Telemetry:
    """Metrics that go together and with the sample before."""
    telemetry = lstm_series(rows, seed)
    values = telemetry.values.copy()
    values[1:, 2:] = 0.6 * values[1:, 2:] + 0.4 * values[:-1, 2:]
    values[:, 5] = 0.2 * values[:, 5] + 0.8 * values[:, 4]
    return replace(telemetry, values=values)


@cache
def fitted(lags: int = 4, **changes: object) -> Fitted:
    return fit_mahalanobis(series(), MahalanobisDefaults(lags=lags, **changes))


@cache
def model(lags: int = 4) -> Model:
    """As it is served."""
    done = fit("mahalanobis", series(), MahalanobisDefaults(lags=lags))
    return Model(done.metadata, built(done, 0)[1])


def scaled(done: Fitted, items: Floats) -> Floats:
    scaler = done.metadata.scaler
    return (items - np.array(scaler.mean)) / np.array(scaler.scale)


# --- distance ---


@pytest.mark.parametrize("columns", [1, 2, 35])
def test_factor_is_triangular_and_multiplies_to_the_inverse(columns: int) -> None:
    rng = np.random.default_rng(columns)
    rows = rng.standard_normal((columns + 2, columns)) @ rng.standard_normal((columns, columns))  # hardly full rank
    of = covariance(rows)
    factor = inverse_factor(of, 0.01)
    assert not np.tril(factor, -1).any()
    assert np.allclose(factor @ factor.T, np.linalg.inv(of + 0.01 * np.eye(columns)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("lags", [0, 1, 4])
def test_distances_are_those_of_scipy(lags: int) -> None:
    done = fitted(lags)
    items = np.concatenate([done.fitted_items[:20], done.held_out_items[:20] * 1.7])
    flat = scaled(done, items).reshape(len(items), -1)
    fit_flat = scaled(done, done.fitted_items).reshape(len(done.fitted_items), -1)
    # The covariance of all windows, about the scaler's mean, by its definition.
    whole = np.linalg.inv(fit_flat.T @ fit_flat / len(fit_flat) + 0.01 * np.eye(fit_flat.shape[1]))
    zero = np.zeros(flat.shape[1])
    wanted = np.array([mahalanobis(w, zero, whole) for w in flat]) ** 2 / len(zero)
    if lags:
        cut = done.metadata.training.fitted_on + lags
        rows = scaled(done, series().values[:cut])
        row = np.linalg.inv(rows.T @ rows / len(rows) + 0.01 * np.eye(7))
        apart = np.array([mahalanobis(w[-7:], zero[-7:], row) for w in flat]) ** 2 / 7
        wanted = (wanted + apart) / 2
    assert np.allclose(done.reference.distances(items), np.sqrt(wanted), rtol=1e-10)


def test_training_windows_lie_at_a_distance_of_one() -> None:
    """The mean of a squared distance is the number of values but for the ridge, so that 1 is the middle of normal."""
    squared = fitted().reference.distances(fitted().fitted_items) ** 2
    assert 0.9 < squared.mean() < 1


@pytest.mark.parametrize("lags", [0, 2])
def test_expected_value_is_the_one_that_makes_the_distance_smallest(lags: int) -> None:
    done = fitted(lags, limits=False)
    item = done.held_out_items[7] * 1.2
    answer = done.reference.evaluate(item[np.newaxis])
    for j in range(7):
        others = np.repeat(item[np.newaxis], 101, axis=0)
        others[:, -1, j] = answer.expected[0, j] + np.linspace(-5, 5, 101) * done.metadata.scaler.scale[j]
        distances = done.reference.distances(others)
        assert distances.argmin() == 50
        # The gain is how much the squared distance falls with it (MD5).
        gain = answer.scores[0] ** 2 - distances[50] ** 2
        assert gain >= -1e-12
        missed = (item[-1, j] - answer.expected[0, j]) / done.metadata.scaler.scale[j]
        assert done.reference.distance.precision[j] * missed**2 == pytest.approx(gain, rel=1e-6, abs=1e-9)


def test_expected_value_of_single_samples_is_a_ridge_regression() -> None:
    """MD4 for T = 1: of a covariance with `ridge I`, the conditional mean is ridge regression on the other metrics."""
    done = fitted(0)
    rows = scaled(done, done.fitted_items[:, -1])
    for j in range(7):
        others = [k for k in range(7) if k != j]
        model = Ridge(alpha=0.01 * len(rows), fit_intercept=False).fit(rows[:, others], rows[:, j])
        assert np.allclose(done.reference.distance.regression[others, j], model.coef_, atol=1e-10)


def test_a_relation_that_breaks_is_an_alarm_and_is_explained() -> None:
    """Memory goes with the CPU in this data: each in its range, but against one another."""
    done = fitted()
    item = np.median(done.fitted_items, axis=0)
    broken = item.copy()
    broken[-1, 4] += 2 * done.metadata.scaler.scale[4]
    broken[-1, 5] -= 2 * done.metadata.scaler.scale[5]
    answer = done.reference.evaluate(np.stack([item, broken]))
    assert answer.is_anomaly.tolist() == [False, True]
    assert answer.contributions[1, [4, 5]].sum() > 0.9


def test_the_samples_before_count() -> None:
    """The same last sample, after samples that do not lead to it."""
    done = fitted()
    item = done.held_out_items[3].copy()
    other = item.copy()
    other[:-1] = item[:-1] - 3 * np.array(done.metadata.scaler.scale)
    assert done.reference.distances(other[np.newaxis]) > 2 * done.reference.distances(item[np.newaxis])


# --- graph ---


@pytest.mark.parametrize("lags", [0, 1, 4])
def test_served_answers_are_those_of_the_reference(lags: int) -> None:
    served, reference = model(lags), fitted(lags).reference
    rng = np.random.default_rng(1)
    items = fitted(lags).fitted_items[rng.integers(0, 500, 300)] * rng.choice([1, 1.3, 4, 1e3, 1e9], (300, 1, 1))
    got, wanted = served.run(items, Explain.ALWAYS), reference.evaluate(items)
    assert np.array_equal(got.scores, wanted.scores.astype(np.float32))
    assert np.array_equal(got.is_anomaly, wanted.is_anomaly)
    assert np.array_equal(got.contributions, wanted.contributions.astype(np.float32))
    assert np.array_equal(got.expected, wanted.expected.astype(np.float32))
    assert served.windowed == (lags > 0)
    counts = dict(served.metadata.graph.operator_counts)
    assert counts == operators(lags + 1) == operator_counts(fitted(lags).graph())


HUGE = st.floats(allow_nan=False, allow_infinity=False, width=64)
NEAR = st.floats(-50, 50)


@settings(max_examples=150, deadline=None)
@given(arrays(np.float64, (3, 5, 7), elements=st.one_of(NEAR, HUGE)), st.booleans())
def test_any_finite_window_has_a_finite_score_with_shares(numbers: Floats, near: bool) -> None:
    served = model()
    scale, mean = np.array(served.metadata.scaler.scale), np.array(served.metadata.scaler.mean)
    items = mean + np.clip(numbers, -50, 50) * scale if near else numbers
    got = served.run(items, Explain.ALWAYS)
    assert np.isfinite(got.scores).all()
    assert (got.scores >= 0).all()
    assert not np.signbit(got.scores).any()
    assert np.array_equal(got.is_anomaly, got.scores.astype(np.float64) > served.threshold)
    assert (got.contributions >= 0).all()
    sums = got.contributions.sum(axis=1)
    assert all(total == 0 or abs(total - 1) < 1e-5 for total in sums.tolist())
    assert not np.isnan(got.expected).any()
    # W4: by itself each window has the same answers, to the bit.
    for k, item in enumerate(items):
        alone = served.run(item[np.newaxis], Explain.ALWAYS)
        for part in ("scores", "is_anomaly", "contributions", "expected"):
            assert np.array_equal(getattr(alone, part)[0], getattr(got, part)[k])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.floats(1e15, 1.7e308), st.sampled_from([-1.0, 1.0]))
def test_beyond_the_clamp_all_values_score_alike(j: int, size: float, sign: float) -> None:
    """S1: a value that scales to more than 1e15 is clamped, and nothing overflows on the way."""
    served = model()
    items = np.repeat(np.array(served.metadata.reference_values)[np.newaxis, np.newaxis], 5, axis=1).repeat(2, axis=0)
    items[0, -1, j] = sign * size * 1e5 if size < 1e300 else sign * size
    items[1, -1, j] = sign * np.finfo(np.float64).max
    got = served.run(items, Explain.ALWAYS)
    assert got.scores[0] == got.scores[1] > 1e10
    assert np.argmax(got.contributions[0]) == j


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 6), st.floats(0.001, 30))
def test_a_limit_adds_a_term_from_where_it_begins(j: int, beyond: float) -> None:
    """MD3: the score is the larger of the distance and the term, which rises with the value of its metric."""
    with_limits, without = fitted(), fitted(limits=False)
    start, slope = with_limits.reference.limits
    scaler = with_limits.metadata.scaler
    items = np.repeat(np.median(with_limits.fitted_items, axis=0)[np.newaxis], 2, axis=0)
    for k, steps in enumerate((-beyond, beyond)):  # just before it begins, and behind
        items[k, -1, j] = scaler.mean[j] + (start[j] + np.sign(slope[j]) * steps) * scaler.scale[j]
    distances = without.reference.evaluate(items).scores
    scores = with_limits.reference.evaluate(items).scores
    assert scores[0] == distances[0]
    assert scores[1] == pytest.approx(max(distances[1], abs(slope[j]) * beyond), rel=1e-9)


def test_limits_follow_the_threshold() -> None:
    """At the critical value the term is ten times the threshold, whatever the threshold is."""
    done = fit_mahalanobis(series(), MahalanobisDefaults())
    critical = np.array([f.critical for f in done.metadata.feature_schema.features])
    before = done.metadata.threshold
    for threshold in (before, 2 * before):
        done.move_threshold(threshold)
        start, slope = done.reference.limits
        assert np.allclose(slope * (scaled(done, critical) - start), 10 * threshold)
    assert slope[0] < 0 < slope[1]  # low bandwidth is bad, high latency is


@pytest.mark.parametrize("name", ["row_factor", "window_factor", "scaler_scale"])
def test_cross_check_finds_a_wrong_graph(name: str) -> None:
    graph = fitted().graph()
    assert "largest relative difference" in fitted().cross_check(graph)["scipy"]
    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == name)
    values = onnx.numpy_helper.to_array(tensor) * (1 + 1e-8)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(CrossCheckError, match="distances differ from scipy's"):
        fitted().cross_check(graph)


# --- fitting ---


@pytest.mark.parametrize("contamination", [0.005, 0.05, 0.2])
@pytest.mark.parametrize("limits", [True, False])
def test_share_of_held_out_windows_above_the_threshold(contamination: float, limits: bool) -> None:
    """MD6: of held-out windows, not of those that were fitted, which are nearer."""
    done = fit_mahalanobis(series(3_000), MahalanobisDefaults(contamination=contamination, limits=limits))
    above = done.reference.evaluate(done.held_out_items).is_anomaly.mean()
    assert abs(above - contamination) <= 1.01 / len(done.held_out_items)
    assert done.metadata.contamination == contamination


def test_windows_never_cross_a_gap() -> None:
    """Two runs, and one that is too short for a window: its rows shape nothing."""
    telemetry = series()
    values = telemetry.values.copy()
    values[400:403] = 1e4  # between two gaps
    cut = replace(telemetry, values=values, segments=((0, 400), (400, 403), (403, ROWS)))
    done = fit_mahalanobis(cut, MahalanobisDefaults())
    assert done.metadata.training.fitted_on == 400 - 4 + (ROWS - 240 - 5 - 403) - 4
    assert done.fitted_items.max() < 1e4
    assert max(done.metadata.scaler.mean) < 200
    assert "1 of 3 unbroken runs are shorter" in done.facts["windows"]
    alone = fit_mahalanobis(cut, MahalanobisDefaults(lags=0))
    assert alone.metadata.training.fitted_on == ROWS - 240 - 1
    assert not alone.metadata.HasField("timesteps")


@pytest.mark.parametrize("lags", [0, 4])
def test_constant_and_equal_metrics(lags: int) -> None:
    """A metric that never changes, and one that is another's double: the ridge keeps the numbers small (MD7)."""
    telemetry = series()
    values = telemetry.values.copy()
    values[:, 3], values[:, 6] = 2.0, 2 * values[:, 0]
    done = fit_mahalanobis(replace(telemetry, values=values), MahalanobisDefaults(lags=lags))
    distance = done.reference.distance
    assert done.metadata.scaler.scale[3] == 1
    for numbers in (distance.row_factor, distance.regression, distance.precision, *done.reference.limits):
        assert np.abs(numbers).max() < 2e3
    item = np.median(done.fitted_items, axis=0)[np.newaxis]
    item[0, -1, 3] = 4.0  # it moves at last
    answer = done.reference.evaluate(item)
    assert answer.is_anomaly[0]
    assert answer.contributions[0, 3] > 0.99
    assert answer.expected[0, 3] == pytest.approx(2.0)


def test_the_scaler_is_the_standard_one() -> None:
    """Whatever the profile scales with: a distance is counted from the mean."""
    other = replace(series(), scaling=Scaling(method="minmax"))
    done = fit_mahalanobis(other, MahalanobisDefaults())
    assert done.metadata.scaler == fitted().metadata.scaler
    assert "scaling" not in done.metadata.training.hyperparameters


def wide(columns: int, rows: int = 400) -> Telemetry:
    schema = FeatureSchema(
        name="wide",
        version=1,
        features=tuple(
            Feature(name=f"x{j}", unit="", minimum=-99, maximum=99, warning=50, critical=90) for j in range(columns)
        ),
    )
    values = np.random.default_rng(0).standard_normal((rows, columns))
    return replace(series(rows), values=values, schema=schema)


def test_wider_windows_than_rows() -> None:
    done = fit_mahalanobis(wide(60, 150), MahalanobisDefaults())
    assert done.metadata.training.fitted_on < 300
    assert np.isfinite(done.reference.evaluate(done.held_out_items).scores).all()
    assert done.metadata.threshold > 2  # held-out windows lie far from rows that the covariance knows by heart


@pytest.mark.parametrize(
    ("telemetry", "lags", "field", "message"),
    [
        (lambda: wide(500), 4, "lags", f"2,500 values, at most {MOST_VALUES:,}"),
        (lambda: replace(series(), segments=tuple((i, i + 3) for i in range(0, ROWS, 3))), 4, "lags", "no window of 5"),
        (lambda: series(6), 4, "rows", "too few"),
    ],
    ids=["wide", "short runs", "few rows"],
)
def test_refusals(telemetry, lags: int, field: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        fit_mahalanobis(telemetry(), MahalanobisDefaults(lags=lags))
    assert caught.value.field == field
    assert caught.value.remedy


def test_held_out_rows_that_never_change() -> None:
    telemetry = series()
    values = np.zeros_like(telemetry.values)
    values[0:900:2], values[1:900:2] = 1.0, -1.0  # the mean is 0, and so is all that is held out
    with pytest.raises(DataError, match="must be above 0"):
        fit_mahalanobis(replace(telemetry, values=values), MahalanobisDefaults(lags=0))


# --- limits ---


def features(*limits: tuple[float, float]) -> list[features_pb2.Feature]:
    """Metrics with these warning and critical values."""
    return [features_pb2.Feature(name=f"x{j}", warning=low, critical=high) for j, (low, high) in enumerate(limits)]


def test_where_limits_begin_and_end() -> None:
    rows = np.random.default_rng(0).standard_normal((1_000, 3))
    found = critical_limits(features((10, 20), (-4, -9), (7, 7)), np.zeros(3), np.ones(3), (rows, rows), 0.01)
    assert np.allclose(found.start, [19, -8.5, 0])
    assert np.allclose(found.reach, [1, -0.5, 0])
    assert found.warnings == ()
    last = np.array([[0.0, 0, 50], [19.09, 0, 0], [19.11, 0, 0], [0, -8.54, 0], [0, -8.56, 0]])
    assert found.alarming(last).tolist() == [False, False, True, False, True]
    assert found.slope(2.0).tolist() == pytest.approx([20, -40, 0])


@pytest.mark.parametrize("part", [0, 1])
def test_a_limit_that_normal_rows_reach_is_left_out(part: int) -> None:
    """More than a tenth of the contamination of the rows, fitted or held out, beyond halfway from start to critical."""
    parts = [np.zeros((1_000, 2)), np.zeros((1_000, 2))]
    parts[part][:1, 0] = 19.6
    given_limits = features((10, 20), (10, 20))
    assert critical_limits(given_limits, np.zeros(2), np.ones(2), parts, 0.01).reach.all()
    parts[part][:2, 0] = 19.6
    found = critical_limits(given_limits, np.zeros(2), np.ones(2), parts, 0.01)
    assert found.reach.tolist() == pytest.approx([0, 1])
    (warning,) = found.warnings
    assert warning == (
        "x0 at its critical value is no alarm by itself: 0.2 % of the normal rows come close to it or beyond, "
        "0.1 % may."
    )


def test_limits_that_the_numbers_of_md7_cannot_say_are_left_out() -> None:
    rows = [np.zeros((10, 2))] * 2
    found = critical_limits(features((1e7, 2e7), (10, 10.01)), np.zeros(2), np.ones(2), rows, 0.01)
    assert not found.reach.any()
    assert len(found.warnings) == 2
    assert not found.slope(1.5).any()


def test_limits_that_the_data_gave_are_nobodys() -> None:
    """A profile without warning and critical values: those in the schema are guesses from the data, and wake nobody."""
    schema = FeatureSchema(
        name="own", version=1, features=(Feature(name="a", unit="", warning=1, critical=2), Feature(name="b", unit=""))
    )
    assert guessed_limits(schema) == {"b"}
    assert guessed_limits(load_profile("dwcp").feature_schema) == frozenset()
    guessed = replace(series(), guessed_limits=frozenset(NAMES[1:]))
    slope = np.array(fit_mahalanobis(guessed, MahalanobisDefaults()).metadata.mahalanobis.limit_slope)
    assert np.flatnonzero(slope).tolist() == [0]


def test_warnings_are_recorded() -> None:
    telemetry = series()
    values = telemetry.values.copy()
    values[100:140, 4] = 94.9
    done = fit_mahalanobis(replace(telemetry, values=values), MahalanobisDefaults())
    assert any("cpu_usage at its critical value is no alarm" in warning for warning in done.metadata.training.warnings)
    assert "cpu_usage" not in done.facts["limits"]
    assert "cpu_usage" in done.facts["warning"]


# --- the whole way ---


@pytest.mark.parametrize("lags", [0, 2])
def test_golden_vectors(tmp_path: Path, lags: int) -> None:
    trained = train("mahalanobis", series(600), MahalanobisDefaults(lags=lags), tmp_path)
    assert trained.warning == ""
    models = ModelSet.open(tmp_path)  # runs the golden vectors
    cases = {case.id: case for case in models.golden["mahalanobis"].cases}
    crossings = [id for id in cases if id.startswith("threshold/") and id.endswith("/anomaly")]
    assert len(crossings) >= 5
    for id, case in cases.items():
        if id.startswith("threshold/"):
            assert case.score.is_anomaly == id.endswith("/anomaly")
        if id.startswith("limit/") and id.endswith("/critical"):
            assert case.score.is_anomaly
    assert sum(id.startswith("turn/") for id in cases) >= 7
    assert ("shape/ramp/up" in cases) == (lags > 0)
    with np.load(models.path / "mahalanobis.npz") as file:
        assert file["row"].shape == (7, 7)
        assert ("window" in file) == (lags > 0)
    again = train("mahalanobis", series(600), MahalanobisDefaults(lags=lags), tmp_path / "again")
    assert again.models.id == trained.models.id


def test_as_a_member_of_an_ensemble(tmp_path: Path, no_cross_check: None) -> None:
    """The manifest lists it after the ensemble, which is opened with it all the same."""
    telemetry = series(600)
    train("isolation_forest", telemetry, IsolationForestDefaults(n_estimators=5), tmp_path)
    train("mahalanobis", telemetry, MahalanobisDefaults(lags=2), tmp_path)
    train("ensemble", telemetry, EnsembleDefaults(), tmp_path, models=tmp_path)
    models = ModelSet.open(tmp_path)  # runs the golden vectors
    assert list(models.models) == ["isolation_forest", "ensemble", "mahalanobis"]
    joined = models.model("ensemble")
    assert joined.timesteps == 3
    item = telemetry.values[100:103].copy()
    item[-1, 1] = 100.0  # latency at its critical value
    verdict = joined.verdict(item.tolist())
    assert [member.missing for member in verdict.members] == ["", ""]
    assert verdict.members[1].score == models.model("mahalanobis").verdict(item.tolist()).score
    assert verdict.is_anomaly


RECALL_ROWS = 1_000


@pytest.mark.parametrize("budget", [None, "0.1/week"])
def test_one_metric_at_its_critical_value_alarms(budget: str | None) -> None:
    """Default training on synthetic data; 95 % of such rows at least must alarm, each metric by itself."""
    telemetry = forest_rows()
    done = fit("mahalanobis", telemetry, MahalanobisDefaults(), alarm_budget=budget and AlarmBudget.parse(budget))
    served = Model(done.metadata, built(done, 0)[1])
    fresh = forest_rows(RECALL_ROWS + 4, seed=7)
    windows = np.lib.stride_tricks.sliding_window_view(fresh.values, 5, axis=0).transpose(0, 2, 1)
    for j, feature in enumerate(telemetry.schema.features):
        items = windows.copy()
        items[:, -1, j] = feature.critical
        got = served.run(items, Explain.ALWAYS)
        assert got.is_anomaly.mean() >= 0.95, feature.name
        assert (got.contributions.argmax(axis=1) == j).mean() >= 0.95, feature.name
        # EN8: with a third of the weight that alone is 0.27; 0.3 is an alarm.
        low = float(np.median(served.metadata.calibration.scores))
        u = np.maximum(0, (got.scores.astype(np.float64) - low) / (served.threshold - low))
        assert (u / (u + 7 / 3)).min() > 0.8
    false_alarms = served.run(np.ascontiguousarray(windows), Explain.NEVER).is_anomaly.mean()
    assert false_alarms <= (0.02 if budget is None else 0.002)


def test_an_alarm_budget_does_not_count_limits() -> None:
    """C5 with MD6: normal rows near a critical value do not push the threshold out of reach of all others."""
    telemetry = series(3_000)
    values = telemetry.values.copy()
    settings = MahalanobisDefaults(contamination=0.05)
    plain = fit("mahalanobis", telemetry, settings, alarm_budget=AlarmBudget.parse("2/hour"))
    values[2_700:2_709:4, 4] = 94.6
    done = fit("mahalanobis", replace(telemetry, values=values), settings, alarm_budget=AlarmBudget.parse("2/hour"))
    assert done.metadata.threshold < 1.3 * plain.metadata.threshold
    alarms = done.reference.evaluate(done.held_out_items).is_anomaly
    assert alarms[[2_700 - 2_404 + k for k in (0, 4, 8)]].all()
    assert any("an alarm budget does not count them" in warning for warning in done.metadata.training.warnings)
