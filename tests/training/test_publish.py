"""Publishing: all or nothing, one writer at a time, and never at the expense of the set in use (A1, A2, A6)."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_training import publish as publishing
from dwcp_training.data import forest_rows
from dwcp_training.detectors.registry import DETECTORS
from dwcp_training.pipeline import export, train
from dwcp_training.profiles import IsolationForestDefaults
from dwcp_training.publish import KEPT_RELEASES, Candidate, PublishError, publish
from dwcp_training.run import Source, run
from tests.training.conftest import contents

PUBLISH_AND_DIE = """
import os, pickle, shutil, signal, sys
from pathlib import Path
from dwcp_sidecar.model_set import ModelSet
from dwcp_training import publish as publishing

point, count, candidate, output = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
owner, name = {
    "write": (publishing, "_write"), "open": (ModelSet, "open"), "rename": (Path, "rename"),
    "link": (publishing, "_link"),
    "replace": (Path, "replace"), "prune": (publishing, "_prune"), "rmtree": (shutil, "rmtree"),
}[point]
original = getattr(owner, name)
calls = 0

def dying(*args, **kwargs):
    global calls
    calls += 1
    if calls == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)

setattr(owner, name, dying)
publishing.publish(output, [pickle.loads(Path(candidate).read_bytes())])
"""


def small_forest(seed: int) -> Candidate:
    fitted = DETECTORS["isolation_forest"].fit(forest_rows(200), IsolationForestDefaults(n_estimators=3, seed=seed))
    candidate, warning = export("isolation_forest", fitted, seed)
    assert warning == ""
    return candidate


@pytest.fixture(scope="module")
def forests() -> list[Candidate]:
    patch = pytest.MonkeyPatch()
    patch.setattr("dwcp_training.detectors.isolation_forest.cross_check_forest", lambda *_: {})
    try:
        return [small_forest(seed) for seed in range(KEPT_RELEASES + 2)]
    finally:
        patch.undo()


POINTS = [
    ("write", 1), ("write", 4), ("open", 2), ("rename", 1), ("link", 1), ("replace", 1), ("link", 2), ("link", 6),
    ("prune", 1), ("rmtree", 1),
]  # fmt: skip
"""The function in which the writer is killed, and at which call of it."""


@pytest.mark.parametrize(
    ("point", "count"), [p if k % 3 == 0 else pytest.param(*p, marks=pytest.mark.slow) for k, p in enumerate(POINTS)]
)
def test_kill_while_publishing_leaves_a_set_that_opens(
    point: str, count: int, forests: list[Candidate], tmp_path: Path
) -> None:
    output = tmp_path / "models"
    old = publish(output, [forests[0]])
    (tmp_path / "candidate").write_bytes(pickle.dumps(forests[1]))
    command = [sys.executable, "-c", PUBLISH_AND_DIE, point, str(count), tmp_path / "candidate", output]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert process.returncode == -signal.SIGKILL, process.stderr
    left = ModelSet.open(output)
    switched = (point, count) in (("link", 2), ("link", 6), ("prune", 1), ("rmtree", 1))
    assert (left.id != old.id) == (switched and point != "rmtree")

    final = publish(output, [forests[1]])
    assert ModelSet.open(output).id == final.id != old.id
    leftovers = [path.name for path in output.rglob(".*") if path.name != ".lock"]
    assert leftovers == []
    assert sorted(path.name for path in output.iterdir()) == sorted(
        [".lock", "current", "history.jsonl", "releases", *(path.name for path in final.path.iterdir())]
    )


def test_writers_take_turns(forests: list[Candidate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, overlaps = [], []
    original = publishing._publish

    def watched(output: Path, candidates: list[Candidate], signer: None) -> ModelSet:
        overlaps.append(bool(inside))
        inside.append(1)
        try:
            return original(output, candidates, signer)
        finally:
            inside.pop()

    monkeypatch.setattr(publishing, "_publish", watched)
    threads = [threading.Thread(target=publish, args=(tmp_path, [forest])) for forest in forests[:3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert overlaps == [False] * 3
    assert len(list((tmp_path / "releases").iterdir())) == 3
    ModelSet.open(tmp_path)


def test_second_detector_joins_the_first_and_replaces_only_itself(
    lstm_models: Path, forests: list[Candidate], tmp_path: Path
) -> None:
    output = tmp_path / "models"
    shutil.copytree(lstm_models, output, symlinks=True)
    lstm_files = contents(output)
    both = publish(output, [forests[0]])
    assert list(both.models) == ["isolation_forest", "lstm_autoencoder"]
    other = publish(output, [forests[1]])
    assert other.id != both.id
    after = contents(output)
    assert {name: after[name] for name in lstm_files if name != "manifest.json"} == {
        name: data for name, data in lstm_files.items() if name != "manifest.json"
    }


PUBLISH = """
import pickle, sys
from pathlib import Path
from dwcp_training.publish import publish

candidates = pickle.loads(Path(sys.argv[1]).read_bytes())
print("ready", flush=True)
sys.stdin.readline()
for candidate in candidates:
    publish(Path(sys.argv[2]), [candidate])
"""


@pytest.mark.slow  # trains in new processes
def test_two_scripts_at_the_same_time_both_end_up_in_the_set(
    lstm_models: Path, forests: list[Candidate], tmp_path: Path
) -> None:
    lstm = candidate_of(ModelSet.open(lstm_models), "lstm_autoencoder")
    (tmp_path / "forests").write_bytes(pickle.dumps(forests[:3]))
    (tmp_path / "lstms").write_bytes(pickle.dumps([lstm] * 3))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH, tmp_path / name, tmp_path / "models"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name in ("forests", "lstms")
    ]  # fmt: skip
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in running]
    assert errors == ["", ""]
    models = ModelSet.open(tmp_path / "models")
    assert models.metadata["isolation_forest"] == forests[2].metadata
    assert models.metadata["lstm_autoencoder"] == lstm.metadata


def candidate_of(models: ModelSet, name: str) -> Candidate:
    """What was published, as it was before."""
    metadata = models.metadata[name]
    return Candidate(
        detector=name,
        metadata_file={"isolation_forest": "model_metadata.json", "lstm_autoencoder": "lstm_metadata.json"}[name],
        metadata=metadata,
        graph=(models.path / metadata.graph.file).read_bytes(),
        golden=models.golden[name],
        byproducts={file: (models.path / file).read_bytes() for file in publishing.BYPRODUCTS[name]},
    )


@pytest.mark.parametrize("below", ["file/models", "file"])
def test_unwritable_output_is_refused_before_training(
    below: str, csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert run("isolation_forest", Source(data=[csv]), tmp_path / below, {}) == 1
    printed = capsys.readouterr()
    assert f"--output {tmp_path / below}: cannot be written" in printed.err
    assert "Name a folder" in printed.err
    assert printed.out == ""  # nothing was read, let alone trained
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "in the way"


def test_full_disk_leaves_the_old_set(
    forests: list[Candidate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = publish(tmp_path, [forests[0]])
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(publishing, "_write", full)
    with pytest.raises(PublishError, match="No space left"):
        publish(tmp_path, [forests[1]])
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
    assert ModelSet.open(tmp_path).id == old.id


def test_set_that_fails_its_verification_is_not_published(forests: list[Candidate], tmp_path: Path) -> None:
    old = publish(tmp_path, [forests[0]])
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    wrong = small_golden_lie(forests[1])
    with pytest.raises(ContractError) as caught:
        publish(tmp_path, [wrong])
    assert caught.value.code == "GOLDEN_MISMATCH"
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
    assert ModelSet.open(tmp_path).id == old.id


def small_golden_lie(candidate: Candidate) -> Candidate:
    """The candidate with one wrong bit in one golden vector."""
    golden = type(candidate.golden)()
    golden.CopyFrom(candidate.golden)
    golden.cases[0].score.score_bits ^= 1
    return Candidate(**{**vars(candidate), "golden": golden})


def test_only_the_newest_releases_are_kept(forests: list[Candidate], tmp_path: Path) -> None:
    ids = []
    for number, forest in enumerate(forests):
        models = publish(tmp_path, [forest])
        os.utime(models.path, (number, number))
        ids.append(models.id[:16])
    assert {path.name for path in (tmp_path / "releases").iterdir()} == set(ids[-KEPT_RELEASES:])
    back = publish(tmp_path, [forests[2]])  # an old set in use again is not pruned, whatever its age
    assert ModelSet.open(tmp_path).id == back.id


@pytest.mark.parametrize("links", ["followed", "kept", "release"])
def test_copied_folder_opens(links: str, forest_models: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    if links == "release":
        shutil.copytree(ModelSet.open(forest_models).path, copy)
    elif links == "kept":
        shutil.copytree(forest_models, copy, symlinks=True)
    else:
        subprocess.run(["cp", "-rL", forest_models, copy], check=True)
    assert ModelSet.open(copy).id == ModelSet.open(forest_models).id


def test_replaced_link_is_refused_and_the_next_training_puts_it_right(
    forest_models: Path, forests: list[Candidate], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(forest_models, copy, symlinks=True)
    (copy / "isolation_forest.onnx").unlink()
    (copy / "isolation_forest.onnx").write_bytes(b"from somewhere else")
    with pytest.raises(ContractError, match=r"isolation_forest\.onnx was put in the place") as caught:
        ModelSet.open(copy)
    assert (caught.value.code, caught.value.field) == ("DIGEST_MISMATCH", "isolation_forest.onnx")
    publish(copy, [forests[0]])
    ModelSet.open(copy)
    assert "is damaged and no model of it is kept" in caplog.text


def test_missing_byproducts_come_back(forests: list[Candidate], tmp_path: Path) -> None:
    first = publish(tmp_path, [forests[0]])
    (first.path / "scaler.pkl").unlink()
    ModelSet.open(tmp_path)  # a byproduct may be absent
    assert publish(tmp_path, [forests[0]]).id == first.id
    assert (first.path / "scaler.pkl").is_file()
    assert (tmp_path / "scaler.pkl").is_file()


def test_failed_training_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2 rows"):
        train("isolation_forest", forest_rows(3), IsolationForestDefaults(), tmp_path / "models")
    assert not (tmp_path / "models").exists()
