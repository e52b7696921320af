"""Faults put into normal telemetry: each kind into a copy of its own, in several strengths, in one or more metrics."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp_sidecar.scorer import Scorer
from dwcp_training.data import DataError, Telemetry
from dwcp_training.data.injection import WITHOUT_STRENGTH, faulty, places, usual_length
from dwcp_training.evaluation.events import Event
from dwcp_training.evaluation.scored import ScoredRows, score_rows

STRENGTHS = (3.0, 5.0, 8.0)
"""Standard deviations."""

TOGETHER = (1, 3)
"""How many metrics change together."""

MOST_EVENTS = 24
"""Of a kind, fewer in little data: at most a fifth of the rows is faulty."""


@dataclass(frozen=True)
class Plan:
    """What is put into the data.

    Attributes:
        strengths: in standard deviations; they take turns.
        together: how many metrics change at once; they take turns. More than there are metrics means all.
        seed: of places, metrics and the random kinds.
    """

    strengths: Sequence[float] = STRENGTHS
    together: Sequence[int] = TOGETHER
    seed: int = 42


@dataclass(frozen=True)
class Injected:
    """A copy of the data with faults of one kind.

    Attributes:
        values: float64 ``[n, F]``.
        events: the faults; those that changed nothing, because a metric cannot go beyond its range, are not among them.
        without_trace: how many those were.
    """

    values: NDArray[np.float64]
    events: list[Event]
    without_trace: int


def put_faults(
    telemetry: Telemetry, kind: str, deviations: NDArray[np.float64], plan: Plan, timesteps: int = 1
) -> Injected:
    """Puts faults of one kind into normal rows at random places.

    Args:
        telemetry: normal rows, ``[n, F]``; not changed.
        kind: one of `INJECTION_KINDS`.
        deviations: that strengths are multiples of, raw units, float64 ``[F]``.
        timesteps: a window that still holds faulty rows after the end of a fault is its grace.

    Raises:
        DataError: not even one such fault fits.
    """
    length = usual_length(kind)
    strengths = [0.0] if kind in WITHOUT_STRENGTH else list(plan.strengths)
    turns = list(itertools.product(strengths, plan.together))
    events = max(1, min(MOST_EVENTS, len(telemetry) // (5 * length)))
    generator = np.random.Generator(np.random.PCG64(plan.seed))
    starts = _spread(telemetry, events, length, timesteps, generator)
    values, put, without = telemetry.values.copy(), [], 0
    width = telemetry.values.shape[1]
    for number, start in enumerate(starts):
        strength, together = turns[number % len(turns)]
        together = min(together, width)
        chosen = sorted(generator.choice(width, together, replace=False).tolist())
        rows = range(start, start + length)
        changed = faulty(telemetry, kind, rows, chosen, strength * deviations[chosen], generator)
        if bool((changed == telemetry.values[start : start + length]).all()):
            without += 1
            continue
        values[start : start + length] = changed
        end = next(stop for first, stop in telemetry.segments if first <= start < stop)
        begun = None if telemetry.timestamps is None else telemetry.timestamps[start]
        notes = {"metrics": str(together)}
        if strength:
            notes["strength"] = f"{strength:g}"
        stop = start + length
        put.append(Event(kind, start, stop, min(stop + timesteps - 1, end), begun, notes))
    return Injected(values, put, without)


def _spread(
    telemetry: Telemetry, events: int, length: int, timesteps: int, generator: np.random.Generator
) -> list[int]:
    """First rows of at most `events` faults, each with its grace before the next; fewer where there is little room."""
    for count in range(events, 0, -1):
        try:
            return places(telemetry, count, length + timesteps - 1, generator)
        except DataError:
            if count == 1:
                raise
    raise AssertionError("the last count returns or raises")


def score_injected(model: Scorer, telemetry: Telemetry, injected: Injected, normal: ScoredRows) -> ScoredRows:
    """Scores of a copy with faults: those of the normal rows, but for the rows that a fault has a part in."""
    found = ScoredRows(normal.scored.copy(), normal.scores.copy(), normal.alarmed.copy())
    for event in injected.events:
        segment = next((first, stop) for first, stop in telemetry.segments if first <= event.first < stop)
        begin = max(segment[0], event.first - model.timesteps + 1)
        part = score_rows(model, injected.values[begin : event.until], [(0, event.until - begin)])
        at = slice(event.first - begin, None)
        rows = slice(event.first, event.until)
        found.scored[rows], found.scores[rows], found.alarmed[rows] = (
            part.scored[at],
            part.scores[at],
            part.alarmed[at],
        )
    return found
