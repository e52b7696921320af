"""Marks in a SQLite file: one transaction for each write, readers and writers of several processes at once.

The write-ahead log lets readers read what was there when they began while somebody writes, and makes a writer that is
killed leave all of its marks or none (https://www.sqlite.org/wal.html). It needs a local file system.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.feedback.marks import Mark, Verdict, contradicts

FILE = "feedback.db"
"""Name of the file in a model folder."""

SCHEMA_VERSION = 1
APPLICATION = 0x44574350
"""Says in the file's header that it is one of these ("DWCP"; `PRAGMA application_id`)."""

WAIT_SECONDS = 20.0
"""How long a writer waits for another one."""

_TABLE = """
CREATE TABLE mark (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    start INTEGER NOT NULL,
    "end" INTEGER NOT NULL CHECK ("end" >= start),
    verdict TEXT NOT NULL CHECK (verdict IN ('true', 'false', 'missed')),
    series TEXT NOT NULL,
    detector TEXT NOT NULL,
    note TEXT NOT NULL,
    "by" TEXT NOT NULL,
    marked_at INTEGER NOT NULL,
    UNIQUE (start, "end", series, detector, verdict)
) STRICT
"""
_COLUMNS = ", ".join(f'"{field.name}"' for field in fields(Mark))


@dataclass(frozen=True)
class Contradiction:
    """A mark that was given, its number among those given, and the one that it contradicts.

    Attributes:
        number: index of the mark that was not taken.
        mark: itself.
        other: what it contradicts.
        given: index of `other` among those given; None when it was in the store before.
    """

    number: int
    mark: Mark
    other: Mark
    given: int | None


class ContradictionError(Exception):
    """Marks that contradict others; none of those given was stored."""

    def __init__(self, found: Sequence[Contradiction]) -> None:
        super().__init__(f"{len(found)} contradictions")
        self.found = tuple(found)


@dataclass(frozen=True)
class Added:
    """What became of marks: the stored ones, and those that were there before, with their numbers and times."""

    stored: tuple[Mark, ...]
    known: tuple[Mark, ...]


class FeedbackStore:
    """A file of marks. Each call is a transaction of its own; nothing is held in between.

    Args:
        path: the file; `add` makes it.
        wait: seconds that a call waits for another writer.
    """

    def __init__(self, path: Path, wait: float = WAIT_SECONDS) -> None:
        self.path, self._wait = path, wait

    def add(self, marks: Sequence[Mark], now: int | None = None) -> Added:
        """Stores all marks or none. One that is there already, but for note and person, stays as it is.

        Args:
            now: nanoseconds since 1970; None asks the clock.

        Raises:
            ContradictionError: some contradict each other, or what is stored.
            DataError: the file cannot be used.
        """
        now = time.time_ns() if now is None else now
        stored: list[Mark] = []
        known: list[Mark] = []
        found: list[Contradiction] = []
        given: dict[int, int] = {}  # number in the store to index among `marks`
        with self._open(create=True) as database, _transaction(database):
            for number, mark in enumerate(marks):
                near = _marks(
                    database, 'WHERE start <= ? AND "end" >= ? ORDER BY id', (mark.end, mark.start)
                )  # whatever contradicts it shares a time with it
                against = [other for other in near if contradicts(mark, other)]
                if against:
                    found.append(Contradiction(number, mark, against[0], given.get(against[0].id)))
                    continue
                same = [other for other in near if _key(other) == _key(mark)]
                if same:
                    known.append(same[0])
                    continue
                values = astuple(mark)[:-2]
                cursor = database.execute(
                    f"INSERT INTO mark ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?)", (*values, now)
                )
                assert cursor.lastrowid is not None
                given[cursor.lastrowid] = number
                stored.append(replace(mark, id=cursor.lastrowid, marked_at=now))
            if found:
                raise ContradictionError(found)
        return Added(tuple(stored), tuple(known))

    def all(self) -> list[Mark]:
        """All marks by start; none where there is no file.

        Raises:
            DataError: the file cannot be used.
        """
        if not self.path.exists():
            return []
        with self._open() as database:
            if not self._version(database):
                return []
            return _marks(database, 'ORDER BY start, "end", series, id')

    def alone(self, use: Callable[[list[Mark]], object]) -> None:
        """Hands all marks on while no other process can change them: for what is derived from them, so that the later
        of two writers does not leave what the earlier one saw.

        Raises:
            DataError: the file cannot be used.
        """
        with self._open(create=True) as database, _transaction(database):
            use(_marks(database, 'ORDER BY start, "end", series, id'))

    def remove(self, number: int) -> Mark:
        """Takes a mark back.

        Raises:
            DataError: there is none with this number, or the file cannot be used.
        """
        if self.path.exists():
            with self._open(create=True) as database, _transaction(database):
                for mark in _marks(database, "WHERE id = ?", (number,)):
                    database.execute("DELETE FROM mark WHERE id = ?", (number,))
                    return mark
        raise DataError("id", f"there is no mark {number} in {self.path}.", "dwcp feedback list shows the numbers.")

    @contextmanager
    def _open(self, create: bool = False) -> Iterator[sqlite3.Connection]:
        """The database, with its schema made or checked; errors of SQLite in words."""
        if create and not self.path.parent.is_dir():
            raise DataError(
                "feedback", f"{self.path.parent} is no folder.", "Name one that is there.",
                code=DataErrorCode.UNREADABLE,
            )  # fmt: skip
        database = None
        try:
            database = sqlite3.connect(self.path, timeout=self._wait, isolation_level=None)
            database.execute("PRAGMA synchronous = FULL")  # a mark that was acknowledged survives a power cut
            self._prepare(database, create)
            yield database
        except sqlite3.Error as error:
            raise self._refusal(error) from None
        finally:
            if database is not None:
                database.close()

    def _prepare(self, database: sqlite3.Connection, create: bool) -> None:
        if self._version(database) == 0 and create:
            self._to_wal(database)
            with _transaction(database):
                if self._version(database) == 0:  # nobody else was first
                    database.execute(_TABLE)
                    database.execute(f"PRAGMA application_id = {APPLICATION}")
                    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        version = self._version(database)
        if version > SCHEMA_VERSION:
            raise DataError(
                "feedback",
                f"{self.path} has the schema version {version}; this program knows {SCHEMA_VERSION}.",
                "Use the program that wrote it, or a newer one.",
                code=DataErrorCode.UNKNOWN_FORMAT,
            )

    def _version(self, database: sqlite3.Connection) -> int:
        """The schema version; 0 where there is nothing yet.

        Raises:
            DataError: the database is of another program.
        """
        version, application, tables = database.execute(
            "SELECT v.user_version, a.application_id, (SELECT count(*) FROM sqlite_schema) "
            "FROM pragma_user_version AS v, pragma_application_id AS a"
        ).fetchone()  # in one question: somebody may be making it
        if application != APPLICATION and (tables or version or application):
            raise DataError(
                "feedback", f"{self.path} is a database of another program.", "Name another file with --feedback.",
                code=DataErrorCode.UNKNOWN_FORMAT,
            )  # fmt: skip
        return int(version)

    def _to_wal(self, database: sqlite3.Connection) -> None:
        """Switches the journal. SQLite does not wait for another writer here, so this does."""
        until = time.monotonic() + self._wait
        while True:
            try:
                database.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def _refusal(self, error: sqlite3.Error) -> DataError:
        text = str(error)
        if "locked" in text or "busy" in text:
            remedy = f"Another process has been writing for {self._wait:g} s: let it end, and try again."
        elif "not a database" in text or "malformed" in text:
            remedy = "Put back a copy of it, or move it away; marks kept as CSV come back with dwcp feedback import."
        elif "readonly" in text or "unable to open" in text:
            remedy = "The file, and its folder, must be writable: name another one with --feedback."
        else:
            remedy = "Nothing was changed."
        return DataError("feedback", f"{self.path}: {text}.", remedy, code=DataErrorCode.UNREADABLE)


def _key(mark: Mark) -> tuple[object, ...]:
    return mark.start, mark.end, mark.series, mark.detector, mark.verdict


def _marks(database: sqlite3.Connection, condition: str, values: tuple[int, ...] = ()) -> list[Mark]:
    rows = database.execute(f"SELECT {_COLUMNS} FROM mark {condition}", values)
    return [Mark(start, end, Verdict(verdict), *rest) for start, end, verdict, *rest in rows]


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """A transaction that writes: it begins when no other does, and is undone when the block fails."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
