"""Thresholds from an alarm budget: every detector, tails, refusals, and the same decisions in Go (rules C5, D2)."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import genpareto
from typer.testing import CliRunner, Result

from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.verdicts import Explain
from dwcp_training.alarm_budget import AlarmBudget
from dwcp_training.cli import app
from dwcp_training.data import DataError, forest_rows, labelled_series, lstm_series, write_csv
from dwcp_training.pipeline import fit, train
from dwcp_training.profiles import (
    DenseAutoencoderDefaults,
    IsolationForestDefaults,
    LocalOutlierFactorDefaults,
    LstmAutoencoderDefaults,
    LstmClassifierDefaults,
    MahalanobisDefaults,
    OneClassSvmDefaults,
)
from dwcp_training.tail import TailError, counted_threshold, tail_threshold
from tests.conformance.implementations import build
from tests.training.conftest import REPOSITORY, leave_out_cross_checks

DAY = 1_440
"""Rows of synthetic data a day: one a minute."""


# --- what people write ---


@pytest.mark.parametrize(
    ("text", "share"),
    [("0.1/week", 0.1 * 60 / 604_800), ("2 / day", 2 * 60 / 86_400), ("1e-2/hour", 0.01 * 60 / 3_600)],
)
def test_a_budget_is_a_share_at_a_cadence(text: str, share: float) -> None:
    budget = AlarmBudget.parse(text)
    assert budget.share(60.0) == pytest.approx(share)
    assert AlarmBudget.parse(str(budget)) == budget


@pytest.mark.parametrize("text", ["", "1", "week", "0/week", "-1/day", "nan/day", "inf/day", "1/month", "1/", "/day"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write a number above 0 per hour, day or week, as 0\.1/week"):
        AlarmBudget.parse(text)


@pytest.mark.parametrize("cadence", [None, 0.0])
def test_without_a_cadence_there_is_no_budget(cadence: float | None) -> None:
    with pytest.raises(DataError, match="the cadence is not known") as caught:
        AlarmBudget(1, "day").share(cadence)
    assert caught.value.field == "alarm_budget"
    assert "--contamination" in str(caught.value)


def test_a_budget_of_half_of_all_samples_is_refused() -> None:
    with pytest.raises(DataError, match="smaller budget"):
        AlarmBudget(60, "hour").share(60.0)


# --- tails ---


def test_counted_thresholds_leave_at_most_the_share_above() -> None:
    scores = np.arange(1, 101) / 100
    rng = np.random.default_rng(0)
    for share in (0.0, 0.001, 0.05, 0.5, 0.999):
        threshold = counted_threshold(rng.permutation(scores), share)
        assert (scores > threshold).sum() == math.floor(100 * share + 1e-9)
    assert counted_threshold(np.array([1.0, 2.0, 2.0, 2.0]), 0.5) == 2.0  # ties stay below


def test_a_tail_is_extrapolated_where_few_scores_are_expected() -> None:
    scores = genpareto.rvs(0.1, size=5_000, random_state=1)
    enough = tail_threshold(scores, 0.001)
    assert not enough.extrapolated
    assert (scores > enough.value).sum() == 5
    few = tail_threshold(scores, 1e-5)
    assert few.extrapolated
    assert "generalised Pareto tail of the 500 largest of 5,000" in few.method
    assert few.value >= scores.max()
    true = genpareto.isf(1e-5, 0.1)
    assert 0.6 * true < few.value < 1.6 * true


@pytest.mark.parametrize(("a", "b"), [(2, 5), (5, 1), (1, 40)])
def test_a_tail_that_ends_stays_below_its_end(a: float, b: float) -> None:
    scores = np.random.default_rng(4).beta(a, b, 2_000)
    for share in (1e-4, 1e-5, 1e-6):
        found = tail_threshold(scores, share, 1.0)
        assert scores.max() <= found.value < 1.0
    rarer = [tail_threshold(scores, share, 1.0).value for share in (1e-3, 1e-4, 1e-5)]
    assert rarer == sorted(rarer)
    if a > b:  # nothing that float32 can tell from the end
        with pytest.raises(TailError, match="leaves no threshold"):
            tail_threshold(scores, 1e-12, 1.0)


def test_what_gives_no_tail_is_refused() -> None:
    with pytest.raises(TailError, match="too few"):
        tail_threshold(np.arange(20.0), 1e-4)
    with pytest.raises(TailError, match="differ"):
        tail_threshold(np.ones(1_000), 1e-4)
    with pytest.raises(TailError, match="no score is higher"):
        tail_threshold(np.linspace(0, 1, 1_000), 1e-4, 1.0)


# --- every detector ---

SMALL = {
    "isolation_forest": IsolationForestDefaults(n_estimators=20),
    "local_outlier_factor": LocalOutlierFactorDefaults(max_rows=500),
    "one_class_svm": OneClassSvmDefaults(max_rows=500),
    "dense_autoencoder": DenseAutoencoderDefaults(epochs=2),
    "lstm_autoencoder": LstmAutoencoderDefaults(epochs=1, window_size=3, encoding_dim=4, hidden_units=8),
    "lstm_classifier": LstmClassifierDefaults(epochs=2, window_size=3, units=(4, 4, 4)),
    "mahalanobis": MahalanobisDefaults(),
}


KERAS = ("dense_autoencoder", "lstm_autoencoder", "lstm_classifier")


@pytest.mark.parametrize(
    "detector", [pytest.param(name, marks=pytest.mark.slow) if name in KERAS else name for name in SMALL]
)
@pytest.mark.parametrize("text", ["20/day", "0.1/week"])
def test_every_detector_keeps_a_budget(detector: str, text: str, no_cross_check: None) -> None:
    """On the data that was held out: counted off where there is enough of it, else no more above than that."""
    telemetry = labelled_series(2_500) if detector == "lstm_classifier" else lstm_series(2_500)
    budget = AlarmBudget.parse(text)
    fitted = fit(detector, telemetry, SMALL[detector], alarm_budget=budget)
    scores = fitted.reference.evaluate(fitted.held_out_items).scores
    above = int((scores > fitted.metadata.threshold).sum())
    expected = len(scores) * budget.share(60.0)
    assert above <= expected
    record = fitted.metadata.training
    assert record.hyperparameters["alarm_budget"] == text
    assert record.hyperparameters["threshold"].startswith(f"alarm budget {text}, a share of ")
    assert not {"contamination", "threshold_percentile"} & set(record.hyperparameters)
    extrapolated = [warning for warning in record.warnings if "the threshold" in warning and "extrapolated" in warning]
    assert len(extrapolated) == (expected < 5)
    if text == "20/day" and expected >= 5:
        assert above == math.floor(expected)
    if detector == "lstm_classifier":
        assert fitted.metadata.threshold < 1
        assert "held_out_missed" not in record.history


def test_a_forest_stays_able_to_alarm(no_cross_check: None) -> None:
    """The smaller the budget the higher the threshold, and never out of reach of the forest's own scores."""
    thresholds = []
    for text in ("1/day", "0.1/week", "0.0001/week"):
        fitted = fit(
            "isolation_forest", forest_rows(2_000), SMALL["isolation_forest"], alarm_budget=AlarmBudget.parse(text)
        )
        thresholds.append(fitted.metadata.threshold)
        far = forest_rows(2).values[0] + 1e6 * np.array(list(itertools.product((-1, 1), repeat=7)))
        assert fitted.reference.evaluate(far[:, np.newaxis]).is_anomaly.any()
    assert thresholds == sorted(thresholds)


# --- commands ---


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)], env={"COLUMNS": "200"})


def test_two_thresholds_are_one_too_many() -> None:
    for detector, flag in (("isolation-forest", "--contamination"), ("dense-autoencoder", "--threshold-percentile")):
        result = invoke(detector, "--synthetic", "--alarm-budget", "1/day", flag, "0.1")
        assert result.exit_code == 2
        assert f"--alarm-budget and {flag} both set the threshold" in result.output
    wrong = invoke("isolation-forest", "--synthetic", "--alarm-budget", "1/year")
    assert wrong.exit_code == 2
    assert "0.1/week" in wrong.output


def test_rows_without_times_have_no_budget(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "feature_schema: {name: x, version: 1}\ntimestamp_column: null\nreader: {features: numeric}\n"
    )
    write_csv(replace(forest_rows(300), timestamps=None, cadence_seconds=None), tmp_path / "x.csv")
    flags = ("--profile", tmp_path / "p.yaml", "--data", tmp_path / "x.csv", "--output", tmp_path / "m")
    result = invoke("isolation-forest", *flags, "--alarm-budget", "1/day")
    assert result.exit_code == 1
    assert "the cadence is not known" in result.stderr
    assert not (tmp_path / "m").exists()


@pytest.fixture(scope="module")
def budgeted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set whose detectors, an ensemble among them, all have their threshold from a budget."""
    folder = tmp_path_factory.mktemp("budgeted")
    rows = forest_rows(1_500)
    for detector, text in (
        ("isolation_forest", "5/day"),
        ("local_outlier_factor", "1/day"),
        ("one_class_svm", "0.1/week"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            leave_out_cross_checks(patch)
            train(detector, rows, SMALL[detector], folder, alarm_budget=AlarmBudget.parse(text))
    write_csv(rows, folder / "rows.csv")
    result = invoke("ensemble", "--models", folder, "--data", folder / "rows.csv", "--alarm-budget", "2/day")
    assert result.exit_code == 0, result.output
    (folder / "rows.csv").unlink()
    return folder


def test_go_decides_by_the_same_thresholds(budgeted: Path, tmp_path: Path) -> None:
    """Bit for bit, on held-out rows and on rows from there across every threshold."""
    models = ModelSet.open(budgeted)
    assert set(models.models) == {"isolation_forest", "local_outlier_factor", "one_class_svm", "ensemble"}
    held_out = forest_rows(1_500).values[-150:]
    far = held_out * np.linspace(1, 3, 150)[:, np.newaxis]
    wanted: dict[str, tuple[bool, int]] = {}
    with (tmp_path / "requests").open("w") as file:
        for name, model in models.models.items():
            verdicts = model.score_batch(np.concatenate([held_out, far]), Explain.NEVER)
            assert 0 < verdicts.is_anomaly.sum() < 300, name
            for i, row in enumerate(np.concatenate([held_out, far])):
                wanted[f"{name}/{i}"] = bool(verdicts.is_anomaly[i]), int(verdicts.scores[i].view(np.uint32))
                request = {"id": f"{name}/{i}", "detector": name, "samples": [row.tolist()]}
                file.write(json.dumps(request) + "\n")
    (go,) = build(["go-native"], budgeted, {})
    go.run(tmp_path / "requests", tmp_path / "answers", len(wanted), batch=64, threads=1)
    answers = [json.loads(line) for line in (tmp_path / "answers").read_text().splitlines()]
    assert {answer["id"]: (answer["is_anomaly"], answer["score_bits"]) for answer in answers} == wanted


def test_the_ensemble_says_its_budget(budgeted: Path) -> None:
    metadata = ModelSet.open(budgeted).metadata["ensemble"]
    assert metadata.training.hyperparameters["alarm_budget"] == "2/day"
    assert metadata.ensemble.critical_threshold >= metadata.threshold
    scores = np.array(metadata.calibration.scores)
    assert (scores > metadata.threshold).sum() <= len(scores) * 2 / DAY


def test_the_contract_has_the_rule() -> None:
    contract = (REPOSITORY / "proto" / "CONTRACT.md").read_text()
    assert "**C5**" in contract
