"""A retraining that is killed, or meets another one, leaves the current release as it was and can be run again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.releases.history import previous_release
from dwcp_training.retrain.lock import only_one
from tests.retrain.conftest import Bench
from tests.training.conftest import REPOSITORY, WITHOUT_CROSS_CHECKS

WAIT = 120
SEED = int(os.environ.get("DWCP_KILL_SEED", random.randrange(10**6)))
"""Of the times at which processes are killed; a failure prints it."""


def start(bench: Bench, month: int) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    arguments = ["retrain", "--models", bench.models, "--profile", bench.profile, "--data", bench.data(month)]
    return subprocess.Popen(
        [sys.executable, "-c", WITHOUT_CROSS_CHECKS, *arguments],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def kill_at_random(bench: Bench, kills: int) -> list[str]:
    """Kills a retraining again and again at random times of its run; which ids were found current afterwards."""
    began = time.monotonic()
    process = start(bench, 2)
    printed = process.communicate(timeout=WAIT)[0]
    assert process.returncode == 0, printed
    length = time.monotonic() - began
    generator, found = random.Random(SEED), []
    for number in range(kills):
        month = (3, 2)[number % 2]
        process = start(bench, month)
        # More often near the end, where it publishes.
        time.sleep(length * generator.choice((generator.random(), 0.6 + 0.5 * generator.random())))
        process.send_signal(signal.SIGKILL)
        printed = process.communicate(timeout=WAIT)[0]
        assert process.returncode in (-signal.SIGKILL, 0, 3), f"seed {SEED}: {printed}"
        found.append(ModelSet.open(bench.models).id)
        assert previous_release(bench.models) != bench.current
    process = start(bench, 3)
    printed = process.communicate(timeout=WAIT)[0]
    assert process.returncode in (0, 3), f"seed {SEED}: {printed}"
    final = ModelSet.open(bench.models)
    leftovers = [path for path in bench.models.rglob(".*") if path.name not in (".lock", ".retrain")]
    assert leftovers == [], f"seed {SEED}"
    for release in (bench.models / "releases").iterdir():
        ModelSet.open(release)
    return [*found, final.id]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_many_random_times(bench: Bench) -> None:
    assert len(set(kill_at_random(bench, 30))) > 1, "some of the runs were killed too late"


KILLED_IN = """
import os, signal, sys
import pytest
from pathlib import Path
from dwcp_sidecar.model_set import ModelSet
from dwcp_training import publish as publishing
from dwcp_training.releases import history
from dwcp_training.retrain import command
from tests.training import conftest

conftest.leave_out_cross_checks(pytest.MonkeyPatch())
point, arguments = sys.argv[1], sys.argv[2:]
owner, name = {
    "split": (command, "set_apart"), "trained": (command, "judge"), "decided": (command, "publish_set"),
    "writing": (publishing, "_make_current"), "switched": (publishing, "record_switch"),
    "recorded": (publishing, "_prune"),
}[point]
original = getattr(owner, name)

def dying(*given, **named):
    models = Path(arguments[arguments.index("--models") + 1])
    if point in ("writing", "switched", "recorded") and given[0] != models:  # the challenger's own folder
        return original(*given, **named)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, dying)
from dwcp_training.cli import app
app(arguments)
"""


SLOW = [pytest.param(point, marks=pytest.mark.slow) for point in ("split", "trained", "decided", "writing", "recorded")]


@pytest.mark.parametrize("point", ["switched", *SLOW])
def test_killed_at_a_point(point: str, bench: Bench) -> None:
    first = bench.current
    arguments = ["retrain", "--models", bench.models, "--profile", bench.profile, "--data", bench.data(2)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_IN, point, *arguments], cwd=REPOSITORY, capture_output=True, text=True,
        timeout=WAIT,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    models = ModelSet.open(bench.models)
    assert (models.id[:16] == first) == (point not in ("switched", "recorded"))
    if models.id[:16] != first:
        assert previous_release(bench.models) == first, "the way back is known, also when the history missed the switch"
    result = bench.retrain("--data", bench.data(2))
    assert result.exit_code == 0, result.output
    assert [path.name for path in bench.models.glob("releases/.*")] == []


@pytest.mark.slow  # trains in new processes
def test_two_at_once(bench: Bench) -> None:
    first = start(bench, 2)
    try:
        lock = bench.models / ".retrain/lock"
        end = time.monotonic() + WAIT
        while not (lock.is_file() and f"process {first.pid}" in lock.read_text()):
            assert time.monotonic() < end
            assert first.poll() is None, first.communicate()[0]
            time.sleep(0.02)
        result = bench.retrain("--data", bench.data(3))
        assert result.exit_code == 1
        assert f"another retraining is at work in {bench.models} (process {first.pid}, since" in result.output
    finally:
        printed = first.communicate(timeout=WAIT)[0]
    assert first.returncode == 0, printed
    assert ModelSet.open(bench.models).metadata["isolation_forest"].training.data_source == "month_2.csv"


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys, time; from pathlib import Path; from dwcp_training.retrain.lock import only_one\n"
            "with only_one(Path(sys.argv[1]), Path('models')): print('held', flush=True); time.sleep(600)",
            tmp_path,
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Exception, match=f"process {holder.pid}"), only_one(tmp_path, Path("models")):
        pass
    holder.kill()
    holder.communicate(timeout=WAIT)
    assert f"process {holder.pid}" in (tmp_path / "lock").read_text()
    with only_one(tmp_path, Path("models")):
        assert f"process {os.getpid()}" in (tmp_path / "lock").read_text()
