"""Compares answers with the reference, bit by bit or within the stated tolerance (rules P1 to P3, V2)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from dwcp_training.golden.make import boundary_distance
from tests.conformance.answers import Answers
from tests.conformance.cases import Case
from tests.conformance.reference import Reference, Wanted

GAP = 1e-12
"""Relative distance from the midpoint of two float32 numbers within which neighbours may be published (P2)."""

GAPS_ALLOWED = 2e-5
"""Largest share of cases in P2's gap: 2 in 100,000. None is expected."""


Column = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Which cases differ, which differ only in P2's gap, the wanted and the given values."""


@dataclass(frozen=True)
class Mismatch:
    """A case that came out differently: what to look at."""

    case: str
    what: str
    wanted: str
    got: str
    line: str

    def __str__(self) -> str:
        return f"{self.case}: {self.what}\n  wanted {self.wanted}\n  got    {self.got}\n  input  {self.line}"


@dataclass
class Tally:
    """Counts of cases. A case counts once in each column; `equal` are those in none of the others."""

    cases: int = 0
    equal: int = 0
    score_bits: int = 0
    decisions: int = 0
    explanations: int = 0
    errors: int = 0
    in_gap: int = 0
    mismatches: list[Mismatch] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))

    @property
    def passed(self) -> bool:
        """Nothing differs outside P2's gap, hardly anything inside, and there were cases at all."""
        differing = self.score_bits + self.decisions + self.explanations + self.errors
        return self.cases > 0 and not differing and not self.faults and self.in_gap <= GAPS_ALLOWED * self.cases


def compare(cases: Sequence[Case], reference: Reference, wanted: Wanted, got: Answers) -> Tally:
    """Compares the answers of one implementation with the reference's, case by case.

    Args:
        cases: as many as there are answers.
        reference: says how to compare (P4).
        wanted: the reference's answers to the same cases.
        got: the implementation's.
    """
    tally = Tally(cases=len(cases), faults=list(got.faults))
    bad = np.zeros(len(cases), bool)
    for i, fault in enumerate(wanted.faults):
        want = None if fault is None else (fault.code, fault.field)
        if got.errors[i] != want:
            bad[i] = True
            tally.errors += 1
            _note(tally, cases[i], "error", want or "a score", got.errors[i] or f"score {got.scores[i]!r}")
    both = np.array([got.errors[i] is None for i in wanted.scored], bool)
    rows = wanted.scored[both]
    differing = {name: np.zeros(len(cases), bool) for name in ("score_bits", "decisions", "explanations")}
    gap = np.zeros(len(cases), bool)
    columns = (_exact if reference.exact else _within)(reference, wanted, both, got, rows)
    excused = _unsure(reference, [cases[i] for i in rows], columns)
    for column, (differs, in_gap, want, have) in columns.items():
        differs, in_gap = differs & ~excused, in_gap | (differs & excused)
        for k in np.flatnonzero(differs):
            _note(tally, cases[rows[k]], column, want[k], have[k])
        differing[_COLUMNS.get(column, "explanations")][rows[differs]] = True
        gap[rows[in_gap]] = True
    for name, mask in differing.items():
        setattr(tally, name, int(mask.sum()))
        bad |= mask
    tally.in_gap = int((gap & ~bad).sum())
    tally.equal = int((~gap & ~bad).sum())
    return tally


def _unsure(reference: Reference, cases: Sequence[Case], columns: Mapping[str, Column]) -> np.ndarray:
    """Which cases may differ because their answers depend on published numbers that are in P2's gap; bool `[n]`."""
    excused = np.zeros(len(cases), bool)
    differing = np.flatnonzero(np.any([column[0] for column in columns.values()], axis=0))
    if len(differing):
        excused[differing] = reference.unsure(reference.items_of([cases[k] for k in differing]), GAP)
    return excused


_COLUMNS = {"score": "score_bits", "is_anomaly": "decisions"}


def _exact(reference: Reference, wanted: Wanted, both: np.ndarray, got: Answers, rows: np.ndarray) -> dict[str, Column]:
    evaluation = wanted.evaluation
    nothing = np.zeros(len(rows), bool)

    def published(numbers: np.ndarray, have: np.ndarray) -> Column:
        with np.errstate(over="ignore"):  # an expected value may be beyond float32 (P1)
            want = numbers.astype(np.float32)
        differ = _bits(want.astype(np.float64)) != _bits(have)
        near = boundary_distance(numbers) <= GAP
        gap = differ & near & _neighbours(want, have)
        outside = differ & ~gap
        if differ.ndim == 2:
            return outside.any(axis=1), gap.any(axis=1) & ~outside.any(axis=1), want, have
        return outside, gap, want, have

    score = published(evaluation.scores[both], got.scores[rows])
    # Who publishes the neighbour decides by the neighbour (D1): with LSTM scores the gap may lie on the threshold.
    decisions = np.where(score[1], got.scores[rows] > reference.metadata.threshold, evaluation.is_anomaly[both])
    honest = got.bits[rows] == got.scores[rows].astype(np.float32).view(np.uint32)
    columns = {
        "score": (score[0] | ~honest, score[1] & honest, *score[2:]),
        "is_anomaly": (decisions != got.is_anomaly[rows], nothing, decisions, got.is_anomaly[rows]),
        "contributions": published(evaluation.contributions[both], got.contributions[rows]),
        "expected": published(evaluation.expected[both], got.expected[rows]),
    }
    if evaluation.depth_sums is not None:
        want, have = evaluation.depth_sums[both], got.depth_sums[rows]
        columns["depth_sum"] = (_bits(want) != _bits(have), nothing, want, have)
    return columns


def _within(
    reference: Reference, wanted: Wanted, both: np.ndarray, got: Answers, rows: np.ndarray
) -> dict[str, Column]:
    """P3 and V2 for the TOLERANCE class. Written as `not (a <= b)`: a NaN does not pass."""
    tolerance, threshold = reference.metadata.tolerance, reference.metadata.threshold
    evaluation = wanted.evaluation
    nothing = np.zeros(len(rows), bool)
    want, have = evaluation.scores[both], got.scores[rows]
    guarded = np.abs(want - threshold) <= tolerance.guard_band * threshold
    alarms = evaluation.is_anomaly[both]

    def listed(numbers: np.ndarray, have: np.ndarray) -> Column:
        bound = tolerance.relative_score * np.abs(numbers).max(axis=1, keepdims=True)
        return ~(np.abs(numbers - have) <= bound).all(axis=1), nothing, numbers, have

    decided: dict[str, Column] = {
        "score": (~(np.abs(want - have) <= tolerance.relative_score * want), nothing, want, have),
        "is_anomaly": ((alarms != got.is_anomaly[rows]) & ~guarded, nothing, alarms, got.is_anomaly[rows]),
    }
    if (
        reference.metadata.graph.precision == "int8"
    ):  # the reference has other weights: explanations are not bounded (Q3)
        return decided
    return {
        **decided,
        "contributions": listed(evaluation.contributions[both], got.contributions[rows]),
        "expected": listed(evaluation.expected[both], got.expected[rows]),
    }


def _bits(numbers: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(numbers, np.float64).view(np.uint64)


def _neighbours(want: np.ndarray, have: np.ndarray) -> np.ndarray:
    """Whether the given numbers are float32 numbers next to the wanted ones."""
    return (np.nextafter(want, np.float32(np.inf)) == have) | (np.nextafter(want, np.float32(-np.inf)) == have)


def _note(tally: Tally, case: Case, what: str, want: object, have: object, most: int = 5) -> None:
    if len(tally.mismatches) < most:
        shown = [_text(value) for value in (want, have)]
        tally.mismatches.append(Mismatch(case.id, what, *shown, case.line))


def _text(value: object) -> str:
    return json.dumps(value.tolist()) if isinstance(value, (np.ndarray, np.generic)) else str(value)


def published(wanted: Wanted, width: int) -> Answers:
    """The reference's answers as an implementation would give them."""
    n, rows, evaluation = len(wanted.faults), wanted.scored, wanted.evaluation
    answers = Answers(
        errors=[None if fault is None else (fault.code, fault.field) for fault in wanted.faults],
        scores=np.full(n, np.nan),
        bits=np.full(n, -1),
        is_anomaly=np.zeros(n, bool),
        contributions=np.full((n, width), np.nan),
        expected=np.full((n, width), np.nan),
        depth_sums=np.full(n, np.nan),
    )
    scores = evaluation.scores.astype(np.float32)
    answers.scores[rows], answers.bits[rows] = scores, scores.view(np.uint32)
    answers.is_anomaly[rows] = evaluation.is_anomaly
    answers.contributions[rows] = evaluation.contributions.astype(np.float32)
    with np.errstate(over="ignore"):
        answers.expected[rows] = evaluation.expected.astype(np.float32)
    if evaluation.depth_sums is not None:
        answers.depth_sums[rows] = evaluation.depth_sums
    return answers
