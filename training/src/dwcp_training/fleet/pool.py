"""One training set from the rows of many series: stretches of each, bounded in number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from dwcp_training.data import DataError, Telemetry
from dwcp_training.data.layout import completed
from dwcp_training.data.report import Report
from dwcp_training.fleet.partitions import Partition
from dwcp_training.fleet.recipe import Recipe

POOL_ROWS = 65_536
"""Most rows of a set that is trained on several series."""

STRETCH = 32
"""Rows that follow one another in a sample of a series: windows need neighbours, and days need many places."""


def drawn(partitions: Sequence[Partition], seed: int) -> list[Partition]:
    """Those series of which `POOL_ROWS` holds a stretch each: all, or as many drawn at random, in their order."""
    most = POOL_ROWS // STRETCH
    if len(partitions) <= most:
        return list(partitions)
    chosen = np.random.default_rng(seed).choice(len(partitions), most, replace=False)
    return [partitions[k] for k in np.sort(chosen).tolist()]


def pooled(recipe: Recipe, partitions: Sequence[Partition]) -> Telemetry:
    """Rows of all of these series that can be read, at most `POOL_ROWS`, read one series at a time.

    Of a series with more rows than its share, stretches evenly spread over its time. Each series keeps its time order,
    so the end of each is held out (C3).

    Raises:
        DataError: none can be read.
    """
    share = max(STRETCH, POOL_ROWS // max(1, len(partitions)))
    parts: list[Telemetry] = []
    fault: DataError | None = None
    for partition in partitions:
        try:
            telemetry = recipe.read(partition)
        except DataError as error:
            fault = error
            continue
        parts.append(replace(_stretches(telemetry, share), series_names=(partition.name,)))
    if not parts:
        raise fault or DataError("data", "there is no series to train on.")
    values = np.concatenate([part.values for part in parts])
    starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).tolist()
    cadences = [part.cadence_seconds for part in parts if part.cadence_seconds]
    times = [part.timestamps for part in parts if part.timestamps is not None]
    warnings = [f"{len(values):,} rows drawn from {len(parts):,} series"]
    if len(parts) < len(partitions):
        warnings.append(f"{len(partitions) - len(parts):,} series could not be read and are not among the rows")
    return replace(
        parts[0],
        schema=completed(recipe.profile.feature_schema, values),
        values=values,
        timestamps=np.concatenate(times) if len(times) == len(parts) else None,
        cadence_seconds=float(np.median(cadences)) if cadences else None,
        segments=tuple(
            (start + a, start + b) for part, start in zip(parts, starts, strict=False) for a, b in part.segments
        ),
        source=f"{len(parts):,} series",
        report=Report(
            rows_read=sum(part.report.rows_read for part in parts), rows_used=len(values), warnings=tuple(warnings)
        ),
        series=tuple(pairwise(starts)),
        labels=None,
        series_names=tuple(partition.series_names[0] for partition in parts),
    )


def _stretches(telemetry: Telemetry, share: int) -> Telemetry:
    """Stretches of `STRETCH` rows, evenly spread, that come to `share` rows; all rows where there are no more."""
    rows = len(telemetry)
    if rows <= share:
        return telemetry
    count = max(1, share // STRETCH)
    starts = np.linspace(0, rows - STRETCH, count).astype(int).tolist()
    ranges: list[tuple[int, int]] = []
    for start in starts:  # two that touch are one: `take` wants ranges without overlap
        first = max(start, ranges[-1][1]) if ranges else start
        if first < start + STRETCH:
            ranges.append((first, start + STRETCH))
    return telemetry.take(ranges)
