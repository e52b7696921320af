"""Scores as a table: CSV, Parquet, or CSV on standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dwcp.anomaly.v1 import scoring_pb2
from dwcp_sidecar.scorer import Scorer
from dwcp_training.console import UsageError
from dwcp_training.data.row_judge import Chunk
from dwcp_training.data.telemetry import rfc3339
from dwcp_training.data.writers import whole_file
from dwcp_training.publish import PublishError
from dwcp_training.series_scores import Scored

SUFFIXES = (".csv", ".parquet", ".pq")

_LEVELS = {number: name.removeprefix("LEVEL_") for name, number in scoring_pb2.Level.items()}


def schema(*, times: bool, files: bool, parquet: bool) -> pa.Schema:
    """The columns of a table of scores.

    Args:
        times: the data has times; else rows are known by their number.
        files: rows have no times and come from several files.
        parquet: times are of a type of their own; else they are text.
    """
    moment = pa.timestamp("ns", "UTC") if parquet else pa.string()
    where = [("timestamp", moment)] if times else [*([("file", pa.string())] if files else []), ("row", pa.int64())]
    return pa.schema(
        [
            *where,
            ("series", pa.string()),
            ("detector", pa.string()),
            ("score", pa.float32()),
            ("is_anomaly", pa.bool_()),
            ("level", pa.string()),
            ("p_value", pa.float64()),
            ("top_feature", pa.string()),
            ("top_value", pa.float64()),
            ("expected", pa.float32()),
        ]
    )


def table(
    chunk: Chunk, model: Scorer, columns: Sequence[int], scored: Scored, form: pa.Schema, *, only_alarms: bool
) -> tuple[pa.Table, NDArray[np.intp]]:
    """The verdicts of a model on some rows of a chunk, and which rows they are of.

    Of an alarm there are the feature that contributes most, its value and what was expected of it; else these are null.

    Args:
        columns: of the chunk's values, one for each feature of the model.
    """
    verdicts, rows = scored.verdicts, scored.rows
    kept = np.flatnonzero(verdicts.is_anomaly) if only_alarms else np.arange(len(rows))
    rows, contributions = rows[kept], verdicts.contributions[kept]
    top = contributions.argmax(axis=1)
    at = np.arange(len(rows))
    unnamed = ~verdicts.is_anomaly[kept] | ~(contributions[at, top] > 0)
    names = np.array(model.feature_names, dtype=object)
    levels = [_LEVELS[level] for level in verdicts.levels[kept].tolist()]
    found = {
        "file": lambda: pa.repeat(chunk.file, len(rows)),
        "row": lambda: pa.array(chunk.rows[rows]),
        "timestamp": lambda: _times(chunk, rows, form),
        "series": lambda: pa.array(chunk.series[rows], pa.string()),
        "detector": lambda: pa.repeat(model.name, len(rows)),
        "score": lambda: pa.array(verdicts.scores[kept]),
        "is_anomaly": lambda: pa.array(verdicts.is_anomaly[kept]),
        "level": lambda: pa.array(levels, pa.string()),
        "p_value": lambda: pa.array(verdicts.p_values[kept]),
        "top_feature": lambda: pa.array(names[top], pa.string(), mask=unnamed),
        "top_value": lambda: pa.array(chunk.values[rows, np.asarray(columns)[top]], mask=unnamed),
        "expected": lambda: pa.array(verdicts.expected[kept][at, top], mask=unnamed),
    }
    return pa.table([found[name]() for name in form.names], schema=form), rows


def in_row_order(parts: Sequence[tuple[pa.Table, NDArray[np.intp]]]) -> pa.Table:
    """The tables of several detectors as one, row by row, so that what is written does not depend on the chunks."""
    whole = pa.concat_tables([part for part, _ in parts])
    if len(parts) == 1:
        return whole
    order = np.argsort(np.concatenate([rows for _, rows in parts]), kind="stable")
    return whole.take(pa.array(order))


def check_output(output: str) -> None:
    """Raises `UsageError` for a file whose suffix says nothing."""
    if output != "-" and Path(output).suffix.lower() not in SUFFIXES:
        raise UsageError(f"--output {output}: write - for standard output, or a file that ends in .csv or .parquet")


def is_parquet(output: str) -> bool:
    """Whether that is what goes to `output`, as `check_output` accepts it; else it is CSV."""
    return output != "-" and Path(output).suffix.lower() != ".csv"


class Writer:
    """Writes tables of one schema to a file or a stream."""

    def __init__(self, target: BinaryIO, form: pa.Schema, *, parquet: bool) -> None:
        self._parquet = parquet
        if parquet:
            self._writer: pq.ParquetWriter | pacsv.CSVWriter = pq.ParquetWriter(target, form)
        else:
            target.write((",".join(form.names) + "\n").encode())  # Arrow would quote the names
            options = pacsv.WriteOptions(include_header=False, quoting_style="needed")
            self._writer = pacsv.CSVWriter(target, form, write_options=options)

    def write(self, part: pa.Table) -> None:
        """Adds rows."""
        if len(part):
            self._writer.write_table(part)

    def close(self) -> None:
        """Ends the table; the target stays open."""
        self._writer.close()


@contextmanager
def opened(output: str, form: pa.Schema) -> Iterator[Writer]:
    """A writer of a file that appears whole or not at all, or of standard output for ``-``.

    Raises:
        PublishError: the file cannot be written.
    """
    if output == "-":
        writer = Writer(sys.stdout.buffer, form, parquet=False)
        yield writer
        writer.close()
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    try:
        with whole_file(path) as file:
            writer = Writer(file, form, parquet=is_parquet(output))
            yield writer
            writer.close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise PublishError(
            f"--output {output}: cannot be written ({reason}). Name a file in a folder of yours."
        ) from None


def _times(chunk: Chunk, rows: NDArray[np.intp], form: pa.Schema) -> pa.Array:
    """Times in UTC, as text each with the fewest of 0, 3, 6 or 9 decimals that lose nothing."""
    assert chunk.times is not None
    times = chunk.times[rows]
    if form.field("timestamp").type != pa.string():
        return pa.array(times).cast(form.field("timestamp").type)
    nanoseconds = times.astype(np.int64)
    if len(times) == 0 or not (nanoseconds % 10**9).any():
        return pa.array(rfc3339(times), pa.string())
    text = np.empty(len(times), dtype=object)
    left = np.ones(len(times), dtype=bool)
    for divisor in (10**9, 10**6, 10**3, 1):  # one at a time: how a time is written must not depend on its neighbours
        alike = left & (nanoseconds % divisor == 0)
        text[alike] = rfc3339(times[alike])
        left &= ~alike
    return pa.array(text, pa.string())
