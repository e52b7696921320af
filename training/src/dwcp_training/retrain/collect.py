"""The rows to retrain on: the last days of files, or of a Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwcp_training.data import Exclusion, Telemetry, read_table
from dwcp_training.data.errors import DataError
from dwcp_training.profiles import Profile, Reader
from dwcp_training.retrain.range_queries import SERIES, TIME, RangeQueries, Say

DAY = np.timedelta64(86_400_000_000_000, "ns")


@dataclass(frozen=True)
class Rows:
    """What was collected: the rows, and notes for people about how."""

    telemetry: Telemetry
    notes: Sequence[str]


def from_files(paths: Sequence[Path], profile: Profile, exclude: Exclusion, on_bad_rows: str, days: float) -> Rows:
    """The rows of files, as in training. Of rows with times, those of the last `days` before the newest one.

    Raises:
        DataError: as of `read_table`.
    """
    telemetry = read_table(
        list(paths), profile, on_bad_rows=on_bad_rows, exclude=exclude, normal_only=True  # type: ignore[arg-type]
    )  # fmt: skip
    if telemetry.timestamps is None:
        return Rows(telemetry, ["the rows have no times: all of them are used"])
    kept = telemetry.timestamps > telemetry.timestamps.max() - np.timedelta64(round(days * 86_400e9), "ns")
    if kept.all():
        return Rows(telemetry, [])
    note = f"the last {days:g} days: {int(kept.sum()):,} of {len(telemetry):,} rows"
    return Rows(telemetry.take(ranges_of(kept)), [note])


def from_prometheus(queries: RangeQueries, profile: Profile, exclude: Exclusion, on_bad_rows: str, say: Say) -> Rows:
    """The samples of range queries, judged as the rows of a file are.

    Raises:
        EndpointError, RefusedError: as of `RangeQueries.collect`.
        DataError: as of `read_table`.
    """
    collected = queries.collect(say)
    listed = profile.reader.features == "listed"
    if listed and list(queries.queries) != list(profile.feature_schema.names):
        raise DataError("query", f"the queries are for {', '.join(queries.queries)}; the profile lists other metrics.")
    reader = Reader(features=profile.reader.features, series_column=SERIES)
    described = profile.model_copy(update={"timestamp_column": TIME, "reader": reader})
    telemetry = read_table(
        collected.file, described, on_bad_rows=on_bad_rows,  # type: ignore[arg-type]
        cadence=queries.step_ms / 1e3, exclude=exclude,
    )  # fmt: skip
    return Rows(telemetry, collected.notes)


def ranges_of(kept: np.ndarray) -> list[tuple[int, int]]:
    """The ascending row ranges in which a mask, bool ``[n]``, is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
