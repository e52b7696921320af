"""Files of any size in pieces: raw tables of a bounded number of rows, one after the other, from bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dwcp_training.data.csv_table import csv_table_of, header_names
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.layout import feature_name
from dwcp_training.data.npy_table import npy_rows, npy_width, read_npy_table
from dwcp_training.data.raw import RawTable, select_columns, unreadable
from dwcp_training.profiles import Profile

CHUNK_ROWS = 65_536
"""Most rows in a piece."""

BLOCK = 1 << 22
"""Bytes of a CSV file that are split into cells at once."""

LONGEST_LINE = 1 << 26
"""Bytes after which a CSV file without an end of line is refused."""

_BUFFER = 1 << 20  # of a Parquet column: without one, a whole row group is read at once


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the values of a sample are in a file.

    Attributes:
        features: column of each feature, in their order.
        others: columns besides them: times, series.
    """

    features: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def needed(self) -> list[str]:
        """All of them, without repetition."""
        return list(dict.fromkeys([*self.others, *self.features]))


def columns_of(path: Path, present: Sequence[str], features: Sequence[str], profile: Profile) -> Columns:
    """The columns of the features of a model in a file with the columns `present`.

    Raises:
        DataError: a column is missing or there twice; the feature's name is the field.
    """
    reader = profile.reader
    others = tuple(name for name in (profile.timestamp_column, reader.series_column) if name is not None)
    named = {feature: reader.column(feature) for feature in features}
    if reader.features == "numeric":  # columns were given the names of features, see `layout_of`
        renamed = {column: feature for feature, column in reader.columns.items()}
        for column in present:
            feature = renamed.get(column) or feature_name(column)
            if named.get(feature) == feature and column not in others:
                named[feature] = column
    columns = Columns(tuple(named[feature] for feature in features), others)
    select_columns(path, present, columns.needed, reader.delimiter)
    return columns


def pieces(
    path: Path, features: Sequence[str], profile: Profile, rows: int = CHUNK_ROWS, block: int = BLOCK
) -> Iterator[tuple[RawTable, Columns, float]]:
    """The needed cells of a file, piece by piece; lines are those of the whole file.

    Args:
        path: CSV, Parquet or `.npy`, by its suffix.
        features: names of the features to read.
        profile: says how they are called and which other columns are needed.
        rows: most rows in a piece.
        block: bytes of a CSV file that are looked at together.

    Yields:
        A table, its columns, and the share of the file that is done.

    Raises:
        DataError: as the readers of whole files do, when the place in question is reached.
    """
    suffix = path.suffix.lower()
    found = {".csv": _csv, ".npy": _npy}.get(suffix, _parquet)(path, features, profile, rows, block)
    empty = True
    for table, columns, done in found:
        for start in range(0, len(table.lines), rows):
            empty = False
            yield _slice(table, start, start + rows), columns, done
    if empty:
        raise DataError("file", f"{path.name} has no rows.", code=DataErrorCode.EMPTY)


def too_long(name: str) -> DataError:
    """The refusal of a line that does not end."""
    return DataError(
        "file",
        f"{name} has a line of more than {LONGEST_LINE >> 20} MiB.",
        "It is no CSV file, or its ends of line are lost.",
        code=DataErrorCode.NOT_A_TABLE,
    )


def _csv(
    path: Path, features: Sequence[str], profile: Profile, rows: int, block: int
) -> Iterator[tuple[RawTable, Columns, float]]:
    delimiter = profile.reader.delimiter
    try:
        with path.open("rb") as file:
            size = max(path.stat().st_size, 1)
            blocks = _line_blocks(file, path.name, block)
            header, _, body = next(blocks, b"").partition(b"\n")
            columns = columns_of(path, header_names(path, header, delimiter), features, profile)
            done, line = len(header) + 1, 1
            while True:
                done += len(body)
                if body and not body.isspace():
                    table = csv_table_of(path, header + b"\n" + body, columns.needed, delimiter=delimiter)
                    yield replace(table, lines=table.lines + (line - 1)), columns, min(1.0, done / size)
                line += body.count(b"\n")
                body = next(blocks, b"")
                if not body:
                    return
    except OSError as error:
        raise unreadable(path, error) from error


def _line_blocks(file: BinaryIO, name: str, block: int) -> Iterator[bytes]:
    """The file in blocks of whole lines that end with ``\\n``, but for the last one."""
    left = b""
    while True:
        data = file.read(block)
        if data.endswith(b"\r"):  # half of an end of line
            data += file.read(1)
        if not data:
            if left:
                yield left
            return
        left += data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = left.rfind(b"\n") + 1
        if end:
            yield left[:end]
            left = left[end:]
        elif len(left) > LONGEST_LINE:
            raise too_long(name)


def _parquet(
    path: Path, features: Sequence[str], profile: Profile, rows: int, _: int
) -> Iterator[tuple[RawTable, Columns, float]]:
    try:
        if path.stat().st_size == 0:
            raise DataError("file", f"{path.name} is empty.", code=DataErrorCode.EMPTY)
        with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
            names = file.schema_arrow.names
            columns = columns_of(path, names, features, profile)
            ignored = tuple(name for name in names if name not in columns.needed)
            total, done = max(file.metadata.num_rows, 1), 0
            for batch in file.iter_batches(rows, columns=columns.needed, use_threads=False):
                cells = pa.Table.from_batches([batch]).select(columns.needed)
                lines = np.arange(done + 1, done + len(batch) + 1, dtype=np.int64)
                done += len(batch)
                yield RawTable(path.name, cells, lines, {}, ignored), columns, done / total
    except pa.ArrowInvalid as error:
        raise DataError("file", f"{path.name} is not Parquet: {error}", code=DataErrorCode.NOT_A_TABLE) from error
    except OSError as error:
        if error.errno is not None:
            raise unreadable(path, error) from error
        raise DataError("file", f"{path.name} is not Parquet: {error}", code=DataErrorCode.NOT_A_TABLE) from error


def _npy(
    path: Path, features: Sequence[str], profile: Profile, rows: int, _: int
) -> Iterator[tuple[RawTable, Columns, float]]:
    listed = profile.reader.features == "listed"
    names = list(profile.feature_schema.names) if listed else [f"x{j}" for j in range(npy_width(path))]
    others = [name for name in (profile.timestamp_column, profile.reader.series_column) if name is not None]
    divisors = [profile.scaling.divisors.get(name, 1.0) for name in names]
    total = npy_rows(path)
    for start in range(0, total, rows):
        # Mapped anew for every piece, so that what was read before is not held.
        part = slice(start, min(start + rows, total))
        table = read_npy_table(path, names, others, divisors, profile.reader.padded_to, part)
        select_columns(path, names, features)
        yield table, Columns(tuple(features), ()), part.stop / total


def _slice(table: RawTable, start: int, stop: int) -> RawTable:
    if start == 0 and stop >= len(table.lines):
        return table
    broken = {row - start: fault for row, fault in table.broken.items() if start <= row < stop}
    return replace(table, cells=table.cells.slice(start, stop - start), lines=table.lines[start:stop], broken=broken)
