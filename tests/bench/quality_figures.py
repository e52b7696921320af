"""How well scores of a series rank its faulty rows, and by how much two of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from dwcp_training.evaluation.bootstrap import Estimate, block_length, in_batches
from dwcp_training.evaluation.ranking import Ranking, buffer_lengths, buffered
from tests.bench.quality_sets import Floats, Series

FIGURES = ("average_precision", "vus_pr", "roc_auc")


def _runs(faulty: np.ndarray) -> list[int]:
    """Rows in each fault."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], faulty.astype(np.int8), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


def figures(series: Series, scores: Floats) -> dict[str, float]:
    """Average precision, VUS-PR and ROC AUC on the rows that count."""
    counted = series.counted
    longest = buffer_lengths(int(np.median(_runs(series.faulty))))
    buffers = [buffered(series.faulty, length) for length in longest]
    ranking = Ranking(scores[counted], series.faulty[counted], [(a[counted], b[counted]) for a, b in buffers])
    weighed = ranking.weighed(np.ones((1, int(counted.sum()))))
    return {name: float(getattr(weighed, name)()[0]) for name in FIGURES}


@lru_cache(maxsize=64)
def _resampled(series: Series, scores: bytes, count: int) -> Floats:
    return resampled(series, np.frombuffer(scores, np.float64), count)


def resampled(series: Series, scores: Floats, count: int) -> Floats:
    """Average precision in the data and in `count` resamples, float64 `[1 + count]`; the resamples of a series are the
    same for all scores."""
    counted = series.counted
    faulty = series.faulty[counted]
    ranking = Ranking(scores[counted], faulty)
    block = block_length(len(faulty), 1, _runs(series.faulty))
    batches = in_batches(len(faulty), block, count, seed=42)
    return np.concatenate([ranking.weighed(weights).average_precision() for weights in batches])


def differences(every: Sequence[tuple[Series, Floats, Floats]], count: int) -> Floats:
    """The mean over the series of the average precision of the first scores less that of the second, in the data and in
    each resample."""
    apart = [
        _resampled(series, np.asarray(a, np.float64).tobytes(), count)
        - _resampled(series, np.asarray(b, np.float64).tobytes(), count)
        for series, a, b in every
    ]
    found: Floats = np.nanmean(np.array(apart), axis=0)
    return found


def difference(every: Sequence[tuple[Series, Floats, Floats]], count: int) -> Estimate:
    """`differences` as one figure with its interval."""
    return Estimate.of(differences(every, count))
