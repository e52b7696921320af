"""Reading data that is larger than memory: chunks of rows, one after the other.

reader = ChunkReader("telemetry/", features=models.model("isolation_forest").feature_names, profile=profile)
for chunk in reader:
    ...
print(reader.report.rows_read)

What is held at a time is a chunk and, of each series, what the next chunk needs; not the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.pieces import BLOCK, CHUNK_ROWS, pieces
from dwcp_training.data.readers import check_reading
from dwcp_training.data.report import Report
from dwcp_training.data.row_judge import Chunk, RowJudge, by_series
from dwcp_training.data.sources import Source, find_sources, series_names
from dwcp_training.profiles import Profile

HEAD_ROWS = 4096
"""Rows at the start of each file from which the cadence of its series is taken."""

_HEAD_BLOCK = 1 << 20

_MOST_CELLS = 1 << 23  # in a chunk, however wide the samples are


@dataclass(frozen=True, slots=True)
class _File:
    """A file, the name of its series, and what its first rows say: first time (nanoseconds) and cadence by series."""

    source: Source
    series: str
    first: int | None
    cadences: dict[str, float]


class ChunkReader:
    """Iterates once over the rows of CSV, Parquet and `.npy` files, folders of them, or run folders.

    Series are those of `read_table`. Files of one series are read in the order of their first times.

    Args:
        paths: files or folders, as the profile says.
        features: names of the values of a sample, in their order.
        profile: how files become rows.
        on_bad_rows: ``fail`` refuses the data when a bad row is reached, ``drop`` leaves such rows out.
        cadence: seconds between samples where known; else the median step of the first rows of each series.
        rows: most rows in a chunk.
        block: bytes of a CSV file that are looked at together.

    Raises:
        DataError: nothing is given, a file cannot be read or lacks a column. While iterating also: a row is bad and
            `on_bad_rows` is ``fail``; no row is left.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        features: Sequence[str],
        profile: Profile,
        *,
        on_bad_rows: str = "fail",
        cadence: float | None = None,
        rows: int = CHUNK_ROWS,
        block: int = BLOCK,
    ) -> None:
        check_reading(on_bad_rows, cadence)
        if rows < 1 or block < 1:
            raise DataError("rows", f"a chunk of {min(rows, block)} must be of 1 or more.")
        self._features, self._profile = tuple(features), profile
        self._rows, self._block = min(rows, max(1, _MOST_CELLS // max(1, len(self._features)))), block
        sources = find_sources(paths, profile)
        joined = profile.reader.format != "runs" and profile.reader.series == "joined"
        self._alone = not (joined or profile.reader.series_column)
        names = series_names(sources) if self._alone else [""] * len(sources)
        self._files = [
            _File(source, name, *first_rows(source.path, name, features, profile))
            for source, name in zip(sources, names, strict=True)
        ]
        if profile.reader.format != "runs":
            self._files.sort(key=lambda file: (file.first is None, file.first or 0))
        cadences: dict[str | None, float] = {}
        for file in self._files:
            for name, seconds in file.cadences.items():
                cadences.setdefault(name, seconds)
        if cadence is not None:
            cadences = {None: cadence}
        self._judge = RowJudge(features, profile, drop=on_bad_rows == "drop", cadences=cadences)
        self._sizes = [file.source.path.stat().st_size for file in self._files]

    @property
    def files(self) -> list[str]:
        """Names of the files, in the order of reading."""
        return [file.source.name for file in self._files]

    @property
    def total_bytes(self) -> int:
        """Size of all files."""
        return sum(self._sizes)

    @property
    def report(self) -> Report:
        """What was found so far."""
        return self._judge.report()

    def __iter__(self) -> Iterator[tuple[Chunk, int]]:
        """Chunks that are not empty, each with the number of bytes that are done with it."""
        before = 0
        for file, size in zip(self._files, self._sizes, strict=True):
            if self._profile.timestamp_column is None:
                self._judge.cut()  # nothing says that the rows of two files are neighbours
            for table, columns, done in pieces(
                file.source.path, self._features, self._profile, self._rows, self._block
            ):
                named = replace(table, name=file.source.name)
                chunk = self._judge.judge(named, columns, file.series)
                if len(chunk):
                    yield chunk, before + int(size * done)
            before += size
        if not self._judge.rows_used:
            raise DataError("rows", f"none of {self._judge.rows_read:,} rows is left.", code=DataErrorCode.EMPTY)


def first_rows(
    path: Path, series: str, features: Sequence[str], profile: Profile
) -> tuple[int | None, dict[str, float]]:
    """What the first rows of a file say: their first time in nanoseconds, and the cadence of each series in seconds.

    Bad rows are no matter yet. Raises `DataError` when the file cannot be read.
    """
    table, columns, _ = next(pieces(path, features, profile, HEAD_ROWS, _HEAD_BLOCK))
    if profile.timestamp_column is None:
        return None, {}
    chunk = RowJudge(features, profile, drop=True).judge(table, columns, series)
    assert chunk.times is not None
    cadences = {}
    for name, at in by_series(chunk.series):
        steps = np.diff(chunk.times[at]) / np.timedelta64(1, "s")
        if len(steps):
            cadences[name] = float(np.median(steps))
    return (int(chunk.times[0].astype(np.int64)) if len(chunk) else None), cadences
