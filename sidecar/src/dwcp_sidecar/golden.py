"""Runs golden vectors against a model (rules V1 to V4)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dwcp.anomaly.v1 import golden_pb2
from dwcp_sidecar.audit.checks import requirement
from dwcp_sidecar.errors import ContractError, code_name
from dwcp_sidecar.features import check_samples
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain, Verdicts

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


def run_golden(file: golden_pb2.GoldenFile, model: Scorer, score: Score | None = None) -> list[Mismatch]:
    """Runs every case and returns what differs.

    Args:
        file: the golden vectors.
        model: says how to compare (exact or with tolerance), and scores unless `score` is given.
        score: another implementation under test: takes samples, returns verdicts with `n = 1`, raises ContractError.
    """
    if score is None:
        return _run_together(file, model)
    mismatches = (_run_case(case, model, score) for case in file.cases)
    return [mismatch for mismatch in mismatches if mismatch is not None]


def audit_golden(file: golden_pb2.GoldenFile, model_type: str, name: str) -> None:
    """Checks that a golden file is for this model and documents itself (V3).

    Raises:
        ContractError: METADATA_INVALID naming the file and the case.
    """
    require = requirement("METADATA_INVALID", name)
    require(file.model_type == model_type, f"it is for {file.model_type!r}, not {model_type}")
    seen: set[str] = set()
    for case in file.cases:
        require(case.id != "" and case.id not in seen, f"case {case.id!r} has no id, or one that is taken")
        seen.add(case.id)
        require(case.comment != "", f"case {case.id} has no comment")
        unexplained = [flag for flag in case.flags if not file.flags.get(flag)]
        require(not unexplained, f"case {case.id} has the flag {unexplained}, which the file does not explain")
        require(case.WhichOneof("outcome") is not None, f"case {case.id} has no outcome")


def require_golden(file: golden_pb2.GoldenFile, model: Scorer, name: str) -> None:
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


def _run_together(file: golden_pb2.GoldenFile, model: Scorer) -> list[Mismatch]:
    """Runs the cases that have a score as one batch, which takes a quarter of the time and gives the same bits (W4).

    What has an error runs alone, and so does the first case of each flag: by the way that a single request takes.
    """
    found: dict[int, Mismatch | None] = {}
    together: list[int] = []
    items: list[np.ndarray] = []
    flags: set[str] = set()
    for index, case in enumerate(file.cases):
        if case.WhichOneof("outcome") == "error" or not flags.issuperset(case.flags):
            flags.update(case.flags)
            found[index] = _run_case(case, model, model.score)
        if case.WhichOneof("outcome") == "score" and found.get(index) is None:
            try:
                items.append(check_samples(_samples(case), model.feature_names, model.timesteps))
                together.append(index)
            except ContractError as error:
                found[index] = Mismatch(case.id, "outcome", "a score", str(error))
    if items:
        explained = model.run(np.stack(items), Explain.ALWAYS)
        plain = model.run(np.stack(items), Explain.NEVER) if model.scores_apart else explained
        for row, index in enumerate(together):
            case = file.cases[index]
            found[index] = _compare(case, explained, model, row) or _compare_plain(case, explained, plain, row)
    return [mismatch for _, mismatch in sorted(found.items()) if mismatch is not None]


def _run_case(case: golden_pb2.GoldenCase, model: Scorer, score: Score) -> Mismatch | None:
    wants_error = case.WhichOneof("outcome") == "error"
    try:
        got = score(_samples(case))
    except ContractError as error:
        if not wants_error:
            return Mismatch(case.id, "outcome", "a score", str(error))
        wanted_code = code_name(case.error.code)
        if (error.code, error.field) != (wanted_code, case.error.field):
            wanted, found = f"{wanted_code} ({case.error.field})", f"{error.code} ({error.field})"
            return Mismatch(case.id, "error", wanted, found)
        return None
    if wants_error:
        return Mismatch(case.id, "outcome", code_name(case.error.code), f"score {got.scores[0]}")
    return _compare(case, got, model, 0)


def _compare(case: golden_pb2.GoldenCase, got: Verdicts, model: Scorer, row: int) -> Mismatch | None:
    """Compares a case with one row of the answers."""
    compare = _compare_exact if model.bitwise else _compare_tolerance
    difference = compare(case.score, got, model, row)
    return None if difference is None else Mismatch(case.id, *difference)


def _compare_plain(case: golden_pb2.GoldenCase, explained: Verdicts, plain: Verdicts, row: int) -> Mismatch | None:
    """A score without its explanation may come from a smaller graph: it must be the same."""
    for field in ("scores", "is_anomaly", "depth_sums"):
        wanted, got = getattr(explained, field), getattr(plain, field)
        if wanted is not None and wanted[row] != got[row]:
            return Mismatch(case.id, f"{field} without explanation", str(wanted[row]), str(got[row]))
    return None


def _samples(case: golden_pb2.GoldenCase) -> list[list[float]]:
    return [list(sample.values) for sample in case.samples]


def _compare_exact(wanted: golden_pb2.GoldenScore, got: Verdicts, _: Scorer, row: int) -> tuple[str, str, str] | None:
    bits = int(got.scores[row : row + 1].view(np.uint32)[0])
    if bits != wanted.score_bits:
        return "score_bits", f"{wanted.score_bits:#010x} ({wanted.score})", f"{bits:#010x} ({got.scores[row]})"
    if bool(got.is_anomaly[row]) != wanted.is_anomaly:
        return "is_anomaly", str(wanted.is_anomaly), str(got.is_anomaly[row])
    for field in ("contributions", "expected"):
        want, have = np.array(getattr(wanted, field), np.float32), getattr(got, field)[row]
        if want.shape != have.shape or not (want == have).all():
            return field, str(want.tolist()), str(have.tolist())
    if wanted.HasField("depth_sum") and (got.depth_sums is None or float(got.depth_sums[row]) != wanted.depth_sum):
        return "depth_sum", repr(wanted.depth_sum), str(got.depth_sums)
    return None


def _compare_tolerance(
    wanted: golden_pb2.GoldenScore, got: Verdicts, model: Scorer, row: int
) -> tuple[str, str, str] | None:
    tolerance = model.metadata.tolerance
    score = float(got.scores[row])
    # `not (a <= b)` and never `a > b`: a NaN must not pass.
    if not abs(score - wanted.score) <= tolerance.relative_score * wanted.score:
        return "score", str(wanted.score), str(score)
    guarded = abs(wanted.score - model.threshold) <= tolerance.guard_band * model.threshold
    if not guarded and bool(got.is_anomaly[row]) != wanted.is_anomaly:
        return "is_anomaly", str(wanted.is_anomaly), str(got.is_anomaly[row])
    for field in ("contributions", "expected"):
        want, have = np.array(getattr(wanted, field), np.float64), getattr(got, field)[row]
        bound = tolerance.relative_score * float(np.abs(want).max(initial=0))
        if want.shape != have.shape or not (np.abs(want - have) <= bound).all():
            return field, str(want.tolist()), str(have.tolist())
    return None
