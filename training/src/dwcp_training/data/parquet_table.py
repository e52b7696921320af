"""Parquet: typed cells; a row's number takes the place of a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.raw import Progress, RawTable, read_bytes, select_columns


def parquet_schema(path: Path) -> pa.Schema:
    """Names and types of the columns of a Parquet file. Raises `DataError` as `read_parquet_table` does."""
    data = read_bytes(path)
    try:
        return pq.ParquetFile(pa.BufferReader(data)).schema_arrow
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError("file", f"{path.name} is not Parquet: {error}", code=DataErrorCode.NOT_A_TABLE) from error


def read_parquet_table(path: Path, needed: Sequence[str], progress: Progress | None = None) -> RawTable:
    """The columns `needed` of a Parquet file, with the types they have there.

    Raises:
        DataError: unreadable, not Parquet, without rows, or without a needed column.
    """
    data = read_bytes(path)
    if not data:
        raise DataError("file", f"{path.name} is empty.", code=DataErrorCode.EMPTY)
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = file.schema_arrow.names
        select_columns(path, names, needed)
        batches = []
        for group in range(file.num_row_groups):
            batches.append(file.read_row_group(group, columns=list(needed)))
            if progress is not None:
                progress(path.name, (group + 1) * len(data) // file.num_row_groups, len(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError("file", f"{path.name} is not Parquet: {error}", code=DataErrorCode.NOT_A_TABLE) from error
    rows = sum(len(batch) for batch in batches)
    if rows == 0:
        raise DataError("file", f"{path.name} has no rows.", code=DataErrorCode.EMPTY)
    table = pa.concat_tables(batches).select(list(needed))
    ignored = tuple(name for name in names if name not in needed)
    return RawTable(path.name, table, np.arange(1, rows + 1, dtype=np.int64), {}, ignored)
