"""How often alarms were right, and how many incidents had one: among what people have marked, over time.

Precision is the share of right ones among the marked alarms; the rest are the false positives. Recall is the share of
known incidents that had an alarm; the rest are the false negatives. Nobody knows the incidents that nobody noticed, nor
the alarms that nobody marked: both are figures of what is marked, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

from dwcp_training.evaluation.bootstrap import Estimate
from dwcp_training.feedback.marks import Mark, Verdict, joined

By = Literal["day", "week", "month"]


@dataclass(frozen=True)
class Rates:
    """Figures of one period.

    Attributes:
        period: its first day in UTC; None for all time.
        right, wrong: alarms that were marked true, and false.
        found, missed: incidents with an alarm, and without. Overlapping intervals of one series are one incident.
        precision: of the marked alarms, with Wilson's interval.
        recall: of the known incidents, with Wilson's interval.
    """

    period: date | None
    right: int
    wrong: int
    found: int
    missed: int
    precision: Estimate
    recall: Estimate

    def as_json(self) -> dict[str, Any]:
        """For programs."""

        def estimate(of: Estimate) -> dict[str, float | None]:
            return {"value": of.value, "low": of.low, "high": of.high}

        return {
            "period": self.period.isoformat() if self.period else "all",
            "alarms": self.right + self.wrong,
            "true": self.right,
            "false": self.wrong,
            "precision": estimate(self.precision),
            "incidents": self.found + self.missed,
            "missed": self.missed,
            "recall": estimate(self.recall),
            "false_positive_share": None if self.precision.value is None else 1 - self.precision.value,
            "false_negative_share": None if self.recall.value is None else 1 - self.recall.value,
        }


def rates(marks: Sequence[Mark], by: By) -> list[Rates]:
    """The figures of each period in which something is marked, by time, and of all time at the end.

    An alarm belongs to the period of its start, an incident to that of its first mark.
    """
    incidents = joined(mark for mark in marks if mark.incident)
    alarms = [mark for mark in marks if mark.verdict != Verdict.MISSED]
    periods = sorted({_period(mark.start, by) for mark in marks})
    found = [
        _rates(
            period,
            [mark for mark in alarms if _period(mark.start, by) == period],
            [group for group in incidents if _period(group[0].start, by) == period],
        )
        for period in periods
    ]
    return [*found, _rates(None, alarms, incidents)]


def _rates(period: date | None, alarms: Sequence[Mark], incidents: Sequence[Sequence[Mark]]) -> Rates:
    right = sum(mark.verdict == Verdict.TRUE for mark in alarms)
    found = sum(any(mark.verdict == Verdict.TRUE for mark in group) for group in incidents)
    return Rates(
        period, right, len(alarms) - right, found, len(incidents) - found,
        Estimate.share(right, len(alarms)), Estimate.share(found, len(incidents)),
    )  # fmt: skip


def _period(nanoseconds: int, by: By) -> date:
    day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)).date()
    if by == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if by == "week" else day
