"""What reading found: problems by file and line, gaps, what was left out, warnings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

LISTED = 10
"""How many problems are listed one by one; all are counted."""


class ProblemKind(StrEnum):
    """What makes a row bad. The values are the reasons in `Report.dropped`."""

    WRONG_WIDTH = "wrong_width"
    TEXT = "text_in_number_column"
    EMPTY = "empty_cell"
    NOT_FINITE = "not_finite"
    OUT_OF_RANGE = "out_of_range"
    BAD_TIMESTAMP = "unparsable_timestamp"
    DUPLICATE_TIMESTAMP = "duplicate_timestamp"
    UNORDERED_TIMESTAMP = "unordered_timestamp"

    @property
    def words(self) -> str:
        """The kind as people say it, for example ``text in number column``."""
        return self.value.replace("_", " ")


EXCLUDED_INTERVAL = "excluded_interval"
EXCLUDED_GRACE = "excluded_grace"
EXCLUDED_LABEL = "excluded_label"
EXCLUDED_AFTER_BASELINE = "excluded_after_baseline"
"""Reasons in `Report.dropped` of rows that were left out because they are not confirmed normal."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of one row.

    Attributes:
        file: file name without folders.
        line: line in a CSV file (the header is line 1); row of a Parquet or .npy file (the first is 1).
        column: the column at fault; empty when it is the whole row.
        value: what the cell holds, shortened.
        kind: what is wrong.
        message: what is wrong with this value, for people.
    """

    file: str
    line: int
    column: str
    value: str
    kind: ProblemKind
    message: str

    def __str__(self) -> str:
        place = (
            f"{self.file} line {self.line}"
            if not self.file.endswith((".parquet", ".pq", ".npy"))
            else f"{self.file} row {self.line}"
        )
        return f"{place}, {self.column}: {self.message}" if self.column else f"{place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Gap:
    """A step in time of more than 1.5 times the cadence. `line` of `file` is the first row after it."""

    file: str
    line: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """What reading found. ``rows_read == rows_used + sum(dropped.values())``.

    Attributes:
        rows_read: rows in the files, bad and excluded ones included; blank lines are not rows.
        rows_used: rows in `Telemetry.values`.
        dropped: reason to number of rows left out for it; a row with several problems counts under its first.
        excluded_by_kind: interval kind or label to the number of rows left out for it.
        problem_counts: problem kind to number of problems; a row may have several.
        problems: the first problems by file and line, at most `LISTED`.
        gaps: the first gaps in the cadence, at most `LISTED`; gaps split segments and make no row bad.
        gap_count: number of gaps.
        ignored_columns: columns that the schema does not name.
        warnings: sentences for people, also written to the training record.
    """

    rows_read: int
    rows_used: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    excluded_by_kind: Mapping[str, int] = field(default_factory=dict)
    problem_counts: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    gaps: tuple[Gap, ...] = ()
    gap_count: int = 0
    ignored_columns: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def counted(counts: Mapping[str, int]) -> str:
    """``3 text in number column, 1 empty cell``: counts in words, the largest first."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in ranked)
