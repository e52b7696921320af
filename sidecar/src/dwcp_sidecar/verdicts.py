"""What scoring is asked for and what it answers. Clients need this without ONNX Runtime, so it stands alone."""

import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


class Explain(enum.IntEnum):
    """When contributions and expected values are computed; values of the enum in `scoring.proto`."""

    ALARMS = 1
    ALWAYS = 2
    NEVER = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for one item, in plain numbers: what `Verdicts` has in arrays, for callers that ask one by one.

    Attributes:
        score: published score; its value is a float32's (P1).
        is_anomaly: decision (D1).
        p_value: C2.
        level: enum value of `Level` (C4).
        contributions: one per feature; None where not asked for (the detector's rules: IF7, LA6, DA4, LF5, SV4).
        expected: one per feature, raw units; None where contributions are (IF6, LA7, DA5, LF6, SV5).
        depth_sum: isolation forest only (IF3).
    """

    score: float
    is_anomaly: bool
    p_value: float
    level: int
    contributions: list[float] | None = None
    expected: list[float] | None = None
    depth_sum: float | None = None


@dataclass(frozen=True)
class Verdicts:
    """Answers for `n` items of `f` features. Contributions and expected values are rows of zeros where not asked for.

    Attributes:
        scores: published scores, float32 `[n]`, higher is worse (P1).
        is_anomaly: bool `[n]` (D1).
        p_values: float64 `[n]` (C2).
        levels: enum values of `Level`, int64 `[n]` (C4).
        contributions: float32 `[n, f]` (the detector's rules: IF7, LA6, DA4, LF5, SV4).
        expected: float32 `[n, f]`, raw units (IF6, LA7, DA5, LF6, SV5).
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

    def each(self) -> Iterator[Verdict]:
        """The answers one by one."""
        depth_sums = itertools.repeat(None) if self.depth_sums is None else self.depth_sums.tolist()
        heads = zip(
            self.scores.tolist(), self.is_anomaly.tolist(), self.p_values.tolist(), self.levels.tolist(), depth_sums,
            self.explained.tolist(), strict=False,
        )  # fmt: skip
        for index, (score, is_anomaly, p_value, level, depth_sum, explained) in enumerate(heads):
            contributions = self.contributions[index].tolist() if explained else None
            expected = self.expected[index].tolist() if explained else None
            yield Verdict(score, is_anomaly, p_value, level, contributions, expected, depth_sum)
