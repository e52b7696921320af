"""The rows of the files of one series as one table of numbers and times, nothing judged yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dwcp_training.data.cells import Times, epoch_times, parse_numbers, parse_times
from dwcp_training.data.csv_table import csv_columns, read_csv_table
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.exclusion import Exclusion, Intervals, labels_of
from dwcp_training.data.layout import Layout, layout_of
from dwcp_training.data.npy_table import read_npy_table
from dwcp_training.data.parquet_table import read_parquet_table
from dwcp_training.data.raw import Progress, RawTable
from dwcp_training.data.sources import Source, find_sources, series_names
from dwcp_training.profiles import Profile


@dataclass(frozen=True, slots=True)
class _Part:
    """One file, or its rows of one series: the cells, and what they say. Arrays are ``[n]`` or ``[n, F]``."""

    table: RawTable
    values: NDArray[np.float64]
    text: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    times: Times | None
    labelled: NDArray[np.bool_]
    labels: NDArray[np.object_]
    series: NDArray[np.object_]
    origin: NDArray[np.object_]
    outside: NDArray[np.bool_]
    intervals: Intervals | None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.intp]) -> _Part:
        """The ascending `rows` alone."""
        return _Part(
            table=self.table.take(rows),
            values=self.values[rows],
            text=self.text[rows],
            empty=self.empty[rows],
            times=None if self.times is None else Times(self.times.values[rows], self.times.empty[rows]),
            labelled=self.labelled[rows],
            labels=self.labels[rows],
            series=self.series[rows],
            origin=self.origin[rows],
            outside=self.outside[rows],
            intervals=self.intervals,
        )


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one series, from one or more files, as one table of ``n`` rows.

    Attributes:
        tables: the files, in the order of their first times.
        first: intp ``[files]``, the first row of each file.
        values: float64 ``[n, F]``, NaN where a cell is not a number; no negative zeros (F5).
        text, empty: bool ``[n, F]``, cells that are not numbers, and cells that are empty.
        times: the timestamps; None for data without times.
        broken: bool ``[n]``, rows whose cells could not be told apart.
        labelled: bool ``[n]``, rows that their label says are not normal.
        labels: ``[n]``, the labels as text.
        outside: bool ``[n]``, rows that are not of the profile's baseline.
        intervals: when something was wrong, as the run itself says; None when it says nothing.
        name: of the series, a run, a file or a device; empty where files are one series.
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
    outside: NDArray[np.bool_]
    intervals: Intervals | None
    name: str = ""

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, parts: Sequence[_Part], name: str = "") -> Rows:
        """The rows of `parts`, one file after the other."""
        lengths = [len(part) for part in parts]
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
            outside=np.concatenate([part.outside for part in parts]),
            intervals=Intervals.joined([part.intervals for part in parts if part.intervals is not None]),
            name=name,
        )

    def place(self, row: int) -> tuple[RawTable, int]:
        """The file of a row, and the row's index in it."""
        file = int(np.searchsorted(self.first, row, side="right")) - 1
        return self.tables[file], row - int(self.first[file])


def read_rows(
    paths: str | Path | Sequence[str | Path],
    profile: Profile,
    exclude: Exclusion,
    progress: Progress | None,
    *,
    normal_only: bool,
) -> tuple[Layout, list[Rows]]:
    """Reads files and puts their rows together, series by series, the files of a series in the order of first times.

    Args:
        normal_only: marks the rows that the profile's baseline and the runs' own intervals say are not normal.

    Returns:
        The features, and the rows of each series.

    Raises:
        DataError: no file is given, or one has an unknown suffix, cannot be read or lacks a column or label.
    """
    reader = profile.reader
    sources = find_sources(paths, profile)
    if normal_only and reader.baseline is not None and reader.baseline.column is None:
        sources = sources[: reader.baseline.first]
    others = _other_columns(profile, exclude)
    layout = layout_of(sources[0].path, profile, others)
    parts = [_read_part(source, layout, profile, exclude, progress, normal_only) for source in sources]
    if normal_only and reader.baseline is not None and reader.baseline.column is not None:
        parts = _with_baseline(parts, reader.baseline.first)
    return layout, [Rows.of(series, name) for name, series in _by_series(parts, series_names(sources), profile)]


def _other_columns(profile: Profile, exclude: Exclusion) -> list[str]:
    """Columns that are needed besides times and features, without repetition."""
    reader = profile.reader
    wanted = (exclude.label_column, reader.series_column, reader.baseline.column if reader.baseline else None)
    return list(dict.fromkeys(name for name in wanted if name is not None))


def _read_part(
    source: Source, layout: Layout, profile: Profile, exclude: Exclusion, progress: Progress | None, normal_only: bool
) -> _Part:
    reader = profile.reader
    others = _other_columns(profile, exclude)
    from_run = source.run is not None and exclude.label_column not in csv_columns(source.path, reader.delimiter)
    if from_run and exclude.label_column in others:
        others.remove(str(exclude.label_column))
    table = _read_table(source, layout, others, profile, progress)
    n = len(table.lines)
    numbers = [parse_numbers(table.name, name, table.cells[name]) for name in layout.columns]
    labelled, labels = np.zeros(n, dtype=bool), np.full(n, "", dtype=object)
    if exclude.label_column is not None and from_run and source.run is not None:
        if not source.run.label:
            raise DataError(
                exclude.label_column,
                f"the run {source.run.name} has no label: neither a column {exclude.label_column!r}, nor a meta.json "
                "with one, nor a name such as <stamp>_<label>.",
                "Without a label nothing says whether it is normal.",
                code=DataErrorCode.MISSING_COLUMN,
            )
        labels = np.full(n, source.run.label, dtype=object)
        labelled = np.full(n, source.run.label not in exclude.normal_labels)
    elif exclude.label_column is not None:
        labelled, labels = labels_of(table, exclude)
    baseline = reader.baseline.column if reader.baseline else None
    return _Part(
        table=table,
        values=np.column_stack([column.values for column in numbers]) + 0.0,  # negative zero is zero (F5)
        text=np.column_stack([column.text for column in numbers]),
        empty=np.column_stack([column.empty for column in numbers]),
        times=times_of(table, profile),
        labelled=labelled,
        labels=labels,
        series=text_of(table, reader.series_column),
        origin=text_of(table, baseline),
        outside=np.zeros(n, dtype=bool),
        intervals=source.run.intervals if normal_only and source.run is not None else None,
    )


def _read_table(
    source: Source, layout: Layout, others: Sequence[str], profile: Profile, progress: Progress | None
) -> RawTable:
    """The cells of a file, by its suffix."""
    path, reader = source.path, profile.reader
    times = [profile.timestamp_column] if profile.timestamp_column else []
    needed = list(dict.fromkeys([*times, *layout.columns, *others]))
    suffix = path.suffix.lower()
    if suffix == ".npy":
        divisors = [profile.scaling.divisors.get(name, 1.0) for name in layout.schema.names]
        return read_npy_table(path, layout.columns, [*times, *others], divisors, reader.padded_to)
    if suffix != ".csv":
        return read_parquet_table(path, needed, progress)
    if source.run is None:
        return read_csv_table(path, needed, progress, delimiter=reader.delimiter)
    try:
        return replace(read_csv_table(path, needed, progress, delimiter=reader.delimiter), name=source.name)
    except DataError as error:  # all runs call the file the same
        raise DataError(error.field, f"run {source.run.name}: {error.message}", error.remedy, code=error.code) from None


def times_of(table: RawTable, profile: Profile) -> Times | None:
    """The times of a table, None where the profile has none."""
    name = profile.timestamp_column
    if name is None:
        return None
    unit = profile.reader.timestamp_format
    if unit == "iso":
        return parse_times(table.name, name, table.cells[name])
    return epoch_times(table.name, name, table.cells[name], unit)


def text_of(table: RawTable, column: str | None) -> NDArray[np.object_]:
    """A column as text, empty without one."""
    if column is None:
        return np.full(len(table.lines), "", dtype=object)
    return np.asarray(pc.fill_null(table.cells[column].cast(pa.string()), "").to_numpy(zero_copy_only=False))


def _with_baseline(parts: list[_Part], first: int) -> list[_Part]:
    """`parts` with all rows marked that do not come from the first different origins, in the order of appearance."""
    origins = dict.fromkeys(name for part in parts for name in dict.fromkeys(part.origin))
    normal = np.array(list(origins)[:first], dtype=object)
    return [replace(part, outside=~np.isin(part.origin.astype(str), normal.astype(str))) for part in parts]


def _by_series(parts: list[_Part], names: list[str], profile: Profile) -> list[tuple[str, list[_Part]]]:
    """Name and parts of each series; those of one series in the order of their first times.

    Args:
        names: of as many parts, for where each is a series.
    """
    reader = profile.reader
    if reader.series_column is not None:
        series: dict[str, list[_Part]] = {}
        for part in parts:
            for name in dict.fromkeys(part.series):
                series.setdefault(name, []).append(part.take(np.flatnonzero(part.series == name)))
        return [(name, _in_time_order(found)) for name, found in series.items()]
    if reader.format == "runs":
        return [(name, [part]) for name, part in zip(names, parts, strict=True)]
    ordered = _in_time_order(parts)
    if reader.series != "files":
        return [("", ordered)]
    name_of = {id(part): name for name, part in zip(names, parts, strict=True)}
    return [(name_of[id(part)], [part]) for part in ordered]


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
