"""Training on confirmed-normal data only: rows inside labelled intervals, or with a label, are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dwcp_training.data.cells import parse_times
from dwcp_training.data.csv_table import read_csv_table
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.raw import RawTable
from dwcp_training.data.report import EXCLUDED_AFTER_BASELINE, EXCLUDED_GRACE, EXCLUDED_INTERVAL, EXCLUDED_LABEL


@dataclass(frozen=True, slots=True)
class Intervals:
    """Closed time intervals that are not normal: `start` and `end` datetime64[ns] ``[k]`` in UTC, `kind` ``[k]``.

    They may overlap. `kind` is free text; without one it is ``interval``.
    """

    start: NDArray[np.datetime64]
    end: NDArray[np.datetime64]
    kind: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.start) == len(self.end) == len(self.kind):
            raise DataError("intervals", "start, end and kind must be equally long.")
        if not (self.end >= self.start).all():  # also refuses NaT
            raise DataError("intervals", "an interval ends before it starts.", code=DataErrorCode.BAD_INTERVALS)

    def covers(self, timestamps: NDArray[np.datetime64], grace_seconds: float = 0.0) -> NDArray[np.bool_]:
        """Marks, bool ``[n]``, the times in ``[start, end + grace]`` of some interval; NaT is in none."""
        grace = np.timedelta64(round(grace_seconds * 1e9), "ns")
        # Inside at least one, overlapping or not: more have begun than have ended.
        begun = np.searchsorted(np.sort(self.start), timestamps, side="right")
        ended = np.searchsorted(np.sort(self.end + grace), timestamps, side="left")
        return (begun > ended) & ~np.isnat(timestamps)

    @classmethod
    def joined(cls, items: Sequence[Intervals]) -> Intervals | None:
        """All intervals of `items` as one; None for none."""
        if not items:
            return None
        return cls(
            np.concatenate([item.start for item in items]),
            np.concatenate([item.end for item in items]),
            tuple(kind for item in items for kind in item.kind),
        )

    def of_kind(self, kind: str) -> Intervals:
        """The intervals of one kind."""
        chosen = np.array([name == kind for name in self.kind], dtype=bool)
        return Intervals(self.start[chosen], self.end[chosen], (kind,) * int(chosen.sum()))


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Which rows are not confirmed normal and so are left out.

    Attributes:
        intervals: files with the columns ``start,end`` and optionally ``kind``, or intervals in memory.
        grace_seconds: rows up to this long after the end of an interval are left out too, because metrics lag.
        label_column: a row is normal when its label is empty, zero or one of `normal_labels`, and left out otherwise.
        normal_labels: labels of normal rows, for example ``("idle", "normal")``.
    """

    intervals: Sequence[str | Path | Intervals] = ()
    grace_seconds: float = 0.0
    label_column: str | None = None
    normal_labels: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not (np.isfinite(self.grace_seconds) and self.grace_seconds >= 0):
            raise DataError("grace_seconds", f"{self.grace_seconds} must be a number of seconds, 0 or more.")
        if self.normal_labels and self.label_column is None:
            raise DataError("normal_labels", "normal labels need a label column.", "Name it with label_column.")

    def read_intervals(self) -> Intervals | None:
        """All intervals as one, or None when there are none. Raises `DataError` as `read_intervals` does."""
        return Intervals.joined(
            [item if isinstance(item, Intervals) else read_intervals(item) for item in self.intervals]
        )


def read_intervals(path: str | Path) -> Intervals:
    """Reads a CSV file with the columns ``start,end`` and optionally ``kind``, ISO-8601 times; others are ignored.

    One with a header alone has no intervals: a list of incidents begins like this.

    Raises:
        DataError: unreadable, a column is missing, a time cannot be read, or an interval ends before it starts;
            the last two name the line.
    """
    path = Path(path)
    try:
        table = _interval_table(path)
    except DataError as error:
        if error.code is not DataErrorCode.EMPTY or path.stat().st_size == 0:
            raise
        never = np.zeros(0, "datetime64[ns]")
        return Intervals(never, never, ())
    start, end = (parse_times(path.name, name, table.cells[name]).values for name in ("start", "end"))
    for row in np.flatnonzero(~(end >= start))[:1]:  # a comparison with NaT is false
        cells = [str(table.cells[name][int(row)].as_py()) for name in ("start", "end")]
        what = table.broken.get(int(row)) or (
            f"{cells[0]!r} to {cells[1]!r} is not an interval of ISO-8601 times that ends after it starts"
        )
        raise DataError("intervals", f"{path.name} line {table.lines[row]}: {what}.", code=DataErrorCode.BAD_INTERVALS)
    kinds = table.cells["kind"].to_pylist() if "kind" in table.cells.column_names else [""] * len(start)
    return Intervals(start, end, tuple(str(kind).strip() or "interval" for kind in kinds))


def _interval_table(path: Path) -> RawTable:
    """The file with its column `kind`, or without where there is none."""
    try:
        return read_csv_table(path, ("start", "end", "kind"))
    except DataError as error:
        if error.code is not DataErrorCode.MISSING_COLUMN or error.field != "kind":
            raise
        return read_csv_table(path, ("start", "end"))


def labels_of(table: RawTable, exclusion: Exclusion) -> tuple[NDArray[np.bool_], NDArray[np.object_]]:
    """Which rows are left out by their label, bool ``[n]``, and the labels as text, ``[n]``."""
    assert exclusion.label_column is not None
    column = table.cells[exclusion.label_column]
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    text = pc.fill_null(pc.utf8_trim_whitespace(column.cast(pa.string())), "")
    # Zero as any writer may spell it: 0, 0.0, -0, False.
    zero = pc.match_substring_regex(text, r"^([+-]?0+(\.0*)?([eE][+-]?[0-9]+)?|false)?$", ignore_case=True)
    normal = pc.or_(zero, pc.is_in(text, value_set=pa.array(list(exclusion.normal_labels), pa.string())))
    return ~normal.to_numpy(), text.to_numpy()


def anomalous_rows(
    timestamps: NDArray[np.datetime64] | None,
    labelled: NDArray[np.bool_],
    anomalies: Intervals | None,
    grace_seconds: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows with these times and marks are anomalies, and which are the grace after one, both bool ``[n]``.

    A row is an anomaly inside an interval or by its label. In the grace it is neither that nor known to be normal.
    """
    nothing = np.zeros(len(labelled), dtype=bool)
    if anomalies is None or timestamps is None:
        return labelled, nothing
    anomalous = labelled | anomalies.covers(timestamps)
    return anomalous, anomalies.covers(timestamps, grace_seconds) & ~anomalous


@dataclass(frozen=True, slots=True)
class Excluded:
    """What is left out as not confirmed normal.

    Attributes:
        mask: bool ``[n]``.
        dropped: reason to number of rows; a row counts once: in an interval, else in its grace, else labelled, else not
            of the baseline.
        by_kind: interval kind or label to number of rows, those of the grace included; intervals may overlap.
    """

    mask: NDArray[np.bool_]
    dropped: dict[str, int]
    by_kind: dict[str, int]

    def with_more(self, rows: NDArray[np.bool_], reason: str) -> Excluded:
        """The same with further `rows`, bool ``[n]``, left out for a reason."""
        number = int((rows & ~self.mask).sum())
        if not number:
            return self
        dropped = {**self.dropped, reason: self.dropped.get(reason, 0) + number}
        return Excluded(self.mask | rows, dropped, self.by_kind)


def excluded_rows(
    timestamps: NDArray[np.datetime64] | None,
    labelled: NDArray[np.bool_],
    labels: NDArray[np.object_],
    outside: NDArray[np.bool_],
    exclusion: Exclusion,
    intervals: Intervals | None,
) -> Excluded:
    """Which of the rows with these times, marks, labels and marks of not being baseline (each ``[n]``) are left out."""
    nothing = np.zeros(len(labelled), dtype=bool)
    inside, grace, by_kind = nothing, nothing, Counter[str]()
    if intervals is not None and timestamps is not None:
        inside = intervals.covers(timestamps)
        grace = intervals.covers(timestamps, exclusion.grace_seconds) & ~inside
        for kind in sorted(set(intervals.kind)):
            by_kind[kind] = int(intervals.of_kind(kind).covers(timestamps, exclusion.grace_seconds).sum())
    by_label = labelled & ~inside & ~grace
    for label, count in zip(*np.unique(labels[by_label].astype(str), return_counts=True), strict=True):
        by_kind[str(label)] += int(count)
    later = outside & ~inside & ~grace & ~by_label
    dropped = {
        EXCLUDED_INTERVAL: inside,
        EXCLUDED_GRACE: grace,
        EXCLUDED_LABEL: by_label,
        EXCLUDED_AFTER_BASELINE: later,
    }
    return Excluded(
        mask=inside | grace | by_label | later,
        dropped={reason: int(mask.sum()) for reason, mask in dropped.items() if mask.any()},
        by_kind={kind: count for kind, count in sorted(by_kind.items()) if count},
    )
