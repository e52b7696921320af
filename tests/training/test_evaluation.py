"""Figures with intervals, injected faults, baselines, the deletion test, calibration: each against a count by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from dwcp_sidecar.calibration import Calibration
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.cli import app
from dwcp_training.data import INJECTION_KINDS, DataError, Intervals, forest_rows, lstm_series, write_csv
from dwcp_training.evaluate import Question, assess
from dwcp_training.evaluation.baselines import Scaling, ThresholdRule
from dwcp_training.evaluation.bootstrap import Estimate, block_length, resamples
from dwcp_training.evaluation.coverage import coverage
from dwcp_training.evaluation.deletion import deletion_test
from dwcp_training.evaluation.events import Event, labelled_events
from dwcp_training.evaluation.faults import Plan, put_faults, score_injected
from dwcp_training.evaluation.figures import Rows, measure, measure_apart
from dwcp_training.evaluation.scored import score_rows
from tests.training import browser
from tests.training.conftest import REPOSITORY

NAMES = list(forest_rows(2).schema.names)


class ZScorer:
    """Scores the mean squared z of a window, and blames `blame` of it, or the metrics with the largest z."""

    name, threshold, windowed = "z", 2.0, False

    def __init__(self, timesteps: int = 1, blame: int | None = None, scale: float = 1.0) -> None:
        rows = forest_rows(4_000, seed=5).values
        self.mean, self.scale = rows.mean(axis=0), rows.std(axis=0) * scale
        self.timesteps, self.windowed, self.blame = timesteps, timesteps > 1, blame
        self.feature_names = NAMES
        self.calibration = Calibration(np.sort(self.score_batch(rows, None, series=True).scores))
        self.metadata = SimpleNamespace(
            scaler=SimpleNamespace(mean=self.mean, scale=self.scale),
            calibration=SimpleNamespace(scores=self.calibration._scores),
        )

    def score_batch(self, rows: np.ndarray, explain: Any, *, series: bool = False) -> Any:
        items = rows
        if series:
            items = np.stack([rows[i : i + self.timesteps] for i in range(len(rows) - self.timesteps + 1)])
        elif items.ndim == 2:
            items = items[:, np.newaxis]
        parts = (((items - self.mean) / self.scale) ** 2).mean(axis=1)
        contributions = parts / parts.sum(axis=1, keepdims=True)
        if self.blame is not None:
            contributions = np.zeros_like(parts)
            contributions[:, self.blame] = 1.0
        scores = parts.mean(axis=1).astype(np.float32)
        return SimpleNamespace(
            scores=scores, is_anomaly=scores > self.threshold, contributions=contributions,
            expected=np.broadcast_to(self.mean, parts.shape),
        )  # fmt: skip


# --- resampling ---


def test_every_resample_has_as_many_rows_in_whole_blocks() -> None:
    first, *others = resamples(103, 10, 50, 1)
    assert (first == 1).all()
    total = np.zeros(103)
    for weights in others:
        assert weights.sum() == 103
        assert (weights >= 0).all()
        total += weights
    assert total.min() > 0.4 * total.mean()  # circular: rows at the ends are drawn as often as others
    again = [weights.tolist() for weights in resamples(103, 10, 50, 1)]
    assert again[1:] == [weights.tolist() for weights in others]
    assert next(iter(resamples(5, 1, 0, 0))).tolist() == [1.0] * 5


def test_blocks_are_neighbours() -> None:
    """Row by row what follows a drawn row is drawn as well, but at the ends of blocks."""
    for weights in list(resamples(1_000, 100, 20, 7))[1:]:
        changes = np.count_nonzero(np.diff(weights, append=weights[0]))
        assert changes <= 20  # each of ten blocks begins and ends once


def test_intervals_of_dependent_rows_cover_what_they_should() -> None:
    """A mean of an autoregressive series: blocks cover the truth nearly as often as they say, single rows do not."""
    rng = np.random.default_rng(2)

    def covered(block: int) -> float:
        hits = 0
        for number in range(60):
            noise = rng.normal(size=600)
            series = np.zeros(600)
            for i in range(1, 600):
                series[i] = 0.8 * series[i - 1] + noise[i]
            means = np.array([weights @ series / 600 for weights in resamples(600, block, 100, number)])
            estimate = Estimate.of(means)
            hits += estimate.low <= 0 <= estimate.high
        return hits / 60

    assert covered(30) >= 0.8
    assert covered(1) <= 0.7


def test_estimates_of_little() -> None:
    assert Estimate.of(np.array([np.nan, 1.0, 2.0])) == Estimate(None)
    assert Estimate.of(np.array([1.0, np.nan, np.nan, 2.0])) == Estimate(1.0)
    assert Estimate.share(0, 0) == Estimate(None)
    whole = Estimate.share(20, 20)
    assert whole.value == 1.0
    assert 0.8 < whole.low < 0.9
    assert block_length(1_000, 1, ()) == 10
    assert block_length(1_000, 12, ()) == 12
    assert block_length(1_000, 1, (30, 40, 50)) == 40
    assert block_length(20, 10, (30,)) == 4
    assert block_length(1, 10, ()) == 1


# --- figures ---


def rows_by_hand(cadence: float | None = 60.0) -> Rows:
    """100 rows a minute apart; 10 to 19 and 50 to 59 are faulty, 20 and 60 are grace."""
    times = np.datetime64("2024-01-01", "ns") + np.arange(100) * np.timedelta64(60, "s")
    alarmed = np.zeros(100, bool)
    alarmed[[3, 12, 13, 60, 80]] = True
    scores = np.zeros(100)
    scores[10:20], scores[50:60], scores[3] = 2.0, 1.0, 3.0
    events = [
        Event("a", 10, 20, 21, times[10], {"strength": "3"}),
        Event("b", 50, 60, 61, times[50], {"strength": "8"}),
    ]
    return Rows(np.ones(100, bool), scores, alarmed, events, times, cadence, 1)


def test_figures_are_those_counted_by_hand() -> None:
    found = measure(rows_by_hand(), 100, 0)
    assert found.rows == 98
    assert found.false_positive_rate.value == 2 / 78
    assert found.false_alarms_per_day.value == pytest.approx(2 / 78 * 1_440)
    assert found.row_recall.value == 2 / 20
    assert found.prevalence.value == 20 / 98
    # One normal row above all, then the ten of a, then the ten of b, then the rest.
    assert found.average_precision.value == pytest.approx(0.5 * 10 / 11 + 0.5 * 20 / 21)
    assert found.roc_auc.value == pytest.approx(1 - 1 / 78)
    assert found.vus_pr.value is not None
    a, b = found.kinds["a"], found.kinds["b"]
    assert (a.events, a.found, a.rows, a.alarmed_rows, a.delay_seconds.value) == (1, 1, 10, 2, 120.0)
    assert (b.events, b.found, b.alarmed_rows, b.delay_seconds.value) == (1, 1, 0, 600.0)  # in its grace
    assert a.prevalence.value == 10 / 88
    assert b.average_precision.value == pytest.approx(10 / 11)  # the rows of a are not among those of b
    assert {name: list(values) for name, values in a.by.items()} == {"strength": ["3"]}
    for estimate in (found.false_positive_rate, found.average_precision, found.roc_auc, found.vus_pr, a.recall):
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.low < estimate.high
    assert measure(rows_by_hand(), 100, 0) == found
    assert measure(rows_by_hand(None), 20, 0).false_alarms_per_day == Estimate(None)


def test_rows_without_faults_have_false_alarms_alone() -> None:
    found = measure(replace(rows_by_hand(), events=[]), 20, 0)
    assert found.false_positive_rate.value == 5 / 100
    assert found.kinds == {}
    assert found.average_precision == found.vus_pr == found.row_recall == Estimate(None)
    nothing = measure(replace(rows_by_hand(), scored=np.zeros(100, bool)), 20, 0)
    assert nothing.rows == 0
    assert nothing.false_positive_rate == Estimate(None)


def test_figures_of_kinds_apart_are_means() -> None:
    rows = rows_by_hand()
    apart = {event.kind: replace(rows, events=[event]) for event in rows.events}
    found = measure_apart(apart, 20, 0)
    each = [measure(part, 20, 0) for part in apart.values()]
    assert found.average_precision.value == np.mean([part.average_precision.value for part in each])
    assert found.kinds["a"] == each[0].kinds["a"]
    assert set(found.kinds) == {"a", "b"}


def test_runs_of_labelled_rows_are_faults_within_segments() -> None:
    telemetry = replace(
        forest_rows(10), segments=((0, 4), (4, 10)), labels=np.array([1, 0, 1, 1, 1, 0, 0, 0, 1, 1], bool)
    )
    assert [(event.first, event.stop) for event in labelled_events(telemetry)] == [(0, 1), (2, 4), (4, 5), (8, 10)]


# --- baselines ---


def test_baselines_have_thresholds_of_the_other_half_beyond_a_gap() -> None:
    rule = ThresholdRule(share=0.1, normal=None, gap=2)
    scores = np.concatenate([np.arange(10.0), 100 + np.arange(10.0)])
    normal = np.ones(20, bool)
    scaling = Scaling(np.zeros(7), np.ones(7))
    found = rule.alarms("max_abs_z", scaling, scores, normal)
    # The first half is judged by rows 12 to 19, the second by 0 to 7: none of eight may be above.
    assert np.flatnonzero(found).tolist() == list(range(10, 20))
    normal[[6, 7]] = False
    assert rule.alarms("max_abs_z", scaling, np.arange(20.0), normal)[10:].all()


def test_baselines_of_given_normal_data() -> None:
    normal = forest_rows(1_000)
    scaling = Scaling(normal.values.mean(axis=0), normal.values.std(axis=0))
    rule = ThresholdRule(share=0.05, normal=normal, gap=1)
    held_out = scaling.scores("mean_z_squared", normal.values[-200:])
    found = rule.alarms("mean_z_squared", scaling, held_out, np.ones(200, bool))
    assert found.sum() == 10
    assert scaling.scores("max_abs_z", scaling.mean[np.newaxis] + 3 * scaling.scale) == pytest.approx(3)
    assert scaling.scores("mean_z_squared", scaling.mean[np.newaxis] + 3 * scaling.scale) == pytest.approx(9)


# --- injected faults ---


@pytest.mark.parametrize("kind", INJECTION_KINDS)
def test_faults_are_put_apart_with_their_strengths(kind: str) -> None:
    telemetry = replace(lstm_series(3_000), segments=((0, 1_400), (1_400, 3_000)))
    deviations = telemetry.values.std(axis=0)
    found = put_faults(telemetry, kind, deviations, Plan(), timesteps=10)
    assert 10 <= len(found.events) + found.without_trace <= 24
    touched = np.zeros(3_000, bool)
    for event in found.events:
        assert not touched[event.first : event.until].any()
        touched[event.first : event.until] = True
        changed = (found.values != telemetry.values)[event.first : event.stop].any(axis=0)
        assert 1 <= changed.sum() <= int(event.notes["metrics"])
        assert any(start <= event.first and event.stop <= stop for start, stop in telemetry.segments)
    assert (found.values == telemetry.values)[~touched].all()
    if kind == "spike":
        assert {event.notes["strength"] for event in found.events} == {"3", "5", "8"}
        assert {event.notes["metrics"] for event in found.events} == {"1", "3"}


def test_a_broken_correlation_leaves_each_metric_as_it_was() -> None:
    telemetry = forest_rows(4_000)
    telemetry.values[:, 1] = telemetry.values[:, 0] / 10  # latency follows bandwidth
    found = put_faults(telemetry, "correlation_break", np.ones(7), Plan(together=(7,)))
    for event in found.events:
        rows = found.values[event.first : event.stop]
        for j in range(7):
            assert np.isin(rows[:, j], telemetry.values[:, j]).all()
        assert abs(np.corrcoef(rows[:, 0], rows[:, 1])[0, 1]) < 0.9


def test_faults_that_cannot_be_seen_are_left_out() -> None:
    telemetry = forest_rows(2_000)
    telemetry.values[:] = 0.0  # at the lower end of every range
    found = put_faults(telemetry, "drop", np.ones(7), Plan())
    assert (found.events, found.without_trace) == ([], 24)
    with pytest.raises(DataError):
        put_faults(forest_rows(20), "step", np.ones(7), Plan())


def test_without_any_trace_there_are_false_alarms_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dwcp_training.evaluation.assess.INJECTION_KINDS", ("drop",))
    telemetry = forest_rows(200)
    telemetry.values[:] = 0.0
    found = assess(ZScorer(), Question(telemetry, inject=True, resamples=20))  # type: ignore[arg-type]
    assert (found.figures.kinds, found.without_trace) == ({}, {"drop": 8})
    assert found.figures.false_positive_rate.value == 1.0


@pytest.mark.parametrize("timesteps", [1, 4])
def test_only_touched_rows_are_scored_again(timesteps: int) -> None:
    telemetry = replace(forest_rows(900), segments=((0, 400), (400, 900)))
    model: Any = ZScorer(timesteps)
    normal = score_rows(model, telemetry.values, telemetry.segments)
    injected = put_faults(telemetry, "step", model.scale, Plan(), timesteps)
    found = score_injected(model, telemetry, injected, normal)
    whole = score_rows(model, injected.values, telemetry.segments)
    np.testing.assert_array_equal(found.scored, whole.scored)
    np.testing.assert_array_equal(found.scores, whole.scores)
    np.testing.assert_array_equal(found.alarmed, whole.alarmed)


# --- the deletion test ---


@pytest.mark.parametrize("timesteps", [1, 4])
def test_deletion_passes_right_blame_and_fails_wrong(timesteps: int) -> None:
    telemetry = forest_rows(2_000)
    right: Any = ZScorer(timesteps)
    injected = put_faults(telemetry, "step", right.scale, Plan(strengths=(8.0,), together=(1,)), timesteps)
    found = deletion_test(right, telemetry, injected)
    assert found.passed == found.faults == found.named == found.all_faults == len(injected.events) > 5
    wrong = deletion_test(ZScorer(timesteps, blame=3), telemetry, injected)  # type: ignore[arg-type]
    assert wrong.faults == found.faults
    assert wrong.passed < found.passed / 2


# --- p-values ---


def test_p_values_of_data_like_the_calibration_are_kept_and_of_other_data_not() -> None:
    model: Any = ZScorer()
    alike = score_rows(model, forest_rows(3_000, seed=77).values, [(0, 3_000)]).scores
    found = coverage(model, alike, 100, 0)
    assert len(found) == 8
    assert all(entry.kept for entry in found)
    assert all(entry.share.value == pytest.approx(entry.level, abs=0.02) for entry in found)
    broken = coverage(model, alike * 3, 100, 0)
    assert not any(entry.kept for entry in broken)
    assert coverage(model, np.zeros(0), 100, 0) == []


# --- all together ---


def test_a_detector_is_assessed_beside_baselines(forest_models: Path) -> None:
    model = ModelSet.open(forest_models).model("isolation_forest")
    telemetry = forest_rows(600, seed=3)
    found = assess(model, Question(telemetry, inject=True, deletion=True, resamples=20))
    assert set(found.baselines) == {"mean_z_squared", "max_abs_z"}
    assert set(found.figures.kinds) <= set(INJECTION_KINDS)
    assert found.figures.kinds["spike"].events == 24
    assert set(found.deletion) == {*INJECTION_KINDS, "single_metric", "all"}
    assert found.deletion["all"].all_faults == sum(found.deletion[kind].all_faults for kind in INJECTION_KINDS)
    assert found.figures.average_precision.value > found.figures.prevalence.value
    times = telemetry.timestamps
    faults = Intervals(times[[100, 300]], times[[120, 310]], ("x", "y"))
    labelled = assess(model, Question(telemetry, faults, 120.0, resamples=20))
    marked = np.zeros(600, bool)
    marked[100:121] = marked[300:311] = True
    by_label = assess(model, Question(replace(telemetry, labels=marked), resamples=20))
    assert labelled.figures.rows == 600 - 4
    assert by_label.figures.rows == 600
    assert by_label.figures.kinds["labelled"].events == 2
    assert labelled.figures.row_recall.value == by_label.figures.row_recall.value


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], env={"COLUMNS": "120"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--deletion", "--labels", "l.csv"), "--deletion puts"),
        (("--inject", "--label-column", "x"), "--inject puts"),
        (("--labels", "l.csv", "--label-column", "x"), "give one"),
        (("--normal-label", "idle"), "--label-column"),
        (("--strength", "3"), "--inject or --deletion"),
        (("--inject", "--strength", "-1"), "--strength -1"),
        (("--inject", "--together", "0"), "--together 0"),
        (("--resamples", "5"), "--resamples 5"),
    ],
)
def test_wrong_usage_is_named(arguments: tuple[str, ...], words: str) -> None:
    result = invoke("--models", "m", "--data", "x.csv", *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_every_field_of_the_json_is_documented(forest_models: Path, csv: Path, tmp_path: Path) -> None:
    flags = ("--inject", "--deletion", "--resamples", "20", "--json", tmp_path / "figures.json")
    result = invoke("--models", forest_models, "--data", csv, *flags)
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "figures.json").read_text())
    document = (REPOSITORY / "docs" / "commands.md").read_text()
    detector = content["detectors"]["isolation_forest"]
    assert detector["baselines"]["max_abs_z"]["kinds"]["spike"]["recall"]["low"] is not None
    for name in (
        *content, *detector, *detector["figures"], *detector["figures"]["kinds"]["spike"], *detector["calibration"][0],
        *detector["deletion"]["all"], *asdict(Estimate(1.0)),
    ):  # fmt: skip
        assert f"`{name}`" in document, name


def test_labels_of_a_column(forest_models: Path, tmp_path: Path) -> None:
    telemetry = forest_rows(300)
    write_csv(telemetry, tmp_path / "plain.csv")
    lines = (tmp_path / "plain.csv").read_text().splitlines()
    marked = [f"{line},{'label' if not i else int(100 < i <= 120)}" for i, line in enumerate(lines)]
    (tmp_path / "data.csv").write_text("\n".join(marked) + "\n")
    flags = ("--label-column", "label", "--resamples", "20", "--json", tmp_path / "x.json")
    result = invoke("--models", forest_models, "--data", tmp_path / "data.csv", *flags)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "x.json").read_text())["detectors"]["isolation_forest"]
    assert figures["normal_rows"] == 280
    assert figures["figures"]["kinds"]["labelled"]["events"] == 1


# --- the report ---


@pytest.fixture(scope="module")
def report(forest_models: Path, csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    result = invoke(
        "--models", forest_models, "--data", csv, "--inject", "--deletion", "--resamples", "20", "--html", path
    )
    assert result.exit_code == 0, result.output
    return path


def test_the_report_is_one_file_that_needs_no_other(report: Path) -> None:
    text = report.read_text()
    assert [path.name for path in report.parent.iterdir()] == ["report.html"]
    assert text.count('<svg role="img"') == 4
    assert text.count("<figcaption>") == 4
    for forbidden in ("<script", "<link", "<img", "<image", "@import", "src=", "base64"):
        assert forbidden not in text
    for kind in INJECTION_KINDS:
        assert kind in text


def test_the_report_in_a_browser(report: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if browser.chromium() is None:
        pytest.skip(f"{request.node.name} {browser.LEFT_OUT}")
    found = browser.opened(report, tmp_path)
    assert found.console == []
    assert found.asked == []
    for wanted in (
        "<h2>isolation_forest</h2>",
        "Scores around injected faults",
        "Recall by kind of fault",
        "Calibration",
    ):
        assert wanted in found.dom
    assert found.dom.count("<title ") == 4
    assert brightness(found.picture) > 0.8
    assert brightness(browser.picture_of(report, tmp_path, "--force-dark-mode")) < 0.3


def test_the_browser_sees_what_the_report_must_not_do(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The test above can fail: a page that asks for something, or complains, is found out."""
    if browser.chromium() is None:
        pytest.skip(f"{request.node.name} {browser.LEFT_OUT}")
    page = tmp_path / "page.html"
    page.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("complaint")</script>')
    found = browser.opened(page, tmp_path)
    assert found.asked == ["http://127.0.0.1:9/x.png"]
    assert "complaint" in found.console[0]


def brightness(picture: bytes) -> float:
    import io

    from matplotlib.image import imread

    return float(imread(io.BytesIO(picture), format="png")[..., :3].mean())
