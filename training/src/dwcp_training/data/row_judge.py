"""Rows that come piece by piece: which can be scored, and where a window must begin anew.

The rules are those of reading as a whole (`judge`), but for what needs all rows at once, and for the plausible range of
a metric, which is no matter here (F4). A row that is not later than one before it is bad, whichever of the two is
wrong. The cadence is what was given, or that of the first rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data import checks
from dwcp_training.data.cells import parse_numbers
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.judged import problems_of
from dwcp_training.data.pieces import Columns
from dwcp_training.data.raw import RawTable
from dwcp_training.data.report import LISTED, Problem, ProblemKind, Report, counted
from dwcp_training.data.rows import text_of, times_of
from dwcp_training.data.time_order import GAP_FACTOR
from dwcp_training.profiles import FeatureSchema, Profile

FIRST_STEPS = 8
"""Steps of a series from which its cadence is learned where nothing else says it; no gap is seen among them."""

_SECOND = np.timedelta64(1, "s")
_NEVER = np.datetime64("NaT", "ns")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that can be scored, in the order of their file.

    Attributes:
        file: what messages call the file.
        values: float64 ``[n, F]``, raw units, finite.
        times: datetime64[ns] ``[n]``, later from row to row within a series; None for data without times.
        rows: int64 ``[n]``, line in a CSV file (the header is 1), number of the row in others (from 1).
        series: name of each row's series, ``[n]``: a run, a file, a device; empty where there is only one.
        fresh: bool ``[n]``: no window holds this row and one of its series before it.
    """

    file: str
    values: NDArray[np.float64]
    times: NDArray[np.datetime64] | None
    rows: NDArray[np.int64]
    series: NDArray[np.object_]
    fresh: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(slots=True)
class _Series:
    """What the next rows of a series need to know of those before."""

    cadence: float | None
    latest: np.datetime64 = _NEVER  # of all rows with a time
    kept: np.datetime64 = _NEVER  # of those that were kept
    cut: bool = True  # the next kept row is fresh
    steps: list[float] = field(default_factory=list)


class RowJudge:
    """Judges raw tables, one after the other.

    Args:
        features: names of the values of a sample.
        profile: says where times and series are.
        drop: whether bad rows are left out; else they are an error.
        cadences: seconds between samples by series; the key None holds for all others.
        live: the rows are of now. A time that goes back is a clock that was set, or other data: the row is good, and
            its series begins anew.

    Attributes:
        problems, dropped, problem_counts, gap_count, rows_read, rows_used: see `Report`.
        set_back: how often the time of live rows went back.
    """

    def __init__(
        self,
        features: Sequence[str],
        profile: Profile,
        *,
        drop: bool,
        cadences: Mapping[str | None, float] | None = None,
        live: bool = False,
    ) -> None:
        self._features = tuple(features)
        self._profile = profile
        self._drop = drop
        self._live = live
        self._cadences = dict(cadences or {})
        self._series: dict[str, _Series] = {}
        self.rows_read = self.rows_used = self.gap_count = self.set_back = 0
        self.problems: list[Problem] = []
        self.problem_counts: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.ignored_columns: dict[str, None] = {}

    def judge(self, table: RawTable, columns: Columns, series: str = "") -> Chunk:
        """The rows of `table` that can be scored.

        Args:
            table: what comes next.
            columns: where its values are.
            series: the series of all its rows; without effect where the profile has a series column.

        Raises:
            DataError: a row is bad and bad rows are not left out; the first ones are listed.
        """
        n = len(table.lines)
        numbers = [parse_numbers(table.name, name, table.cells[name]) for name in columns.features]
        values = np.column_stack([column.values for column in numbers]) + 0.0  # negative zero is zero (F5)
        times = times_of(table, self._profile)
        names = np.full(n, series, dtype=object)
        if self._profile.reader.series_column is not None:
            names = text_of(table, self._profile.reader.series_column)

        broken = np.zeros(n, dtype=bool)
        broken[list(table.broken)] = True
        faults = [checks.fault(np.flatnonzero(broken), checks.WHOLE_ROW, ProblemKind.WRONG_WIDTH)]
        for j, column in enumerate(numbers):
            bad = ~np.isfinite(values[:, j]) & ~broken
            for kind, rows in (
                (ProblemKind.TEXT, bad & column.text),
                (ProblemKind.EMPTY, bad & column.empty & ~column.text),
                (ProblemKind.NOT_FINITE, bad & ~column.text & ~column.empty),
            ):
                faults.append(checks.fault(np.flatnonzero(rows), 1 + j, kind))
        kept = np.isfinite(values).all(axis=1) & ~broken
        if times is not None:
            known = ~np.isnat(times.values)
            for kind, rows in ((ProblemKind.EMPTY, times.empty), (ProblemKind.BAD_TIMESTAMP, ~known & ~times.empty)):
                faults.append(checks.fault(np.flatnonzero(rows & ~broken), checks.TIMESTAMP, kind))
            kept &= known
        fresh = np.zeros(n, dtype=bool)
        for name, at in by_series(names):
            state = self._series.setdefault(name, _Series(self._cadences.get(name, self._cadences.get(None))))
            if times is None:
                self._in_file_order(state, at, kept, fresh)
            else:
                faults += self._in_time_order(state, at, times.values, kept, fresh)
        self._count(checks.collect(faults), kept, table, columns)
        return Chunk(
            file=table.name,
            values=values[kept],
            times=None if times is None else times.values[kept],
            rows=table.lines[kept],
            series=names[kept],
            fresh=fresh[kept],
        )

    def cut(self, series: str | None = None) -> None:
        """Makes the next row of a series, or of every one, begin its window anew."""
        for name, state in self._series.items():
            if series in (None, name):
                state.cut = True

    def report(self) -> Report:
        """What was found so far."""
        return Report(
            rows_read=self.rows_read,
            rows_used=self.rows_used,
            dropped=dict(self.dropped),
            problem_counts=dict(self.problem_counts),
            problems=tuple(self.problems),
            gap_count=self.gap_count,
            ignored_columns=tuple(self.ignored_columns),
        )

    @staticmethod
    def _in_file_order(state: _Series, at: NDArray[np.intp], kept: NDArray[np.bool_], fresh: NDArray[np.bool_]) -> None:
        """Without times, rows that follow one another are neighbours."""
        fresh[at] = np.concatenate([[state.cut], ~kept[at][:-1]])
        state.cut = not kept[at[-1]]

    def _in_time_order(
        self,
        state: _Series,
        at: NDArray[np.intp],
        times: NDArray[np.datetime64],
        kept: NDArray[np.bool_],
        fresh: NDArray[np.bool_],
    ) -> list[checks.Faults]:
        """Rows whose time goes on are kept, and are neighbours where it does not jump."""
        timed = at[~np.isnat(times[at])]
        if not len(timed):
            return []
        moments = times[timed].astype(np.int64)
        started = not np.isnat(state.latest)
        before = np.concatenate([[state.latest.astype(np.int64) if started else moments[0] - 1], moments])
        if not self._live:
            before = np.maximum.accumulate(before)
        again = moments == before[:-1]
        later = ~again if self._live else moments > before[:-1]
        state.latest = np.datetime64(int(before[-1]), "ns")
        kept[timed[~later]] = False
        faults = [
            checks.fault(timed[again], checks.TIMESTAMP, ProblemKind.DUPLICATE_TIMESTAMP),
            checks.fault(timed[~later & ~again], checks.TIMESTAMP, ProblemKind.UNORDERED_TIMESTAMP),
        ]
        used = timed[kept[timed]]
        if not len(used):
            return faults
        steps = np.diff(np.concatenate([[state.kept], times[used]])) / _SECOND
        known = ~np.isnan(steps)
        if state.cadence is None:
            first = FIRST_STEPS - len(state.steps)
            state.steps += steps[known][:first].tolist()
            if len(state.steps) == FIRST_STEPS:
                state.cadence = float(np.median(state.steps))
                known[np.flatnonzero(known)[:first]] = False
        gaps = np.zeros(len(used), dtype=bool)
        if state.cadence is not None:
            gaps[known] = steps[known] > GAP_FACTOR * state.cadence
            self.gap_count += int(gaps.sum())
        back = known & (steps < 0)
        self.set_back += int(back.sum())
        gaps |= back
        gaps[0] |= state.cut
        fresh[used] = gaps
        state.kept, state.cut = times[used[-1]], False
        return faults

    def _count(self, faults: checks.Faults, kept: NDArray[np.bool_], table: RawTable, columns: Columns) -> None:
        self.rows_read += len(kept)
        self.rows_used += int(kept.sum())
        self.ignored_columns.update(dict.fromkeys(table.ignored))
        if not len(faults):
            return
        for into, counts in ((self.problem_counts, faults.counts()), (self.dropped, faults.counts_by_first())):
            for kind, count in counts.items():
                into[kind] = into.get(kind, 0) + count
        found = problems_of(faults, lambda row: (table, row), columns.features, _NO_SCHEMA, self._profile)
        if not self._drop:
            raise DataError(
                "rows",
                f"{len(np.unique(faults.rows)):,} of {self.rows_read:,} rows read so far cannot be scored: "
                f"{counted(faults.counts())}.",
                "Correct these rows, or leave them out with --on-bad-rows drop.",
                code=DataErrorCode.BAD_ROWS,
                problems=found,
                counts=faults.counts(),
            )
        self.problems += found[: LISTED - len(self.problems)]


_NO_SCHEMA = FeatureSchema(name="none", version=1)  # ranges are not checked here


def by_series(names: NDArray[np.object_]) -> list[tuple[str, NDArray[np.intp]]]:
    """Each series of some rows with the rows that it has among them, ascending; in the order of appearance."""
    if not len(names):
        return []
    if (names == names[0]).all():
        return [(str(names[0]), np.arange(len(names)))]
    import pandas as pd  # here: commands that read no names do without

    codes, found = pd.factorize(names)
    order = np.argsort(codes, kind="stable")
    edges = np.cumsum(np.bincount(codes))[:-1]
    return list(zip(found.tolist(), np.split(order, edges), strict=True))
