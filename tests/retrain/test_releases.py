"""`dwcp releases`: what is listed, switched, gone back to, compared and removed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_training import publish as publishing
from dwcp_training.data import forest_rows, write_csv
from dwcp_training.detectors.registry import DETECTORS
from dwcp_training.pipeline import export
from dwcp_training.profiles import IsolationForestDefaults
from dwcp_training.publish import Candidate, publish
from dwcp_training.releases.history import current_release, previous_release, read_history
from tests.training.conftest import leave_out_cross_checks
from tests.training.test_cli import invoke


@pytest.fixture(scope="module")
def forests() -> list[Candidate]:
    patch = pytest.MonkeyPatch()
    leave_out_cross_checks(patch)
    found = []
    for seed in range(4):
        settings = IsolationForestDefaults(n_estimators=3, seed=seed, contamination=0.01 * (1 + seed))
        fitted = DETECTORS["isolation_forest"].fit(forest_rows(200), settings)
        for name in ("seed", "contamination"):
            fitted.metadata.training.hyperparameters[name] = str(getattr(settings, name))
        found.append(export("isolation_forest", fitted, seed)[0])
    patch.undo()
    return found


@pytest.fixture
def models(forests: list[Candidate], tmp_path: Path) -> Path:
    """A folder with three releases, the last one current."""
    output = tmp_path / "models"
    for number, forest in enumerate(forests[:3]):
        release = publish(output, [forest]).path
        os.utime(release, (1_700_000_000 + number, 1_700_000_000 + number))
    return output


def names(models: Path) -> list[str]:
    """In the order in which they were made."""
    return [switch.release for switch in read_history(models)]


def run(models: Path, *arguments: str | Path, status: int = 0) -> str:
    result = invoke("releases", *arguments, "--models", models)
    assert "Traceback" not in result.output
    assert result.exit_code == status, result.output
    return result.output


def test_training_writes_the_history(models: Path) -> None:
    history = read_history(models)
    assert [switch.before for switch in history] == ["", *[switch.release for switch in history][:-1]]
    assert {switch.by for switch in history} == {"train isolation_forest"}
    assert current_release(models) == history[-1].release
    assert previous_release(models) == history[-2].release


def test_list_and_show(models: Path) -> None:
    text = run(models, "list")
    words = [word for word in text.split() if word in (*names(models), "current", "previous")]
    newest, before, oldest = names(models)[::-1]
    assert words == [newest, "current", before, "previous", oldest]
    assert text.count("isolation_forest") == 3
    listed = json.loads(run(models, "list", "--json"))
    assert [entry["state"] for entry in listed] == ["current", "previous", ""]
    assert listed[0]["detectors"]["isolation_forest"]["threshold"] == pytest.approx(
        ModelSet.open(models).metadata["isolation_forest"].threshold
    )
    shown = run(models, "show", "current")
    assert ModelSet.open(models).id in shown
    assert "all passed" in shown
    assert json.loads(run(models, "show", names(models)[0][:6], "--json"))["opens"] is True


def test_promote_goes_to_any_and_rollback_back(models: Path) -> None:
    first, second, third = names(models)
    assert f"current: {first}" in run(models, "promote", first[:8])
    assert ModelSet.open(models).id.startswith(first)
    assert f"current: {third}" in run(models, "rollback")
    assert f"current: {first}" in run(models, "rollback")
    run(models, "promote", second)
    found = json.loads(run(models, "rollback", "--json"))
    assert (found["current"], found["previous"]) == (first, second)
    assert [s.by for s in read_history(models)][3:] == ["promote", "rollback", "rollback", "promote", "rollback"]
    before = read_history(models)
    run(models, "promote", "current")
    assert read_history(models) == before, "nothing changed, and nothing is written down"


def test_rollback_after_a_switch_that_the_history_missed(models: Path) -> None:
    """A writer was killed between the switch and the history; or somebody set the link by hand."""
    first, second, third = names(models)
    (models / "next").symlink_to(f"releases/{first}")
    (models / "next").replace(models / "current")
    assert previous_release(models) == third
    run(models, "rollback")
    assert current_release(models) == third
    assert read_history(models)[-1].before == first
    (models / "history.jsonl").unlink()
    assert previous_release(models) == second, "without a history the newest other one"


def test_a_damaged_history_does_not_stop_a_rollback(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = (models / "history.jsonl").read_text().splitlines()
    (models / "history.jsonl").write_text("\n".join(["half a li", *lines, "[]", '{"when": 1}']) + "\n")
    assert f"current: {json.loads(lines[-1])['before']}" in run(models, "rollback")
    assert "line 1 says nothing" in caplog.text


def test_what_does_not_open_is_never_current(models: Path) -> None:
    first, _, third = names(models)
    graph = models / "releases" / first / "isolation_forest.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    assert "DIGEST_MISMATCH" in run(models, "promote", first, status=1)
    assert "It does not open" in run(models, "show", first, status=1)
    assert "The current release stays" in run(models, "promote", first, status=1)
    assert current_release(models) == third
    (models / "releases" / first / "manifest.json").write_text("{")
    assert "damaged" in run(models, "list")
    shutil.rmtree(models / "releases" / first)
    shutil.rmtree(models / "releases" / names(models)[1])
    assert "no release to go back to" in run(models, "rollback", status=1)


def test_only_links_change(models: Path) -> None:
    """A promotion writes no file of a set, and a reader sees one set or the other."""
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*") if path.is_file() and not path.is_symlink()}
    run(models, "rollback")
    after = {path: path.stat().st_mtime_ns for path in models.rglob("*") if path.is_file() and not path.is_symlink()}
    changed = {path.name for path in before if before[path] != after.get(path)}
    assert changed <= {"history.jsonl", ".lock"}


def test_prune_keeps_the_current_one_and_the_one_before(forests: list[Candidate], models: Path) -> None:
    first, second, third = names(models)
    run(models, "promote", first)
    run(models, "prune", "--keep", "1")
    assert {path.name for path in (models / "releases").iterdir()} == {first, third}
    fourth = publish(models, [forests[3]]).id[:16]
    assert f"removed: {third}" in run(models, "promote", fourth, "--keep", "1")
    assert {path.name for path in (models / "releases").iterdir()} == {first, fourth}
    assert second not in run(models, "list")
    run(models, "prune", "--keep", "0", status=2)


def test_training_never_removes_the_one_before(forests: list[Candidate], models: Path) -> None:
    """Also when it is the oldest: pruning after a training must leave the way back."""
    first = names(models)[0]
    run(models, "promote", first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "KEPT_RELEASES", 2)
        publish(models, [forests[3]])
    assert previous_release(models) == first
    run(models, "rollback")
    assert current_release(models) == first


def test_diff_says_what_changed(models: Path, tmp_path: Path) -> None:
    write_csv(forest_rows(300), tmp_path / "rows.csv")
    text = run(models, "diff", "previous", "current", "--data", tmp_path / "rows.csv")
    for words in ("threshold", "contamination", "0.02", "0.03", "golden samples: alarms", "300 rows of the data"):
        assert words in text
    content = json.loads(run(models, "diff", "previous", "current", "--json"))
    forest = content["detectors"]["isolation_forest"]
    changed = {change["what"]: (change["before"], change["after"]) for change in forest["changes"]}
    assert changed["contamination"] == ("0.02", "0.03")
    assert changed["seed"] == ("1", "2")
    scores = forest["scores"]["golden samples"]
    assert scores["samples"] > 50
    assert scores["alarms_after"] > 0
    same = json.loads(run(models, "diff", "current", "current", "--json"))["detectors"]["isolation_forest"]
    assert same["changes"] == []
    assert same["scores"]["golden samples"]["decisions"] == 0
    assert same["scores"]["golden samples"]["largest"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "candidate"), "no candidate"),
        (("promote", "zz"), "has no release 'zz'"),
        (("diff", "current", "zz"), "has no release 'zz'"),
    ],
)
def test_refusals(arguments: tuple[str, ...], words: str, models: Path) -> None:
    assert words in run(models, *arguments, status=1)


def test_a_folder_without_releases(tmp_path: Path) -> None:
    for arguments in (("list",), ("rollback",), ("prune", "--keep", "2"), ("promote", "current")):
        text = run(tmp_path, *arguments, status=1)
        assert "release" in text
    with pytest.raises(ContractError):
        ModelSet.open(tmp_path)
