"""Which files hold the rows of which series: folders such as `link=a/`, or a column that names the series."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from dwcp_training.data.errors import DataError, DataErrorCode

SUFFIXES = (".parquet", ".pq")

LONGEST_NAME = 256
"""Bytes of a series' name that a request can carry (FL3)."""

_NO_NAME = "__HIVE_DEFAULT_PARTITION__"
_OPEN_FILES = 256


@dataclass(frozen=True, slots=True)
class Partition:
    """The files of one series.

    Attributes:
        name: of the series.
        root: folder that the files' relative paths start in.
        files: relative paths, ascending.
    """

    name: str
    root: str
    files: tuple[str, ...]

    @property
    def paths(self) -> list[Path]:
        """Where the files are."""
        return [Path(self.root, file) for file in self.files]


@dataclass(frozen=True, slots=True)
class Found:
    """The series of a folder, by name in the order of FL6, and what cannot be used of it: a name and a reason each."""

    partitions: list[Partition]
    unusable: list[tuple[str, str]]


def find_partitions(data: Path, by: str, cut_into: Path) -> Found:
    """The series of a folder of Parquet files.

    Args:
        data: folder with `by=<name>/` somewhere in its paths, or with files that have a column `by`.
        by: the key or column.
        cut_into: folder that is made where the files have such a column: their rows, cut by it in one pass.

    Raises:
        DataError: no such folder, no Parquet file in it, or neither key nor column.
    """
    if not data.is_dir():
        raise DataError("data", f"{data} is no folder.", code=DataErrorCode.UNREADABLE)
    files = _parquet_files(data)
    if not files:
        raise DataError(
            "data", f"{data} has no Parquet file.", f"Write {by}=<name>/part-0.parquet into it.",
            code=DataErrorCode.EMPTY,
        )  # fmt: skip
    if not any(_key(file, by) is not None for file in files):
        unusable = _cut(data, files, by, cut_into)
        found = _grouped(cut_into, _parquet_files(cut_into), by)
        return Found(found.partitions, unusable + found.unusable)
    return _grouped(data, files, by)


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parquet_files(folder: Path) -> list[str]:
    """Relative paths, ascending; what is hidden or begins with an underscore is other programs' own."""
    found = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        found += [
            os.path.relpath(os.path.join(where, name), folder)
            for name in names
            if name[0] not in "._" and Path(name).suffix.lower() in SUFFIXES
        ]
    return sorted(found)


def _key(file: str, by: str) -> str | None:
    """The value of a key in the folders of a relative path."""
    for part in Path(file).parts[:-1]:
        key, equals, value = part.partition("=")
        if equals and key == by:
            return "" if value == _NO_NAME else unquote(value)
    return None


def _grouped(root: Path, files: Sequence[str], by: str) -> Found:
    series: dict[str, list[str]] = {}
    unusable = []
    for file in files:
        name = _key(file, by)
        if name is None:
            unusable.append((file, f"its folders do not say which {by} it is of"))
        elif not name or len(name.encode()) > LONGEST_NAME:
            unusable.append((file, f"a name of a series has 1 to {LONGEST_NAME} bytes"))
        else:
            series.setdefault(name, []).append(file)
    names = sorted(series, key=str.encode)
    return Found([Partition(name, str(root), tuple(series[name])) for name in names], unusable)


def _cut(data: Path, files: Sequence[str], by: str, into: Path) -> list[tuple[str, str]]:
    """Writes the rows of files into `into/by=<name>/`, in their order, batch by batch."""
    unusable, missing = [], []
    for number, file in enumerate(files):
        try:
            kind = pq.read_schema(data / file)
            if by not in kind.names:
                missing.append(file)
                unusable.append((file, f"it has no column {by!r}"))
                continue
            _cut_file(data / file, kind, by, into, f"{number:06d}")
        except (pa.ArrowException, OSError) as error:
            unusable.append((file, f"it is not Parquet: {first_line(error)}"))
            for part in into.glob(f"*/{number:06d}-*"):
                part.unlink()
    if len(missing) == len(files):
        raise DataError(
            by,
            f"neither the folders in {data} nor the columns of its files say which {by} a row is of.",
            f"Write {by}=<name>/part-0.parquet, or name the key or column with --by.",
            code=DataErrorCode.MISSING_COLUMN,
        )
    return unusable


def _cut_file(path: Path, kind: pa.Schema, by: str, into: Path, name: str) -> None:
    where = pads.partitioning(pa.schema([pa.field(by, pa.string())]), flavor="hive")
    at = kind.get_field_index(by)
    wanted = kind.set(at, pa.field(by, pa.string()))
    with pq.ParquetFile(path) as file:
        batches = (batch.set_column(at, by, batch.column(at).cast(pa.string())) for batch in file.iter_batches(65_536))
        pads.write_dataset(
            batches,
            into,
            schema=wanted,
            format="parquet",
            partitioning=where,
            basename_template=f"{name}-{{i}}.parquet",
            existing_data_behavior="overwrite_or_ignore",
            max_partitions=1_000_000,
            max_open_files=_OPEN_FILES,
            use_threads=False,  # threads would write rows in another order
        )


def clear(folder: Path) -> None:
    """Removes a folder that `find_partitions` has cut into, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


def first_line(error: object, most: int = 240) -> str:
    """An error's message for a table and an index: its first line, not too long."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return text if len(text) <= most else text[: most - 3] + "..."
