"""The rows of one or more files as one table of numbers and times, nothing judged yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data.cells import Times, parse_numbers, parse_times
from dwcp_training.data.csv_table import read_csv_table
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.exclusion import Exclusion, labels_of
from dwcp_training.data.parquet_table import read_parquet_table
from dwcp_training.data.raw import Progress, RawTable
from dwcp_training.profiles import Profile

READERS: dict[str, Callable[[Path, Sequence[str], Progress | None], RawTable]] = {
    ".csv": read_csv_table,
    ".parquet": read_parquet_table,
    ".pq": read_parquet_table,
}
"""Reader by the suffix of the file."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One file: its cells, and what they say."""

    table: RawTable
    values: NDArray[np.float64]
    text: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    times: Times | None
    labelled: NDArray[np.bool_]
    labels: NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of all files as one table of ``n`` rows.

    Attributes:
        tables: the files, in the order of their first times.
        first: intp ``[files]``, the first row of each file.
        values: float64 ``[n, F]``, NaN where a cell is not a number; no negative zeros (F5).
        text, empty: bool ``[n, F]``, cells that are not numbers, and cells that are empty.
        times: the timestamps; None for data without times.
        broken: bool ``[n]``, rows whose cells could not be told apart.
        labelled: bool ``[n]``, rows that their label says are not normal.
        labels: ``[n]``, the labels as text.
    """

    tables: Sequence[RawTable]
    first: NDArray[np.intp]
    values: NDArray[np.float64]
    text: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    times: Times | None
    broken: NDArray[np.bool_]
    labelled: NDArray[np.bool_]
    labels: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, parts: Sequence[_Part]) -> Rows:
        """The rows of `parts`, one file after the other."""
        lengths = [len(part.values) for part in parts]
        broken = np.zeros(sum(lengths), dtype=bool)
        first = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.intp)
        for part, start in zip(parts, first.tolist(), strict=True):
            broken[[start + row for row in part.table.broken]] = True
        return cls(
            tables=[part.table for part in parts],
            first=first,
            values=np.concatenate([part.values for part in parts]),
            text=np.concatenate([part.text for part in parts]),
            empty=np.concatenate([part.empty for part in parts]),
            times=_joined([part.times for part in parts if part.times is not None]),
            broken=broken,
            labelled=np.concatenate([part.labelled for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
        )

    def place(self, row: int) -> tuple[RawTable, int]:
        """The file of a row, and the row's index in it."""
        file = int(np.searchsorted(self.first, row, side="right")) - 1
        return self.tables[file], row - int(self.first[file])


def read_rows(
    paths: str | Path | Sequence[str | Path], profile: Profile, exclude: Exclusion, progress: Progress | None
) -> Rows:
    """Reads files, puts them in the order of their first times, and joins their rows.

    Raises:
        DataError: no file is given, or one has an unknown suffix, cannot be read or lacks a column.
    """
    return Rows.of(_in_time_order([_read_part(path, profile, exclude, progress) for path in _as_paths(paths)]))


def _as_paths(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if not given:
        raise DataError("paths", "no file is given.")
    for path in map(Path, given):
        if path.suffix.lower() not in READERS:
            raise DataError(
                "file",
                f"{path} has the suffix {path.suffix!r}.",
                f"Known suffixes: {', '.join(READERS)}.",
                code=DataErrorCode.UNKNOWN_FORMAT,
            )
    return [Path(path) for path in given]


def _read_part(path: Path, profile: Profile, exclude: Exclusion, progress: Progress | None) -> _Part:
    names = profile.feature_schema.names
    needed = [*([profile.timestamp_column] if profile.timestamp_column else []), *names]
    if exclude.label_column is not None and exclude.label_column not in needed:
        needed.append(exclude.label_column)
    table = READERS[path.suffix.lower()](path, needed, progress)
    n = len(table.lines)
    numbers = [parse_numbers(table.name, name, table.cells[name]) for name in names]
    time_column = profile.timestamp_column
    times = None if time_column is None else parse_times(table.name, time_column, table.cells[time_column])
    if exclude.label_column is None:
        labelled, labels = np.zeros(n, dtype=bool), np.full(n, "", dtype=object)
    else:
        labelled, labels = labels_of(table, exclude)
    return _Part(
        table=table,
        values=np.column_stack([column.values for column in numbers]) + 0.0,  # negative zero is zero (F5)
        text=np.column_stack([column.text for column in numbers]),
        empty=np.column_stack([column.empty for column in numbers]),
        times=times,
        labelled=labelled,
        labels=labels,
    )


def _in_time_order(parts: list[_Part]) -> list[_Part]:
    """Files by their first time, so that the order in which they are named makes no difference."""

    def first_time(part: _Part) -> tuple[bool, int]:
        known = part.times.values[~np.isnat(part.times.values)] if part.times is not None else np.zeros(0, "M8[ns]")
        return (False, int(known[0].astype(np.int64))) if len(known) else (True, 0)

    return sorted(parts, key=first_time)


def _joined(times: Sequence[Times]) -> Times | None:
    if not times:
        return None
    return Times(np.concatenate([item.values for item in times]), np.concatenate([item.empty for item in times]))
