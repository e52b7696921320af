"""Telemetry as CSV in the seed format."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv

from dwcp_training.data.telemetry import Telemetry, rfc3339


def write_csv(telemetry: Telemetry, path: str | Path) -> None:
    """Writes ``timestamp,bandwidth,...`` and one line per row; reading it back gives the same bits.

    Times are ISO-8601 with ``Z``; numbers have the fewest digits that identify their float64; negative zero is written
    as zero (F5). The file appears whole or not at all: it is written beside `path` and renamed.

    Raises:
        OSError: the folder cannot be written to.
    """
    path = Path(path)
    names = list(telemetry.schema.names)
    columns = [pa.array(telemetry.values[:, index] + 0.0) for index in range(len(names))]
    if telemetry.timestamps is not None and telemetry.timestamp_column is not None:
        names.insert(0, telemetry.timestamp_column)
        columns.insert(0, pa.array(rfc3339(telemetry.timestamps), pa.string()))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("xb") as file:
            # Arrow would quote the names.
            file.write((",".join(names) + "\n").encode())
            options = pacsv.WriteOptions(include_header=False, quoting_style="none")
            pacsv.write_csv(pa.table(columns, names=names), file, options)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
