"""The local outlier factor: exact distances, ties, densities, and scores beside scikit-learn's (LF1 to LF7)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from sklearn.neighbors import LocalOutlierFactor

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.calibrate import midpoint_threshold
from dwcp_training.data import DataError, forest_rows
from dwcp_training.detectors.local_outlier_factor import Neighborhood, fit_local_outlier_factor
from dwcp_training.detectors.nearest import nearest, squared_distances
from dwcp_training.export.crosscheck_forest import CrossCheckError
from dwcp_training.export.graph import operator_counts
from dwcp_training.export.neighbors import export_neighbors, operators
from dwcp_training.export.run import cpu_session, inner_values
from dwcp_training.golden.make import boundary_distance
from dwcp_training.pipeline import train
from dwcp_training.profiles import LocalOutlierFactorDefaults
from tests.training.conftest import check_crossings_and_pickles

OUTPUTS = ["score", "is_anomaly", "contributions", "expected"]


def graph_of(rows: np.ndarray, n_neighbors: int, threshold: float = 1.5) -> onnx.ModelProto:
    """A graph on rows that are scaled already."""
    found = Neighborhood(rows, n_neighbors)
    width = rows.shape[1]
    return export_neighbors(
        rows,
        found.k_distance,
        found.density,
        n_neighbors,
        np.zeros(width),
        np.ones(width),
        [f"x{j}" for j in range(width)],
        midpoint_threshold(threshold),
    )


def run(graph: onnx.ModelProto, samples: np.ndarray) -> list[np.ndarray]:
    return cpu_session(graph.SerializeToString()).run(OUTPUTS, {"samples": samples})


def test_distances_are_added_feature_by_feature() -> None:
    rng = np.random.default_rng(0)
    samples, rows = (rng.standard_normal((n, 9)) * 10.0 ** rng.integers(-8, 15, (n, 9)) for n in (7, 11))
    found = squared_distances(samples, rows)
    for i, sample in enumerate(samples.tolist()):
        for k, row in enumerate(rows.tolist()):
            total = 0.0
            for q, o in zip(sample, row, strict=True):
                total += (q - o) * (q - o)
            assert found[i, k] == total


@pytest.mark.parametrize("count", [1, 3, 20, 40])
def test_of_equal_distances_the_first_rows_are_the_nearest(count: int) -> None:
    squared = np.random.default_rng(count).integers(0, 6, (300, 40)).astype(float)
    found = nearest(squared, count)
    order = np.argsort(squared, axis=1, kind="stable")
    assert np.array_equal(found.index, order[:, :count])
    in_order = np.take_along_axis(squared, order, axis=1)
    assert np.array_equal(found.distance, np.sqrt(in_order[:, :count]))
    following = in_order[:, count] if count < 40 else np.inf
    assert np.array_equal(found.tied, in_order[:, count - 1] == following)
    assert count == 40 or found.tied.any()


def test_worked_by_hand() -> None:
    """One neighbour each: rows at -1, 1 and 4. The third row has k-distance 3, the others 2."""
    graph = graph_of(np.array([[-1.0], [1.0], [4.0]]), 1)
    score, anomaly, contributions, expected = run(graph, np.array([[0.0], [10.0], [-1.0]]))
    # 0 is as far from -1 as from 1: the first counts. 10 has 4 as its neighbour, at distance 6, with density 1 / 3.
    assert score.tolist() == [1.0, 2.0, 1.0]
    assert anomaly.tolist() == [False, True, False]
    assert contributions.tolist() == [[1.0], [1.0], [0.0]]
    assert expected.tolist() == [[-1.0], [4.0], [-1.0]]
    turned = run(graph_of(np.array([[1.0], [-1.0], [4.0]]), 1), np.array([[0.0]]))
    assert turned[3].tolist() == [[1.0]]


NORMAL = forest_rows(700).values
FEW = NORMAL.copy()
FEW[:, [1, 4]] = 3.0
WIDE = np.random.default_rng(1).standard_normal((400, 38))
WHOLE = np.random.default_rng(2).integers(0, 9, (500, 3)).astype(float)
ONE = np.random.default_rng(3).standard_normal((300, 1))


@pytest.mark.parametrize("n_neighbors", [1, 5, 20])
@pytest.mark.parametrize(
    "values", [NORMAL, FEW, WIDE, WHOLE, ONE], ids=["normal", "constant columns", "wide", "whole numbers", "one metric"]
)
def test_graph_equals_scikit_learn(values: np.ndarray, n_neighbors: int) -> None:
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    rows = (values - mean) / np.where(deviation > 0, deviation, 1)
    rng = np.random.default_rng(4)
    samples = np.vstack([
        rows[:100], rows[rng.integers(0, len(rows), 200)] + rng.standard_normal((200, rows.shape[1])) / 3,
        rows[:60] * rng.choice([3, 100, 1e6, 1e12], (60, 1)),
    ])  # fmt: skip
    graph = graph_of(rows, n_neighbors)
    assert operator_counts(graph) == dict(sorted(operators(rows.shape[1]).items()))
    model = LocalOutlierFactor(n_neighbors=n_neighbors, novelty=True, algorithm="kd_tree").fit(rows)
    neighborhood = Neighborhood(rows, n_neighbors)
    found = neighborhood.find(samples)
    wanted, clear = -model.score_samples(samples), ~neighborhood.depends_on_ties(found)
    assert clear.sum() > 200 or values is WHOLE
    unrounded = inner_values(graph, "score/float64", samples)
    assert (np.abs(unrounded - wanted)[clear] <= 1e-12 * wanted[clear]).all()
    answers = run(graph, samples)
    score, _, contributions, expected = answers
    differing = score[clear] != wanted[clear].astype(np.float32)
    assert (boundary_distance(wanted[clear][differing]) < 1e-12).all()
    own = ~neighborhood.depends_on_ties(neighborhood.own)
    assert np.allclose(neighborhood.scores[own], -model.negative_outlier_factor_[own], rtol=1e-12, atol=0)

    errors = np.square(samples[:, np.newaxis] - rows[found.index]).sum(axis=1)
    total = errors.sum(axis=1, keepdims=True)
    shares = np.divide(errors, total, out=np.zeros_like(errors), where=total > 0)
    assert np.allclose(contributions, shares, rtol=1e-6, atol=1e-30)
    assert np.allclose(expected, rows[found.index].mean(axis=1), rtol=1e-6, atol=1e-7)
    one_by_one = [run(graph, sample[np.newaxis]) for sample in samples[::40]]
    for answer, alone in zip(answers, zip(*one_by_one, strict=True), strict=True):
        assert np.array_equal(answer[::40], np.concatenate(alone))


def test_small_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Neighborhood(WHOLE, 20)
    monkeypatch.setattr("dwcp_training.detectors.nearest.CHUNK_NUMBERS", 3 * len(WHOLE))
    parts = Neighborhood(WHOLE, 20)
    for name in ("k_distance", "density", "scores"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))
    assert np.array_equal(whole.own.index, parts.own.index)


def test_contamination_is_the_share_of_rows_above_the_threshold() -> None:
    thresholds = []
    for contamination in (0.01, 0.05, 0.2):
        fitted = fit_local_outlier_factor(forest_rows(900), LocalOutlierFactorDefaults(contamination=contamination))
        scores = fitted.reference.neighborhood.scores
        assert abs((scores > fitted.metadata.threshold).mean() - contamination) <= 1 / len(scores)
        thresholds.append(fitted.metadata.threshold)
    assert thresholds == sorted(thresholds, reverse=True)  # D3


def test_more_rows_than_are_kept() -> None:
    settings = LocalOutlierFactorDefaults(max_rows=300)
    telemetry = forest_rows(1_000)
    fitted = fit_local_outlier_factor(telemetry, settings)
    kept = fitted.fitted_items[:, 0]
    place = {row.tobytes(): i for i, row in enumerate(telemetry.values[:799])}
    places = [place[row.tobytes()] for row in kept]
    assert len(kept) == 300
    assert places == sorted(places)  # in the order of time, as LF2 needs
    assert fitted.metadata.neighbors.rows == fitted.metadata.training.fitted_on == 300
    said = "499 of 799 rows were left out of the fit, drawn at random with seed 42"
    assert said in fitted.facts["left out"]
    assert said in fitted.metadata.training.warnings[-1]
    again = fit_local_outlier_factor(telemetry, settings).fitted_items
    assert np.array_equal(fitted.fitted_items, again)
    other = fit_local_outlier_factor(telemetry, settings.model_copy(update={"seed": 1})).fitted_items
    assert not np.array_equal(fitted.fitted_items, other)
    everything = fit_local_outlier_factor(telemetry, LocalOutlierFactorDefaults(max_rows=799))
    assert len(everything.fitted_items) == 799
    assert "left out" not in everything.facts


@pytest.mark.parametrize(("rows", "settings"), [(25, {}), (200, {"max_rows": 15}), (200, {"n_neighbors": 159})])
def test_no_more_rows_than_neighbours(rows: int, settings: dict[str, int]) -> None:
    chosen = LocalOutlierFactorDefaults(**settings)
    with pytest.raises(DataError, match=rf"n_neighbors: {chosen.n_neighbors} neighbours .* rows to fit") as caught:
        fit_local_outlier_factor(forest_rows(rows), chosen)
    assert caught.value.field == "n_neighbors"
    assert "fewer neighbours" in caught.value.remedy


def test_published_set_with_ties_and_copies(tmp_path: Path) -> None:
    telemetry = forest_rows(260)
    values = np.round(telemetry.values / 4)
    values[::4] = values[0]
    trained = train("local_outlier_factor", replace(telemetry, values=values), LocalOutlierFactorDefaults(), tmp_path)
    assert trained.warning == ""
    assert "tie for the last place" in trained.facts["against scikit-learn"]
    models = ModelSet.open(tmp_path)  # runs the golden vectors
    ids = {case.id for case in models.golden["local_outlier_factor"].cases}
    assert {"copies/0/on", "copies/0/beside"} <= ids
    verdict = models.model("local_outlier_factor").score([values[0].tolist()])
    assert verdict.scores.tolist() == [1.0]
    assert verdict.contributions[0].tolist() == [0.0] * 7


def test_golden_vectors_and_pickles(tmp_path: Path) -> None:
    telemetry = forest_rows(500)
    trained = train("local_outlier_factor", telemetry, LocalOutlierFactorDefaults(n_neighbors=7), tmp_path)
    assert trained.warning == ""
    models = ModelSet.open(tmp_path)
    cases = {case.id: case for case in models.golden["local_outlier_factor"].cases}
    assert sum(id.startswith("tie/last/") for id in cases) >= 2
    check_crossings_and_pickles("local_outlier_factor", telemetry, models)


@pytest.mark.parametrize("name", ["density", "k_distance", "scaler_scale", "rows"])
def test_cross_check_finds_a_wrong_graph(name: str) -> None:
    fitted = fit_local_outlier_factor(forest_rows(300), LocalOutlierFactorDefaults())
    graph = fitted.graph()
    assert set(fitted.cross_check(graph)) == {"scikit-learn", "skl2onnx"}
    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == name)
    wrong = onnx.numpy_helper.to_array(tensor).copy()
    wrong.flat[:: 2 if wrong.ndim == 1 else 3] *= 1 + 1e-9
    tensor.CopyFrom(onnx.numpy_helper.from_array(wrong, tensor.name))
    with pytest.raises(CrossCheckError, match=r"scores differ from scikit-learn's by \d"):
        fitted.cross_check(graph)
