"""Rows of telemetry scored by the code that serves, segment by segment, so that no window crosses a gap.

The verdict on a window belongs to its last row: that is when an operator would see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp_sidecar.features import MAX_BATCH_ITEMS
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain, Verdicts


@dataclass(frozen=True)
class ScoredRows:
    """Verdicts on ``n`` rows.

    Attributes:
        scored: bool ``[n]``; the first `timesteps - 1` rows of a segment end no window.
        scores: published scores as float64 ``[n]``; NaN where not scored.
        alarmed: bool ``[n]``.
    """

    scored: NDArray[np.bool_]
    scores: NDArray[np.float64]
    alarmed: NDArray[np.bool_]


@dataclass(frozen=True)
class ExplainedRows(ScoredRows):
    """With `contributions` and `expected`, float64 ``[n, F]``, zero where not scored."""

    contributions: NDArray[np.float64]
    expected: NDArray[np.float64]


def score_rows(model: Scorer, values: NDArray[np.float64], segments: Iterable[tuple[int, int]]) -> ScoredRows:
    """Scores rows ``[n, F]``."""
    found = ScoredRows(np.zeros(len(values), bool), np.full(len(values), np.nan), np.zeros(len(values), bool))
    for first, last, verdicts in _pieces(model, values, segments, Explain.NEVER):
        found.scored[first:last] = True
        found.scores[first:last], found.alarmed[first:last] = verdicts.scores, verdicts.is_anomaly
    return found


def explain_rows(model: Scorer, values: NDArray[np.float64], segments: Iterable[tuple[int, int]]) -> ExplainedRows:
    """Scores and explains rows ``[n, F]``."""
    plain = ScoredRows(np.zeros(len(values), bool), np.full(len(values), np.nan), np.zeros(len(values), bool))
    found = ExplainedRows(*vars(plain).values(), np.zeros(values.shape), np.zeros(values.shape))
    for first, last, verdicts in _pieces(model, values, segments, Explain.ALWAYS):
        found.scored[first:last] = True
        found.scores[first:last], found.alarmed[first:last] = verdicts.scores, verdicts.is_anomaly
        found.contributions[first:last], found.expected[first:last] = verdicts.contributions, verdicts.expected
    return found


def alarms(
    model: Scorer, values: NDArray[np.float64], segments: Iterable[tuple[int, int]]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows of `values` ``[n, F]`` were scored and which alarmed, both bool ``[n]``."""
    scored, alarmed = np.zeros(len(values), bool), np.zeros(len(values), bool)
    for first, last, verdicts in _pieces(model, values, segments, Explain.NEVER):
        scored[first:last], alarmed[first:last] = True, verdicts.is_anomaly
    return scored, alarmed


def _pieces(
    model: Scorer, values: NDArray[np.float64], segments: Iterable[tuple[int, int]], explain: Explain
) -> Iterator[tuple[int, int, Verdicts]]:
    """Ranges of rows and the verdicts on them, as much at once as a batch may carry."""
    before = model.timesteps - 1
    for start, stop in segments:
        for first in range(start + before, stop, MAX_BATCH_ITEMS):
            last = min(first + MAX_BATCH_ITEMS, stop)
            yield first, last, model.score_batch(values[first - before : last], explain, series=True)
