"""A file's rows before anything is checked: cells as they are, each row with its line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dwcp_training.data.errors import DataError, DataErrorCode, did_you_mean

Progress = Callable[[str, int, int], None]
"""Called with a stage (a file name), the bytes done and the bytes in all."""


@dataclass(frozen=True, slots=True)
class RawTable:
    """The needed columns of one file.

    Attributes:
        name: file name without folders.
        cells: the needed columns by name, text or typed; null in rows whose cells could not be told apart.
        lines: int64 ``[n]``, the line of each row (CSV, the header is 1) or its number (Parquet, from 1).
        broken: row index to what is wrong with it, for rows whose cells could not be told apart.
        ignored: names of the columns that were not needed.
    """

    name: str
    cells: pa.Table
    lines: NDArray[np.int64]
    broken: dict[int, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    def take(self, rows: NDArray[np.intp]) -> RawTable:
        """The table of the ascending `rows` alone."""
        broken = {int(at): self.broken[int(row)] for at, row in enumerate(rows) if int(row) in self.broken}
        return RawTable(self.name, self.cells.take(pa.array(rows)), self.lines[rows], broken, self.ignored)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises `DataError` (UNREADABLE) that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> DataError:
    """The refusal of a file that the system does not let be read."""
    reason = "it is a folder" if path.is_dir() else error.strerror or str(error)
    return DataError("file", f"cannot read {path}: {reason}.", code=DataErrorCode.UNREADABLE)


def select_columns(path: Path, present: Sequence[str], needed: Sequence[str], delimiter: str = ",") -> None:
    """Checks that each needed column is there once. Raises `DataError` that names the first that is not."""
    missing = [name for name in needed if name not in present]
    if missing:
        other = next((mark for mark in ",;\t|" if mark != delimiter and mark in present[0]), None)
        if len(present) == 1 and other is not None:
            wanted = "commas" if delimiter == "," else repr(delimiter)
            advice = (
                f"The header has one column only: cells must be separated by {wanted}. "
                f"For others set reader.delimiter: {other!r} in the profile."
            )
        else:
            advice = did_you_mean(missing[0], [name for name in present if name not in needed] or present)
        rest = f" (also missing: {', '.join(missing[1:])})" if len(missing) > 1 else ""
        raise DataError(
            missing[0],
            f"{path.name} has no column {missing[0]!r}{rest}.",
            advice,
            code=DataErrorCode.MISSING_COLUMN,
        )
    for name in needed:
        if list(present).count(name) > 1:
            raise DataError(
                name, f"{path.name} has the column {name!r} twice.", "Remove one.", code=DataErrorCode.WRONG_COLUMN
            )
