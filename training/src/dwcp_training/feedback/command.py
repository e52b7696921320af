"""Runs the commands of `dwcp feedback` for a person."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from dwcp_training.console import RefusedError, UsageError, err, guarded, guarded_pipe, out
from dwcp_training.data.errors import DataError, DataErrorCode
from dwcp_training.data.writers import whole_file
from dwcp_training.evaluation.bootstrap import Estimate
from dwcp_training.feedback.marks import Mark, Verdict, mark_of, time_text
from dwcp_training.feedback.rates import By, Rates, rates
from dwcp_training.feedback.store import FILE, ContradictionError, FeedbackStore
from dwcp_training.feedback.summary import FILE as SUMMARY
from dwcp_training.feedback.summary import write_summary
from dwcp_training.feedback.table import csv_of, import_table
from dwcp_training.publish import PublishError

UNCHANGED = "Nothing was marked."


@dataclass(frozen=True)
class Where:
    """The flags that name the file: a model folder, or the file itself."""

    models: Path | None = None
    file: Path | None = None

    def store(self) -> FeedbackStore:
        """Raises `UsageError` where neither is given."""
        if self.file is not None:
            return FeedbackStore(self.file)
        if self.models is None:
            raise UsageError("name the model folder whose alarms are marked, --models DIR, or a file, --feedback FILE")
        return FeedbackStore(self.models / FILE)

    def __str__(self) -> str:
        return f"--feedback {self.file}" if self.file is not None else f"--models {self.models}"


@dataclass(frozen=True)
class Given:
    """A mark as flags give it, all text."""

    start: str
    end: str
    verdict: str
    series: str = ""
    detector: str = ""
    note: str = ""
    by: str = ""


def run_add(where: Where, given: Given) -> int:
    """Stores one mark, and returns the exit status."""

    def command() -> None:
        now = time.time_ns()
        mark = mark_of(
            given.start, given.end, given.verdict, now=now, series=given.series, detector=given.detector,
            note=given.note, by=given.by,
        )  # fmt: skip
        try:
            added = where.store().add([mark], now)
        except ContradictionError as error:
            other = error.found[0].other
            raise DataError(
                "verdict",
                f"{mark.interval} cannot be {mark.verdict}: mark {other.id} says that {other.interval} is "
                f"{other.verdict}{_by(other)}.",
                f"Take that back first, dwcp feedback remove {other.id} {where}, or give an interval beside it.",
                code=DataErrorCode.BAD_INTERVALS,
            ) from None
        for stored in added.stored:
            out.print(f"mark {stored.id}: {stored.interval} is {stored.verdict}")
        for known in added.known:
            out.print(f"mark {known.id} has said so since {_seconds(known.marked_at)}{_by(known)}")
        _sum_up(where.store())

    return guarded(command, UNCHANGED)


def run_import(where: Where, files: Sequence[Path], by: str = "") -> int:
    """Stores the marks of CSV files, each whole or not at all, and returns the exit status."""

    def command() -> None:
        store, now = where.store(), time.time_ns()
        for path in files:
            added = import_table(path, store, now, by)
            known = f", {len(added.known):,} known before" if added.known else ""
            out.print(f"{path.name}: {len(added.stored):,} marked{known}")
            _sum_up(store)

    return guarded(command, "This file was not taken.")


def run_remove(where: Where, number: int) -> int:
    """Takes a mark back, and returns the exit status."""

    def command() -> None:
        mark = where.store().remove(number)
        out.print(f"removed mark {number}: {mark.interval} was {mark.verdict}{_by(mark)}")
        _sum_up(where.store())

    return guarded(command, "Nothing was removed.")


def run_list(where: Where, as_json: bool = False) -> int:
    """Lists all marks by time, and returns the exit status."""

    def command() -> None:
        marks = where.store().all()
        if as_json:
            print(json.dumps([_as_json(mark) for mark in marks], indent=2, ensure_ascii=False))
            return
        if not marks:
            out.print(f"Nothing is marked yet: {where.store().path}")
            return
        times, detector = Column("start, end", no_wrap=True), Column("detector", overflow="fold")
        table = Table("mark", times, "verdict", "series", detector, "by", "note")
        for mark in marks:
            both = dict.fromkeys((time_text(mark.start), time_text(mark.end)))
            table.add_row(
                str(mark.id), "\n".join(both), mark.verdict, mark.series or "all", mark.detector, mark.by, mark.note,
                style=None if mark.verdict == Verdict.TRUE else "yellow",
            )  # fmt: skip
        out.print(table)

    return guarded_pipe(command, "There is nothing to list.")


def run_report(where: Where, by: By = "week", as_json: bool = False) -> int:
    """Prints how often alarms were right and incidents found, over time, and returns the exit status."""

    def command() -> None:
        found = rates(where.store().all(), by)
        if where.store().path.exists():
            _sum_up(where.store())  # marks that have grown old leave it
        if as_json:
            print(json.dumps({"by": by, "periods": [item.as_json() for item in found]}, indent=2))
            return
        if len(found) == 1:
            out.print(f"Nothing is marked yet: {where.store().path}")
            return
        table = Table(
            Column(f"{by} of", no_wrap=True), "alarms\nmarked true", "precision", "incidents\nmissed", "recall",
        )  # fmt: skip
        for item in found:
            table.add_row(*_cells(item), end_section=item is found[-2], style="bold" if item is found[-1] else None)
        out.print(table)
        out.print("In brackets: intervals of 95 % (Wilson). Unnoticed incidents and unmarked alarms are not in it.")

    return guarded_pipe(command, "There is nothing to report.")


def run_export(where: Where, output: str, verdicts: Sequence[str]) -> int:
    """Writes marks as CSV, those of incidents unless told otherwise, and returns the exit status."""

    def command() -> None:
        for verdict in verdicts:
            if verdict not in list(Verdict):
                raise UsageError(f"--verdict {verdict}: write true, false or missed")
        marks = [mark for mark in where.store().all() if mark.verdict in verdicts]
        if not marks:
            raise RefusedError(f"nothing is marked {' or '.join(verdicts)} in {where.store().path}.")
        data = csv_of(marks)
        if output == "-":
            sys.stdout.write(data.decode())
            sys.stdout.flush()
            return
        try:
            with whole_file(Path(output)) as file:
                file.write(data)
        except OSError as error:
            raise PublishError(f"--output {output}: cannot be written ({error.strerror}).") from None
        err.print(f"{output}: {len(marks):,} marks")

    return guarded_pipe(command, "Nothing was exported.")


def _sum_up(store: FeedbackStore) -> None:
    """Writes the summary for the sidecars beside the marks. Where it cannot, the marks are stored all the same."""
    try:
        store.alone(lambda marks: write_summary(marks, store.path.parent))
    except (OSError, DataError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        err.print(f"{SUMMARY} was not written ({reason}); the sidecars show what they showed before.")


def _cells(item: Rates) -> tuple[str, ...]:
    alarms, incidents = item.right + item.wrong, item.found + item.missed
    return (
        item.period.isoformat() if item.period else "all",
        f"{item.right:,} of {alarms:,}", _estimate(item.precision),
        f"{item.missed:,} of {incidents:,}", _estimate(item.recall),
    )  # fmt: skip


def _estimate(estimate: Estimate) -> str:
    """A share and its interval, in per cent."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "-"
    return f"{100 * estimate.value:.0f} % ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})"


def _as_json(mark: Mark) -> dict[str, Any]:
    return {
        "id": mark.id,
        "start": time_text(mark.start),
        "end": time_text(mark.end),
        "verdict": mark.verdict.value,
        "series": mark.series,
        "detector": mark.detector,
        "note": mark.note,
        "by": mark.by,
        "marked_at": _seconds(mark.marked_at),
    }


def _by(mark: Mark) -> str:
    return f", by {mark.by}" if mark.by else ""


def _seconds(nanoseconds: int) -> str:
    return time_text(nanoseconds // 10**9 * 10**9)
