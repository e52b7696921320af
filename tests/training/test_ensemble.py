"""The ensemble: the common scale, joined scores, fitted weights, publishing beside its members (EN1 to EN8)."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner, Result

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar import detectors
from dwcp_sidecar.audit import is_midpoint
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.verdicts import Explain
from dwcp_training.calibrate import midpoint_below, midpoint_threshold
from dwcp_training.cli import app
from dwcp_training.cli_options import weights_of
from dwcp_training.data import DataError, DataErrorCode, Telemetry, forest_rows, labelled_series, write_csv
from dwcp_training.detectors import fitted_weights
from dwcp_training.detectors.ensemble import EnsembleReference, fit_ensemble, on_common_scale, weighted_mean
from dwcp_training.detectors.fitted_weights import fit_weights, grid
from dwcp_training.detectors.member_scores import items_of, members_of
from dwcp_training.golden.make import boundary_distance
from dwcp_training.pipeline import Trained, export, fit, train
from dwcp_training.profiles import (
    EnsembleDefaults,
    IsolationForestDefaults,
    LocalOutlierFactorDefaults,
    LstmClassifierDefaults,
    OneClassSvmDefaults,
    load_profile,
)
from dwcp_training.profiles.errors import ProfileError
from tests.conformance.reference.ensemble import EnsembleOracle
from tests.training.conftest import leave_out_cross_checks

WEIGHTS = {"isolation_forest": 0.5, "local_outlier_factor": 0.3, "one_class_svm": 0.2}
ROWS = forest_rows(600)


def train_members(folder: Path, telemetry: Telemetry = ROWS) -> None:
    with pytest.MonkeyPatch.context() as patch:
        leave_out_cross_checks(patch)
        train("isolation_forest", telemetry, IsolationForestDefaults(n_estimators=10), folder)
        train("local_outlier_factor", telemetry, LocalOutlierFactorDefaults(n_neighbors=8), folder)
        train("one_class_svm", telemetry, OneClassSvmDefaults(), folder)


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """A folder with three detectors and their ensemble. Tests that write copy it."""
    folder = tmp_path_factory.mktemp("ensemble")
    train_members(folder)
    return folder, train("ensemble", ROWS, EnsembleDefaults(weights=WEIGHTS), folder, models=folder)


@pytest.fixture
def copied(joined: tuple[Path, Trained], tmp_path: Path) -> Path:
    shutil.copytree(joined[0], tmp_path / "models", symlinks=True)
    return tmp_path / "models"


def by_hand(models: ModelSet, items: np.ndarray) -> list[tuple[float, list[float], list[float]]]:
    """EN4, EN7 and EN8 in plain Python: score, contributions and expected of each item."""
    members = models.metadata["ensemble"].ensemble.members
    found = []
    for item in items:
        n, verdicts = [], []
        for member in members:
            model = models.model(detectors.NAMES[member.detector])
            verdict = model.score(item[-model.timesteps :].tolist(), Explain.ALWAYS)
            u = max(0.0, (float(verdict.scores[0]) - member.low) / (member.threshold - member.low))
            n.append(u / (u + 7 / 3))
            verdicts.append(verdict)
        shares = [member.weight * value for member, value in zip(members, n, strict=True)]
        total = sum(shares)
        contributions = [
            sum(share * float(verdict.contributions[0][j]) for share, verdict in zip(shares, verdicts, strict=True))
            / total
            if total
            else 0.0
            for j in range(items.shape[2])
        ]
        expected = verdicts[shares.index(max(shares))].expected[0].tolist()
        found.append((total / sum(member.weight for member in members), contributions, expected))
    return found


def test_scores_are_those_of_the_rules(joined: tuple[Path, Trained]) -> None:
    models = ModelSet.open(joined[0])
    rng = np.random.default_rng(3)
    items = ROWS.values[:60, np.newaxis] * rng.choice([1, 1, 1.5, 3, 100], (60, 1, 7))
    wanted = by_hand(models, items)
    reference = EnsembleReference(members_of(models, WEIGHTS), models.metadata["ensemble"])
    found = reference.evaluate(items)
    served = models.model("ensemble").run(items, Explain.ALWAYS)
    for k, (score, contributions, expected) in enumerate(wanted):
        assert found.scores[k] == score
        assert served.scores[k] == np.float32(score)
        assert np.allclose(found.contributions[k], contributions, rtol=1e-15, atol=0)
        assert served.expected[k].tolist() == expected == found.expected[k].tolist()
    threshold = models.metadata["ensemble"].threshold
    assert served.is_anomaly.tolist() == [float(np.float32(score)) > threshold for score, _, _ in wanted]
    assert served.is_anomaly.any()
    assert not served.is_anomaly.all()
    assert np.array_equal(reference.scores(items), found.scores)


def test_the_reference_of_the_judge_says_the_same(joined: tuple[Path, Trained]) -> None:
    """It takes the scales from the members, not from the metadata of the ensemble."""
    items = ROWS.values[:60, np.newaxis] * np.random.default_rng(4).choice([1, 1, 1.5, 3, 100], (60, 1, 7))
    served = ModelSet.open(joined[0]).model("ensemble").run(items, Explain.ALWAYS)
    said = EnsembleOracle(joined[0]).evaluate(items)
    assert np.array_equal(said.scores.astype(np.float32), served.scores)
    assert np.array_equal(said.contributions.astype(np.float32), served.contributions)
    assert np.array_equal(said.expected.astype(np.float32), served.expected)


def test_metadata(joined: tuple[Path, Trained]) -> None:
    metadata = joined[1].models.metadata["ensemble"]
    assert metadata.graph == model_pb2.Graph(available=False, layout="ensemble.v2")
    assert not metadata.HasField("scaler")
    assert not metadata.reference_values
    assert not metadata.HasField("timesteps")
    assert metadata.parity_class == model_pb2.PARITY_CLASS_EXACT
    assert 0.3 - 2.0**-25 < metadata.threshold < 0.3
    assert 0.7 - 2.0**-24 < metadata.ensemble.critical_threshold < 0.7
    assert len(metadata.calibration.scores) == metadata.training.held_out == 120  # the last fifth
    others = joined[1].models.metadata
    for member in metadata.ensemble.members:
        name = detectors.NAMES[member.detector]
        assert member.weight == WEIGHTS[name]
        assert member.threshold == others[name].threshold
        assert member.low == np.median(np.array(others[name].calibration.scores, np.float64))
        assert member.high == 0
    assert [m.detector for m in metadata.ensemble.members] == sorted(m.detector for m in metadata.ensemble.members)


def test_golden_vectors(joined: tuple[Path, Trained]) -> None:
    models = ModelSet.open(joined[0])  # runs them
    cases = {case.id: case for case in models.golden["ensemble"].cases}
    metadata = models.metadata["ensemble"]
    beside = {id: case for id, case in cases.items() if id.startswith("threshold/")}
    for level, threshold in (("warning", metadata.threshold), ("critical", metadata.ensemble.critical_threshold)):
        of_level = {id: case for id, case in beside.items() if id.startswith(f"threshold/{level}/")}
        assert len(of_level) >= 6
        for id, case in of_level.items():
            assert (case.score.score > threshold) == id.endswith("/anomaly")
    for name in WEIGHTS:
        assert {f"member/{name}/alone", f"member/{name}/silent"} <= cases.keys()
    assert cases["members/all"].score.score > 0.5
    assert cases["members/none"].score.score < 0.1
    assert {"error/nan/latency", "extreme/huge/everywhere", "limit/latency/warning"} & cases.keys()
    assert not joined[1].warning


def test_golden_vectors_keep_the_margin_of_the_members_too(joined: tuple[Path, Trained]) -> None:
    """V4: what the ensemble says follows from the rounded scores of its members."""
    models = ModelSet.open(joined[0])
    members = members_of(models, WEIGHTS)
    for case in models.golden["ensemble"].cases:
        if case.WhichOneof("outcome") == "score":
            item = np.array([case.samples[-1].values])[np.newaxis]
            for member in members:
                unrounded = member.unrounded(item)
                assert (boundary_distance(unrounded.ravel()) > 1e-10).all(), (case.id, member.name)
                assert np.float32(unrounded[0, 0]) == member.scores(item)[0]


def test_the_common_scale() -> None:
    scores = np.array([0, 1, 2, 3, 15, 1e30], np.float32)
    assert on_common_scale(scores, 1.0, 3.0) == pytest.approx([0, 0, 3 / 17, 0.3, 0.75, 1], rel=1e-15)
    assert weighted_mean(np.array([[0.0, 1.0, 0.5], [1.0, 1.0, 0.25]]), [0.75, 0.25]).tolist() == [0.25, 1.0, 0.4375]


NUMBERS = st.floats(0, float(np.float32(1e38)), width=32)


@given(NUMBERS, NUMBERS, st.lists(NUMBERS, min_size=2, max_size=20))
def test_the_common_scale_keeps_the_order_of_scores(a: float, b: float, scores: list[float]) -> None:
    """EN8: monotone, 0 up to `low`, 0.3 at the threshold, and no upper end within reach."""
    low, near = sorted((a, b))
    threshold = midpoint_threshold(max(near, 1e-30))
    if not low < threshold:
        low = 0.0
    ascending = np.sort(np.array(scores, np.float32))
    n = on_common_scale(ascending, low, threshold)
    assert np.isfinite(n).all()
    assert (np.diff(n) >= -1e-15).all()
    assert (n >= 0).all()
    wide = ascending.astype(np.float64)  # as the scale is: in float32 a midpoint is rounded to its neighbour
    assert (n[wide <= low] == 0).all()
    assert (n[wide < threshold] <= 0.3 + 1e-15).all()
    assert (n[wide > threshold] >= 0.3 - 1e-15).all()
    assert (n[(wide - low) < 1e6 * (threshold - low)] < 1).all()


def test_two_scores_above_the_threshold_stay_apart() -> None:
    """Where `ensemble.v1` calls both 1, the higher one stays the higher one (EN8)."""
    scores = np.array([1, 2, 5, 10, 100, 1e4, 1e6], np.float32)
    n = on_common_scale(scores, 0.0, midpoint_below(1.0))
    published = n.astype(np.float32)
    assert (np.diff(published) > 0).all()
    assert n[3] == pytest.approx(30 / 37, rel=1e-6)  # ten times the threshold
    assert np.interp(0.7, n, scores) < 10
    critical = np.array([5.44, 5.45], np.float32)  # what the default of critical_threshold means
    assert (on_common_scale(critical, 0.0, 1.0) > 0.7).tolist() == [False, True]


def test_what_an_ensemble_says_does_not_depend_on_its_batch(joined: tuple[Path, Trained]) -> None:
    model = ModelSet.open(joined[0]).model("ensemble")
    rng = np.random.default_rng(5)
    items = ROWS.values[:50, np.newaxis] * rng.choice([1, 1, 1.5, 3, 100], (50, 1, 7))
    together = model.run(items, Explain.ALWAYS)
    for k in range(0, 50, 7):
        alone = model.run(items[k : k + 1], Explain.ALWAYS)
        single = model.verdict_of(items[k], Explain.ALWAYS)
        assert alone.scores[0] == together.scores[k] == np.float32(single.score)
        assert np.array_equal(alone.contributions[0], together.contributions[k])
        assert single.contributions == together.contributions[k].tolist()


@pytest.mark.parametrize("number", [0.3, 0.7, 0.5, 1.0, 1e-3, 0.1, 1 / 3])
def test_midpoint_below(number: float) -> None:
    found = midpoint_below(number)
    assert is_midpoint(found)
    assert found < number
    above = np.nextafter(np.float32(found), np.float32(1)).astype(np.float64)  # the next float32 up, and one more
    following = (float(above) + float(np.nextafter(np.float32(above), np.float32(2)))) / 2
    assert following >= number


@pytest.mark.parametrize("members", range(2, 8))
def test_grid(members: int) -> None:
    weights = list(grid(members))
    assert 0 < len(weights) <= 1000
    assert len(set(weights)) == len(weights)
    for w in weights:
        assert len(w) == members
        assert min(w) > 0
        assert abs(sum(w) - 1) < 1e-12


def test_fitted_weights_are_the_best_of_all_that_are_tried() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(800) < 0.1
    normalized = np.clip(rng.random((3, 800)) * 0.6 + labels * np.array([[0.35], [0.1], [0.0]]), 0, 1)
    found = fit_weights(normalized, labels)
    by_weights = {
        (a, b, c): average_precision_score(labels, (a * normalized[0] + b * normalized[1] + c * normalized[2]))
        for a, b, c in itertools.product(np.arange(1, 19) / 20, repeat=3)
        if abs(a + b + c - 1) < 1e-9
    }
    assert found.best == pytest.approx(max(by_weights.values()), abs=1e-4)
    assert found.equal == pytest.approx(average_precision_score(labels, normalized.mean(axis=0)), abs=1e-4)
    assert found.best > found.equal + 0.05
    assert found.weights[0] > found.weights[1] >= found.weights[2]
    assert found.tried == 172
    assert f"{found.best:.4f}" in found.words()
    assert f"{found.equal:.4f}" in found.words()


def test_equal_weights_win_where_none_are_better() -> None:
    labels = np.array([False] * 50 + [True] * 5)
    found = fit_weights(np.tile(labels.astype(float), (3, 1)), labels)
    assert found.weights == (1 / 3, 1 / 3, 1 / 3)
    assert found.best == found.equal == 1.0


@pytest.mark.parametrize("label", [False, True])
def test_weights_cannot_be_fitted_on_one_class(label: bool) -> None:
    with pytest.raises(DataError, match="any weights fit") as caught:
        fit_weights(np.zeros((2, 10)), np.full(10, label))
    assert caught.value.code == "single_class"


@pytest.mark.parametrize("rows", [1, 9])
def test_rows_that_are_fewer_than_a_window_hold_none(rows: int) -> None:
    assert list(items_of(ROWS.rows(0, rows), 10)) == []


@pytest.mark.slow  # trains three networks
def test_members_with_windows_and_weights_from_labels(tmp_path: Path) -> None:
    """A forest and a classifier of windows: the window is the longest, and both speak of the same moment."""
    labelled = labelled_series(1_200)
    settings = LstmClassifierDefaults(window_size=4, units=(6, 4, 8), epochs=8, learning_rate=0.01)
    with pytest.MonkeyPatch.context() as patch:
        leave_out_cross_checks(patch)
        train("isolation_forest", ROWS, IsolationForestDefaults(n_estimators=10), tmp_path)
        train("lstm_classifier", labelled, settings, tmp_path)
    fitted = fit("ensemble", ROWS, EnsembleDefaults(), models=tmp_path, labelled=labelled)
    assert fitted.metadata.timesteps == 4
    assert fitted.metadata.training.fitted_on == 1_197
    assert "average precision" in fitted.facts["weights"]
    equal, best = fitted.metadata.training.history["average_precision"].values
    assert best >= equal
    assert "lstm_classifier: trained on other data" in list(fitted.metadata.training.warnings)[-1]
    with pytest.raises(DataError, match="no window of 4 samples fits into a run of") as refused:
        fit("ensemble", ROWS, EnsembleDefaults(), models=tmp_path, labelled=labelled.rows(0, 3))
    assert refused.value.code is DataErrorCode.TOO_SHORT

    trained = train("ensemble", ROWS, EnsembleDefaults(), tmp_path, models=tmp_path, labelled=labelled)
    models = trained.models
    model = models.model("ensemble")
    items = np.random.default_rng(0).permutation(labelled.values[:400]).reshape(100, 4, 7)
    wanted = by_hand(models, items)
    assert np.array_equal(model.run(items, Explain.NEVER).scores, np.array([w[0] for w in wanted], np.float32))
    longer = np.vstack([items[3] * 3, items[3]])
    assert model.score(longer.tolist()).scores[0] == np.float32(wanted[3][0])
    # The average precision that was promised is that of the published scores.
    assert labelled.labels is not None
    scores = model.score_batch(labelled.values, series=True).scores
    assert average_precision_score(labelled.labels[3:], scores) == pytest.approx(best, abs=1e-12)


def test_a_member_published_anew_removes_the_ensemble(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    train("isolation_forest", ROWS, IsolationForestDefaults(n_estimators=10), copied)
    assert "ensemble" in ModelSet.open(copied).models  # the same forest again, bit by bit
    assert not caplog.records
    train("isolation_forest", ROWS, IsolationForestDefaults(n_estimators=10, seed=1), copied)
    models = ModelSet.open(copied)
    assert set(models.models) == set(WEIGHTS)
    assert not (copied / "ensemble_metadata.json").exists()
    assert "the ensemble that was in" in caplog.text
    assert "isolation_forest became another model" in caplog.text


def test_who_is_no_member_may_change(copied: Path, no_cross_check: None, caplog: pytest.LogCaptureFixture) -> None:
    pair = EnsembleDefaults(weights={"isolation_forest": 0.5, "one_class_svm": 0.5})
    trained = train("ensemble", ROWS, pair, copied, models=copied)
    assert "local_outlier_factor has no weight" in trained.facts["left out"]
    train("local_outlier_factor", ROWS, LocalOutlierFactorDefaults(n_neighbors=9), copied)
    assert "ensemble" in ModelSet.open(copied).models
    assert not caplog.records


def test_a_member_with_another_threshold_refuses_the_set(joined: tuple[Path, Trained], tmp_path: Path) -> None:
    """EN2, for whoever does not publish with this code: the reader refuses."""
    models = ModelSet.open(joined[0])
    changed = replace_threshold(models, tmp_path)
    with pytest.raises(ContractError, match="EN2") as caught:
        ModelSet.open(changed)
    assert caught.value.code == "METADATA_INVALID"


def replace_threshold(models: ModelSet, folder: Path) -> Path:
    """A copy of a set whose ensemble was made for another threshold of its first member."""
    from dwcp_sidecar import protojson
    from dwcp_training import publish

    files = {path.name: path.read_bytes() for path in models.path.iterdir()}
    metadata = model_pb2.ModelMetadata()
    metadata.CopyFrom(models.metadata["ensemble"])
    metadata.ensemble.members[0].threshold *= 1.001
    files["ensemble_metadata.json"] = protojson.dumps(metadata).encode()
    manifest = protojson.parse(files.pop("manifest.json"), model_pb2.Manifest(), "manifest.json")
    entries = {detectors.NAMES[entry.detector]: entry for entry in manifest.models}
    serving = {entry.path: files[entry.path] for entry in manifest.files if entry.role == model_pb2.FILE_ROLE_SERVING}
    for name, data in serving.items():
        (folder / name).write_bytes(data)
    (folder / "manifest.json").write_bytes(protojson.dumps(publish._manifest(entries, serving, {})).encode())
    return folder


def test_a_member_that_is_named_and_not_there(joined: tuple[Path, Trained]) -> None:
    weights = {"isolation_forest": 0.4, "one_class_svm": 0.2, "dense_autoencoder": 0.4}
    fitted = fit("ensemble", ROWS, EnsembleDefaults(weights=weights), models=joined[0])
    found = {detectors.NAMES[m.detector]: m.weight for m in fitted.metadata.ensemble.members}
    assert found == {"isolation_forest": pytest.approx(2 / 3), "one_class_svm": pytest.approx(1 / 3)}
    assert abs(sum(found.values()) - 1) <= 1e-9
    assert "dense_autoencoder is not in the set; the others share its weight" in fitted.facts["left out"]
    with pytest.raises(DataError, match="the set has no dense_autoencoder") as caught:
        fit("ensemble", ROWS, EnsembleDefaults(weights=weights), models=joined[0], given=True)
    assert caught.value.field == "weights"


def refused(models: Path, message: str, telemetry: Telemetry = ROWS, **settings: Any) -> DataError:
    with pytest.raises(DataError, match=message) as caught:
        fit_ensemble(telemetry, EnsembleDefaults(**settings), models=models)
    assert caught.value.remedy
    return caught.value


def test_it_refuses_too_few_members_and_other_metrics(joined: tuple[Path, Trained], tmp_path: Path) -> None:
    alone = {"isolation_forest": 0.5, "lstm_autoencoder": 0.5}
    assert refused(joined[0], "joins two or more detectors", weights=alone).field == "models"
    schema = ROWS.schema.model_copy(update={"features": ROWS.schema.features[::-1]})
    other = replace(ROWS, schema=schema)
    assert refused(joined[0], "the members score bandwidth", telemetry=other).field == "profile"
    with pytest.raises(ContractError, match="is no model set"):
        fit_ensemble(ROWS, EnsembleDefaults(), models=tmp_path)


def test_it_refuses_members_that_disagree_on_the_schema(tmp_path: Path, no_cross_check: None) -> None:
    schema = ROWS.schema.model_copy(update={"features": ROWS.schema.features[::-1]})
    turned = replace(ROWS, schema=schema, values=ROWS.values[:, ::-1])
    train("isolation_forest", ROWS, IsolationForestDefaults(n_estimators=5), tmp_path)
    train("one_class_svm", turned, OneClassSvmDefaults(max_rows=100), tmp_path)
    assert refused(tmp_path, "Members have the same features in the same order").field == "one_class_svm"


def test_it_refuses_a_member_in_the_tolerance_class(joined: tuple[Path, Trained], monkeypatch: Any) -> None:
    opened = ModelSet.open(joined[0])
    opened.models["one_class_svm"].exact = False
    monkeypatch.setattr("dwcp_training.detectors.ensemble.ModelSet.open", lambda _: opened)
    assert "--precision float64" in refused(joined[0], "TOLERANCE class").remedy


def alarming_on_half(models: Path, names: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened from now on, these detectors have a threshold below the median of their held-out scores."""
    opened = ModelSet.open(models)
    for name in names:
        metadata = opened.metadata[name]
        metadata.threshold = float(metadata.calibration.scores[0])
    monkeypatch.setattr("dwcp_training.detectors.ensemble.ModelSet.open", lambda _: opened)


def test_a_member_that_alarms_on_half_of_normal_data_is_left_out(
    joined: tuple[Path, Trained], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its threshold is not above `low`, so that the scale of EN8 has no place for it."""
    alarming_on_half(joined[0], ["local_outlier_factor"], monkeypatch)
    metadata = fit("ensemble", ROWS, EnsembleDefaults(weights=WEIGHTS), models=joined[0]).metadata
    found = {detectors.NAMES[m.detector]: m.weight for m in metadata.ensemble.members}
    assert found == {"isolation_forest": pytest.approx(5 / 7), "one_class_svm": pytest.approx(2 / 7)}
    warning = "local_outlier_factor is left out of the ensemble: its threshold"
    assert [text for text in metadata.training.warnings if text.startswith(warning)]
    assert warning in caplog.text


def test_one_member_that_remains_is_an_ensemble_by_itself(
    joined: tuple[Path, Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    """EN1 asks for members, not for several."""
    alarming_on_half(joined[0], ["local_outlier_factor", "one_class_svm"], monkeypatch)
    fitted = fit("ensemble", ROWS, EnsembleDefaults(), models=joined[0])
    (member,) = fitted.metadata.ensemble.members
    assert (detectors.NAMES[member.detector], member.weight) == ("isolation_forest", 1.0)
    golden = export("ensemble", fitted, 42)[0].golden
    assert golden is not None
    assert len(golden.cases) > 50


def test_it_refuses_when_all_members_alarm_on_half(joined: tuple[Path, Trained], monkeypatch: Any) -> None:
    alarming_on_half(joined[0], list(WEIGHTS), monkeypatch)
    error = refused(joined[0], "no detector can be a member; isolation_forest: its threshold")
    assert error.field == "models"
    assert "--alarm-budget" in error.remedy


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": {"isolation_forest": 0.5, "one_class_svm": 0.4}}, "sum to 0.9, and must sum to 1"),
        ({"weights": {"isolation_forrest": 1.0}}, "no detector is called isolation_forrest.*isolation_forest"),
        ({"weights": {"ensemble": 1.0}}, "no detector is called ensemble"),
        ({"weights": {"isolation_forest": 0.0, "one_class_svm": 1.0}}, "greater than 0"),
        ({"warning_threshold": 0.8}, "must be below critical_threshold"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EnsembleDefaults(**settings)


def test_weights_of_the_document() -> None:
    weights = load_profile("industrial").detectors.ensemble.weights
    assert weights == {"dense_autoencoder": 0.4, "isolation_forest": 0.3, "lstm_classifier": 0.3}


def test_a_profile_with_wrong_weights_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "feature_schema: {name: x, version: 1}\nreader: {features: numeric}\n"
        "detectors: {ensemble: {weights: {isolation_forest: 0.4}}}\n"
    )
    with pytest.raises(ProfileError, match=r"sum to 0\.4"):
        load_profile(path)


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", "ensemble", *map(str, arguments)], env={"COLUMNS": "160"})


@pytest.mark.slow  # a new process for each command
def test_command(copied: Path, tmp_path: Path) -> None:
    write_csv(ROWS, tmp_path / "normal.csv")
    weights = "isolation_forest=0.25,local-outlier-factor=0.25,one_class_svm=0.5"
    result = invoke("--models", copied, "--data", tmp_path / "normal.csv", "--weights", weights)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.replace("│", " ").split())  # the table breaks lines where it has to
    assert "isolation_forest 0.25, local_outlier_factor 0.25, one_class_svm 0.5" in said
    labelled = labelled_series(700)
    write_csv(labelled, tmp_path / "labelled.csv")
    assert labelled.timestamps is not None
    assert labelled.labels is not None
    lines = [f"{time}Z,{time}Z\n" for time in labelled.timestamps[labelled.labels]]
    (tmp_path / "faults.csv").write_text("start,end\n" + "".join(lines))
    fitted = invoke(
        "--models", copied, "--data", tmp_path / "normal.csv",
        "--fit-on", tmp_path / "labelled.csv", "--labels", tmp_path / "faults.csv",
    )  # fmt: skip
    assert fitted.exit_code == 0, fitted.output
    assert "average precision" in fitted.stdout
    assert "with equal weights" in fitted.stdout
    assert "ensemble" in ModelSet.open(copied).models


def test_command_refuses(copied: Path, tmp_path: Path) -> None:
    data = ("--models", copied, "--data", tmp_path / "normal.csv")
    write_csv(ROWS, tmp_path / "normal.csv")
    before = ModelSet.open(copied).id
    for arguments, status, words in (
        (("--models", copied), 2, "--synthetic"),
        ((*data, "--weights", "isolation_forest=0.4,one_class_svm=0.3"), 2, "sum to 0.7"),
        ((*data, "--weights", "isolation_forest"), 2, "is no weight"),
        ((*data, "--weights", "isolation_forest=0.5,dense_autoencoder=0.5"), 1, "the set has no dense_autoencoder"),
        ((*data, "--label-column", "x"), 2, "--fit-on"),
        ((*data, "--fit-on", tmp_path / "normal.csv"), 1, "nothing says which rows are anomalies"),
        ((*data, "--fit-on", tmp_path / "normal.csv", "--weights", "one_class_svm=1"), 2, "give one"),
        (("--models", tmp_path / "none", "--data", tmp_path / "normal.csv"), 1, "is no model set"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == status, (arguments, result.output)
        assert words in " ".join(result.stderr.split()), (arguments, result.stderr)
    assert ModelSet.open(copied).id == before
    assert weights_of("a=0.5, b=0.5") == {"a": 0.5, "b": 0.5}
    assert fitted_weights.MOST_WEIGHTS == 1_000


@pytest.mark.slow
def test_evaluate_measures_it_like_any_detector(joined: tuple[Path, Trained], tmp_path: Path) -> None:
    write_csv(ROWS, tmp_path / "normal.csv")
    arguments = ["evaluate", "--models", joined[0], "--data", tmp_path / "normal.csv", "--inject"]
    figures = tmp_path / "figures.json"
    result = CliRunner().invoke(app, [*map(str, arguments), "--json", str(figures)], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    found = json.loads(figures.read_text())["detectors"]["ensemble"]
    assert found["normal_rows"] == len(ROWS)
    assert 0 < found["false_positive_rate"] < 0.2
    assert found["injected"]["spike"]["latency"]["found"] > 0
