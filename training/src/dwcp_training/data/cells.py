"""From cells to numbers and times, vectorised, with a mask of what could not be converted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dwcp_training.data.errors import DataError, DataErrorCode

# What counts as a number in a text cell. Python's float() would also take 1_000 and digits of other scripts.
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_NOT_FINITE = r"^[+-]?(nan|inf|infinity)$"
# A full date first: pandas would also take `now`, `today` and the number 2024.
_TIMESTAMP = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
# The whole years that nanoseconds in 64 bits reach.
_EARLIEST = np.datetime64("1678-01-01", "s")
_LONGEST = 9e18  # nanoseconds in 64 bits
_LATEST = np.datetime64("2262-01-01", "s")


@dataclass(frozen=True, slots=True)
class Numbers:
    """One column: `values` float64 ``[n]`` (NaN where there is none), `text` and `empty` bool ``[n]``."""

    values: NDArray[np.float64]
    text: NDArray[np.bool_]
    empty: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Times:
    """The timestamp column: `values` datetime64[ns] ``[n]`` in UTC (NaT where there is none), `empty` bool ``[n]``."""

    values: NDArray[np.datetime64]
    empty: NDArray[np.bool_]


def parse_numbers(file: str, name: str, column: pa.ChunkedArray) -> Numbers:
    """Converts a column of numbers, or of text that holds numbers; each is the float64 nearest to what is written.

    Raises:
        DataError: the column of a typed file has a type without numbers.
    """
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = column.cast(pa.string())
    elif not pa.types.is_string(kind):
        if not (_is_number(kind) or pa.types.is_null(kind)):
            raise DataError(
                name, f"{file}: the column {name!r} holds {kind}, not numbers.", code=DataErrorCode.WRONG_COLUMN
            )
        empty = column.is_null().to_numpy()
        values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        return Numbers(values.astype(np.float64), np.zeros(len(column), dtype=bool), empty)
    try:
        values = column.cast(pa.float64())
    except pa.ArrowInvalid:
        return _parse_mixed(column)
    empty = values.is_null().to_numpy()
    return Numbers(values.to_numpy(zero_copy_only=False).astype(np.float64), np.zeros(len(column), dtype=bool), empty)


def parse_times(file: str, name: str, column: pa.ChunkedArray) -> Times:
    """Converts a column of times, or of ISO-8601 text. A time without zone is UTC.

    Raises:
        DataError: the column of a typed file has a type without times.
    """
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        empty = column.is_null().to_numpy()
        moments = column.cast(pa.timestamp(kind.unit if pa.types.is_timestamp(kind) else "s"))
        return Times(_nanoseconds(moments.to_numpy(zero_copy_only=False)), empty)
    if pa.types.is_null(kind):
        return Times(np.full(len(column), np.datetime64("NaT", "ns")), np.ones(len(column), dtype=bool))
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)):
        raise DataError(name, f"{file}: the column {name!r} holds {kind}, not times.", code=DataErrorCode.WRONG_COLUMN)
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    empty = pc.fill_null(pc.equal(text, ""), True).to_numpy()
    dated = pc.if_else(pc.match_substring_regex(text, _TIMESTAMP), text, pa.scalar(None, pa.string()))
    import pandas as pd  # here: commands that read no times do without

    parsed = pd.to_datetime(dated.to_pandas(), utc=True, format="ISO8601", errors="coerce")
    return Times(_nanoseconds(parsed.dt.tz_localize(None).to_numpy()), empty)


def epoch_times(file: str, name: str, column: pa.ChunkedArray, unit: str) -> Times:
    """Converts a column of numbers of `unit`, ``seconds`` or ``milliseconds``, since 1970 or any other moment.

    Raises:
        DataError: the column of a typed file has a type without numbers.
    """
    numbers = parse_numbers(file, name, column)
    per_unit = {"seconds": 10**9, "milliseconds": 10**6}[unit]
    known = np.isfinite(numbers.values) & (np.abs(numbers.values) < _LONGEST / per_unit)
    whole = np.floor(np.where(known, numbers.values, 0.0))
    # In two parts: a product in float64 would lose a quarter of a microsecond of a time of today.
    part = np.round((np.where(known, numbers.values, 0.0) - whole) * per_unit).astype(np.int64)
    nanoseconds = whole.astype(np.int64) * per_unit + part
    times = np.where(known, nanoseconds.view("datetime64[ns]"), np.datetime64("NaT", "ns"))
    return Times(times, numbers.empty)


def text_column(cells: Sequence[str]) -> pa.ChunkedArray:
    """Text as a column, for values that come from elsewhere than a table."""
    return pa.chunked_array([pa.array([cell.strip() for cell in cells], pa.string())])


def _parse_mixed(column: pa.ChunkedArray) -> Numbers:
    """Converts a text column in which some cell is not plainly a number."""
    text = pc.utf8_trim_whitespace(column)
    empty = pc.fill_null(pc.equal(text, ""), True).to_numpy()
    number = pc.fill_null(pc.match_substring_regex(text, _NUMBER), False).to_numpy()
    not_finite = pc.fill_null(pc.match_substring_regex(text, _NOT_FINITE, ignore_case=True), False).to_numpy()
    values = np.full(len(column), np.nan)
    readable = number | not_finite
    values[readable] = text.filter(pa.array(readable)).to_numpy(zero_copy_only=False).astype(np.float64)
    return Numbers(values, ~(readable | empty), empty)


def _nanoseconds(values: NDArray[np.datetime64]) -> NDArray[np.datetime64]:
    """Times as datetime64[ns]; those that it cannot hold become NaT instead of wrapping round."""
    fits = (values >= _EARLIEST) & (values < _LATEST)
    return np.where(fits, values, np.datetime64("NaT")).astype("datetime64[ns]")


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
