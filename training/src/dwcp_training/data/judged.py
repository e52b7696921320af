"""What the rows of one series are worth: which are bad, which are left out, where the gaps are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data import checks
from dwcp_training.data.checks import Faults
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.exclusion import Exclusion, Intervals, anomalous_rows, excluded_rows
from dwcp_training.data.layout import Layout
from dwcp_training.data.raw import RawTable
from dwcp_training.data.report import EXCLUDED_GRACE, LISTED, Gap, Problem, ProblemKind
from dwcp_training.data.rows import Rows
from dwcp_training.data.telemetry import Segments
from dwcp_training.data.time_order import (
    GAP_FACTOR,
    in_order,
    median_step,
    rows_after_gaps,
    segments_between,
    steps_seconds,
)
from dwcp_training.profiles import FeatureSchema, Profile


@dataclass(frozen=True, slots=True)
class Judged:
    """One series after all checks. Counts are as in `Report`.

    Attributes:
        rows: the series as read, ``n`` rows.
        kept: bool ``[n]``, rows that are neither bad nor left out.
        bad_rows: number of bad rows.
        dropped, excluded_by_kind, problem_counts: counts of this series.
        problems: its first problems, at most `LISTED`.
        gaps: its gaps.
        segments: ranges of the kept rows that windows may not leave.
        cadence_seconds: the median step or what was given; None without times.
        anomalous: bool ``[n]``, the rows that are anomalies; None where these are left out.
    """

    rows: Rows
    kept: NDArray[np.bool_]
    bad_rows: int
    dropped: Mapping[str, int]
    excluded_by_kind: Mapping[str, int]
    problem_counts: Mapping[str, int]
    problems: tuple[Problem, ...]
    gaps: tuple[Gap, ...]
    segments: Segments
    cadence_seconds: float | None
    anomalous: NDArray[np.bool_] | None


def judge(
    rows: Rows,
    layout: Layout,
    profile: Profile,
    exclude: Exclusion,
    intervals: Intervals | None,
    cadence: float | None,
    *,
    labelled: bool = False,
    anomalies: Intervals | None = None,
) -> Judged:
    """Judges one series. Rows that are left out are not validated.

    Args:
        intervals: times that are not normal, besides those that the series itself knows of.
        cadence: seconds between samples where known.
        labelled: keep rows that their label, the series itself or `anomalies` say are not normal, and mark them.
        anomalies: times of anomalies, where `labelled`.

    Raises:
        DataError: `cadence` is not that of the data.
    """
    times = None if rows.times is None else rows.times.values
    anomalous: NDArray[np.bool_] | None = None
    if labelled:
        known = Intervals.joined([item for item in (anomalies, rows.intervals) if item is not None])
        anomalous, grace = anomalous_rows(times, rows.labelled, known, exclude.grace_seconds)
        unlabelled = np.zeros(len(rows), dtype=bool)
        excluded = excluded_rows(times, unlabelled, rows.labels, rows.outside & ~anomalous, exclude, intervals)
        excluded = excluded.with_more(grace, EXCLUDED_GRACE)
    else:
        wrong = Intervals.joined([item for item in (intervals, rows.intervals) if item is not None])
        excluded = excluded_rows(times, rows.labelled, rows.labels, rows.outside, exclude, wrong)
    timed = np.zeros(0, dtype=np.intp) if times is None else np.flatnonzero(~np.isnat(times))
    ordered = timed if times is None else timed[in_order(times[timed])]
    seconds = _cadence(rows, ordered, cadence)

    faults = _faults(rows, layout, timed, ordered)
    faults = faults.where(~excluded.mask[faults.rows])
    kept = ~excluded.mask
    kept[faults.rows] = False
    return Judged(
        rows=rows,
        kept=kept,
        bad_rows=len(np.unique(faults.rows)),
        dropped=excluded.dropped | faults.counts_by_first(),
        excluded_by_kind=excluded.by_kind,
        problem_counts=faults.counts(),
        problems=problems_of(faults, rows.place, layout.columns, layout.schema, profile),
        gaps=tuple(_gaps(rows, ordered, seconds)),
        segments=_segments(rows, kept, seconds),
        cadence_seconds=seconds,
        anomalous=anomalous,
    )


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


def _faults(rows: Rows, layout: Layout, timed: NDArray[np.intp], ordered: NDArray[np.intp]) -> Faults:
    """All faults of all rows; a row whose cells could not be told apart has that one fault only."""
    found = [checks.value_faults(layout.schema, rows.values, rows.text, rows.empty)]
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


def problems_of(
    faults: Faults,
    place: Callable[[int], tuple[RawTable, int]],
    columns: Sequence[str],
    schema: FeatureSchema,
    profile: Profile,
) -> tuple[Problem, ...]:
    """The first faults, in words.

    Args:
        place: the table of a row and its index there.
        columns: of the features, in their order.
        schema: their plausible ranges, where these are checked.
    """
    unit = profile.reader.timestamp_format
    described = []
    for row, column, code in zip(
        faults.rows[:LISTED].tolist(), faults.columns[:LISTED].tolist(), faults.kinds[:LISTED].tolist(), strict=True
    ):
        kind = checks.KINDS[code]
        table, index = place(row)
        if column == checks.WHOLE_ROW:
            name, value = "", ""
            message = table.broken[index]
        else:
            name = columns[column - 1] if column != checks.TIMESTAMP else str(profile.timestamp_column)
            value = _shortened(table.cells[name][index].as_py())
            message = checks.describe(kind, value, schema, column)
            if kind is ProblemKind.BAD_TIMESTAMP and unit != "iso":
                message = f"{value!r} is not a number of {unit}"
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
