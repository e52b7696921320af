"""P-values on normal data: a share of at most `a` of them is at most `a` (rules C1 to C3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_sidecar.calibration import Calibration
from dwcp_training.calibrate import calibration_scores
from dwcp_training.data import forest_rows, read_table, time_split
from dwcp_training.evaluation.bootstrap import Estimate, resamples
from dwcp_training.pipeline import fit
from dwcp_training.profiles import (
    IsolationForestDefaults,
    LocalOutlierFactorDefaults,
    MahalanobisDefaults,
    load_profile,
)
from tests.training.conftest import REPOSITORY

LEVELS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5)


def p_values(held_out: np.ndarray, scores: np.ndarray) -> np.ndarray:
    calibration = Calibration(np.sort(held_out.astype(np.float32)))
    return calibration.grade(scores.astype(np.float32), np.zeros(len(scores), bool))[0]


@given(st.lists(st.floats(0, 10, width=32), min_size=2, max_size=60), st.floats(0, 1))
def test_the_guarantee_is_exact(scores: list[float], level: float) -> None:
    """Exchangeable scores are equally likely in every order. So each of `n + 1` is in turn the new one, and of these
    `n + 1` p-values at most `a (n + 1)` may be at most `a`: whatever the scores, ties too."""
    every = np.array(scores)
    found = [p_values(np.delete(every, i), every[i : i + 1])[0] for i in range(len(every))]
    assert sum(p <= level for p in found) <= level * len(every) + 1e-9


@given(st.lists(st.floats(0, 10, width=32), min_size=1, max_size=40), st.floats(0, 10, width=32))
def test_a_p_value_is_a_count(held_out: list[float], score: float) -> None:
    (found,) = p_values(np.array(held_out), np.array([score]))
    assert found == (1 + sum(other >= score for other in held_out)) / (len(held_out) + 1)
    assert 1 / (len(held_out) + 1) <= found <= 1


@pytest.mark.parametrize(
    ("detector", "settings"),
    [
        ("isolation_forest", IsolationForestDefaults(n_estimators=30)),
        ("local_outlier_factor", LocalOutlierFactorDefaults(max_rows=500)),
        ("mahalanobis", MahalanobisDefaults(lags=0)),
    ],
)
def test_fresh_normal_rows_keep_the_promise(
    detector: str, settings: IsolationForestDefaults, no_cross_check: None
) -> None:
    fitted = fit(detector, forest_rows(6_000), settings)
    held_out = fitted.reference.evaluate(fitted.held_out_items).scores
    fresh = fitted.reference.evaluate(forest_rows(5_000, seed=9).values[:, np.newaxis]).scores
    found = p_values(calibration_scores(held_out, 0), fresh)
    for level in LEVELS:
        # The calibration is itself a sample of 1,200, which moves the share of a level for all fresh rows at once.
        slack = 4 * np.sqrt(level * (1 - level) / 1_200)
        assert (found <= level).mean() <= level + slack, level
    assert (found <= 0.5).mean() > 0.4  # and it does not get there by never being small


@pytest.fixture(scope="module")
def measured_scores(request: pytest.FixtureRequest) -> np.ndarray:
    """Scores of a forest on the end of linklab's normal data, which it was not fitted on."""
    file = REPOSITORY.parent / "shared" / "data" / "linklab" / "link-a" / "train.csv"
    if not file.is_file():
        pytest.skip("p-values of measured data left out: ../shared/data/linklab is not here")
    telemetry = read_table(file, load_profile("dwcp"))
    fitted = fit("isolation_forest", telemetry, IsolationForestDefaults())
    return fitted.reference.evaluate(fitted.held_out_items).scores


def test_held_out_measured_rows_that_are_exchangeable_keep_the_promise(measured_scores: np.ndarray) -> None:
    """Halves drawn at random from the same held-out rows are exchangeable: the promise holds on average over draws."""
    shares = {level: [] for level in LEVELS}
    for seed in range(200):
        order = np.random.default_rng(seed).permutation(len(measured_scores))
        half = len(order) // 2
        found = p_values(measured_scores[order[:half]], measured_scores[order[half:]])
        for level in LEVELS:
            shares[level].append((found <= level).mean())
    for level in LEVELS:
        mean, error = np.mean(shares[level]), np.std(shares[level]) / np.sqrt(200)
        assert mean <= level + 4 * error, level


def test_measured_rows_that_follow_one_another_do_not_contradict_it(measured_scores: np.ndarray) -> None:
    """By time rows are not exchangeable: the share of the second half has a wide interval, made of blocks of rows."""
    half = len(measured_scores) // 2
    found = p_values(measured_scores[:half], measured_scores[half:])
    for level in (0.01, 0.05, 0.1, 0.25, 0.5):
        shares = np.array([weights @ (found <= level) / half for weights in resamples(half, 40, 200, 0)])
        estimate = Estimate.of(shares)
        assert estimate.low is not None
        assert estimate.low <= level, level


def test_more_contamination_means_more_alarms(no_cross_check: None) -> None:
    """D3, and the advice of training/README.md: lower the contamination against false alarms (S1-16)."""
    advice = (Path(REPOSITORY) / "training" / "README.md").read_text()
    assert "**More false positives than you want:** *lower* the contamination" in advice
    fresh = forest_rows(5_000, seed=9).values[:, np.newaxis]
    rates = []
    for contamination in (0.005, 0.01, 0.05):
        fitted = fit(
            "isolation_forest",
            forest_rows(5_000),
            IsolationForestDefaults(contamination=contamination, n_estimators=30),
        )
        rates.append(fitted.reference.evaluate(fresh).is_anomaly.mean())
    assert rates == sorted(rates)
    assert rates[0] < rates[-1] / 4


def test_time_split_leaves_a_window_between() -> None:
    early, late = time_split(forest_rows(1_000), 0.2, gap=10)
    assert (late.timestamps[0] - early.timestamps[-1]) / np.timedelta64(1, "m") == 11
