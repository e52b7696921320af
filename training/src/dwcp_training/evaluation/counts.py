"""False alarms, misses and delay, counted (S1-19, S1-20)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dwcp_sidecar.scorer import Scorer
from dwcp_training.data import DataError, Intervals, Telemetry, inject
from dwcp_training.evaluation.events import Event, events_of, masks
from dwcp_training.evaluation.scored import alarms

STRENGTH = 5.0
"""Size of injected anomalies in training standard deviations."""

EVENTS = 20
"""Injected anomalies of a kind and metric, fewer in little data: one to 100 rows."""


@dataclass(frozen=True)
class Recall:
    """How many faults of one kind were found.

    Attributes:
        events: faults with at least one scored row.
        found: those with an alarm from their start to the end of their grace.
        rows, alarmed: scored rows inside the faults, and those with an alarm; the grace does not count.
        latency_seconds: median time from the start of a found fault to its first alarm; None without times or finds.
    """

    events: int
    found: int
    rows: int
    alarmed: int
    latency_seconds: float | None


@dataclass(frozen=True)
class Evaluated:
    """Figures of one detector.

    Attributes:
        normal_rows: scored rows outside faults and their grace.
        false_alarms: those with an alarm.
        false_positive_rate: their share; None without normal rows.
        false_alarms_per_hour: None without times.
        false_negative_rate: share of the scored rows of faults without an alarm; None without faults.
        detection_latency_seconds: median over all found faults, as in `Recall`.
        kinds: fault kind to recall.
        injected: kind to metric to recall.
    """

    normal_rows: int
    false_alarms: int
    false_positive_rate: float | None
    false_alarms_per_hour: float | None
    false_negative_rate: float | None = None
    detection_latency_seconds: float | None = None
    kinds: dict[str, Recall] = field(default_factory=dict)
    injected: dict[str, dict[str, Recall]] = field(default_factory=dict)


def evaluate(
    model: Scorer, telemetry: Telemetry, faults: Intervals | None = None, grace_seconds: float = 0.0
) -> Evaluated:
    """Scores telemetry, with faults in it at known times, or all of it normal.

    Args:
        model: of an open set.
        telemetry: all rows, those of the faults too.
        faults: when something was wrong; they may overlap.
        grace_seconds: rows this long after a fault count neither as normal nor as faulty, because metrics lag.

    Raises:
        DataError: the metrics are not those of the model, or faults are given for rows without times.
    """
    check_data(model, telemetry, faults)
    scored, alarmed = alarms(model, telemetry.values, telemetry.segments)
    if faults is None or telemetry.timestamps is None:
        return counted(telemetry, scored, alarmed, None)
    return counted(telemetry, scored, alarmed, events_of(faults, telemetry.timestamps, grace_seconds))


def check_data(model: Scorer, telemetry: Telemetry, faults: Intervals | None = None) -> None:
    """Raises DataError as `evaluate` does, before anything is scored."""
    if tuple(model.feature_names) != telemetry.schema.names:
        raise DataError("profile", f"the model scores {', '.join(model.feature_names)}; the data is another profile's.")
    if faults is not None and telemetry.timestamps is None:
        raise DataError("labels", "rows without times cannot be inside a fault.")
    if faults is not None and telemetry.parallel:
        raise DataError(
            "labels", "the data are several series at once; a fault does not say which one it is of.",
            "Evaluate one device or file at a time.",
        )  # fmt: skip


def counted(
    telemetry: Telemetry,
    scored: NDArray[np.bool_],
    alarmed: NDArray[np.bool_],
    events: Sequence[Event] | None,
) -> Evaluated:
    """The figures of rows that were scored, with these faults in them, or None for rows that are all normal."""
    if events is None:
        return _false_alarms(telemetry, scored, alarmed)
    inside, touched = masks(events, len(scored))
    figures = _false_alarms(telemetry, scored & ~touched, alarmed)
    faulty, missed = int((scored & inside).sum()), int((scored & inside & ~alarmed).sum())
    kinds, every_latency = {}, []
    for kind in sorted({event.kind for event in events}):
        of_kind = [event for event in events if event.kind == kind]
        kinds[kind], latencies = recall(scored, alarmed, of_kind, telemetry.timestamps)
        every_latency += latencies
    return Evaluated(
        **{
            **vars(figures),
            "false_negative_rate": missed / faulty if faulty else None,
            "detection_latency_seconds": float(np.median(every_latency)) if every_latency else None,
            "kinds": kinds,
        }
    )


def evaluate_injected(model: Scorer, telemetry: Telemetry, kind: str, metric: str) -> Recall:
    """Recall on anomalies of one kind put into one metric of normal rows; only windows ending in one are scored."""
    events = min(EVENTS, max(1, len(telemetry) // 100))
    scale = model.metadata.scaler.scale
    deviations = np.array(scale) if len(scale) else None  # an ensemble has none: those of the data
    values, labels = inject(telemetry, kind, metrics=[metric], strength=STRENGTH, deviations=deviations, events=events)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], labels.astype(np.int8), [0]])))
    rows = [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
    scored, alarmed = np.zeros(len(values), bool), np.zeros(len(values), bool)
    for first, last in rows:
        segment = next(start for start, stop in telemetry.segments if start <= first < stop)
        begin = max(segment, first - model.timesteps + 1)
        parts = alarms(model, values[begin:last], [(0, last - begin)])
        scored[first:last], alarmed[first:last] = (part[first - begin :] for part in parts)
    times = telemetry.timestamps
    put = [Event(kind, first, last, last, None if times is None else times[first]) for first, last in rows]
    return recall(scored, alarmed, put, times)[0]


def _false_alarms(telemetry: Telemetry, normal: NDArray[np.bool_], alarmed: NDArray[np.bool_]) -> Evaluated:
    rows, false = int(normal.sum()), int((normal & alarmed).sum())
    hours = rows * telemetry.cadence_seconds / 3600 if telemetry.cadence_seconds else None
    return Evaluated(rows, false, false / rows if rows else None, false / hours if hours else None)


def recall(
    scored: NDArray[np.bool_],
    alarmed: NDArray[np.bool_],
    events: Sequence[Event],
    times: NDArray[np.datetime64] | None,
) -> tuple[Recall, list[float]]:
    """Recall over events, found where an alarm comes before the end of their grace; the latency of each one found."""
    known = found = inside = inside_alarmed = 0
    latencies = []
    for event in events:
        inside += int(scored[event.first : event.stop].sum())
        inside_alarmed += int((scored & alarmed)[event.first : event.stop].sum())
        if not scored[event.first : event.until].any():
            continue
        known += 1
        hits = np.flatnonzero(alarmed[event.first : event.until])
        if len(hits):
            found += 1
            if times is not None and event.start is not None:
                latencies.append(float((times[event.first + hits[0]] - event.start) / np.timedelta64(1, "s")))
    latency = float(np.median(latencies)) if latencies else None
    return Recall(known, found, inside, inside_alarmed, latency), latencies
