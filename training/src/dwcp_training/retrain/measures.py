"""What two models do on the same held-out rows, and on the same faults put into them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar import protojson
from dwcp_sidecar.model_set import MANIFEST, ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain
from dwcp_training.data import INJECTION_KINDS, DataError, Telemetry, inject, window_starts
from dwcp_training.data.errors import DataErrorCode
from dwcp_training.telemetry_scores import SeriesScores, scores_of, series_scores

STRENGTH = 5.0
"""Size of injected faults in standard deviations of the rows that the challenger was trained on."""

CALLS = 100
"""Single scores that are timed for each model."""

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Faults:
    """Injected faults of one kind, each in one metric.

    Attributes:
        values: the rows of each fault with the fault in it, and before them as many as the longest window needs,
            float64 ``[rows, F]``.
        first: where in `values` the fault begins.
        at: row of the held-out telemetry in which it begins.
    """

    values: tuple[NDArray[np.float64], ...]
    first: tuple[int, ...]
    at: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.values)


def make_faults(
    telemetry: Telemetry, deviations: NDArray[np.float64], window: int, events: int, seed: int = 42
) -> dict[str, Faults]:
    """Faults of every kind in held-out rows, spread over the metrics and over time.

    Args:
        telemetry: held-out rows; they stay as they are.
        deviations: float64 ``[F]``, of each metric.
        window: samples in the longest window of a model.
        events: faults of each kind, fewer in little data.
        seed: of their places.

    Raises:
        DataError: the rows have no room for a single fault.
    """
    metrics = telemetry.schema.names
    chosen = [metrics[k] for k in np.linspace(0, len(metrics) - 1, min(len(metrics), events)).round().astype(int)]
    each = max(1, min(-(-events // len(chosen)), len(telemetry) // 100))
    found = {}
    for number, kind in enumerate(INJECTION_KINDS):
        values: list[NDArray[np.float64]] = []
        first, at = [], []
        for column, metric in enumerate(chosen):
            try:
                # Another seed for each: events of one kind stand in different places and so are independent.
                changed, labels = inject(
                    telemetry, kind, metrics=[metric], strength=STRENGTH, deviations=deviations, events=each,
                    seed=seed + 1000 * number + column,
                )  # fmt: skip
            except DataError as error:
                if error.code is not DataErrorCode.TOO_SHORT:
                    raise
                raise DataError(
                    "rows", f"{len(telemetry):,} held-out rows have no room for injected faults ({kind}).",
                    "Collect more days.", code=DataErrorCode.TOO_SHORT,
                ) from None  # fmt: skip
            edges = np.flatnonzero(np.diff(np.concatenate([[0], labels.astype(np.int8), [0]])))
            for start, stop in edges.reshape(-1, 2).tolist():
                segment = next(begin for begin, end in telemetry.segments if begin <= start < end)
                begin = max(segment, start - window + 1)
                values.append(changed[begin:stop])
                first.append(start - begin)
                at.append(start)
        found[kind] = Faults(tuple(values), tuple(first), tuple(at))
    return found


def found_by(model: Scorer, faults: Faults, quiet: SeriesScores) -> tuple[Bools, Bools]:
    """Which faults a model finds, and which it could: those with a scored row, both bool ``[events]``.

    An alarm counts when the fault raises it: the same row without the fault raises none. So a model that alarms on
    everything finds nothing.

    Args:
        quiet: what the model says of the rows without faults.
    """
    found, possible = np.zeros(len(faults), bool), np.zeros(len(faults), bool)
    for k, (values, first, at) in enumerate(zip(faults.values, faults.first, faults.at, strict=True)):
        # Only the windows that end in the fault.
        begin = max(0, first - model.timesteps + 1)
        scores = scores_of(model, values[begin:], [(0, len(values) - begin)])
        alarmed, scored = scores.alarmed[first - begin :], scores.scored[first - begin :]
        possible[k] = scored.any()
        found[k] = (alarmed & ~quiet.alarmed[at : at + len(alarmed)]).any()
    return found, possible


@dataclass(frozen=True)
class Measured:
    """What one model does.

    Attributes:
        held_out: verdicts on the held-out rows.
        found, possible: fault kind to which faults it finds, and could find.
        latency_ms: median of single scores.
    """

    held_out: SeriesScores
    found: Mapping[str, Bools]
    possible: Mapping[str, Bools]
    latency_ms: float

    @property
    def false_alarms(self) -> Bools:
        """Of the scored held-out rows in their order, which alarm."""
        return self.held_out.alarmed[self.held_out.scored]


def measure(model: Scorer, telemetry: Telemetry, faults: Mapping[str, Faults], advance: Callable[[], None]) -> Measured:
    """Measures one model; `advance` is called after each kind."""
    quiet = series_scores(model, telemetry)
    found, possible = {}, {}
    for kind, of_kind in faults.items():
        found[kind], possible[kind] = found_by(model, of_kind, quiet)
        advance()
    return Measured(quiet, found, possible, _latency_ms(model, telemetry))


def episodes(scores: SeriesScores, telemetry: Telemetry) -> int:
    """Alarms as people count them: those of rows that follow each other without a gap are one."""
    count = 0
    for start, stop in telemetry.segments:
        alarmed = scores.alarmed[start:stop].astype(np.int8)
        count += int((np.diff(np.concatenate([[0], alarmed])) > 0).sum())
    return count


def serving_bytes(models: ModelSet) -> int:
    """Size of the files that are needed to serve a set."""
    manifest = protojson.parse((models.path / MANIFEST).read_bytes(), model_pb2.Manifest(), MANIFEST)
    return sum(entry.size for entry in manifest.files if entry.role == model_pb2.FILE_ROLE_SERVING)


def _latency_ms(model: Scorer, telemetry: Telemetry) -> float:
    """Median time of a single score, as a server scores it, in milliseconds; NaN where no window is whole."""
    starts = window_starts(telemetry.segments, model.timesteps)
    if not len(starts):
        return float("nan")
    seconds = []
    for start in starts[np.linspace(0, len(starts) - 1, CALLS).astype(int)].tolist():
        samples = telemetry.values[start : start + model.timesteps].tolist()
        begun = time.perf_counter()
        model.verdict(samples, Explain.ALARMS)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds)) * 1e3
