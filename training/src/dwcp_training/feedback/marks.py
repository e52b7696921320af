"""One mark: an interval of a series, and what a person says of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dwcp_sidecar import detectors
from dwcp_training.data.cells import parse_times, text_column
from dwcp_training.data.errors import DataError, DataErrorCode, did_you_mean
from dwcp_training.data.telemetry import rfc3339

LONGEST_NAME = 200
LONGEST_NOTE = 2_000
"""Most characters of a name (series, person) and of a note."""

_AHEAD = 86_400 * 10**9  # nanoseconds that a clock may be behind


class Verdict(StrEnum):
    """What a person says of an interval."""

    TRUE = "true"  # the alarm was right
    FALSE = "false"  # there was nothing
    MISSED = "missed"  # there was something, and no alarm


INCIDENTS = (Verdict.TRUE, Verdict.MISSED)
"""The verdicts that say that something was wrong."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A verdict on the closed interval ``[start, end]``.

    Attributes:
        start, end: nanoseconds since 1970, UTC.
        verdict: what is said.
        series: name of the run, file or device, as alarms say it; empty means all series.
        detector: whose alarm it was; empty means any.
        note, by: free text, and who says it.
        id: number in the store; 0 before it is stored.
        marked_at: nanoseconds since 1970 at which it was stored; 0 before.
    """

    start: int
    end: int
    verdict: Verdict
    series: str = ""
    detector: str = ""
    note: str = ""
    by: str = ""
    id: int = 0
    marked_at: int = 0

    @property
    def incident(self) -> bool:
        """Whether something was wrong."""
        return self.verdict in INCIDENTS

    @property
    def interval(self) -> str:
        """For people, for example ``2024-01-01T10:00:00Z to 2024-01-01T10:05:00Z of link-1``."""
        text = time_text(self.start) if self.start == self.end else f"{time_text(self.start)} to {time_text(self.end)}"
        return f"{text} of {self.series}" if self.series else text


def time_text(nanoseconds: int) -> str:
    """RFC 3339 of nanoseconds since 1970."""
    return rfc3339(np.array([nanoseconds], np.int64).view("datetime64[ns]"))[0]


def mark_of(
    start: str, end: str, verdict: str, *, now: int, series: str = "", detector: str = "", note: str = "", by: str = ""
) -> Mark:
    """A mark from text, as people write it.

    Args:
        start, end: ISO 8601, UTC where no zone is given; an empty `end` is the start: a single row.
        verdict: of `Verdict`, in any case.
        now: nanoseconds since 1970.
        series, detector, note, by: as of `Mark`.

    Raises:
        DataError: a text is not what it should be; `field` says which.
    """
    begins = _time("start", start, now)
    ends = _time("end", end, now) if end.strip() else begins
    if ends < begins:
        raise _wrong("end", f"{end.strip()!r} is before the start, {start.strip()!r}.", "Exchange them.")
    said = verdict.strip().lower()
    if said not in list(Verdict):
        raise _wrong("verdict", f"{verdict.strip()!r} is no verdict.", "Write true, false or missed.")
    name = detector.strip().replace("-", "_")
    if name and name not in detectors.BY_NAME:
        raise _wrong("detector", f"{detector.strip()!r} is no detector.", did_you_mean(name, detectors.BY_NAME))
    if name and said == Verdict.MISSED:
        raise _wrong("detector", "an incident that was missed has no alarm, so no detector.", "Leave it out.")
    texts = {"series": (series, LONGEST_NAME), "by": (by, LONGEST_NAME), "note": (note, LONGEST_NOTE)}
    for field, (text, longest) in texts.items():
        if len(text) > longest:
            raise _wrong(field, f"has {len(text):,} characters.", f"Write at most {longest:,}.")
        if not text.strip().isprintable():
            raise _wrong(field, "holds a line break or another control character.", "Write it on one line.")
    return Mark(begins, ends, Verdict(said), series.strip(), name, note.strip(), by.strip())


def joined(marks: Iterable[Mark], gap: int = 0) -> list[list[Mark]]:
    """Marks of one series that overlap, or are at most `gap` nanoseconds apart, together: what happened once."""
    groups: list[list[Mark]] = []
    until = 0
    for mark in sorted(marks, key=lambda mark: (mark.series, mark.start, mark.end)):
        if groups and groups[-1][0].series == mark.series and mark.start <= until + gap:
            groups[-1].append(mark)
            until = max(until, mark.end)
        else:
            groups.append([mark])
            until = mark.end
    return groups


def contradicts(mark: Mark, other: Mark) -> bool:
    """Whether both cannot be right.

    One says that something was wrong and the other that nothing was, at some common time of a common series; or both
    are about the same interval, and one says that there was an alarm, the other that there was none.
    """
    if mark.series and other.series and mark.series != other.series:
        return False
    if mark.incident != other.incident:
        return mark.start <= other.end and other.start <= mark.end
    same = (mark.start, mark.end, mark.series) == (other.start, other.end, other.series)
    return same and mark.verdict != other.verdict


def _time(field: str, text: str, now: int) -> int:
    times = parse_times("feedback", field, text_column([text])).values
    if np.isnat(times[0]):
        raise _wrong(field, f"{text.strip()!r} is no time.", "Write ISO 8601, for example 2024-01-31T10:05:00Z.")
    nanoseconds = int(times[0].astype(np.int64))
    if nanoseconds > now + _AHEAD:
        raise _wrong(field, f"{text.strip()!r} is in the future.", "Write when it was; without a zone it is UTC.")
    return nanoseconds


def _wrong(field: str, message: str, remedy: str) -> DataError:
    return DataError(field, message, remedy, code=DataErrorCode.BAD_INTERVALS)
