"""Are p-values what they promise: on normal data at most a share `a` of them is at most `a` (rule C2)?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp_sidecar.scorer import Scorer
from dwcp_training.evaluation.bootstrap import Estimate, block_length, resamples

LEVELS = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Levels `a` that are looked at, where the calibration has enough scores for them."""


@dataclass(frozen=True)
class Coverage:
    """Share of normal rows whose p-value is at most a level.

    Attributes:
        level: `a`.
        share: with its interval.
        kept: the interval does not lie above the level: what was promised is not contradicted.
    """

    level: float
    share: Estimate
    kept: bool


def p_values(model: Scorer, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """C2 for published scores, float64 ``[n]``."""
    published = scores.astype(np.float32)
    return model.calibration.grade(published, np.zeros(len(published), bool))[0]


def coverage(model: Scorer, scores: NDArray[np.float64], count: int, seed: int) -> list[Coverage]:
    """The shares for normal rows with these scores, in the order of time, ``[n]``, at levels from `1 / (n + 1)` on."""
    found = p_values(model, scores)
    if not len(found):
        return []
    smallest = 1 / (len(model.metadata.calibration.scores) + 1)
    levels = [level for level in LEVELS if level >= smallest]
    below = found[:, np.newaxis] <= np.array(levels)
    block = block_length(len(found), model.timesteps, ())
    samples = np.array([weights @ below / len(found) for weights in resamples(len(found), block, count, seed)])
    estimates = [Estimate.of(column) for column in samples.T]
    return [
        Coverage(level, estimate, estimate.low is None or estimate.low <= level)
        for level, estimate in zip(levels, estimates, strict=True)
    ]
