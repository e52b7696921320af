"""Several processes on one file of marks: writers at once, readers while it is written, writers that are killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from dwcp_training.data import DataError
from dwcp_training.feedback.marks import Mark, Verdict
from dwcp_training.feedback.store import FILE, FeedbackStore

BATCH = 50
"""Marks in a transaction of a writer; all of one have its number as their note."""

SEED = int(os.environ.get("DWCP_KILL_SEED", random.randrange(10**6)))
"""Of the times at which writers are killed; a failure prints it."""


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])  # imports are slow, and a kill in the middle of them tells nothing


def write(path: Path, name: str, batches: int, said: Connection) -> None:
    """Stores batches, and says the number of each when it is stored."""
    store = FeedbackStore(path)
    for batch in range(batches):
        starts = range(batch * BATCH, (batch + 1) * BATCH)
        store.add([Mark(start, start, Verdict.TRUE, name, note=str(batch)) for start in starts])
        said.send(batch)


class Writer:
    """`write` in a process of its own."""

    def __init__(self, path: Path, name: str, batches: int) -> None:
        self._heard, says = PROCESSES.Pipe(duplex=False)
        self.process = PROCESSES.Process(target=write, args=(path, name, batches, says))
        self.process.start()
        says.close()

    def kill(self) -> None:
        """SIGKILL, which one that has ended already does not mind."""
        self.process.kill()

    def end(self) -> int:
        """Waits for the end; its exit status."""
        self.process.join(30)
        assert self.process.exitcode is not None
        return self.process.exitcode

    def heard(self) -> list[int]:
        """The numbers that it said, after its end, or at least one while it is at work."""
        found = []
        try:
            while not found or self._heard.poll():
                found.append(self._heard.recv())
        except EOFError:
            pass
        return found


def whole_batches(marks: list[Mark]) -> dict[str, list[int]]:
    """Series to the numbers of its batches; fails when one is not whole."""
    counts: dict[tuple[str, str], int] = {}
    for mark in marks:
        counts[mark.series, mark.note] = counts.get((mark.series, mark.note), 0) + 1
    assert set(counts.values()) <= {BATCH}, "part of a transaction was seen"
    found: dict[str, list[int]] = {}
    for series, note in counts:
        found.setdefault(series, []).append(int(note))
    return found


def test_two_writers_at_once_and_a_reader(tmp_path: Path) -> None:
    """Both make the file, too: it is not there before."""
    path = tmp_path / FILE
    writers = [Writer(path, name, 12) for name in ("a", "b")]
    store, seen, most = FeedbackStore(path), 0, 0
    deadline = time.monotonic() + 60
    while any(writer.process.is_alive() for writer in writers) and time.monotonic() < deadline:
        marks = store.all()
        whole_batches(marks)
        assert len(marks) >= most, "what was read once is there"
        seen, most = seen + 1, len(marks)
    for writer in writers:
        assert writer.end() == 0
    assert seen > 1
    assert {name: sorted(found) for name, found in whole_batches(store.all()).items()} == {
        "a": list(range(12)), "b": list(range(12)),
    }  # fmt: skip
    assert len({mark.id for mark in store.all()}) == 2 * 12 * BATCH


def test_a_writer_that_is_killed_leaves_whole_transactions(tmp_path: Path) -> None:
    generator = random.Random(SEED)
    for number in range(3):
        path = tmp_path / f"{number}.db"
        writer = Writer(path, "a", 10_000)
        acknowledged = writer.heard()  # it is at work
        time.sleep(0.3 * generator.random())
        writer.kill()
        assert writer.end() == -signal.SIGKILL
        acknowledged += writer.heard()
        found = sorted(whole_batches(FeedbackStore(path).all())["a"])
        assert found == list(range(len(found))), f"seed {SEED}"
        assert len(found) > max(acknowledged), f"seed {SEED}: what was acknowledged is there"
        FeedbackStore(path).add([Mark(-1, -1, Verdict.FALSE, "after")])
        database = sqlite3.connect(path)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",), f"seed {SEED}"
        database.close()


def test_a_writer_killed_while_it_makes_the_file_is_not_in_the_way(tmp_path: Path) -> None:
    generator = random.Random(SEED)
    for number in range(3):
        path = tmp_path / f"{number}.db"
        writer = Writer(path, "a", 1)
        deadline = time.monotonic() + 30
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(0.01 * generator.random())
        writer.kill()
        writer.end()
        store = FeedbackStore(path)
        before = len(store.all())
        assert before in (0, BATCH), f"seed {SEED}"
        store.add([Mark(-1, -1, Verdict.FALSE, "after")])
        assert len(store.all()) == before + 1, f"seed {SEED}"


def test_readers_do_not_wait_and_writers_say_so(tmp_path: Path) -> None:
    path = tmp_path / FILE
    FeedbackStore(path).add([Mark(1, 1, Verdict.TRUE)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM mark")
    try:
        assert len(FeedbackStore(path, wait=0.1).all()) == 1, "what is not committed is not seen"
        with pytest.raises(DataError, match=r"locked\.\nAnother process has been writing for 0\.1 s"):
            FeedbackStore(path, wait=0.1).add([Mark(2, 2, Verdict.TRUE)])
    finally:
        other.execute("ROLLBACK")
        other.close()
    FeedbackStore(path).add([Mark(2, 2, Verdict.TRUE)])
    assert len(FeedbackStore(path).all()) == 2


def test_a_full_disk_stores_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / FILE
    store = FeedbackStore(path)
    store.add([Mark(1, 1, Verdict.TRUE)])
    connect = sqlite3.connect

    def small(*arguments: object, **more: object) -> sqlite3.Connection:
        database = connect(*arguments, **more)
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")  # SQLITE_FULL, as on a full disk
        return database

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(DataError, match="full"):
        store.add([Mark(k, k, Verdict.TRUE, note="x" * 2000) for k in range(2, 30)])
    monkeypatch.setattr(sqlite3, "connect", connect)
    assert len(store.all()) == 1
