"""Reading telemetry: files in, validated rows out, or an error that lists what is wrong with which line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data import checks
from dwcp_training.data.advice import warnings_about
from dwcp_training.data.checks import Faults
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.exclusion import Exclusion, excluded_rows
from dwcp_training.data.raw import Progress
from dwcp_training.data.report import LISTED, Gap, Problem, ProblemKind, Report, counted
from dwcp_training.data.rows import Rows, read_rows
from dwcp_training.data.telemetry import Segments, Telemetry
from dwcp_training.data.time_order import (
    GAP_FACTOR,
    in_order,
    median_step,
    rows_after_gaps,
    segments_between,
    steps_seconds,
)
from dwcp_training.profiles import Profile

OnBadRows = Literal["fail", "drop"]


def read_table(
    paths: str | Path | Sequence[str | Path],
    profile: Profile,
    *,
    on_bad_rows: OnBadRows = "fail",
    cadence: float | None = None,
    exclude: Exclusion | None = None,
    progress: Progress | None = None,
) -> Telemetry:
    """Reads CSV and Parquet files as one table of telemetry.

    Columns are found by name. Several files are put in the order of their first times. Rows that `exclude` leaves out
    are not validated. Gaps in the cadence and rows left out split segments; a gap is reported and makes no row bad.

    Args:
        paths: one or more files, CSV or Parquet by suffix.
        profile: the feature schema and the name of the timestamp column.
        on_bad_rows: ``fail`` refuses data with a bad row, ``drop`` leaves bad rows out and counts them.
        cadence: seconds between samples where known; else the median step.
        exclude: which rows are not confirmed normal.
        progress: called with file name, bytes done, bytes in all.

    Raises:
        DataError: a file cannot be read or lacks a column; rows are bad and `on_bad_rows` is ``fail``; no row is left;
            or `cadence` is not that of the data.
    """
    if on_bad_rows not in ("fail", "drop"):
        raise DataError("on_bad_rows", f"{on_bad_rows!r} is neither 'fail' nor 'drop'.")
    if cadence is not None and not (np.isfinite(cadence) and cadence > 0):
        raise DataError("cadence", f"{cadence} must be a number of seconds above 0.")
    exclude = exclude or Exclusion()
    intervals = exclude.read_intervals()
    if intervals is not None and profile.timestamp_column is None:
        raise DataError("intervals", "rows without times cannot be inside an interval.", "Use a label column.")

    rows = read_rows(paths, profile, exclude, progress)
    times = None if rows.times is None else rows.times.values
    excluded = excluded_rows(times, rows.labelled, rows.labels, exclude, intervals)
    timed = np.zeros(0, dtype=np.intp) if times is None else np.flatnonzero(~np.isnat(times))
    ordered = timed if times is None else timed[in_order(times[timed])]
    seconds = _cadence(rows, ordered, cadence)

    faults = _faults(rows, profile, timed, ordered)
    faults = faults.where(~excluded.mask[faults.rows])
    problems = _problems(faults, rows, profile)
    if len(faults) and on_bad_rows == "fail":
        bad = len(np.unique(faults.rows))
        raise DataError(
            "rows",
            f"{bad:,} of {len(rows):,} rows cannot be used: {counted(faults.counts())}.",
            "Correct these rows, or leave them out with on_bad_rows='drop' (--on-bad-rows drop).",
            code=DataErrorCode.BAD_ROWS,
            problems=problems,
            counts=faults.counts(),
        )
    kept = ~excluded.mask
    kept[faults.rows] = False
    dropped = excluded.dropped | faults.counts_by_first()
    if not kept.any():
        raise DataError(
            "rows",
            f"none of {len(rows):,} rows is left: {counted(dropped)}.",
            code=DataErrorCode.EMPTY,
            problems=problems,
            counts=faults.counts(),
        )

    gaps = _gaps(rows, ordered, seconds)
    report = Report(
        rows_read=len(rows),
        rows_used=int(kept.sum()),
        dropped=dropped,
        excluded_by_kind=excluded.by_kind,
        problem_counts=faults.counts(),
        problems=problems,
        gaps=tuple(gaps[:LISTED]),
        gap_count=len(gaps),
        ignored_columns=tuple(dict.fromkeys(name for table in rows.tables for name in table.ignored)),
    )
    telemetry = Telemetry(
        schema=profile.feature_schema,
        values=rows.values[kept],
        timestamps=None if times is None else times[kept],
        timestamp_column=profile.timestamp_column,
        cadence_seconds=seconds,
        segments=_segments(rows, kept, seconds),
        source=", ".join(table.name for table in rows.tables),
        report=report,
    )
    longest = max((gap.seconds for gap in gaps), default=0.0)
    asked_to_exclude = intervals is not None or exclude.label_column is not None
    warnings = warnings_about(telemetry, profile, longest_gap_seconds=longest, asked_to_exclude=asked_to_exclude)
    return replace(telemetry, report=replace(report, warnings=warnings))


def _cadence(rows: Rows, ordered: NDArray[np.intp], given: float | None) -> float | None:
    """The cadence in seconds, checked against the data when it is given."""
    measured = None if rows.times is None else median_step(rows.times.values[ordered])
    if given is None or measured is None:
        return given if given is not None else measured
    if not 1 / GAP_FACTOR <= measured / given <= GAP_FACTOR:
        raise DataError(
            "cadence",
            f"the cadence is given as {given:g} s, but the median step of the data is {measured:g} s.",
            "Correct it, or leave it out.",
            code=DataErrorCode.WRONG_CADENCE,
        )
    return given


def _faults(rows: Rows, profile: Profile, timed: NDArray[np.intp], ordered: NDArray[np.intp]) -> Faults:
    """All faults of all rows; a row whose cells could not be told apart has that one fault only."""
    found = [checks.value_faults(profile.feature_schema, rows.values, rows.text, rows.empty)]
    if rows.times is not None:
        times = rows.times.values
        empty = rows.times.empty
        found.append(checks.fault(np.flatnonzero(empty), checks.TIMESTAMP, ProblemKind.EMPTY))
        found.append(
            checks.fault(np.flatnonzero(np.isnat(times) & ~empty), checks.TIMESTAMP, ProblemKind.BAD_TIMESTAMP)
        )
        unordered = np.zeros(len(rows), dtype=bool)
        unordered[timed] = True
        unordered[ordered] = False
        astray = np.flatnonzero(unordered)
        place = np.minimum(np.searchsorted(times[ordered], times[astray]), len(ordered) - 1)
        again = times[ordered][place] == times[astray]
        found.append(checks.fault(astray[again], checks.TIMESTAMP, ProblemKind.DUPLICATE_TIMESTAMP))
        found.append(checks.fault(astray[~again], checks.TIMESTAMP, ProblemKind.UNORDERED_TIMESTAMP))
    cells = checks.collect(found)
    cells = cells.where(~rows.broken[cells.rows])
    return checks.collect([cells, checks.fault(np.flatnonzero(rows.broken), checks.WHOLE_ROW, ProblemKind.WRONG_WIDTH)])


def _problems(faults: Faults, rows: Rows, profile: Profile) -> tuple[Problem, ...]:
    """The first faults, in words."""
    schema = profile.feature_schema
    described = []
    for row, column, code in zip(
        faults.rows[:LISTED].tolist(), faults.columns[:LISTED].tolist(), faults.kinds[:LISTED].tolist(), strict=True
    ):
        kind = checks.KINDS[code]
        table, index = rows.place(row)
        if column == checks.WHOLE_ROW:
            name, value = "", ""
            message = table.broken[index]
        else:
            name = schema.names[column - 1] if column != checks.TIMESTAMP else str(profile.timestamp_column)
            value = _shortened(table.cells[name][index].as_py())
            message = checks.describe(kind, value, schema, column)
        described.append(Problem(table.name, int(table.lines[index]), name, value, kind, message))
    return tuple(described)


def _shortened(value: object) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _gaps(rows: Rows, ordered: NDArray[np.intp], cadence: float | None) -> list[Gap]:
    """Gaps between the rows in the files, whether or not they are used."""
    if rows.times is None or cadence is None:
        return []
    times = rows.times.values[ordered]
    after = rows_after_gaps(times, cadence)
    steps = steps_seconds(times)
    places = [rows.place(int(row)) for row in ordered[after]]
    return [
        Gap(table.name, int(table.lines[index]), float(step))
        for (table, index), step in zip(places, steps[after - 1], strict=True)
    ]


def _segments(rows: Rows, kept: NDArray[np.bool_], cadence: float | None) -> Segments:
    """Runs of used rows without a gap; without times, runs of neighbours of one file."""
    used = np.flatnonzero(kept)
    if rows.times is not None:
        return segments_between(rows_after_gaps(rows.times.values[used], cadence), len(used))
    starts_file = np.isin(used, rows.first)
    breaks = np.flatnonzero((np.diff(used) > 1) | starts_file[1:]) + 1
    return segments_between(breaks, len(used))
