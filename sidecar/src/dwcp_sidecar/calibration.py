"""P-values and levels from held-out normal scores (rules C1 to C4)."""

import numpy as np

from dwcp.anomaly.v1 import scoring_pb2


class Calibration:
    """Split-conformal calibration.

    Args:
        scores: published scores of held-out normal data, ascending, float32 `[n]`.
    """

    def __init__(self, scores: np.ndarray) -> None:
        self._scores = np.asarray(scores, np.float32)

    def at_least(self, scores: np.ndarray) -> np.ndarray:
        """Number of held-out scores that are at least as high, int64, shape of `scores`."""
        return len(self._scores) - np.searchsorted(self._scores, np.asarray(scores, np.float32), side="left")

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """`(1 + k) / (n + 1)` for each score (C2), float64, shape of `scores`.

        Source: Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005, chapter 2.
        """
        return (1 + self.at_least(scores)) / (len(self._scores) + 1)

    def levels(self, scores: np.ndarray, is_anomaly: np.ndarray) -> np.ndarray:
        """Level of each score as enum values (C4), int64, shape of `scores`."""
        alarmed = np.where(self.at_least(scores) == 0, scoring_pb2.LEVEL_CRITICAL, scoring_pb2.LEVEL_WARNING)
        return np.where(is_anomaly, alarmed, scoring_pb2.LEVEL_NORMAL)
