"""CSV or JSON lines from a stream that may end in the middle of one: whole lines in, tables out."""

from __future__ import annotations

import json
import os
import select
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dwcp_training.data.csv_table import csv_table_of, header_names
from dwcp_training.data.errors import DataError
from dwcp_training.data.pieces import LONGEST_LINE, Columns, columns_of, too_long
from dwcp_training.data.raw import RawTable
from dwcp_training.monitor.source import Item, LiveJudge
from dwcp_training.profiles import Profile

_WAIT = 0.2  # seconds after which a source looks whether it is to stop
_READ = 1 << 16


class Lines:
    """Makes tables of lines. The first line is the header, or the first object of JSON lines.

    Args:
        path: what messages call the stream.
        features: names of the values of a sample.
        profile: says how they are called, and which other columns are needed.
    """

    def __init__(self, path: Path, features: Sequence[str], profile: Profile) -> None:
        self._path, self._features, self._profile = path, features, profile
        self._header = b""
        self._columns: Columns | None = None
        self._json = False
        self._partial = b""
        self.line = 0

    @property
    def partial(self) -> bytes:
        """What came after the last end of line."""
        return self._partial

    def begin_again(self, line: int = 0) -> None:
        """Forgets what came, but for the header: the next line is the first of another file, or follows line `line`."""
        self._partial, self.line = b"", line
        if line == 0:
            self._columns = None

    def add(self, data: bytes, *, last: bool = False) -> Iterator[tuple[RawTable, Columns]]:
        """Takes bytes, gives the rows of the lines that are complete.

        Args:
            data: what came.
            last: nothing more will come: what has no end of line is a line, too.

        Raises:
            DataError: the first line is no header with the needed columns, or a line does not end.
        """
        held = data.endswith(b"\r") and not last  # half of an end of line
        ready = self._partial + (data[:-1] if held else data)
        ready = ready.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = len(ready) if last else ready.rfind(b"\n") + 1
        body, self._partial = ready[:end], ready[end:] + (b"\r" if held else b"")
        if len(self._partial) > LONGEST_LINE:
            raise too_long(self._path.name)
        if self._columns is None:
            while body[:1] == b"\n":
                body, self.line = body[1:], self.line + 1
            if not body.strip():
                return
            body = self._begin(body)
        if body and not body.isspace():
            assert self._columns is not None
            yield self._table(body), self._columns
        self.line += body.count(b"\n") + (not body.endswith(b"\n") and bool(body))

    def _begin(self, body: bytes) -> bytes:
        """Takes the header off."""
        line, _, rest = body.partition(b"\n")
        self._json = line.lstrip().startswith(b"{")
        if self._json:
            present = list(_object(line))
            self._columns = columns_of(self._path, present, self._features, self._profile)
            return body
        delimiter = self._profile.reader.delimiter
        names = header_names(self._path, line, delimiter)
        try:
            self._columns = columns_of(self._path, names, self._features, self._profile)
        except DataError:
            # A file that was emptied, not replaced, may go on without a header.
            before = header_names(self._path, self._header, delimiter) if self._header else []
            if len(before) != len(names):
                raise
            self._columns = columns_of(self._path, before, self._features, self._profile)
            return body
        self._header, self.line = line, self.line + 1
        return rest

    def _table(self, body: bytes) -> RawTable:
        assert self._columns is not None
        if self._json:
            return _json_table(self._path.name, body, self._columns, self.line)
        delimiter = self._profile.reader.delimiter
        table = csv_table_of(self._path, self._header + b"\n" + body, self._columns.needed, delimiter=delimiter)
        return RawTable(table.name, table.cells, table.lines + (self.line - 1), table.broken, table.ignored)


class StandardInput:
    """CSV or JSON lines on a file descriptor, until it ends."""

    name = "standard input"

    def __init__(
        self,
        features: Sequence[str],
        profile: Profile,
        cadences: Mapping[str | None, float],
        stop: threading.Event,
        descriptor: int = 0,
    ) -> None:
        self._lines = Lines(Path(self.name), features, profile)
        self._judge = LiveJudge(features, profile, cadences)
        self._stop, self._descriptor = stop, descriptor

    @property
    def rows_read(self) -> int:
        """Rows so far, bad ones included."""
        return self._judge.rows_read

    def items(self) -> Iterator[Item]:
        """See `Source`."""
        while not self._stop.is_set():
            if not select.select([self._descriptor], [], [], _WAIT)[0]:
                continue
            data = os.read(self._descriptor, _READ)
            for table, columns in self._lines.add(data, last=not data):
                yield from self._judge.items(table, columns)
            if not data:
                return
        if self._lines.partial:
            yield f"the last {len(self._lines.partial):,} bytes have no end of line and were not scored"


def _json_table(name: str, body: bytes, columns: Columns, before: int) -> RawTable:
    """One object a line; numbers stay as they are written. A line that is none is a broken row."""
    rows: list[Mapping[str, Any]] = []
    lines, broken = [], {}
    for number, line in enumerate(body.split(b"\n"), before + 1):
        if not line.strip():
            continue
        try:
            rows.append(_object(line))
        except ValueError as error:
            broken[len(rows)] = f"is no JSON object: {error}"
            rows.append({})
        lines.append(number)
    cells = {
        column: pa.chunked_array([pa.array([_text(row.get(column)) for row in rows], pa.string())])
        for column in columns.needed
    }
    return RawTable(name, pa.table(cells), np.array(lines, dtype=np.int64), broken)


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"it holds {type(found).__name__}")
    return found


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)
