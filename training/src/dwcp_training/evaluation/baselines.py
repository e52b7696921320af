"""What a detector must beat: two scores that need no training but means and deviations, with its own threshold rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp_sidecar.scorer import Scorer
from dwcp_training.data import Telemetry, time_split
from dwcp_training.detectors.base import HELD_OUT, clamp_scaled
from dwcp_training.tail import counted_threshold

Floats = NDArray[np.float64]

BASELINES: dict[str, Callable[[Floats], Floats]] = {
    "mean_z_squared": lambda scaled: (scaled**2).mean(axis=1),
    "max_abs_z": lambda scaled: np.abs(scaled).max(axis=1),
}
"""Name to the score of scaled rows ``[n, F]``."""


@dataclass(frozen=True)
class Scaling:
    """Mean and deviation of each metric, raw units, float64 ``[F]`` each."""

    mean: Floats
    scale: Floats

    @classmethod
    def of(cls, model: Scorer, telemetry: Telemetry) -> Scaling:
        """Those of the model's scaler. An ensemble has none: those of the data."""
        scaler = model.metadata.scaler
        if len(scaler.scale):
            return cls(np.array(scaler.mean), np.array(scaler.scale))
        deviations = telemetry.values.std(axis=0)
        return cls(telemetry.values.mean(axis=0), np.where(deviations > 0, deviations, 1.0))

    def scores(self, name: str, values: Floats) -> Floats:
        """The scores of a baseline on raw rows ``[n, F]``, float64 ``[n]``."""
        return BASELINES[name](clamp_scaled(values, self.mean, self.scale))


def alarming_share(model: Scorer) -> float:
    """Share of the held-out normal scores in the calibration of a model (C1) that its threshold lets alarm."""
    return float((np.array(model.metadata.calibration.scores, np.float64) > model.threshold).mean())


@dataclass(frozen=True)
class ThresholdRule:
    """Where a baseline's threshold comes from: the percentile of held-out normal scores that the detector has its at.

    Attributes:
        share: of held-out normal rows that may alarm.
        normal: normal telemetry of which the end by time is held out, as in training; None to take the evaluated rows
            themselves: the threshold for one half of the time is that of the normal rows of the other half.
        gap: rows between the halves that belong to neither: one window.
    """

    share: float
    normal: Telemetry | None
    gap: int

    def alarms(self, name: str, scaling: Scaling, scores: Floats, normal_rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which rows alarm, bool ``[n]``.

        Args:
            scores: of the baseline, of all rows in the order of time, float64 ``[n]``.
            normal_rows: bool ``[n]``, those outside faults and their grace.
        """
        if self.normal is not None:
            held_out = time_split(self.normal, HELD_OUT, gap=self.gap)[1]
            return scores > counted_threshold(scaling.scores(name, held_out.values), self.share)
        half, found = len(scores) // 2, np.zeros(len(scores), bool)
        position = np.arange(len(scores))
        for judged, other in (
            (position < half, position >= half + self.gap),
            (position >= half, position < half - self.gap),
        ):
            reference = scores[other & normal_rows]
            if not len(reference):
                reference = scores[normal_rows]
            if len(reference):
                found[judged] = scores[judged] > counted_threshold(reference, self.share)
        return found
