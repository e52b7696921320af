"""Scores of telemetry in memory, row by row, for those who compare models on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp_sidecar.limits import MAX_BATCH_ITEMS
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain
from dwcp_training.data import Telemetry


@dataclass(frozen=True)
class SeriesScores:
    """The verdicts on ``n`` rows; the one on a window belongs to its last row. Rows that are not scored have zeros.

    Attributes:
        scored: bool ``[n]``, whether a row ends a whole window.
        scores: float32 ``[n]``.
        alarmed: bool ``[n]``.
    """

    scored: NDArray[np.bool_]
    scores: NDArray[np.float32]
    alarmed: NDArray[np.bool_]


def series_scores(model: Scorer, telemetry: Telemetry) -> SeriesScores:
    """Scores all rows with the code that serves, segment by segment: no window crosses a gap.

    Raises:
        ContractError: the rows are not those of the model's features.
    """
    return scores_of(model, telemetry.values, telemetry.segments)


def scores_of(model: Scorer, values: NDArray[np.float64], segments: Sequence[tuple[int, int]]) -> SeriesScores:
    """Scores rows, float64 ``[n, F]``, in segments, as `series_scores` does."""
    count, before = len(values), model.timesteps - 1
    found = SeriesScores(np.zeros(count, bool), np.zeros(count, np.float32), np.zeros(count, bool))
    for start, stop in segments:
        for first in range(start + before, stop, MAX_BATCH_ITEMS):
            last = min(first + MAX_BATCH_ITEMS, stop)
            verdicts = model.score_batch(values[first - before : last], Explain.NEVER, series=True)
            part = slice(first, last)
            found.scored[part], found.scores[part] = True, verdicts.scores
            found.alarmed[part] = verdicts.is_anomaly
    return found
