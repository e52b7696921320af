"""Turns drafts into golden cases: answers by the serving code, confirmed in every bit by the float64 reference."""

from collections.abc import Iterable

import numpy as np

from dwcp.anomaly.v1 import errors_pb2, features_pb2, golden_pb2
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain
from dwcp_training.detectors.base import Evaluation, Reference
from dwcp_training.golden.case import FLAGS, Draft

MARGIN = 1e-10
"""Relative distance from the midpoint of two float32 numbers that an exact answer must keep (V4)."""

_NUDGES = [0.0] + [sign * k * 1e-6 for k in range(1, 40) for sign in (1, -1)]


class GoldenError(RuntimeError):
    """The serving code and the float64 reference give different answers: the export is wrong."""


def make_golden(model: Scorer, reference: Reference, drafts: Iterable[Draft]) -> golden_pb2.GoldenFile:
    """Answers every draft.

    Args:
        model: the serving code.
        reference: float64 implementation that must agree, in every bit in the EXACT class and in int8 (Q2).

    Raises:
        GoldenError: when the two disagree, or two drafts have one id.
    """
    file = golden_pb2.GoldenFile(schema_version=1, model_type=model.name)
    seen: set[str] = set()
    for draft in drafts:
        if draft.id in seen:
            raise GoldenError(f"two golden cases are called {draft.id}")
        seen.add(draft.id)
        case = golden_pb2.GoldenCase(id=draft.id, comment=draft.comment, flags=draft.flags)
        if draft.error:
            code, field = draft.error
            case.error.code = errors_pb2.ErrorCode.Value(f"ERROR_CODE_{code}")
            case.error.field = field
            samples = draft.samples
        else:
            answered = _answer(case, draft, model, reference)
            if answered is None:
                continue
            samples = answered
        case.samples.extend(features_pb2.Sample(values=sample) for sample in samples)
        file.cases.append(case)
    used = {flag for case in file.cases for flag in case.flags}
    for flag in sorted(used):
        file.flags[flag] = FLAGS[flag]
    return file


def _answer(case: golden_pb2.GoldenCase, draft: Draft, model: Scorer, reference: Reference) -> list[list[float]] | None:
    """Fills the case's answer; returns the samples, nudged where the margin needs it, or None to leave it out."""
    given = np.asarray(draft.samples, np.float64)
    for nudge in _NUDGES if draft.nudge else _NUDGES[:1]:
        samples = given.copy()
        with np.errstate(over="ignore"):
            samples[-1] *= 1 + nudge
        if not np.isfinite(samples).all():  # the largest numbers can only be nudged towards zero
            continue
        wanted = reference.evaluate(samples[np.newaxis, -model.timesteps :])
        if not model.bitwise or _keeps_margin(wanted):
            break
    else:
        return None
    got = model.score(samples.tolist(), Explain.ALWAYS)
    answer = case.score
    answer.score = float(wanted.scores[0].astype(np.float32))
    answer.score_bits = int(wanted.scores[:1].astype(np.float32).view(np.uint32)[0])
    answer.is_anomaly = bool(wanted.is_anomaly[0])
    answer.contributions.extend(wanted.contributions[0].astype(np.float32).tolist())
    answer.expected.extend(wanted.expected[0].astype(np.float32).tolist())
    if wanted.depth_sums is not None:
        answer.depth_sum = float(wanted.depth_sums[0])
    if model.bitwise and not _agree(wanted, got):
        raise GoldenError(f"{draft.id}: the reference says {answer}, the graph says {got}")
    return samples.tolist()


def _agree(wanted: Evaluation, got) -> bool:
    return (
        np.array_equal(wanted.scores.astype(np.float32), got.scores)
        and np.array_equal(wanted.is_anomaly, got.is_anomaly)
        and np.array_equal(wanted.contributions.astype(np.float32), got.contributions)
        and np.array_equal(wanted.expected.astype(np.float32), got.expected)
        and (wanted.depth_sums is None or np.array_equal(wanted.depth_sums, got.depth_sums))
    )


def _keeps_margin(evaluation: Evaluation) -> bool:
    numbers = [evaluation.scores, evaluation.contributions.ravel()]
    if not evaluation.expected_is_stored:
        numbers.append(evaluation.expected.ravel())
    if evaluation.inner is not None:
        numbers.append(evaluation.inner().ravel())
    return bool((boundary_distance(np.concatenate(numbers)) > MARGIN).all())


def boundary_distance(numbers: np.ndarray) -> np.ndarray:
    """Relative distance of float64 numbers from the nearest midpoint of two neighbouring float32 numbers (P2).

    1 for numbers that are exactly 0; below the normal range of float32 the distance is relative to its spacing.
    """
    near = numbers.astype(np.float32)
    wide = near.astype(np.float64)
    with np.errstate(over="ignore"):
        up = (wide + np.nextafter(near, np.float32(np.inf)).astype(np.float64)) / 2
        down = (wide + np.nextafter(near, np.float32(-np.inf)).astype(np.float64)) / 2
    apart = np.minimum(np.abs(up - numbers), np.abs(down - numbers))
    size = np.maximum(np.abs(numbers), np.finfo(np.float32).tiny)
    return np.where(numbers == 0, 1.0, apart / size)
