"""What was finished, line by line, so that a run which was ended goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from dwcp_training.data.writers import whole_file

JOURNAL = ".trained.jsonl"


@dataclass(frozen=True, slots=True)
class Record:
    """One finished task.

    Attributes:
        task: what was done, for example ``own link-7``.
        key: digest of its data and settings.
        set_id: of the set that came of it, or empty.
        rows: that were read.
        reason: why there is no set; empty where there is one.
    """

    task: str
    key: str
    set_id: str
    rows: int
    reason: str


class Journal:
    """Records of a fleet, the last of each task. For one process at a time."""

    def __init__(self, fleet: Path) -> None:
        self._path = fleet / JOURNAL
        self.records = {record.task: record for record in _read(self._path)}
        self._file: IO[bytes] | None = None

    def add(self, record: Record) -> None:
        """Adds a record; it outlives the process when this returns."""
        if self._file is None:
            self._file = self._path.open("ab")
            if self._file.tell():
                self._file.write(b"\n")  # after a line that was cut off; an empty line is nothing
        self._file.write(json.dumps(asdict(record), ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        self.records[record.task] = record

    def keep(self, tasks: Iterable[str]) -> None:
        """Writes the journal anew with the records of these tasks alone."""
        self.close()
        self.records = {task: self.records[task] for task in tasks if task in self.records}
        with whole_file(self._path) as file:
            for record in self.records.values():
                file.write(json.dumps(asdict(record), ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _read(path: Path) -> Iterable[Record]:
    """Lines that are whole; the last one may have been cut off."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            try:
                yield Record(**json.loads(line))
            except (ValueError, TypeError):
                continue
