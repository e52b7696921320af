"""The one-class SVM: kernel sums without cancellation, thresholds, and decisions beside scikit-learn's (SV1 to SV6)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from sklearn.svm import OneClassSVM

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.calibrate import midpoint_threshold
from dwcp_training.data import DataError, forest_rows
from dwcp_training.detectors.one_class_svm import SvmReference, fit_one_class_svm
from dwcp_training.export.crosscheck_forest import CrossCheckError
from dwcp_training.export.graph import operator_counts
from dwcp_training.export.run import cpu_session, inner_values
from dwcp_training.export.svm import export_svm, operators
from dwcp_training.pipeline import train
from dwcp_training.profiles import OneClassSvmDefaults
from tests.training.conftest import check_crossings_and_pickles

OUTPUTS = ["score", "is_anomaly", "contributions", "expected"]


def graph_of(rows: np.ndarray, alpha: np.ndarray, gamma: float) -> onnx.ModelProto:
    """A graph of support vectors that are scaled already; the reference values are 0."""
    width = rows.shape[1]
    zeros, ones, names = np.zeros(width), np.ones(width), [f"x{j}" for j in range(width)]
    return export_svm(rows, alpha, gamma, zeros, zeros, ones, names, midpoint_threshold(1.0))


def run(graph: onnx.ModelProto, samples: np.ndarray) -> list[np.ndarray]:
    return cpu_session(graph.SerializeToString()).run(OUTPUTS, {"samples": samples})


def test_beside_a_single_support_vector_nothing_cancels() -> None:
    """With one vector the score is expm1(u) for u = gamma * distance^2: u itself where u is small (SV3)."""
    distances = np.array([0.0, 1e-150, 1e-12, 1e-9, 1e-5, 0.1, 0.7, 2.0, 5.0])
    graph = graph_of(np.zeros((1, 1)), np.array([0.25]), 2.0)
    found = inner_values(graph, "score/float64", distances[:, np.newaxis])
    wanted = np.array([math.expm1(2 * d * d) for d in distances])
    assert found[0] == 0
    assert np.allclose(found[1:], wanted[1:], rtol=1e-14, atol=0)
    score, anomaly, contributions, expected = run(graph, distances[:, np.newaxis])
    assert np.array_equal(score, wanted.astype(np.float32))
    assert np.array_equal(anomaly, wanted > 1)
    assert contributions[:, 0].tolist() == [0.0, *[1.0] * 8]  # 1e-150 squared is 1e-300, which is something
    assert not expected.any()


def test_far_from_every_support_vector_the_score_is_finite() -> None:
    alpha = np.array([0.5, 1.0, 0.75])
    graph = graph_of(np.array([[0.0], [1.0], [2.0]]), alpha, 1.0)
    score, anomaly, _, _ = run(graph, np.array([[9.0], [11.0], [1e3], [1e15], [1e300], [-1e300]]))
    assert np.isfinite(score).all()
    assert anomaly.all()
    # exp(-49) is above the floor of 2^-100, exp(-81) is not.
    assert score[0] < score[1] == score[2] == score[5] == np.float32(alpha.sum() * 2.0**100)


NORMAL = forest_rows(700).values
FEW = NORMAL.copy()
FEW[:, [1, 4]] = 3.0
WIDE = np.random.default_rng(1).standard_normal((400, 38))
WHOLE = np.random.default_rng(2).integers(0, 9, (500, 3)).astype(float)
ONE = np.random.default_rng(3).standard_normal((300, 1))
DATA = {"normal": NORMAL, "constant columns": FEW, "wide": WIDE, "whole numbers": WHOLE, "one metric": ONE}


@pytest.mark.parametrize("settings", [{"nu": 0.05}, {"nu": 0.5, "gamma": "auto"}, {"nu": 0.01, "gamma": 3.0}], ids=str)
@pytest.mark.parametrize("name", DATA)
def test_graph_equals_scikit_learn(name: str, settings: dict) -> None:
    values = DATA[name]
    deviation = values.std(axis=0)
    rows = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    rng = np.random.default_rng(4)
    samples = np.vstack([
        rows[:100], rows[rng.integers(0, len(rows), 200)] + rng.standard_normal((200, rows.shape[1])) / 3,
        rows[:60] * rng.choice([3, 100, 1e6, 1e12], (60, 1)),
    ])  # fmt: skip
    model = OneClassSVM(**settings).fit(rows)
    alpha = model.dual_coef_.ravel()
    assert (alpha > 0).all()
    graph = graph_of(rows[model.support_], alpha, model._gamma)
    assert operator_counts(graph) == dict(sorted(operators(rows.shape[1]).items()))
    inside = inner_values(graph, "inside", samples).ravel()
    assert np.abs(inside - model.score_samples(samples)).max() <= 1e-12 * alpha.sum()
    scores = inner_values(graph, "score/float64", samples)
    order = np.argsort(-inside, kind="stable")
    assert (np.diff(scores[order]) >= -1e-12 * scores[order][1:]).all()  # SV2: monotone
    floor = inside >= 2.0**-100
    assert np.allclose(scores[floor], alpha.sum() / inside[floor] - 1, rtol=1e-9, atol=1e-9)

    answers = run(graph, samples)
    squares = samples**2
    total = squares.sum(axis=1, keepdims=True)
    assert np.allclose(answers[2], np.divide(squares, total, out=np.zeros_like(squares), where=total > 0), rtol=1e-6)
    one_by_one = [run(graph, sample[np.newaxis]) for sample in samples[::40]]
    for answer, alone in zip(answers, zip(*one_by_one, strict=True), strict=True):
        assert np.array_equal(answer[::40], np.concatenate(alone))


def test_settings_reach_the_model() -> None:
    telemetry = forest_rows(400)
    fitted = fit_one_class_svm(telemetry, OneClassSvmDefaults(nu=0.2, gamma=0.7))
    assert (fitted.metadata.svm.nu, fitted.metadata.svm.gamma) == (0.2, 0.7)
    assert not fitted.metadata.HasField("contamination")
    assert isinstance(fitted.reference, SvmReference)
    assert fitted.metadata.svm.support_vectors == len(fitted.reference.vectors)
    assert fitted.metadata.svm.support_vectors >= 0.2 * len(fitted.fitted_items)
    assert fit_one_class_svm(telemetry, OneClassSvmDefaults(gamma="auto")).metadata.svm.gamma == 1 / 7
    assert fit_one_class_svm(telemetry, OneClassSvmDefaults(max_rows=100)).metadata.training.fitted_on == 100


@pytest.mark.parametrize("contamination", [None, 0.01, 0.1])
def test_share_of_rows_above_the_threshold(contamination: float | None) -> None:
    fitted = fit_one_class_svm(forest_rows(2_000), OneClassSvmDefaults(contamination=contamination))
    above = fitted.reference.evaluate(fitted.fitted_items).is_anomaly.mean()
    if contamination is None:
        assert 0.02 < above <= 0.05  # nu bounds it
    else:
        assert fitted.metadata.contamination == contamination
        assert abs(above - contamination) <= 1 / len(fitted.fitted_items)


def test_rows_with_many_copies_do_not_alarm() -> None:
    """The solver puts whole groups of equal rows on the boundary, on either side of it in the last digits."""
    telemetry = forest_rows(500)
    values = np.repeat(telemetry.values[:4], 125, axis=0)[np.random.default_rng(0).permutation(500)]
    fitted = fit_one_class_svm(replace(telemetry, values=values), OneClassSvmDefaults())
    assert not fitted.reference.evaluate(fitted.fitted_items).is_anomaly.any()


def test_fitted_rows_that_are_all_alike() -> None:
    telemetry = forest_rows(300)
    values = np.repeat(telemetry.values[:1], 300, axis=0)
    values[290:] = telemetry.values[1]  # among the held-out rows alone
    alike = replace(telemetry, values=values)
    fitted = fit_one_class_svm(alike, OneClassSvmDefaults())
    assert fitted.reference.evaluate(values[[0, -1], np.newaxis]).is_anomaly.tolist() == [False, True]
    with pytest.raises(
        DataError, match=r"rows: the fitted rows have scores from 0 to 0, and contamination 0\.1"
    ) as caught:
        fit_one_class_svm(alike, OneClassSvmDefaults(contamination=0.1))
    assert "differ" in caught.value.remedy


@pytest.mark.parametrize("contamination", [None, 0.02])
def test_golden_vectors_and_pickles(tmp_path: Path, contamination: float | None) -> None:
    telemetry = forest_rows(500)
    trained = train("one_class_svm", telemetry, OneClassSvmDefaults(contamination=contamination), tmp_path)
    assert trained.warning == ""
    assert "scores rise as it falls" in trained.facts["against scikit-learn"]
    models = ModelSet.open(tmp_path)  # runs the golden vectors
    cases = {case.id: case for case in models.golden["one_class_svm"].cases}
    assert {"vector/0/on", "vector/0/beside"} <= cases.keys()
    assert sum(id.startswith("floor/") for id in cases) >= 4
    check_crossings_and_pickles("one_class_svm", telemetry, models)


@pytest.mark.parametrize(
    ("name", "message"),
    [("gamma", "inside - rho"), ("alpha", "inside - rho"), ("rows", "inside - rho"), ("half", "scores do not rise")],
)
def test_cross_check_finds_a_wrong_graph(name: str, message: str) -> None:
    fitted = fit_one_class_svm(forest_rows(300), OneClassSvmDefaults())
    graph = fitted.graph()
    assert set(fitted.cross_check(graph)) == {"scikit-learn", "skl2onnx"}
    tensor = next(tensor for tensor in graph.graph.initializer if tensor.name == name)
    wrong = onnx.numpy_helper.to_array(tensor) * (-1 if name == "half" else 1 + 1e-9)
    tensor.CopyFrom(onnx.numpy_helper.from_array(wrong, tensor.name))
    with pytest.raises(CrossCheckError, match=message):
        fitted.cross_check(graph)
