"""Marks as CSV: read all or nothing, with lines named; written as `--labels` and `--exclude` read it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from dwcp_training.data.csv_table import csv_columns, read_csv_table
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.report import LISTED
from dwcp_training.feedback.marks import Mark, mark_of, time_text
from dwcp_training.feedback.store import Added, Contradiction, ContradictionError, FeedbackStore

NEEDED = ("start", "verdict")
OPTIONAL = ("end", "series", "detector", "note", "by")
WRITTEN = ("start", "end", "kind", "verdict", "series", "detector", "note", "by")
"""Columns of a written file. `kind` is the verdict: `dwcp evaluate` counts kinds apart."""


def import_table(path: Path, store: FeedbackStore, now: int, by: str = "") -> Added:
    """Stores the marks of a CSV file, all or none.

    Args:
        path: a CSV file with the columns `NEEDED` and any of `OPTIONAL`; others are ignored.
        now: nanoseconds since 1970.
        by: who says it, where the file does not.

    Raises:
        DataError: the file or some of its lines cannot be used, or contradict each other or what is stored.
    """
    columns = [*NEEDED, *(name for name in OPTIONAL if name in csv_columns(path))]
    table = read_csv_table(path, columns)
    cells = {name: table.cells[name].to_pylist() for name in columns}
    marks, faults = [], []
    for row, line in enumerate(table.lines.tolist()):
        if row in table.broken:
            faults.append(f"{path.name} line {line}: {table.broken[row]}.")
            continue
        given = {name: str(cells[name][row]) for name in columns}
        given["by"] = given.get("by", "").strip() or by
        try:
            marks.append(mark_of(given.pop("start"), given.pop("end", ""), given.pop("verdict"), now=now, **given))
        except DataError as error:
            faults.append(f"{path.name} line {line}, {error.field}: {error.message} {error.remedy}")
    lines = [line for row, line in enumerate(table.lines.tolist()) if row not in table.broken]
    if not faults:
        try:
            return store.add(marks, now)
        except ContradictionError as error:
            faults = [_said(path, item, lines) for item in error.found]
    listed = "".join(f"\n  {fault}" for fault in faults[:LISTED])
    more = f"\n  and {len(faults) - LISTED:,} more" if len(faults) > LISTED else ""
    raise DataError(
        "rows", f"{len(faults):,} of {len(table.lines):,} lines cannot be used:{listed}{more}",
        "Correct these lines: a file is taken whole or not at all.", code=DataErrorCode.BAD_ROWS,
    )  # fmt: skip


def _said(path: Path, item: Contradiction, lines: Sequence[int]) -> str:
    where = f"line {lines[item.given]}" if item.given is not None else f"mark {item.other.id}, which is stored"
    return (
        f"{path.name} line {lines[item.number]}, verdict: {item.mark.interval} is {item.mark.verdict}, which "
        f"contradicts {where}: {item.other.interval} is {item.other.verdict}."
    )


def csv_of(marks: Sequence[Mark]) -> bytes:
    """A header and a line for each mark, in UTF-8."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(WRITTEN)
    for mark in marks:
        said = mark.verdict.value
        writer.writerow(
            (time_text(mark.start), time_text(mark.end), said, said, mark.series, mark.detector, mark.note, mark.by)
        )
    return text.getvalue().encode()
