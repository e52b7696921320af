"""`ensemble.v2` in the core: a common scale without an upper end (EN8), and a member whose number in the enum is above
that of the ensemble."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.verdicts import Explain
from tests.sidecar.damaged import edited
from tests.sidecar.ensemble_set import (
    ENSEMBLE,
    FOREST,
    LOF,
    LSTM,
    MAHALANOBIS,
    METADATA_FILE,
    OPEN,
    SVM,
    compose,
    digest,
    float32,
    plain,
    windows,
)

WEIGHTS = {FOREST: 0.125, LSTM: 0.125, LOF: 0.125, SVM: 0.125, MAHALANOBIS: 0.5}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set, written once and never changed."""
    return compose(tmp_path_factory.mktemp("open") / "set", WEIGHTS, layout=OPEN)


@pytest.fixture(scope="module")
def opened(made: Path) -> ModelSet:
    return ModelSet.open(made)


def items() -> np.ndarray:
    return np.array([samples[-10:] for samples in windows().values()])


def test_an_ensemble_is_opened_after_a_member_with_a_higher_number(opened: ModelSet, made: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_bytes())
    order = [model["detector"].removeprefix("DETECTOR_").lower() for model in manifest["models"]]
    assert order.index(ENSEMBLE) < order.index(MAHALANOBIS)
    assert list(opened.models) == list(opened.metadata) == list(opened.golden) == order
    assert [member.name for member in opened.model(ENSEMBLE).members] == list(WEIGHTS)
    assert not any(member.missing for member in opened.model(ENSEMBLE).members)


@pytest.mark.parametrize("explain", Explain)
def test_answers_are_those_of_plain_python_alone_and_in_a_batch(explain: Explain, opened: ModelSet) -> None:
    metadata = json.loads((opened.path / METADATA_FILE).read_bytes())
    model = opened.model(ENSEMBLE)
    together = model.run(items(), explain)
    levels = set()
    for window, of_batch in zip(items().tolist(), together.each(), strict=True):
        said = plain(metadata["ensemble"], metadata["threshold"], window)
        verdict = model.verdict(window, explain)
        assert verdict == of_batch
        assert (verdict.score, verdict.is_anomaly) == (float32(said.score), said.is_anomaly)
        assert [m.normalized for m in verdict.members] == [m["normalized"] for m in said.members]
        if verdict.contributions is not None:
            assert verdict.contributions == [float32(c) for c in said.contributions]
            assert verdict.expected == said.expected
        levels.add(said.level)
    assert levels == {"NORMAL", "WARNING", "CRITICAL"}


def test_a_member_far_beyond_its_threshold_does_not_hide_how_far(opened: ModelSet) -> None:
    """`ensemble.v1` calls both 1."""
    model = opened.model(ENSEMBLE)
    usual = items()[0].tolist()
    usual[-1][1] *= 40
    far = [list(sample) for sample in usual]
    far[-1][1] *= 5
    here, there = ({m.detector: m.normalized for m in model.verdict(w).members} for w in (usual, far))
    member = model.members[-1]
    assert 0.9 < here[member.detector] < there[member.detector] < 1
    assert model.verdict(usual).score < model.verdict(far).score


def test_a_metric_at_its_critical_value_alarms_though_all_others_are_silent(opened: ModelSet) -> None:
    """Ten times the threshold (MD3) is 30/37 on the scale, and half of that is above 0.3."""
    member = opened.model(ENSEMBLE).members[-1]
    assert member.normalized(10 * member.threshold) > 30 / 37
    assert 0.5 * member.normalized(10 * member.threshold) > 0.3


def member_of(data: dict, index: int) -> dict:
    return data["ensemble"]["members"][index]


BROKEN: dict[str, Callable[[dict], object]] = {
    "high": lambda d: member_of(d, 0).update(high=1.0),
    "high_nan": lambda d: member_of(d, 0).update(high="NaN"),
    "low_is_threshold": lambda d: member_of(d, 0).update(low=member_of(d, 0)["threshold"]),
    "low_above_threshold": lambda d: member_of(d, 0).update(low=member_of(d, 0)["threshold"] * 2),
    "low_nan": lambda d: member_of(d, 0).update(low="NaN"),
    "low_infinite": lambda d: member_of(d, 0).update(low="-Infinity"),
    "as_version_1": lambda d: d["graph"].update(layout="ensemble.v1"),
    "version_3": lambda d: d["graph"].update(layout="ensemble.v3"),
    "threshold_of_a_later_member": lambda d: member_of(d, -1).update(
        threshold=math.nextafter(member_of(d, -1)["threshold"], 9)
    ),
}
"""Damage of the metadata that is METADATA_INVALID."""


@pytest.mark.parametrize("damage", BROKEN)
def test_metadata_that_contradict_are_refused(damage: str, made: Path, tmp_path: Path) -> None:
    path = shutil.copytree(made, tmp_path / "set")
    edited(path, METADATA_FILE, BROKEN[damage])
    with pytest.raises(ContractError) as refused:
        ModelSet.open(path)
    assert (refused.value.code, refused.value.field) == ("METADATA_INVALID", METADATA_FILE), refused.value.message


def test_in_version_1_too_a_threshold_lies_above_low(tmp_path: Path) -> None:
    path = compose(tmp_path / "set", {FOREST: 0.75, SVM: 0.25})
    edited(path, METADATA_FILE, lambda d: member_of(d, 0).update(low=member_of(d, 0)["threshold"] * 1.01))
    with pytest.raises(ContractError, match="is not above low") as refused:
        ModelSet.open(path)
    assert refused.value.code == "METADATA_INVALID"


def test_a_scale_that_no_audit_can_doubt_is_found_by_the_golden_vectors(made: Path, tmp_path: Path) -> None:
    path = shutil.copytree(made, tmp_path / "set")
    edited(path, METADATA_FILE, lambda d: member_of(d, -1).update(low=0.0))
    with pytest.raises(ContractError) as refused:
        ModelSet.open(path)
    assert refused.value.code == "GOLDEN_MISMATCH"


def test_an_absent_member_with_a_higher_number_is_missing(made: Path, tmp_path: Path) -> None:
    path = compose(tmp_path / "set", WEIGHTS, absent=[MAHALANOBIS], layout=OPEN)
    digest(path)
    ensemble = ModelSet.open(path).model(ENSEMBLE)
    assert [member.name for member in ensemble.members if member.missing] == [MAHALANOBIS]
    assert ensemble.verdict(items()[0].tolist()).members[-1].missing
