"""What scoring is asked for and what it answers. Clients need this without ONNX Runtime, so it stands alone."""

import enum
from dataclasses import dataclass

import numpy as np


class Explain(enum.IntEnum):
    """When contributions and expected values are computed; values of the enum in `scoring.proto`."""

    ALARMS = 1
    ALWAYS = 2
    NEVER = 3


@dataclass(frozen=True)
class Verdicts:
    """Answers for `n` items of `f` features. Contributions and expected values are rows of zeros where not asked for.

    Attributes:
        scores: published scores, float32 `[n]`, higher is worse (P1).
        is_anomaly: bool `[n]` (D1).
        p_values: float64 `[n]` (C2).
        levels: enum values of `Level`, int64 `[n]` (C4).
        contributions: float32 `[n, f]` (IF7, LA6).
        expected: float32 `[n, f]`, raw units (IF6, LA7).
        explained: bool `[n]`, which rows of the two above are filled.
        depth_sums: float64 `[n]`, isolation forest only (IF3).
    """

    scores: np.ndarray
    is_anomaly: np.ndarray
    p_values: np.ndarray
    levels: np.ndarray
    contributions: np.ndarray
    expected: np.ndarray
    explained: np.ndarray
    depth_sums: np.ndarray | None
