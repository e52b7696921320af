"""The statistics behind the gate, and what counts as found."""

from __future__ import annotations

import numpy as np
import pytest

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import INJECTION_KINDS
from dwcp_training.profiles import Gate, ProfileError, load_profile
from dwcp_training.retrain.bootstrap import block_share, paired_difference, rate_at_least
from dwcp_training.retrain.gate import deviations_of, judge, nominal_share
from dwcp_training.retrain.measures import episodes, found_by, make_faults
from dwcp_training.retrain.set_apart import excess_alarms
from dwcp_training.telemetry_scores import SeriesScores, series_scores
from tests.retrain.conftest import Bench, series
from tests.training.conftest import REPOSITORY

REFERENCE = REPOSITORY / "models/reference/v1"


def test_the_paired_interval_covers_a_difference_that_is_none() -> None:
    """Two models that find the same share by chance: an interval of 95 % leaves 0 out in about one case of 20."""
    generator = np.random.default_rng(0)
    outside = 0
    for _ in range(400):
        both = generator.random((2, 100)) < 0.7
        low, high = paired_difference(*both, 0.95, 1000)
        outside += not low <= 0 <= high
    assert outside / 400 < 0.08


def test_the_paired_interval_sees_a_loss_that_two_samples_would_not() -> None:
    """Six of 140 faults are lost and none is won: for unpaired shares that would be within chance."""
    before = np.arange(140) < 100
    after = np.arange(140) < 94
    low, high = paired_difference(before, after, 0.95, 10_000)
    assert low < -0.07 < high < 0
    unpaired = 1.96 * np.sqrt(2 * 0.7 * 0.3 / 140)
    assert unpaired > 6 / 140
    assert paired_difference(before, before, 0.95, 1000) == (0.0, 0.0)


def test_blocks_make_the_interval_of_clustered_alarms_wider() -> None:
    marks = np.zeros(2000, bool)
    marks[300:340] = True
    low, high = block_share(marks, 40, 0.95, 2000)
    single = block_share(marks, 1, 0.95, 2000)
    assert low < 0.02 < high
    assert high - low > 3 * (single[1] - single[0])
    assert block_share(np.ones(50, bool), 7, 0.95, 100) == (1.0, 1.0)


def test_the_rate_that_a_count_does_not_contradict() -> None:
    assert rate_at_least(0, 1, 0.95) == 0
    assert rate_at_least(1, 1, 0.95) == pytest.approx(0.0513, abs=1e-4)  # -ln(0.95)
    assert rate_at_least(10, 2, 0.95) == pytest.approx(5.4254 / 2, abs=1e-3)  # a table of exact Poisson limits


@pytest.fixture(scope="module")
def forest() -> object:
    return ModelSet.open(REFERENCE).models["isolation_forest"]


def test_faults_of_every_kind_in_every_metric_at_places_of_their_own() -> None:
    telemetry = series(2)
    faults = make_faults(telemetry, deviations_of(telemetry), 10, 28)
    assert list(faults) == list(INJECTION_KINDS)
    for kind, of_kind in faults.items():
        assert len(of_kind) == 28
        assert len(set(of_kind.at)) > 20, f"{kind}: the metrics do not share their places"
        changed = set()
        for values, first, at in zip(of_kind.values, of_kind.first, of_kind.at, strict=True):
            clean = telemetry.values[at - first : at - first + len(values)]
            assert (values[:first] == clean[:first]).all(), "what is before a fault is as it was"
            assert first <= 9
            changed |= set(np.flatnonzero((values != clean).any(axis=0)).tolist())
        assert changed == set(range(7)), kind


def test_an_alarm_counts_when_the_fault_raises_it(forest: object) -> None:
    telemetry = series(2)
    faults = make_faults(telemetry, 20 * deviations_of(telemetry), 1, 28)["step"]
    quiet = series_scores(forest, telemetry)
    found, possible = found_by(forest, faults, quiet)
    assert possible.all()
    assert found.mean() > 0.5
    loud = SeriesScores(quiet.scored, quiet.scores, np.ones(len(telemetry), bool))
    assert not found_by(forest, faults, loud)[0].any(), "a model that alarms on everything finds nothing"


def test_alarms_that_follow_each_other_are_one() -> None:
    telemetry = series(2, 100)
    alarmed = np.zeros(100, bool)
    alarmed[[0, 1, 2, 10, 50, 51, 99]] = True
    scores = SeriesScores(np.ones(100, bool), np.zeros(100, np.float32), alarmed)
    assert episodes(scores, telemetry) == 4
    assert episodes(scores, telemetry.take([(0, 2), (2, 100)])) == 4 + 1


def test_as_many_alarms_stay_as_normal_data_raises(forest: object) -> None:
    count = 2000
    scores = SeriesScores(np.ones(count, bool), np.zeros(count, np.float32), np.zeros(count, bool))
    calibrated = np.array(forest.metadata.calibration.scores)
    expected = (1 + (calibrated > forest.threshold).sum()) / (len(calibrated) + 1)
    scores.alarmed[: 4 * int(expected * count) : 4] = True  # as often as normal, each alone
    assert not excess_alarms(forest, scores).any()
    scores.alarmed[1500:1530] = True
    scores.alarmed[1600:1602] = True
    marks = excess_alarms(forest, scores)
    assert marks[1500:1530].all(), "the longest run goes first, and whole"
    assert marks.sum() >= 32 - 1


def test_thresholds_know_what_they_were_made_for() -> None:
    models = ModelSet.open(REFERENCE)
    assert nominal_share(models, "isolation_forest") == 0.01
    assert nominal_share(models, "lstm_autoencoder") == pytest.approx(0.05)
    ensemble = ModelSet.open(REPOSITORY / "models/reference/ensemble-v1")
    assert nominal_share(ensemble, "lstm_classifier") == 0.01
    shares = [nominal_share(ensemble, name) for name in ensemble.metadata if name != "ensemble"]
    assert nominal_share(ensemble, "ensemble") == max(shares)


def test_a_set_is_as_good_as_itself(months: object) -> None:
    """The same model on both sides: no difference anywhere, and a pass."""
    bench = Bench(months, months / "models", months / "small.yaml")
    models, telemetry = ModelSet.open(bench.models), series(2)
    gate = Gate(resamples=500, events=28, false_alarm_factor=50.0, latency_ms=1000.0)
    faults = make_faults(telemetry, deviations_of(telemetry), 1, gate.events)
    decision = judge(models, models, telemetry, faults, gate, lambda *_: None)
    assert decision.promote
    recalls = [row for row in decision.rows if row.measure.startswith("recall")]
    assert len(recalls) == len(INJECTION_KINDS)
    assert all(row.interval == (0.0, 0.0) and row.champion == row.challenger for row in recalls)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("gate: {helt_out: 0.1}", "Did you mean 'held_out'?"),
        ("gate: {held_out: 0.9}", "gate.held_out"),
        ("gate: {alarm_budget: often}", "gate.alarm_budget"),
        ("gate: {champion_alarms: some}", "gate.champion_alarms"),
    ],
)
def test_a_wrong_gate_is_named(line: str, words: str, tmp_path: object) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("feature_schema: {name: x, version: 1}\nreader: {features: numeric}\n" + line + "\n")
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert words in str(caught.value)
