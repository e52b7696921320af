"""What the marks of the last days say, as a file for the sidecars' metrics page (rule M5)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from dwcp.anomaly.v1.feedback_pb2 import FeedbackSummary
from dwcp_sidecar import protojson
from dwcp_training.data.writers import whole_file
from dwcp_training.feedback.marks import Mark, Verdict, joined

FILE = "feedback-summary.json"
"""Name of the file, beside the marks."""

DAYS = 30
"""Marks of so many days before now are summed up: what was right last year says nothing of this month's model."""


def summary(marks: Iterable[Mark], now: int | None = None, days: int = DAYS) -> FeedbackSummary:
    """Counts the alarms marked true and false, and the incidents without an alarm, that began in the last `days`.

    Args:
        now: nanoseconds since 1970; None asks the clock.
    """
    now = time.time_ns() if now is None else now
    recent = [mark for mark in marks if now - days * 86_400 * 10**9 <= mark.start <= now]
    incidents = joined(mark for mark in recent if mark.incident)
    return FeedbackSummary(
        schema_version=1,
        days=days,
        true_alarms=sum(mark.verdict == Verdict.TRUE for mark in recent),
        false_alarms=sum(mark.verdict == Verdict.FALSE for mark in recent),
        missed_faults=sum(all(mark.verdict == Verdict.MISSED for mark in group) for group in incidents),
        updated=datetime.fromtimestamp(now // 10**9, UTC).isoformat().replace("+00:00", "Z"),
    )


def write_summary(marks: Iterable[Mark], folder: Path, now: int | None = None) -> Path:
    """Writes `feedback-summary.json` whole into a folder, and returns its path.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / FILE
    with whole_file(path) as file:
        file.write(protojson.dumps(summary(marks, now)).encode())
    return path
