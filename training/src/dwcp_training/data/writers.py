"""Files that appear whole or not at all; telemetry as CSV in the seed format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv as pacsv

from dwcp_training.data.telemetry import Telemetry, rfc3339


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, beside `path`, that is renamed to it when the block ends, and removed when that fails.

    Raises:
        OSError: the folder cannot be written to.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_csv(telemetry: Telemetry, path: str | Path) -> None:
    """Writes ``timestamp,bandwidth,...`` and one line per row; reading it back gives the same bits.

    Times are ISO-8601 with ``Z``; numbers have the fewest digits that identify their float64; negative zero is written
    as zero (F5). The file appears whole or not at all.

    Raises:
        OSError: the folder cannot be written to.
    """
    path = Path(path)
    names = list(telemetry.schema.names)
    columns = [pa.array(telemetry.values[:, index] + 0.0) for index in range(len(names))]
    if telemetry.timestamps is not None and telemetry.timestamp_column is not None:
        names.insert(0, telemetry.timestamp_column)
        columns.insert(0, pa.array(rfc3339(telemetry.timestamps), pa.string()))
    with whole_file(path) as file:
        # Arrow would quote the names.
        file.write((",".join(names) + "\n").encode())
        options = pacsv.WriteOptions(include_header=False, quoting_style="none")
        pacsv.write_csv(pa.table(columns, names=names), file, options)
