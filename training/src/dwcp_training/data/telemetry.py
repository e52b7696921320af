"""Telemetry in memory: values in schema order, times, and the segments that windows may not leave."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data.report import Report
from dwcp_training.profiles import FeatureSchema

Segments = tuple[tuple[int, int], ...]
"""Row ranges ``[start, stop)`` in ascending order, without overlap."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Rows that passed validation.

    Attributes:
        schema: names, units and ranges of the columns of `values`.
        values: float64 ``[n, F]``, raw units, schema order, finite, without negative zeros (F5).
        timestamps: datetime64[ns] ``[n]``, UTC, strictly increasing; None for data without times.
        timestamp_column: name of the column they were read from and are written to.
        cadence_seconds: seconds between samples, the median step; None for data without times.
        segments: row ranges unbroken by gaps; a window never crosses their ends.
        source: file names without folders, comma separated, or ``synthetic``.
        report: what reading found.
    """

    schema: FeatureSchema
    values: NDArray[np.float64]
    timestamps: NDArray[np.datetime64] | None
    timestamp_column: str | None
    cadence_seconds: float | None
    segments: Segments
    source: str
    report: Report

    def __len__(self) -> int:
        return len(self.values)

    @property
    def span_seconds(self) -> float | None:
        """Seconds from the first to the last sample; None for data without times."""
        if self.timestamps is None or len(self) == 0:
            return None
        return float((self.timestamps[-1] - self.timestamps[0]) / np.timedelta64(1, "s"))

    @property
    def first_timestamp(self) -> str:
        """RFC 3339 time of the first sample, or an empty text."""
        return rfc3339(self.timestamps[:1])[0] if self.timestamps is not None and len(self) else ""

    @property
    def last_timestamp(self) -> str:
        """RFC 3339 time of the last sample, or an empty text."""
        return rfc3339(self.timestamps[-1:])[0] if self.timestamps is not None and len(self) else ""

    def rows(self, start: int, stop: int) -> Telemetry:
        """The rows ``[start, stop)`` with the segments cut to them; the report stays that of the whole."""
        cut = [(max(first, start) - start, min(last, stop) - start) for first, last in self.segments]
        return replace(
            self,
            values=self.values[start:stop],
            timestamps=None if self.timestamps is None else self.timestamps[start:stop],
            segments=tuple((first, last) for first, last in cut if first < last),
        )


def rfc3339(timestamps: NDArray[np.datetime64]) -> list[str]:
    """Times as ``2024-01-01T00:00:00Z``, with the fewest of 0, 3, 6 or 9 decimals that lose nothing in any of them."""
    nanoseconds = timestamps.astype("datetime64[ns]").astype(np.int64)
    unit = "ns"
    for candidate, divisor in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if not (nanoseconds % divisor).any():
            unit = candidate
            break
    return [f"{text}Z" for text in np.datetime_as_string(timestamps.astype(f"datetime64[{unit}]")).tolist()]
