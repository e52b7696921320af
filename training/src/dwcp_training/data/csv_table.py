"""CSV: one line is one record, so that every row knows its line.

Arrow splits the cells; nothing is converted here. A quoted cell may hold delimiters, but not a line break: a line with
an unclosed quote is a broken row of its own and never swallows the lines after it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.raw import Progress, RawTable, read_bytes, select_columns

_BLOCK = 1 << 22
_ROW = re.compile(rb"\S")
_BOM = b"\xef\xbb\xbf"


def csv_columns(path: Path, delimiter: str = ",") -> list[str]:
    """The column names of a CSV file. Raises `DataError` as `read_csv_table` does."""
    header, _, _ = _normalised(path, read_bytes(path)).partition(b"\n")
    return _header(path, header, delimiter)


def read_csv_table(
    path: Path, needed: Sequence[str], progress: Progress | None = None, *, delimiter: str = ","
) -> RawTable:
    """The columns `needed` of a CSV file, as text.

    Blank lines are skipped. Bytes that are not UTF-8 become replacement characters and so text in a number column.

    Raises:
        DataError: unreadable, empty, not text, or without a needed column.
    """
    return csv_table_of(path, read_bytes(path), needed, progress, delimiter=delimiter)


def csv_table_of(
    path: Path, data: bytes, needed: Sequence[str], progress: Progress | None = None, *, delimiter: str = ","
) -> RawTable:
    """`read_csv_table` of bytes in memory: a header and lines. `path` is what messages call them."""
    lines = _normalised(path, data)
    header, _, _ = lines.partition(b"\n")
    names = _header(path, header, delimiter)
    select_columns(path, names, needed, delimiter)
    data, unclosed = _without_unclosed_quotes(lines, len(names), delimiter)
    table, skipped = _split_cells(path, data, names, needed, delimiter, progress)
    skipped.update(unclosed)
    return _with_lines(path, table, skipped, data, tuple(name for name in names if name not in needed))


def header_names(path: Path, line: bytes, delimiter: str = ",") -> list[str]:
    """The column names in a header line without its end. Raises `DataError` as `read_csv_table` does."""
    return _header(path, _normalised(path, line), delimiter)


def _normalised(path: Path, data: bytes) -> bytes:
    """UTF-8 text with ``\\n`` ends of line and without byte order mark."""
    data = data.removeprefix(_BOM)
    if not data or data.isspace():
        raise DataError("file", f"{path.name} is empty.", "It needs a header and rows.", code=DataErrorCode.EMPTY)
    if b"\0" in data:
        raise DataError(
            "file",
            f"{path.name} is not CSV: it holds binary data (or UTF-16 text).",
            "Save it as UTF-8 text, or give it the suffix of its format.",
            code=DataErrorCode.NOT_A_TABLE,
        )
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        data = data.decode("utf-8", errors="replace").encode("utf-8")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data


def _header(path: Path, line: bytes, delimiter: str) -> list[str]:
    """Column names, without the spaces around them."""
    if not line.strip():
        raise DataError(
            "file", f"line 1 of {path.name} is blank.", "It must be the header.", code=DataErrorCode.NOT_A_TABLE
        )
    text = line.decode("utf-8")
    if not text.replace("\t", " ").isprintable() or "\ufffd" in text:
        raise DataError("file", f"{path.name} is not CSV: line 1 is not text.", code=DataErrorCode.NOT_A_TABLE)
    return [name.strip() for name in next(csv.reader([text], delimiter=delimiter))]


def _without_unclosed_quotes(data: bytes, width: int, delimiter: str) -> tuple[bytes, dict[int, str]]:
    """`data` in which no quoted cell crosses a line, and the lines that were emptied for that."""
    if b'"' not in data:
        return data, {}
    lines = data.split(b"\n")
    unclosed = [index for index, line in enumerate(lines) if line.count(b'"') % 2 and index > 0]
    if not unclosed:
        return data, {}
    for index in unclosed:
        lines[index] = delimiter.encode() * width  # one cell too many, so that it is skipped as broken
    return b"\n".join(lines), {index + 1: "a quote is not closed on its line" for index in unclosed}


def _split_cells(
    path: Path, data: bytes, names: Sequence[str], needed: Sequence[str], delimiter: str, progress: Progress | None
) -> tuple[pa.Table, dict[int, str]]:
    """The needed columns of all lines of the right width, and line to fault of the others that are not blank."""
    skipped: dict[int, str] = {}

    def skip(row: pacsv.InvalidRow) -> str:
        blank = not row.text.strip()
        skipped[row.number] = "" if blank else f"has {row.actual_columns} cells, the header has {row.expected_columns}"
        return "skip"

    # Columns go by position: names may be repeated among those that are not needed.
    positions = [str(index) for index in range(len(names))]
    wanted = [str(names.index(name)) for name in needed]
    body = data.find(b"\n") + 1
    if body == 0 or _ROW.search(data, body) is None:
        raise DataError("file", f"{path.name} has a header but no rows.", code=DataErrorCode.EMPTY)
    source = pa.BufferReader(data)
    try:
        with pacsv.open_csv(
            source,
            # One thread: only then are rows numbered.
            pacsv.ReadOptions(use_threads=False, column_names=positions, skip_rows=1, block_size=_BLOCK),
            pacsv.ParseOptions(
                delimiter=delimiter, ignore_empty_lines=False, newlines_in_values=False, invalid_row_handler=skip
            ),
            pacsv.ConvertOptions(
                column_types={position: pa.string() for position in wanted},
                include_columns=wanted,
                strings_can_be_null=False,
                check_utf8=False,
            ),
        ) as reader:
            batches = []
            for batch in reader:
                batches.append(batch)
                if progress is not None:
                    progress(path.name, min(source.tell(), len(data)), len(data))
            table = pa.Table.from_batches(batches, schema=reader.schema)
    except pa.ArrowInvalid as error:
        raise DataError("file", f"{path.name} is not CSV: {error}", code=DataErrorCode.NOT_A_TABLE) from error
    return table.rename_columns(list(needed)), skipped


def _with_lines(
    path: Path, table: pa.Table, skipped: dict[int, str], data: bytes, ignored: tuple[str, ...]
) -> RawTable:
    """Numbers the rows, puts the broken ones back in their places as rows of nulls, and leaves blank lines out."""
    total = len(table) + len(skipped)
    whole = np.ones(total, dtype=bool)
    whole[np.array(sorted(skipped), dtype=np.int64) - 2] = False  # line 2 is the first row
    blank = _blank_rows(table, whole, data) | {line - 2 for line, fault in skipped.items() if not fault}
    lines = np.arange(2, total + 2, dtype=np.int64)
    if whole.all() and not blank:
        return RawTable(path.name, table, lines, {}, ignored)
    kept = np.ones(total, dtype=bool)
    kept[list(blank)] = False
    position = np.cumsum(whole) - 1
    indices = pa.array(position[kept], mask=~whole[kept])
    lines = lines[kept]
    broken = {int(row): skipped[int(lines[row])] for row in np.flatnonzero(~whole[kept])}
    if not len(lines):
        raise DataError("file", f"{path.name} has a header but no rows.", code=DataErrorCode.EMPTY)
    return RawTable(path.name, table.take(indices), lines, broken, ignored)


def _blank_rows(table: pa.Table, whole: NDArray[np.bool_], data: bytes) -> set[int]:
    """Rows that are blank lines. Arrow reads one as empty cells, just as it reads a line of commas."""
    empty = np.ones(len(table), dtype=bool)
    for column in table.columns:
        empty &= pc.equal(column, "").to_numpy()
    if not empty.any():
        return set()
    rows = np.flatnonzero(whole)[empty]
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == ord("\n"))
    starts = ends[rows] + 1  # the end of the header is ends[0], so row r starts after ends[r]
    return {int(row) for row, start in zip(rows, starts, strict=True) if data[start : start + 1] in (b"", b"\n")}
