"""The one error type of the data package."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dwcp_training.data.report import Problem


class DataErrorCode(StrEnum):
    """Why data was refused."""

    UNREADABLE = "unreadable"  # no such file, a folder, no permission
    UNKNOWN_FORMAT = "unknown_format"  # neither .csv nor .parquet
    NOT_A_TABLE = "not_a_table"  # the bytes are not what the suffix says
    EMPTY = "empty"  # no header, no rows, or no rows left
    MISSING_COLUMN = "missing_column"
    WRONG_COLUMN = "wrong_column"  # a column is there twice, or has a type without numbers or times
    BAD_ROWS = "bad_rows"
    BAD_INTERVALS = "bad_intervals"
    WRONG_CADENCE = "wrong_cadence"
    TOO_SHORT = "too_short"  # fewer rows than a window or a split needs
    NO_LABELS = "no_labels"  # a detector that learns from labels was given none
    SINGLE_CLASS = "single_class"  # only normal, or only anomalous, where both are needed
    INVALID_ARGUMENT = "invalid_argument"


class DataError(ValueError):
    """Data that cannot be used, or an argument that makes no sense.

    Attributes:
        field: what is at fault: a column, an argument, or ``file`` and ``rows`` where it is the whole.
        message: what is wrong, for people.
        remedy: what to do about it.
        code: the kind of fault, for programs.
        problems: the first bad rows, at most ten.
        counts: kind of problem to the number of cells or rows that have it.
    """

    def __init__(
        self,
        field: str,
        message: str,
        remedy: str = "",
        *,
        code: DataErrorCode = DataErrorCode.INVALID_ARGUMENT,
        problems: Sequence[Problem] = (),
        counts: Mapping[str, int] | None = None,
    ) -> None:
        self.field = field
        self.message = message
        self.remedy = remedy
        self.code = code
        self.problems = tuple(problems)
        self.counts = dict(counts or {})
        lines = [f"{field}: {message}", *(f"  {problem}" for problem in self.problems)]
        unlisted = sum(self.counts.values()) - len(self.problems)
        if self.problems and unlisted > 0:
            lines.append(f"  and {unlisted:,} more")
        if remedy:
            lines.append(remedy)
        super().__init__("\n".join(lines))


def did_you_mean(name: str, present: Iterable[str]) -> str:
    """A sentence that names the column of `present` most like `name`, or else those that are there."""
    columns = list(present)
    plain = {_plain(column): column for column in reversed(columns)}
    close = difflib.get_close_matches(_plain(name), list(plain), n=1, cutoff=0.6)
    if close:
        return f"Is {plain[close[0]]!r} meant? Rename it to {name!r}."
    listed = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    return f"The columns are: {listed}." if columns else "There are no columns."


def _plain(name: str) -> str:
    """`name` without case, spaces and punctuation, in which exports of the same metric tend to differ."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
