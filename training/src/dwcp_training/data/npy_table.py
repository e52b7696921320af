"""`.npy`: an array of rows and columns; the columns are the features, in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.raw import RawTable, unreadable


def npy_width(path: Path) -> int:
    """Columns of an array in a file. Raises `DataError` as `read_npy_table` does."""
    return int(_opened(path).shape[1])


def npy_rows(path: Path) -> int:
    """Rows of an array in a file. Raises `DataError` as `read_npy_table` does."""
    return int(_opened(path).shape[0])


def read_npy_table(
    path: Path,
    columns: Sequence[str],
    others: Sequence[str],
    divisors: Sequence[float],
    padded_to: int | None,
    rows: slice = slice(0, None),
) -> RawTable:
    """The `rows` of an array, columns named in their order.

    An array as wide as `columns` holds raw values. One as wide as `padded_to` holds values that are divided already,
    followed by zeros: it is multiplied by `divisors`, which gives raw values again, and the zeros are left out.

    Raises:
        DataError: unreadable, not a table of numbers, of another width, or with something in the padding; or `others`,
            columns that are needed besides the features, are asked for: an array has no names to find them by.
    """
    if others:
        raise DataError(
            others[0],
            f"{path.name} has no column {others[0]!r}: the columns of a .npy file have no names.",
            "Set timestamp_column: null in the profile, and name no column for labels, series or baseline; or use CSV.",
            code=DataErrorCode.MISSING_COLUMN,
        )
    values: NDArray[np.float64] = np.asarray(_opened(path)[rows], dtype=np.float64)
    width = len(columns)
    if padded_to is not None and values.shape[1] == padded_to and padded_to != width:
        astray = np.argwhere(values[:, width:] != 0)
        if len(astray):
            row, column = astray[0] + (rows.start, width)
            raise DataError(
                "padding",
                f"{path.name} row {row + 1}, column {column + 1}: {values[row, column]:g} in the padding.",
                "Columns after the features must be 0.",
                code=DataErrorCode.WRONG_COLUMN,
            )
        values = values[:, :width] * np.asarray(divisors)
    if values.shape[1] != width:
        widths = f"{width}" + (f" (raw) or {padded_to} (divided and padded)" if padded_to else "")
        raise DataError(
            "columns", f"{path.name} has {values.shape[1]} columns.", f"The profile wants {widths}.",
            code=DataErrorCode.WRONG_COLUMN,
        )  # fmt: skip
    cells = pa.table([pa.array(values[:, j]) for j in range(width)], names=list(columns))
    return RawTable(path.name, cells, rows.start + np.arange(1, len(values) + 1, dtype=np.int64))


def _opened(path: Path) -> NDArray[np.float64]:
    """The array of a file, not read into memory yet."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, EOFError) as error:
        raise DataError(
            "file", f"{path.name} is no array of numbers: {error}", code=DataErrorCode.NOT_A_TABLE
        ) from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "iuf":
        raise DataError(
            "file",
            f"{path.name} does not hold a table of numbers, rows and columns, but {_kind(values)}.",
            "Save an array of two dimensions.",
            code=DataErrorCode.NOT_A_TABLE,
        )
    if not values.size:
        raise DataError("file", f"{path.name} has no rows.", code=DataErrorCode.EMPTY)
    return values


def _kind(values: object) -> str:
    return f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else "several arrays"
