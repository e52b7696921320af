"""Engines give the same results, begin a task anew whose process was killed, and leave no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dwcp_training.fleet.engines import Loop, Lost, Processes, engine_of
from tests.fleet import tasks
from tests.fleet.links import train, write_links


def test_every_item_has_its_result() -> None:
    with engine_of("local", 1) as loop, engine_of("local", 2) as processes:
        assert isinstance(loop, Loop)
        assert isinstance(processes, Processes)
        wanted = [(item, 3 * item) for item in range(40)]
        assert list(loop.run(tasks.double, 3, range(40))) == wanted
        assert sorted(processes.run(tasks.double, 3, range(40))) == wanted
        with pytest.raises(ValueError, match="item 0"):
            list(processes.run(tasks.fail, 0, [0]))


def test_a_killed_process_costs_no_task_but_one_that_kills_each_time(tmp_path: Path) -> None:
    with engine_of("local", 2) as processes:
        items = [(number, {3: 1, 5: 9}.get(number, 0)) for number in range(8)]
        found = dict(processes.run(tasks.killed, str(tmp_path), items))
    assert [item for item in items if item[0] != 5] == sorted(item for item in found if found[item] == item)
    assert isinstance(found[(5, 9)], Lost)
    assert 3 <= len(list(tmp_path.glob("5-*"))) <= 4  # the first time perhaps beside others


def test_processes_end_when_the_one_that_started_them_is_killed(tmp_path: Path) -> None:
    code = (
        "from tests.fleet import tasks; from dwcp_training.fleet.engines import Processes\n"
        f"if __name__ == '__main__': list(Processes(1).run(tasks.sleeps, {str(tmp_path)!r}, range(2)))"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    root = Path(__file__).parents[2]
    paths = f"{root}:{os.environ.get('PYTHONPATH', '')}"
    process = subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": paths})
    until = time.monotonic() + 60
    while not (started := [int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()]):
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while Path(f"/proc/{started[0]}").exists() and "Z" not in Path(f"/proc/{started[0]}/stat").read_text().split()[2]:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_processes_train_the_same_fleet_as_a_loop(tmp_path: Path, profile: str) -> None:
    data = write_links(tmp_path / "data", "abc")
    assert train(data, tmp_path / "loop", profile) == 0
    assert train(data, tmp_path / "processes", profile, workers=2) == 0
    assert (tmp_path / "loop/fleet.json").read_bytes() == (tmp_path / "processes/fleet.json").read_bytes()
