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
class MemberVerdict:
    """What one member of an ensemble said (EN6).

    Attributes:
        detector: enum value of `Detector`.
        weight: among the members that answered; 0 when it did not.
        score: its published score; None when it did not answer.
        normalized: the same on the common scale from 0 to 1 (EN3); None when it did not answer.
        missing: why it did not answer; empty when it did.
    """

    detector: int
    weight: float = 0.0
    score: float | None = None
    normalized: float | None = None
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for one item, in plain numbers: what `Verdicts` has in arrays, for callers that ask one by one.

    Attributes:
        score: published score; its value is a float32's (P1).
        is_anomaly: decision (D1).
        p_value: C2.
        level: enum value of `Level` (C4).
        contributions: one per feature; None where not asked for (IF7, LA6, DA4, LF5, SV4, LC4, EN7, MD5).
        expected: one per feature, raw units; None where contributions are (IF6, LA7, DA5, LF6, SV5, LC5, EN7, MD4).
        depth_sum: isolation forest only (IF3).
        members: ensemble only, in the order of the metadata, also where nothing is explained (EN6).
    """

    score: float
    is_anomaly: bool
    p_value: float
    level: int
    contributions: list[float] | None = None
    expected: list[float] | None = None
    depth_sum: float | None = None
    members: tuple[MemberVerdict, ...] = ()


@dataclass(frozen=True)
class MemberVerdicts:
    """What the `m` members of an ensemble said of `n` items: `MemberVerdict` in arrays.

    Rows of members that did not answer are NaN.

    Attributes:
        detectors: enum values of `Detector`, of length `m`.
        missing: why each did not answer, of length `m`; empty for those who did.
        weights: among those who answered, float64 `[m]`.
        scores: published scores, float32 `[m, n]`.
        normalized: on the common scale, float64 `[m, n]`.
    """

    detectors: list[int]
    missing: list[str]
    weights: np.ndarray
    scores: np.ndarray
    normalized: np.ndarray

    @classmethod
    def without_answers(cls, detectors: list[int], missing: list[str], count: int) -> "MemberVerdicts":
        """Nobody has answered yet for `count` items."""
        shape = (len(detectors), count)
        return cls(
            detectors, missing, np.zeros(len(detectors)), np.full(shape, np.nan, np.float32), np.full(shape, np.nan)
        )

    def of(self, item: int) -> tuple[MemberVerdict, ...]:
        """What they said of one item."""
        return tuple(
            MemberVerdict(detector, missing=why)
            if why
            else MemberVerdict(detector, weight, float(scores[item]), float(normalized[item]))
            for detector, why, weight, scores, normalized in zip(
                self.detectors, self.missing, self.weights.tolist(), self.scores, self.normalized, strict=True
            )
        )


@dataclass(frozen=True)
class Verdicts:
    """Answers for `n` items of `f` features. Contributions and expected values are rows of zeros where not asked for.

    Attributes:
        scores: published scores, float32 `[n]`, higher is worse (P1).
        is_anomaly: bool `[n]` (D1).
        p_values: float64 `[n]` (C2).
        levels: enum values of `Level`, int64 `[n]` (C4).
        contributions: float32 `[n, f]` (IF7, LA6, DA4, LF5, SV4, LC4, EN7, MD5).
        expected: float32 `[n, f]`, raw units (IF6, LA7, DA5, LF6, SV5, LC5, EN7, MD4).
        explained: bool `[n]`, which rows of the two above are filled.
        depth_sums: float64 `[n]`, isolation forest only (IF3).
        members: ensemble only (EN6).
    """

    scores: np.ndarray
    is_anomaly: np.ndarray
    p_values: np.ndarray
    levels: np.ndarray
    contributions: np.ndarray
    expected: np.ndarray
    explained: np.ndarray
    depth_sums: np.ndarray | None
    members: MemberVerdicts | None = None

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
            members = () if self.members is None else self.members.of(index)
            yield Verdict(score, is_anomaly, p_value, level, contributions, expected, depth_sum, members)
