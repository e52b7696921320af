"""Reading telemetry: files in, validated rows out, or an error that lists what is wrong with which line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data.advice import warnings_about
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.exclusion import Exclusion, Intervals
from dwcp_training.data.judged import Judged, judge
from dwcp_training.data.layout import Layout, completed, guessed_limits
from dwcp_training.data.raw import Progress
from dwcp_training.data.report import LISTED, Report, counted
from dwcp_training.data.rows import read_rows
from dwcp_training.data.telemetry import Segments, Telemetry
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
    normal_only: bool = False,
    anomalies: Sequence[str | Path | Intervals] | None = None,
) -> Telemetry:
    """Reads CSV, Parquet and `.npy` files, folders of them, or run folders, as the profile says.

    Columns are found by name. Files of one series are put in the order of their first times; series stay apart. Rows
    that `exclude` leaves out are not validated. Gaps in the cadence and rows left out split segments; a gap is reported
    and makes no row bad.

    Args:
        paths: one or more files, by suffix, or folders.
        profile: the feature schema, or how to find it, and the names of other columns.
        on_bad_rows: ``fail`` refuses data with a bad row, ``drop`` leaves bad rows out and counts them.
        cadence: seconds between samples where known; else the median step.
        exclude: which rows are not confirmed normal.
        progress: called with file name, bytes done, bytes in all.
        normal_only: leave out what the profile's baseline and the runs' own intervals say is not normal.
        anomalies: for detectors that learn from labels: files of intervals, or intervals in memory, in which rows are
            anomalies, besides those with a label in the column of `exclude`. Given, even without any, anomalies are
            kept and marked in `Telemetry.labels`; the grace after an interval is left out.

    Raises:
        DataError: a file cannot be read or lacks a column; rows are bad and `on_bad_rows` is ``fail``; no row is left;
            a column holds no number at all; `cadence` is not that of the data; or `anomalies` are wanted and nothing
            tells them from normal rows.
    """
    check_reading(on_bad_rows, cadence)
    exclude = exclude or Exclusion()
    intervals = exclude.read_intervals()
    labelled = anomalies is not None
    known = Exclusion(anomalies or ()).read_intervals()
    if (intervals is not None or known is not None) and profile.timestamp_column is None:
        raise DataError("intervals", "rows without times cannot be inside an interval.", "Use a label column.")

    layout, series = read_rows(paths, profile, exclude, progress, normal_only=normal_only)
    if labelled and exclude.label_column is None and known is None and all(rows.intervals is None for rows in series):
        raise DataError(
            "labels",
            "nothing says which rows are anomalies.",
            "Name a column with --label-column, or files of intervals with --labels.",
            code=DataErrorCode.NO_LABELS,
        )
    judged = [
        judge(rows, layout, profile, exclude, intervals, cadence, labelled=labelled, anomalies=known) for rows in series
    ]
    _refuse_empty_columns(judged, layout)
    rows_read = sum(len(rows) for rows in series)
    faults = _summed(item.problem_counts for item in judged)
    dropped = _summed(item.dropped for item in judged)
    problems = tuple(problem for item in judged for problem in item.problems)[:LISTED]
    if faults and on_bad_rows == "fail":
        raise DataError(
            "rows",
            f"{sum(item.bad_rows for item in judged):,} of {rows_read:,} rows cannot be used: {counted(faults)}.",
            "Correct these rows, or leave them out with on_bad_rows='drop' (--on-bad-rows drop).",
            code=DataErrorCode.BAD_ROWS,
            problems=problems,
            counts=faults,
        )
    if not any(item.kept.any() for item in judged):
        raise DataError(
            "rows",
            f"none of {rows_read:,} rows is left: {counted(dropped)}.",
            code=DataErrorCode.EMPTY,
            problems=problems,
            counts=faults,
        )

    gaps = [gap for item in judged for gap in item.gaps]
    tables = [table for item in judged for table in item.rows.tables]
    report = Report(
        rows_read=rows_read,
        rows_used=sum(int(item.kept.sum()) for item in judged),
        dropped=dropped,
        excluded_by_kind=_summed(item.excluded_by_kind for item in judged),
        problem_counts=faults,
        problems=problems,
        gaps=tuple(gaps[:LISTED]),
        gap_count=len(gaps),
        ignored_columns=tuple(dict.fromkeys(name for table in tables for name in table.ignored)),
    )
    telemetry = _telemetry(judged, layout, profile, report, [table.name for table in tables])
    _refuse_single_class(telemetry)
    warnings = warnings_about(
        telemetry,
        profile,
        longest_gap_seconds=max((gap.seconds for gap in gaps), default=0.0),
        asked_to_exclude=intervals is not None or (exclude.label_column is not None and not labelled),
    )
    return replace(telemetry, report=replace(report, warnings=warnings))


def check_reading(on_bad_rows: str, cadence: float | None) -> None:
    """Raises `DataError` for arguments of a reader that make no sense."""
    if on_bad_rows not in ("fail", "drop"):
        raise DataError("on_bad_rows", f"{on_bad_rows!r} is neither 'fail' nor 'drop'.")
    if cadence is not None and not (np.isfinite(cadence) and cadence > 0):
        raise DataError("cadence", f"{cadence} must be a number of seconds above 0.")


def _telemetry(
    judged: Sequence[Judged], layout: Layout, profile: Profile, report: Report, files: Sequence[str]
) -> Telemetry:
    """The used rows of all series, one series after the other."""
    used = [item for item in judged if item.kept.any()]
    values = np.concatenate([item.rows.values[item.kept] for item in used])
    times = [item.rows.times.values[item.kept] for item in used if item.rows.times is not None]
    ends = np.cumsum([int(item.kept.sum()) for item in used]).tolist()
    starts = [0, *ends[:-1]]
    segments: Segments = tuple(
        (start + first, start + last) for item, start in zip(used, starts, strict=True) for first, last in item.segments
    )
    cadences = [item.cadence_seconds for item in used if item.cadence_seconds is not None]
    return Telemetry(
        schema=completed(layout.schema, values),
        guessed_limits=guessed_limits(layout.schema),
        values=values,
        timestamps=np.concatenate(times) if times else None,
        timestamp_column=profile.timestamp_column,
        cadence_seconds=float(np.median(cadences)) if cadences else None,
        segments=segments,
        source=_listed(files),
        report=report,
        series=tuple(zip(starts, ends, strict=True)),
        scaling=profile.scaling,
        drift=profile.drift,
        labels=_joined([item.anomalous[item.kept] for item in used if item.anomalous is not None]),
        series_names=tuple(item.rows.name for item in used),
    )


def _joined(marks: Sequence[NDArray[np.bool_]]) -> NDArray[np.bool_] | None:
    return np.concatenate(marks) if marks else None


def _refuse_single_class(telemetry: Telemetry) -> None:
    """Labels that say the same of every row tell nothing apart."""
    labels = telemetry.labels
    if labels is None or (labels.any() and not labels.all()):
        return
    word, remedy = ("anomalous", "") if labels.all() else ("normal", " Are the times of the intervals in UTC?")
    raise DataError(
        "labels",
        f"all {len(labels):,} rows are {word} by their labels: {telemetry.source}.",
        f"Check the labels, and which of them mean normal (--normal-label).{remedy}",
        code=DataErrorCode.SINGLE_CLASS,
    )


def _refuse_empty_columns(judged: Sequence[Judged], layout: Layout) -> None:
    """A metric without any number is a mistake in the profile or the export, not that many bad rows."""
    whole = [~item.rows.broken for item in judged]
    if sum(int(mask.sum()) for mask in whole) < 2:
        return
    for j, column in enumerate(layout.columns):
        if all(
            (np.isnan(item.rows.values[mask, j]) & ~item.rows.text[mask, j]).all()
            for item, mask in zip(judged, whole, strict=True)
        ):
            raise DataError(
                column,
                f"the column {column!r} holds no number at all: every cell is empty or NaN.",
                "Leave it out of the profile: not in feature_schema.features, or, where these are found in the data, "
                "in reader.metadata.",
                code=DataErrorCode.WRONG_COLUMN,
            )


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts added up by name, names in the order in which they first appear."""
    total: dict[str, int] = {}
    for part in counts:
        for name, number in part.items():
            total[name] = total.get(name, 0) + number
    return total


def _listed(files: Sequence[str]) -> str:
    """File names without repetition, comma separated; of many the first ones and their number."""
    names = list(dict.fromkeys(files))
    if len(names) <= LISTED:
        return ", ".join(names)
    return ", ".join(names[:3]) + f" and {len(names) - 3:,} more files"
