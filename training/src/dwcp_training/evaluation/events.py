"""Faults as ranges of rows, wherever they come from: intervals in time, labelled rows, or injection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data import Intervals, Telemetry


@dataclass(frozen=True, slots=True)
class Event:
    """One fault.

    Attributes:
        kind: its name.
        first, stop: its rows.
        until: end of its grace: rows from `stop` on that are neither normal nor faulty.
        start: when it began; None without times. It may be before the time of its first row.
        notes: what distinguishes faults of a kind, name to value: `strength`, `metrics`.
    """

    kind: str
    first: int
    stop: int
    until: int
    start: np.datetime64 | None = None
    notes: dict[str, str] = field(default_factory=dict)


def rows_between(times: NDArray[np.datetime64], start: np.datetime64, end: np.datetime64) -> tuple[int, int]:
    """The rows with times in the closed interval, as a range."""
    return int(np.searchsorted(times, start, side="left")), int(np.searchsorted(times, end, side="right"))


def events_of(faults: Intervals, times: NDArray[np.datetime64], grace_seconds: float) -> list[Event]:
    """The faults of intervals, in their order; one may have no rows."""
    grace = np.timedelta64(round(grace_seconds * 1e9), "ns")
    found = []
    for start, end, kind in zip(faults.start, faults.end, faults.kind, strict=True):
        first, stop = rows_between(times, start, end)
        found.append(Event(kind, first, stop, rows_between(times, start, end + grace)[1], start))
    return found


def labelled_events(telemetry: Telemetry, kind: str = "labelled") -> list[Event]:
    """Runs of labelled rows, each within a segment."""
    assert telemetry.labels is not None
    found = []
    for start, stop in telemetry.segments:
        marks = np.concatenate([[0], telemetry.labels[start:stop].astype(np.int8), [0]])
        for first, last in np.flatnonzero(np.diff(marks)).reshape(-1, 2).tolist():
            begun = None if telemetry.timestamps is None else telemetry.timestamps[start + first]
            found.append(Event(kind, start + first, start + last, start + last, begun))
    return found


def masks(events: Sequence[Event], rows: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of ``n`` rows are in a fault, and which in a fault or its grace, bool ``[n]`` each."""
    faulty, touched = np.zeros(rows, bool), np.zeros(rows, bool)
    for event in events:
        faulty[event.first : event.stop] = True
        touched[event.first : event.until] = True
    return faulty, touched
