"""Plans that contradict themselves, the state of a run, trees of strangers, splits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest

from dwcp_training.data import lstm_series
from dwcp_training.detectors.registry import DETECTORS
from dwcp_training.federated.errors import FederatedError, SchemaError
from dwcp_training.federated.plan import Plan, Privacy, check_features
from dwcp_training.federated.rounds import resumed
from dwcp_training.federated.split import parts
from dwcp_training.federated.state import Round, State
from dwcp_training.federated.trees import check_tree, grown, pooled

SETTINGS = DETECTORS["dense_autoencoder"].settings().model_dump(mode="json")
FOREST = DETECTORS["isolation_forest"].settings().model_dump(mode="json")
PLAN = Plan("dense_autoencoder", SETTINGS, minimum=3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"secure": True, "robust": "median", "liars": 1}, "hides from the server"),
        ({"secure": True, "minimum": 2}, "read the other's"),
        ({"robust": "median"}, "goes with --robust"),
        ({"robust": "trimmed-mean", "liars": 2}, "too many"),
        ({"robust": "krum", "liars": 1}, "Krum needs 5"),
        ({"rounds": 0}, "must be 1 or more"),
        ({"privacy": Privacy(0.0, 1.0)}, "above 0"),
        ({"privacy": Privacy(1.0, 1.0), "robust": "median", "liars": 1}, "noise is added to an average"),
        ({"scaling": "minmax"}, "which no sum tells"),
        ({"detector": "one_class_svm"}, "cannot be trained so"),
        ({"detector": "isolation_forest", "settings": {**FOREST, "max_features": 0.5}}, "look at all features"),
    ],
)
def test_what_does_not_go_together_is_refused(change: dict, said: str) -> None:
    with pytest.raises(FederatedError, match=said):
        replace(PLAN, **change)


def test_a_plan_survives_its_text() -> None:
    plan = replace(PLAN, privacy=Privacy(2.0, 0.5), features=("a", "b"))
    assert Plan.from_json(plan.to_json()) == plan
    with pytest.raises(FederatedError, match="none of this version"):
        Plan.from_json('{"detector": 1}')


def test_another_schema_is_said_by_name() -> None:
    schema = lstm_series(100).schema
    check_features(schema.names, schema, "a")
    with pytest.raises(SchemaError, match="wifi_rssi missing; error_rate not asked for"):
        check_features((*schema.names[:-1], "wifi_rssi"), schema, "a")
    with pytest.raises(SchemaError, match="order"):
        check_features(schema.names[::-1], schema, "a")


def state() -> State:
    done = Round(1, 0.5, 0.6, 3, 10, 20, 1.5)
    weights = [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(3, np.float32)]
    return State(
        replace(PLAN, features=("a", "b")),
        cadence=60.0,
        rows=100.0,
        mean=np.array([1.0, 2.0]),
        scale=np.array([3.0, 4.0]),
        values=np.ones((2, 5), np.int64),
        weights=weights,
        best=weights,
        best_loss=0.6,
        best_round=1,
        rounds=[done],
        scores=np.array([1, 2, 3]),
    )


def test_the_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state().save(tmp_path / "run.npz")
    found = State.load(tmp_path / "run.npz")
    assert found.plan == state().plan
    assert found.rounds == state().rounds
    assert found.best_loss == 0.6
    for name in ("mean", "scale", "values", "scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(state(), name))
    assert [array.dtype for array in found.weights] == [np.float32, np.float32]
    np.testing.assert_array_equal(found.weights[0], state().weights[0])
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]


def test_a_run_goes_on_only_with_its_own_plan(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    assert not resumed(PLAN, path).rounds
    state().save(path)
    assert len(resumed(replace(PLAN, rounds=1), path).scores) == 3
    more = resumed(replace(PLAN, rounds=5), path)  # more rounds: the scores are of other weights
    assert len(more.rounds) == 1
    assert not len(more.scores)
    assert more.plan.rounds == 5
    with pytest.raises(FederatedError, match="other settings"):
        resumed(replace(PLAN, local_epochs=9), path)
    with pytest.raises(FederatedError, match="other metrics"):
        resumed(replace(PLAN, features=("a", "c")), path)


@pytest.mark.parametrize("cut", [0, 10, 400])
def test_a_damaged_state_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "run.npz"
    state().save(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FederatedError, match="cannot be read"):
        resumed(PLAN, path)


def test_pooled_trees_score_as_the_forests_they_are_from() -> None:
    rows = np.random.default_rng(1).standard_normal((600, 4))
    trees = [*grown(rows[:300], 5, 128, False, 1), *grown(rows[300:], 5, 128, False, 2)]
    forest = pooled(trees, 4, 128, 42)
    one, two = (
        IsolationForest(n_estimators=5, max_samples=128, random_state=seed).fit(part)
        for seed, part in ((1, rows[:300]), (2, rows[300:]))
    )
    # The mean path length of the pool is that of both: in the exponent of the score.
    wanted = 2 ** ((np.log2(-one.score_samples(rows)) + np.log2(-two.score_samples(rows))) / 2)
    np.testing.assert_allclose(-forest.score_samples(rows), wanted, rtol=1e-6)


def test_a_client_with_fewer_rows_than_a_tree_takes_says_so() -> None:
    with pytest.raises(FederatedError, match="fewer than the 128"):
        grown(np.zeros((100, 2)), 1, 128, False, 1)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda tree: tree[:, :4], "is no tree"),
        (lambda tree: np.where(np.arange(len(tree))[:, None] == 0, np.nan, tree), "not finite"),
        (lambda tree: tree + np.array([0.5, 0, 0, 0, 0]), "no whole number"),
        (lambda tree: tree + np.array([0, 0, 9, 0, 0]), "feature that is not there"),
        (lambda tree: np.vstack([[[0, 0, 0, 0, 4]], tree[1:]]), "one parent before it"),
        (lambda tree: tree + np.array([0, 0, 0, 0, 1]), "not those of its children"),
        (lambda tree: tree * np.array([1, 1, 1, 1, 3]), "not on 64"),
    ],
)
def test_what_is_no_tree_is_refused(spoil, said: str) -> None:
    (tree,) = grown(np.random.default_rng(1).standard_normal((100, 3)), 1, 64, False, 1)
    check_tree(tree, 3, 64)
    with pytest.raises(FederatedError, match=said):
        check_tree(spoil(tree.copy()), 3, 64)


@pytest.mark.parametrize("split", ["time", "metric", "dirichlet"])
def test_a_split_deals_every_row_once(split: str) -> None:
    telemetry = lstm_series(3000)
    sites = parts(telemetry, 5, split, skew=0.3)
    rows = np.concatenate([site.values for site in sites])
    assert len(rows) == 3000
    assert len(np.unique(rows, axis=0)) == len(np.unique(telemetry.values, axis=0))
    assert all((np.diff(site.timestamps) > np.timedelta64(0)).all() and len(site) >= 60 for site in sites)
    for site in sites:  # no segment crosses a place where rows of others were
        for start, stop in site.segments:
            assert (np.diff(site.timestamps[start:stop]) <= np.timedelta64(90, "s")).all()


def test_a_split_by_metric_is_skewed_and_one_by_dirichlet_too() -> None:
    telemetry = lstm_series(3000)
    by_metric = parts(telemetry, 5, "metric", metric="cpu_usage")
    column = telemetry.schema.index("cpu_usage")
    levels = [site.values[:, column].mean() for site in by_metric]
    assert levels == sorted(levels)
    assert levels[-1] > levels[0]
    sizes = [len(site) for site in parts(telemetry, 5, "dirichlet", skew=0.1)]
    assert max(sizes) > 2 * min(sizes)


def test_a_split_that_makes_no_sense_is_refused() -> None:
    telemetry = lstm_series(600)
    with pytest.raises(FederatedError, match="too few"):
        parts(telemetry, 10, "time")
    with pytest.raises(FederatedError, match="is none of"):
        parts(telemetry, 2, "metric", metric="nonsense")
    with pytest.raises(FederatedError, match="above 0"):
        parts(telemetry, 2, "dirichlet", skew=0)
