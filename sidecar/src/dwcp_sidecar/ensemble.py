"""An ensemble: the published scores of its members on a common scale, joined by weights (rules EN1 to EN8)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar import detectors
from dwcp_sidecar.audit.ensemble import FIRST_LAYOUT
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain, MemberVerdict, MemberVerdicts, Verdict, Verdicts

ABSENT = "it is not part of the set"
"""Why a member is missing that the set does not have."""

KNEE = 7 / 3
"""What makes 0.3 of a score that is as far above `low` as the threshold is: 1 / (1 + 7/3) (EN8)."""


class Ensemble(Scorer):
    """Joins other models of its set. It has no graph: its members score, each with its own.

    Args:
        metadata: of the ensemble, audited together with its members'.
        models: detector name to model, of the same set; members that are not there are missing (EN6).
        reasons: detector name to why it is not there.
    """

    def __init__(
        self,
        metadata: model_pb2.ModelMetadata,
        models: Mapping[str, Scorer],
        reasons: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(metadata)
        kind = _ClampedMember if metadata.graph.layout == FIRST_LAYOUT else _Member
        self.members = [kind.of(entry, models, reasons or {}) for entry in metadata.ensemble.members]
        self.scores_apart = any(member.model is not None and member.model.scores_apart for member in self.members)

    def score_batch(self, rows: Any, explain: Explain = Explain.NEVER, *, series: bool = False) -> Verdicts:
        """As `Scorer.score_batch`. What is made of the answer may have no place for what the members said, so a member
        that fails is an error here.

        Raises:
            RuntimeError: a member of the set failed.
        """
        verdicts = super().score_batch(rows, explain, series=series)
        assert verdicts.members is not None
        for member, missing in zip(self.members, verdicts.members.missing, strict=True):
            if missing and member.model is not None:
                raise RuntimeError(f"{member.name}, a member of the ensemble: {missing}")
        return verdicts

    def verdict_of(self, window: np.ndarray, explain: Explain) -> Verdict:
        """Scores one checked item, float64 `[timesteps, features]`, in plain numbers and to the bits of `run`."""
        answers, missing = [], [member.missing for member in self.members]
        for k, member in enumerate(self.members):
            if member.model is None:
                continue
            try:
                said = member.model.verdict_of(member.part(window), member.at_first(explain))
            except Exception as error:  # ONNX Runtime has no common base class for its errors
                missing[k] = _failure(error)
                continue
            normalized = member.normalized(said.score)
            answers.append(_Answer(k, member, said, normalized, member.weight * normalized))
        self._require_an_answer(missing)
        shares = weights = 0.0
        for answer in answers:
            shares += answer.share
            weights += answer.member.weight
        score = float(np.float32(shares / weights))
        is_anomaly = score > self.threshold
        p_value, level = self.calibration.single(score, is_anomaly)
        contributions = expected = None
        if explain == Explain.ALWAYS or (is_anomaly and explain == Explain.ALARMS):
            contributions, expected = self._explained(window, answers, shares)
        members = [MemberVerdict(m.detector, missing=why) for m, why in zip(self.members, missing, strict=True)]
        for answer in answers:
            weight = answer.member.weight / weights
            members[answer.index] = MemberVerdict(answer.member.detector, weight, answer.said.score, answer.normalized)
        return Verdict(score, is_anomaly, p_value, level, contributions, expected, members=tuple(members))

    def _explained(
        self, window: np.ndarray, answers: list["_Answer"], shares: float
    ) -> tuple[list[float], list[float]]:
        """Contributions and expected values of one item (EN7). Who has no share has no part in them, unless nobody has
        one; then all were asked to explain at first."""
        parts = np.zeros(len(self.feature_names))
        leader = answers[0]
        for answer in answers:
            if answer.share > 0:
                if answer.said.contributions is None:
                    answer.said = answer.member.explained(window)
                parts = parts + answer.share * np.array(answer.said.contributions)
            if answer.share > leader.share:
                leader = answer
        published = parts / shares if shares > 0 else parts
        assert leader.said.expected is not None
        return published.astype(np.float32).tolist(), leader.said.expected

    def run(self, items: np.ndarray, explain: Explain) -> Verdicts:
        """Scores checked items, float64 `[n, timesteps, features]`: with one member after the other."""
        columns, missing = [], [member.missing for member in self.members]
        for k, member in enumerate(self.members):
            if member.model is None:
                continue
            try:
                said = member.model.run(member.parts(items), member.at_first(explain))
            except Exception as error:  # ONNX Runtime has no common base class for its errors
                missing[k] = _failure(error)
                continue
            normalized = member.all_normalized(said.scores)
            columns.append(_Column(k, member, said, normalized, member.weight * normalized))
        self._require_an_answer(missing)
        count = len(items)
        shares, weights = np.zeros(count), 0.0
        for column in columns:
            shares = shares + column.shares
            weights += column.member.weight
        scores = (shares / weights).astype(np.float32)
        is_anomaly = scores.astype(np.float64) > self.threshold
        p_values, levels = self.calibration.grade(scores, is_anomaly)
        explained = np.full(count, explain == Explain.ALWAYS)
        if explain == Explain.ALARMS:
            explained = is_anomaly
        contributions, expected = self._all_explained(items, columns, shares, explained)
        members = MemberVerdicts.without_answers([m.detector for m in self.members], missing, count)
        for column in columns:
            members.weights[column.index] = column.member.weight / weights
            members.scores[column.index] = column.said.scores
            members.normalized[column.index] = column.normalized
        return Verdicts(
            scores=scores,
            is_anomaly=is_anomaly,
            p_values=p_values,
            levels=levels,
            contributions=contributions,
            expected=expected,
            explained=explained,
            depth_sums=None,
            members=members,
        )

    def _all_explained(
        self, items: np.ndarray, columns: list["_Column"], shares: np.ndarray, wanted: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Contributions and expected values of the wanted items, rows of zeros for the others; as `_explained`."""
        shape = (len(items), len(self.feature_names))
        parts, expected = np.zeros(shape), np.zeros(shape, np.float32)
        if not wanted.any():
            return parts.astype(np.float32), expected
        leaders = np.argmax([column.shares for column in columns], axis=0)
        for place, column in enumerate(columns):
            rows = wanted & ((column.shares > 0) | (leaders == place))
            if not rows.any():
                continue
            said = column.said if column.said.explained[rows].all() else column.member.all_explained(items, rows)
            own = rows if said is column.said else slice(None)
            parts[rows] += column.shares[rows, np.newaxis] * said.contributions[own].astype(np.float64)
            leading = leaders[rows] == place
            expected[np.flatnonzero(rows)[leading]] = said.expected[own][leading]
        divisor = shares[:, np.newaxis]
        published = np.divide(parts, divisor, out=np.zeros(shape), where=divisor > 0)
        return published.astype(np.float32), expected

    def _require_an_answer(self, missing: list[str]) -> None:
        if all(missing):
            said = "; ".join(f"{member.name}: {why}" for member, why in zip(self.members, missing, strict=True))
            raise ContractError("DETECTOR_UNAVAILABLE", "detector", f"no member of the ensemble answered; {said}")


@dataclass(frozen=True)
class _Member:
    """A member as the metadata have it, and its model unless it is missing. Its scale is that of EN8."""

    name: str
    detector: int
    weight: float
    threshold: float
    low: float
    high: float
    model: Scorer | None
    missing: str

    @classmethod
    def of(cls, entry: model_pb2.EnsembleMember, models: Mapping[str, Scorer], reasons: Mapping[str, str]) -> "_Member":
        name = detectors.NAMES[entry.detector]
        model = models.get(name)
        missing = "" if model is not None else reasons.get(name, ABSENT)
        return cls(name, entry.detector, entry.weight, entry.threshold, entry.low, entry.high, model, missing)

    def normalized(self, score: float) -> float:
        """A published score on the common scale: 0 up to `low`, below 1 however high."""
        u = max(0.0, (score - self.low) / (self.threshold - self.low))
        return u / (u + KNEE)

    def all_normalized(self, scores: np.ndarray) -> np.ndarray:
        """Likewise of float32 `[n]`, float64 `[n]`."""
        u = (scores.astype(np.float64) - self.low) / (self.threshold - self.low)
        u = np.where(u > 0, u, 0.0)
        return u / (u + KNEE)

    def at_first(self, explain: Explain) -> Explain:
        """What to ask for before the score of the ensemble is known. Most explanations fall out of the score, so that
        asking for them at once is cheaper than asking again."""
        assert self.model is not None
        if explain == Explain.ALARMS:
            return Explain.NEVER if self.model.scores_apart else Explain.ALWAYS
        return explain

    def part(self, window: np.ndarray) -> np.ndarray:
        """As many of the last samples of an item as it needs (EN6)."""
        assert self.model is not None
        return window[-self.model.timesteps :]

    def parts(self, items: np.ndarray) -> np.ndarray:
        """Likewise of all items."""
        assert self.model is not None
        return np.ascontiguousarray(items[:, -self.model.timesteps :])

    def explained(self, window: np.ndarray) -> Verdict:
        """What it says of an item, with its explanation."""
        assert self.model is not None
        return self.model.verdict_of(self.part(window), Explain.ALWAYS)

    def all_explained(self, items: np.ndarray, rows: np.ndarray) -> Verdicts:
        """Likewise of those items that are marked in bool `[n]`."""
        assert self.model is not None
        return self.model.run(self.parts(items[rows]), Explain.ALWAYS)


class _ClampedMember(_Member):
    """A member of an `ensemble.v1`, whose common scale ends at 1 (EN3)."""

    def normalized(self, score: float) -> float:
        return min(max(0.0, (score - self.low) / (self.high - self.low)), 1.0)

    def all_normalized(self, scores: np.ndarray) -> np.ndarray:
        n = (scores.astype(np.float64) - self.low) / (self.high - self.low)
        return np.minimum(np.where(n > 0, n, 0.0), 1.0)


@dataclass
class _Answer:
    """What the member at `index` said of one item; `share` is `weight * n` of EN4."""

    index: int
    member: _Member
    said: Verdict
    normalized: float
    share: float


@dataclass
class _Column:
    """What the member at `index` said of all items; `normalized` and `shares` are float64 `[n]`."""

    index: int
    member: _Member
    said: Verdicts
    normalized: np.ndarray
    shares: np.ndarray


def _failure(error: Exception) -> str:
    return f"it failed: {str(error).partition(chr(10))[0]}"
