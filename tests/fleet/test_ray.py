"""The same fleet and the same scores from Ray; a killed worker costs nothing; nobody outside can reach it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dwcp_training.fleet.engine_ray import Ray
from dwcp_training.fleet.engines import Lost
from dwcp_training.fleet.score import Options, run_score
from tests.fleet import tasks
from tests.fleet.links import train, write_links

pytestmark = pytest.mark.slow
pytest.importorskip("ray")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def engine() -> Iterator[Ray]:
    """One Ray for all tests of this module; commands use the one that is there."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{ROOT}:{before or ''}"  # workers must find the tasks of the tests
    engine = Ray(2)
    yield engine
    engine.close()
    os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def test_every_item_has_its_result(engine: Ray) -> None:
    assert sorted(engine.run(tasks.double, 3, range(9))) == [(item, 3 * item) for item in range(9)]
    assert sorted(engine.stream(tasks.double, 3, range(9))) == [(item, 3 * item) for item in range(9)]


def test_a_killed_worker_costs_no_task_but_one_that_kills_each_time(engine: Ray, tmp_path: Path) -> None:
    items = [(number, {3: 1, 5: 9}.get(number, 0)) for number in range(6)]
    found = dict(engine.run(tasks.killed, str(tmp_path), items))
    assert isinstance(found.pop((5, 9)), Lost)
    assert sorted(found.values()) == sorted(found)
    assert len(list(tmp_path.glob("5-*"))) == 3
    streamed = tmp_path / "streamed"
    streamed.mkdir()
    assert sorted(item for item, _ in engine.stream(tasks.killed, str(streamed), [(0, 0), (1, 1)])) == [(0, 0), (1, 1)]
    assert (streamed / "1-0").exists()


def test_it_trains_the_same_fleet_and_gives_the_same_scores(engine: Ray, tmp_path: Path, profile: str) -> None:
    data = write_links(tmp_path / "data")
    assert train(data, tmp_path / "loop", profile) == 0
    assert train(data, tmp_path / "ray", profile, workers=2, engine="ray") == 0
    assert (tmp_path / "loop/fleet.json").read_bytes() == (tmp_path / "ray/fleet.json").read_bytes()
    for name, workers in (("local", 1), ("ray", 2)):
        assert run_score(Options(tmp_path / "loop", data, tmp_path / f"{name}-scores", "link", name, workers)) == 0
    for file in ("link=a/part-0.parquet", "link=b/part-0.parquet"):
        local, ray = (pq.read_table(tmp_path / f"{name}-scores" / file, partitioning=None) for name in ("local", "ray"))
        assert local.equals(ray)


def test_it_listens_on_the_loopback_address_alone() -> None:
    """In a process of its own: Ray reads at its import where it may listen."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "tests.fleet.listening"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=200
    )
    listening = done.stdout.splitlines()[-1].split()
    assert len(listening) >= 3
    # 127.0.0.1 as the kernel writes it, by itself and as an address of IPv6.
    assert {address[-8:] for address in listening} == {"0100007F"}
