"""The measurement of detection quality: its figures, what it keeps and repeats, what it says, on small made-up sets."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.bench import covariance_study, quality, quality_jobs, quality_page, quality_sets
from tests.bench.quality_critical import recall
from tests.bench.quality_figures import difference, figures
from tests.bench.quality_kept import Kept
from tests.bench.quality_page import page
from tests.bench.quality_scorers import BASELINES, OURS, Trained, baseline, published
from tests.bench.quality_sets import DataSet, Series

SLOW = ("lstm_autoencoder", "dense_autoencoder", "local_outlier_factor")


def made(name: str = "one", rows: int = 300, seed: int = 0) -> Series:
    """Two metrics that move together; faults break the relation, each metric in its range."""
    random = np.random.default_rng(seed)
    both = random.normal(size=(2 * rows, 1)) + 0.1 * random.normal(size=(2 * rows, 3))
    train, test = both[:rows], both[rows:].copy()
    faulty, counted = np.zeros(rows, bool), np.ones(rows, bool)
    for start in (40, 140, 240):
        faulty[start : start + 10] = True
        counted[start + 10 : start + 15] = False
    test[faulty, 0] *= -1
    test[~counted] = 9.0
    return Series(name, train, test, faulty, counted, train[-quality_sets.HISTORY :])


@pytest.fixture
def two_sets(tmp_path, monkeypatch) -> Callable[[], int]:
    """One set of two series and one that is not there; gives how many baselines were fitted."""
    sets = (
        DataSet("here", "made up", "telemetry-runs", lambda: [made("a"), made("b", seed=1)]),
        DataSet("gone", "made up", "telemetry-runs", list),
    )
    monkeypatch.setattr(quality, "SETS", sets)
    monkeypatch.setattr(quality, "CACHE", tmp_path / "build" / "quality")
    calls: list[str] = []

    def counted(name: str, series: Series):
        calls.append(name)
        return baseline(name, series)

    monkeypatch.setattr(quality_jobs, "baseline", counted)
    return lambda: len(calls)


def test_figures_are_those_of_sklearn_on_the_rows_that_count():
    series = made()
    scores = np.random.default_rng(3).normal(size=len(series.test)).round(1) + series.faulty
    found = figures(series, scores)
    truth, ranked = series.faulty[series.counted], scores[series.counted]
    assert found["average_precision"] == pytest.approx(average_precision_score(truth, ranked), rel=1e-12)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(truth, ranked), rel=1e-12)
    assert 0 < found["vus_pr"] <= 1


def test_mahalanobis_sees_a_broken_relation_and_single_metrics_do_not():
    series = made()
    ap = {name: figures(series, baseline(name, series).scores)["average_precision"] for name in BASELINES}
    assert ap["Mahalanobis"] > 0.8 > 0.4 > ap["max |z|"]


def test_the_difference_of_scores_and_themselves_is_nothing_and_of_better_ones_is_above():
    series = made()
    random = np.random.default_rng(0)
    noise = random.normal(size=len(series.test))
    same = difference([(series, noise, noise)], 40)
    better = difference([(series, noise + 6 * series.faulty, noise)], 40)
    assert (same.low, same.value, same.high) == (0, 0, 0)
    assert 0 < better.low <= better.value <= better.high


def test_scores_of_long_data_in_parts_are_those_of_single_windows(monkeypatch):
    series = made()
    detector = Trained(series.train, "telemetry-runs").get("isolation_forest")
    every, _ = published(detector, series.test, series.before)
    monkeypatch.setattr("tests.bench.quality_scorers._overlapping.__defaults__", (7,))
    parts, alarms = published(detector, series.test, series.before)
    assert np.array_equal(every, parts)
    assert len(alarms) == len(series.test)


def test_a_member_scores_rows_once_by_itself_and_in_the_ensemble(monkeypatch):
    from dwcp_sidecar.model import Model

    runs: list[str] = []
    run = Model.run
    monkeypatch.setattr(Model, "run", lambda self, *given: runs.append(self.name) or run(self, *given))
    series = made()
    trained = Trained(series.train, "telemetry-runs", without=SLOW)
    ensemble = trained.get("ensemble")
    alone, _ = published(trained.get("isolation_forest"), series.test, series.before)
    runs.clear()
    joined, _ = published(ensemble, series.test, series.before)
    assert sorted(runs) == ["mahalanobis", "one_class_svm"]
    assert len(joined) == len(alone)
    again, _ = published(trained.get("mahalanobis"), series.test, series.before)
    assert len(again) == len(joined)
    assert len(runs) == 2


def test_a_run_names_what_is_missing_and_a_second_run_measures_nothing_again(two_sets):
    said: list[str] = []
    first = quality.run(without=SLOW, count=20, critical=False, say=said.append)
    fitted = two_sets()
    assert fitted == 2 * len(BASELINES)
    assert first["missing"] == ["gone"]
    assert any("gone is left out" in text for text in said)
    assert set(first["sets"]["here"]["figures"]) == {*BASELINES, *OURS} - set(SLOW)
    again = quality.run(without=SLOW, count=20, critical=False, say=said.append)
    assert two_sets() == fitted
    assert again == first == json.loads((quality.CACHE / quality.SUMMARY).read_text())
    quality.run(without=SLOW, count=20, critical=False, fresh=True, say=said.append)
    assert two_sets() == 2 * fitted


@pytest.mark.slow
def test_an_ensemble_is_measured_again_with_other_members(two_sets):
    quality.run(without=SLOW, count=20, critical=False, say=lambda _: None)
    said: list[str] = []
    quality.run(without=(*SLOW, "one_class_svm"), count=20, critical=False, say=said.append)
    assert said[1:3] == ["here, a: ensemble", "here, b: ensemble"]


@pytest.mark.slow
def test_a_run_that_ends_goes_on_where_it_was(two_sets, monkeypatch):
    """Also within a series: each answer is kept."""
    whole = quality_jobs.Trained.answer

    def stopped(self, name: str, series: Series):
        if name == "one_class_svm" and series.name == "b":
            raise KeyboardInterrupt
        return whole(self, name, series)

    monkeypatch.setattr(quality_jobs.Trained, "answer", stopped)
    with pytest.raises(KeyboardInterrupt):
        quality.run(without=SLOW, count=20, critical=False, say=lambda _: None)
    fitted = two_sets()
    monkeypatch.setattr(quality_jobs.Trained, "answer", whole)
    said: list[str] = []
    quality.run(without=SLOW, count=20, critical=False, say=said.append)
    assert two_sets() == fitted
    assert said[1] == "here, b: one_class_svm"


@pytest.mark.slow
def test_a_set_beside_the_others_is_in_no_mean(two_sets, monkeypatch):
    only = ("isolation_forest", "mahalanobis", "ensemble")
    beside = DataSet("beside", "made up", "telemetry-runs", lambda: [made("a")], only=only)
    monkeypatch.setattr(quality, "SETS", (*quality.SETS, beside))
    content = quality.run(without=SLOW, count=20, critical=False, say=lambda _: None)
    assert set(content["sets"]["beside"]["figures"]) == {*BASELINES, *only}
    here = content["sets"]["here"]["figures"]
    apart = here["ensemble"]["average_precision"] - here[content["mean"]["baseline"]]["average_precision"]
    assert content["mean"]["value"] == pytest.approx(apart)
    text = page(content)
    assert text.index("## Average precision") < text.index("## beside")
    assert "| beside |" not in text


@pytest.mark.parametrize(
    ("low", "value", "high", "said", "of_mean"),
    [
        (0.01, 0.02, 0.03, "above", "above"),
        (-0.01, 0.02, 0.03, "reached", "reached"),
        (-0.03, -0.01, 0.01, "reached", "not reached"),
        (-0.03, -0.02, -0.01, "not reached", "not reached"),
    ],
)
def test_the_goal_is_said_to_be_missed_where_it_is(low, value, high, said, of_mean):
    compared = {"low": low, "value": value, "high": high}
    assert quality_page._reached(compared, strictly=False) == said
    assert quality_page._reached(compared, strictly=True) == of_mean


def test_what_is_kept_of_a_series(tmp_path):
    kept = Kept.of(tmp_path, "SKAB as a plant", "0")
    kept.keep("max |z|", {"average_precision": 0.5}, np.array([1.0, 2.0]))
    kept.keep("PCA", {"why_not": "no"})
    again = Kept.of(tmp_path, "SKAB as a plant", "0")
    assert again.found == {"max |z|": {"average_precision": 0.5}, "PCA": {"why_not": "no"}}
    assert again.scores("max |z|").tolist() == [1, 2]
    again.forget("PCA")
    assert again.found == {"max |z|": {"average_precision": 0.5}}
    again.forget()
    assert not Kept.of(tmp_path, "SKAB as a plant", "0").found


@pytest.mark.slow  # a new process that imports everything
def test_two_processes_measure_what_one_does(tmp_path):
    jobs = [
        quality_jobs.Job("here", "telemetry-runs", ("isolation_forest",), made(name, seed=k), (), None)
        for k, name in enumerate("ab")
    ]
    said: list[str] = []
    quality_jobs.measure_all(jobs, tmp_path / "two", 2, said.append)
    quality_jobs.measure_all(jobs, tmp_path / "one", 1, said.append)
    assert sum(text.endswith("isolation_forest") for text in said) == 4
    for name in "ab":
        one, two = (Kept.of(tmp_path / many, "here", name) for many in ("one", "two"))
        assert one.scores("isolation_forest").tolist() == two.scores("isolation_forest").tolist()


def test_the_page_has_every_scorer_the_best_in_bold_and_what_is_missing(two_sets):
    text = page(quality.run(without=SLOW, count=20, critical=False, say=lambda _: None))
    assert "Not there and left out: gone." in text
    assert "| *prevalence* |" in text
    for name in BASELINES:
        assert f"\n| {name.replace('|', chr(92) + '|')} | " in text
    best = max(
        json.loads((quality.CACHE / quality.SUMMARY).read_text())["sets"]["here"]["figures"].items(),
        key=lambda item: item[1]["average_precision"],
    )[1]["average_precision"]
    assert f"**{best:.3f}**" in text


def test_recall_of_critical_values_counts_alarms_of_each_metric():
    from dwcp_training.data import forest_rows

    shares = recall(Trained(forest_rows(1000).values, "dwcp").get("one_class_svm"))
    assert shares["latency"] == shares["packet_loss"] == 1.0
    assert shares["typical"] < 0.5
    assert len(shares) == 8


def test_lags_stand_beside_their_row():
    rows = np.arange(6.0).reshape(3, 2)
    assert covariance_study.with_lags(rows, (1,)).tolist() == [[0, 1, 0, 1], [2, 3, 0, 1], [4, 5, 2, 3]]


@pytest.mark.skipif(not (quality_sets.FOLDER / "linklab").is_dir(), reason="../shared/data is not here")
def test_linklab_has_its_faults_and_grace():
    (series, *_) = quality_sets.linklab()
    assert series.train.shape == (7200, 7)
    assert series.test.shape == (4561, 7)
    assert series.faulty.mean() == pytest.approx(0.412, abs=0.002)
    assert not (~series.counted & series.faulty).any()
    assert (~series.counted).sum() > 36 * 20


@pytest.mark.skipif(not (quality_sets.FOLDER / "nezha").is_dir(), reason="../shared/data is not here")
def test_pods_are_tested_where_their_faults_are():
    every = quality_sets.nezha()
    assert len(every) >= 5
    for series in every:
        assert series.faulty.any()
        assert np.isfinite(series.train).all()
        assert series.train.shape[1] == 5
