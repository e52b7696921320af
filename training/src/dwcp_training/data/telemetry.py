"""Telemetry in memory: values in schema order, times, and the segments that windows may not leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data.report import Report
from dwcp_training.profiles import DriftDefaults, FeatureSchema, Scaling

Segments = tuple[tuple[int, int], ...]
"""Row ranges ``[start, stop)`` in ascending order, without overlap."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Rows that passed validation.

    Attributes:
        schema: names, units and ranges of the columns of `values`.
        values: float64 ``[n, F]``, raw units, schema order, finite, without negative zeros (F5).
        timestamps: datetime64[ns] ``[n]``, UTC, strictly increasing within a series; None for data without times.
        timestamp_column: name of the column they were read from and are written to.
        cadence_seconds: seconds between samples, the median step; None for data without times.
        segments: row ranges unbroken by gaps; a window never crosses their ends.
        source: file names without folders, comma separated, or ``synthetic``.
        report: what reading found.
        series: row range of each series: a run, a device, or all files together; empty means that there is one.
        scaling: where the scaler of a model of this data comes from.
        drift: what counts as drift of this data.
        labels: bool ``[n]``, the rows that are anomalies; None for data that was read as normal alone.
        series_names: name of each of `series`, as alarms say it, empty for one without a name; () where none is known.
        guessed_limits: metrics whose warning and critical values are no operator's, but follow from the data.
    """

    schema: FeatureSchema
    values: NDArray[np.float64]
    timestamps: NDArray[np.datetime64] | None
    timestamp_column: str | None
    cadence_seconds: float | None
    segments: Segments
    source: str
    report: Report
    series: Segments = ()
    scaling: Scaling = field(default_factory=Scaling)
    drift: DriftDefaults = field(default_factory=DriftDefaults)
    labels: NDArray[np.bool_] | None = None
    series_names: tuple[str, ...] = ()
    guessed_limits: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.values)

    @property
    def span_seconds(self) -> float | None:
        """Seconds from the earliest to the latest sample; None for data without times."""
        if self.timestamps is None or len(self) == 0:
            return None
        return float((self.timestamps.max() - self.timestamps.min()) / np.timedelta64(1, "s"))

    @property
    def first_timestamp(self) -> str:
        """RFC 3339 time of the earliest sample, or an empty text."""
        return rfc3339(self.timestamps.min(keepdims=True))[0] if self.timestamps is not None and len(self) else ""

    @property
    def last_timestamp(self) -> str:
        """RFC 3339 time of the latest sample, or an empty text."""
        return rfc3339(self.timestamps.max(keepdims=True))[0] if self.timestamps is not None and len(self) else ""

    @property
    def parallel(self) -> bool:
        """Whether a series begins before the one in front of it has ended, as those of several devices do."""
        if self.timestamps is None:
            return False
        return any(self.timestamps[b[0]] <= self.timestamps[a[1] - 1] for a, b in pairwise(self.series))

    def rows(self, start: int, stop: int) -> Telemetry:
        """The rows ``[start, stop)``, see `take`."""
        return self.take([(start, stop)])

    def normal(self) -> Telemetry:
        """The rows that are no anomalies, at least one of them; all rows where there are no labels."""
        if self.labels is None or not self.labels.any():
            return self
        edges = np.flatnonzero(np.diff(np.concatenate([[True], self.labels, [True]]).astype(np.int8)))
        return self.take([(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)])

    def take(self, ranges: Sequence[tuple[int, int]]) -> Telemetry:
        """The rows of ascending ranges, with segments and series cut to them; the report stays that of the whole."""
        kept = np.concatenate([np.arange(start, stop) for start, stop in ranges])
        return replace(
            self,
            values=self.values[kept],
            timestamps=None if self.timestamps is None else self.timestamps[kept],
            labels=None if self.labels is None else self.labels[kept],
            segments=tuple(part for _, part in _cut(self.segments, ranges)),
            series=tuple(part for _, part in _cut(self.series, ranges)),
            series_names=tuple(self.series_names[k] for k, _ in _cut(self.series, ranges)) if self.series_names else (),
        )


def _cut(parts: Segments, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, tuple[int, int]]]:
    """What is left of `parts` in `ranges`, counted from the first row that is kept, each with its part's number."""
    found, before = [], 0
    for start, stop in ranges:
        for number, (first, last) in enumerate(parts):
            inside = max(first, start), min(last, stop)
            if inside[0] < inside[1]:
                found.append((number, (before + inside[0] - start, before + inside[1] - start)))
        before += stop - start
    return found


def rfc3339(timestamps: NDArray[np.datetime64]) -> list[str]:
    """Times as ``2024-01-01T00:00:00Z``, with the fewest of 0, 3, 6 or 9 decimals that lose nothing in any of them."""
    nanoseconds = timestamps.astype("datetime64[ns]").astype(np.int64)
    unit = "ns"
    for candidate, divisor in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if not (nanoseconds % divisor).any():
            unit = candidate
            break
    return [f"{text}Z" for text in np.datetime_as_string(timestamps.astype(f"datetime64[{unit}]")).tolist()]
