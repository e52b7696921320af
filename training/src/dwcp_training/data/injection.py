"""Anomalies of known kind, place and strength put into telemetry, for evaluation by kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data.errors import DataError, DataErrorCode, did_you_mean
from dwcp_training.data.synthetic import standard_normal
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.data.windows import window_starts

Shape = Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]
"""From the rows of an event ``[d, m]`` in standard deviations to their change for a strength of 1, ``[d, m]``."""


def _spike(rows: NDArray[np.float64], _: np.random.Generator) -> NDArray[np.float64]:
    return np.ones_like(rows)


def _drop(rows: NDArray[np.float64], _: np.random.Generator) -> NDArray[np.float64]:
    return -np.ones_like(rows)


def _ramp(rows: NDArray[np.float64], _: np.random.Generator) -> NDArray[np.float64]:
    return np.ones_like(rows) * (np.arange(1, len(rows) + 1) / len(rows))[:, np.newaxis]


def _burst(rows: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    raised = generator.random(len(rows)) < 0.5
    raised[[0, -1]] = True  # so that the event begins and ends where its label does
    return np.ones_like(rows) * raised[:, np.newaxis]


def _noise(rows: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    return standard_normal(generator, rows.size).reshape(rows.shape)


_SHAPES: dict[str, tuple[int, Shape | None]] = {
    "spike": (1, _spike),
    "drop": (5, _drop),
    "step": (30, _spike),
    "ramp": (30, _ramp),
    "burst": (20, _burst),
    "freeze": (30, None),
    "noise": (30, _noise),
    "correlation_break": (30, None),
}
"""Kind to its usual duration in rows and its shape; those that take values from elsewhere have none."""

WITHOUT_STRENGTH = frozenset({"freeze", "correlation_break"})
"""Kinds for which a strength has no meaning."""

KINDS: tuple[str, ...] = tuple(_SHAPES)
"""The kinds of anomaly that `inject` knows."""


def inject(
    telemetry: Telemetry,
    kind: str,
    *,
    metrics: Sequence[str] | None = None,
    strength: float = 5.0,
    deviations: NDArray[np.float64] | None = None,
    events: int = 20,
    duration: int | None = None,
    seed: int = 42,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Puts `events` anomalies of one kind at random, separate places within segments.

    ========  ================================================================  =============
    kind      what happens to the metrics during an event                       usual length
    ========  ================================================================  =============
    spike     raised by `strength`                                              1
    drop      lowered by `strength`                                             5
    step      raised by `strength`                                              30
    ramp      raised by more and more, by `strength` in the last row            30
    burst     raised by `strength` in the first, the last and about half of     20
              the other rows
    freeze    stuck at the value of the first row; `strength` has no meaning    30
    noise     N(0, `strength`) is added                                         30
    ========  ================================================================  =============

    A ``correlation_break`` (30 rows) gives each metric its own normal values of another time: each is as usual by
    itself, and they no longer go together. `strength` has no meaning.

    Results are limited to the plausible ranges of the schema, so that no value is impossible rather than unusual.

    Args:
        telemetry: normal rows, ``[n, F]``; not changed.
        kind: one of `KINDS`.
        metrics: names of the metrics that change together; None for all.
        strength: in standard deviations of each metric; a negative one turns the direction round.
        deviations: float64 ``[F]``, the training standard deviations; None for those of `telemetry`.
        events: number of events.
        duration: rows in an event; None for the kind's usual length.
        seed: of the places and of the random kinds.

    Returns:
        The changed values, float64 ``[n, F]``, and bool ``[n]``, true in the rows of the events.

    Raises:
        DataError: an unknown kind or metric, a strength that is 0 or not finite, or no room for so many events.
    """
    if kind not in _SHAPES:
        raise DataError("kind", f"there is no kind {kind!r}.", f"Known: {', '.join(KINDS)}.")
    if not (np.isfinite(strength) and strength != 0):
        raise DataError("strength", f"{strength} must be a finite number other than 0.")
    names = telemetry.schema.names
    for name in metrics if metrics is not None else ():
        if name not in names:
            raise DataError(
                "metrics", f"{name!r} is not a metric of {telemetry.schema.name}.", did_you_mean(name, names)
            )
    chosen = [names.index(name) for name in (names if metrics is None else metrics)]
    length = usual_length(kind) if duration is None else duration
    scale = (telemetry.values.std(axis=0) if deviations is None else np.asarray(deviations, dtype=np.float64))[chosen]
    generator = np.random.Generator(np.random.PCG64(seed))

    values = telemetry.values.copy()
    labels = np.zeros(len(values), dtype=bool)
    for start in places(telemetry, events, length, generator):
        values[start : start + length] = faulty(
            telemetry, kind, range(start, start + length), chosen, strength * scale, generator
        )
        labels[start : start + length] = True
    return values, labels


def usual_length(kind: str) -> int:
    """Rows in an event of a kind, unless told otherwise."""
    return _SHAPES[kind][0]


def faulty(
    telemetry: Telemetry,
    kind: str,
    rows: range,
    chosen: Sequence[int],
    size: NDArray[np.float64],
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """The values ``[d, F]`` of an event of one kind in some rows, limited to the plausible ranges.

    Args:
        telemetry: normal rows.
        rows: the rows of the event, within a segment.
        chosen: indices of the metrics that change together, ``m`` of them.
        size: strength times deviation of each of these, raw units, float64 ``[m]``.
    """
    shape = _SHAPES[kind][1]
    values = telemetry.values[rows.start : rows.stop].copy()
    before = values[:, chosen]
    if kind == "correlation_break":
        values[:, chosen] = _of_other_times(telemetry, rows, chosen, generator)
    elif shape is None:
        values[:, chosen] = before[:1]
    else:
        values[:, chosen] = before + shape(before, generator) * size
    low = np.array([feature.minimum for feature in telemetry.schema.features])
    high = np.array([feature.maximum for feature in telemetry.schema.features])
    return np.clip(values, low, high) + 0.0


def _of_other_times(
    telemetry: Telemetry, rows: range, chosen: Sequence[int], generator: np.random.Generator
) -> NDArray[np.float64]:
    """For each chosen metric its values in as many rows of another place, each metric of its own, ``[d, m]``."""
    starts = window_starts(telemetry.segments, len(rows))
    apart = starts[np.abs(starts - rows.start) >= len(rows)]
    if len(apart):
        starts = apart
    taken = starts[generator.integers(len(starts), size=len(chosen))]
    return np.column_stack(
        [telemetry.values[start : start + len(rows), j] for start, j in zip(taken, chosen, strict=True)]
    )


def places(telemetry: Telemetry, events: int, length: int, generator: np.random.Generator) -> list[int]:
    """First rows of `events` events, each within a segment, with at least one normal row between two of them."""
    if events < 1:
        raise DataError("events", f"{events} must be 1 or more.")
    starts = window_starts(telemetry.segments, length)
    slot = len(starts) // events
    room = slot - length
    if room < 1:
        raise DataError(
            "events",
            f"{events} events of {length} rows do not fit into {len(telemetry)} rows.",
            "Ask for fewer or shorter ones.",
            code=DataErrorCode.TOO_SHORT,
        )
    # Places ascend, so two that are `length + 1` apart in the list are at least as far apart in rows.
    offsets = np.floor(generator.random(events) * room).astype(np.intp)
    return [int(starts[index * slot + offset]) for index, offset in enumerate(offsets)]
