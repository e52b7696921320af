"""Runs golden vectors against a model (rules V1 to V4)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dwcp.anomaly.v1 import golden_pb2
from dwcp_sidecar.errors import ContractError, code_name
from dwcp_sidecar.model import Explain, Model, Verdicts

Score = Callable[[Sequence[Sequence[float]]], Verdicts]


@dataclass(frozen=True)
class Mismatch:
    """A golden case that came out differently."""

    case: str
    field: str
    wanted: str
    got: str

    def __str__(self) -> str:
        return f"{self.case}: {self.field} wanted {self.wanted}, got {self.got}"


def run_golden(file: golden_pb2.GoldenFile, model: Model, score: Score | None = None) -> list[Mismatch]:
    """Runs every case and returns what differs.

    Args:
        file: the golden vectors.
        model: says how to compare (exact or with tolerance), and scores unless `score` is given.
        score: another implementation under test: takes samples, returns verdicts with `n = 1`, raises ContractError.
    """
    mismatches = []
    for case in file.cases:
        mismatch, explained = _run_case(case, model, score or model.score)
        if mismatch is None and explained is not None and score is None and model.scores_apart:
            mismatch = _run_without_explanation(case, model, explained)
        if mismatch is not None:
            mismatches.append(mismatch)
    return mismatches


def audit_golden(file: golden_pb2.GoldenFile, model_type: str, name: str) -> None:
    """Checks that a golden file is for this model and documents itself (V3).

    Raises:
        ContractError: METADATA_INVALID naming the file and the case.
    """

    def require(condition: bool, what: str) -> None:
        if not condition:
            raise ContractError("METADATA_INVALID", name, f"{name}: {what}. Publish the set again.")

    require(file.model_type == model_type, f"it is for {file.model_type!r}, not {model_type}")
    seen: set[str] = set()
    for case in file.cases:
        require(case.id != "" and case.id not in seen, f"case {case.id!r} has no id, or one that is taken")
        seen.add(case.id)
        require(case.comment != "", f"case {case.id} has no comment")
        unexplained = [flag for flag in case.flags if not file.flags.get(flag)]
        require(not unexplained, f"case {case.id} has the flag {unexplained}, which the file does not explain")
        require(case.WhichOneof("outcome") is not None, f"case {case.id} has no outcome")


def require_golden(file: golden_pb2.GoldenFile, model: Model, name: str) -> None:
    """Raises GOLDEN_MISMATCH naming file and first case when a case differs, or when there is none (V1)."""
    if not file.cases:
        raise ContractError("GOLDEN_MISMATCH", name, f"{name} has no cases. Publish the set again.")
    mismatches = run_golden(file, model)
    if mismatches:
        raise ContractError(
            "GOLDEN_MISMATCH",
            name,
            f"{len(mismatches)} of {len(file.cases)} golden vectors differ, first {mismatches[0]}. "
            "The model or this installation is damaged: do not use it.",
        )


def _run_case(case: golden_pb2.GoldenCase, model: Model, score: Score) -> tuple[Mismatch | None, Verdicts | None]:
    """What differs, and the score where the case wants one."""
    wants_error = case.WhichOneof("outcome") == "error"
    try:
        got = score(_samples(case))
    except ContractError as error:
        if not wants_error:
            return Mismatch(case.id, "outcome", "a score", str(error)), None
        wanted_code = code_name(case.error.code)
        if (error.code, error.field) != (wanted_code, case.error.field):
            wanted, found = f"{wanted_code} ({case.error.field})", f"{error.code} ({error.field})"
            return Mismatch(case.id, "error", wanted, found), None
        return None, None
    if wants_error:
        return Mismatch(case.id, "outcome", code_name(case.error.code), f"score {got.scores[0]}"), None
    compare = _compare_exact if model.exact else _compare_tolerance
    difference = compare(case.score, got, model)
    return None if difference is None else Mismatch(case.id, *difference), got


def _run_without_explanation(case: golden_pb2.GoldenCase, model: Model, explained: Verdicts) -> Mismatch | None:
    """A score without its explanation may come from a smaller graph: it must be the same."""
    plain = model.score(_samples(case), Explain.NEVER)
    for field in ("scores", "is_anomaly", "depth_sums"):
        wanted, got = getattr(explained, field), getattr(plain, field)
        if not np.array_equal(wanted, got):
            return Mismatch(case.id, f"{field} without explanation", str(wanted), str(got))
    return None


def _samples(case: golden_pb2.GoldenCase) -> list[list[float]]:
    return [list(sample.values) for sample in case.samples]


def _compare_exact(wanted: golden_pb2.GoldenScore, got: Verdicts, _: Model) -> tuple[str, str, str] | None:
    bits = int(got.scores[:1].view(np.uint32)[0])
    if bits != wanted.score_bits:
        return "score_bits", f"{wanted.score_bits:#010x} ({wanted.score})", f"{bits:#010x} ({got.scores[0]})"
    if bool(got.is_anomaly[0]) != wanted.is_anomaly:
        return "is_anomaly", str(wanted.is_anomaly), str(got.is_anomaly[0])
    for field in ("contributions", "expected"):
        want, have = np.array(getattr(wanted, field), np.float32), getattr(got, field)[0]
        if want.shape != have.shape or not (want == have).all():
            return field, str(want.tolist()), str(have.tolist())
    if wanted.HasField("depth_sum") and (got.depth_sums is None or float(got.depth_sums[0]) != wanted.depth_sum):
        return "depth_sum", repr(wanted.depth_sum), str(got.depth_sums)
    return None


def _compare_tolerance(wanted: golden_pb2.GoldenScore, got: Verdicts, model: Model) -> tuple[str, str, str] | None:
    tolerance = model.metadata.tolerance
    score = float(got.scores[0])
    # `not (a <= b)` and never `a > b`: a NaN must not pass.
    if not abs(score - wanted.score) <= tolerance.relative_score * wanted.score:
        return "score", str(wanted.score), str(score)
    guarded = abs(wanted.score - model.threshold) <= tolerance.guard_band * model.threshold
    if not guarded and bool(got.is_anomaly[0]) != wanted.is_anomaly:
        return "is_anomaly", str(wanted.is_anomaly), str(got.is_anomaly[0])
    for field in ("contributions", "expected"):
        want, have = np.array(getattr(wanted, field), np.float64), getattr(got, field)[0]
        bound = tolerance.relative_score * float(np.abs(want).max(initial=0))
        if want.shape != have.shape or not (np.abs(want - have) <= bound).all():
            return field, str(want.tolist()), str(have.tolist())
    return None
