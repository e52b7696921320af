"""What all sources share: a judge of rows that come now, and the text of what was wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from dwcp_training.data.pieces import Columns
from dwcp_training.data.raw import RawTable
from dwcp_training.data.report import LISTED, counted
from dwcp_training.data.row_judge import Chunk, RowJudge
from dwcp_training.profiles import Profile

Item = Chunk | str
"""Rows to score, or a notice for people."""


class Source(Protocol):
    """Where samples come from."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def rows_read(self) -> int:
        """Rows so far, bad ones included."""

    def items(self) -> Iterator[Item]:
        """Rows and notices as they come; ends when it is told to stop, or nothing more can come.

        Raises:
            DataError: what comes can never be scored: a column is missing.
            EndpointError: the endpoint cannot answer what it is asked.
        """


class LiveJudge:
    """Judges tables as they come. A bad row is left out and said.

    Args:
        features, profile, cadences: as of `RowJudge`.
    """

    def __init__(self, features: Sequence[str], profile: Profile, cadences: Mapping[str | None, float]) -> None:
        self._judge = RowJudge(features, profile, drop=True, cadences=cadences, live=True)

    @property
    def rows_read(self) -> int:
        """Rows so far, bad ones included."""
        return self._judge.rows_read

    def cut(self, series: str | None = None) -> None:
        """Makes the next row of a series, or of every one, begin its window anew."""
        self._judge.cut(series)

    def items(self, table: RawTable, columns: Columns, series: str = "") -> Iterator[Item]:
        """Notices about a table, and its good rows."""
        judge = self._judge
        dropped, gaps, set_back = sum(judge.dropped.values()), judge.gap_count, judge.set_back
        kinds = dict(judge.problem_counts)
        chunk = judge.judge(table, columns, series)
        if bad := sum(judge.dropped.values()) - dropped:
            found = {kind: count - kinds.get(kind, 0) for kind, count in judge.problem_counts.items()}
            yield f"{bad:,} of {len(table.lines):,} rows left out: {counted({k: n for k, n in found.items() if n})}"
            for problem in judge.problems[:LISTED]:
                yield f"  {problem}"
            judge.problems.clear()
        if gaps := judge.gap_count - gaps:
            yield f"{gaps:,} gap{'s' * (gaps > 1)} in the cadence of {series or table.name}: windows begin anew"
        if judge.set_back > set_back:
            yield f"the time of {series or table.name} goes back: windows begin anew"
        if len(chunk):
            yield chunk
