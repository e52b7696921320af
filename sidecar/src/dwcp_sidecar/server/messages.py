"""What the services share: checks of common fields, verdicts as messages, counting of scores."""

import numpy as np

from dwcp.anomaly.v1 import scoring_pb2
from dwcp_sidecar.calibration import level_name
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.fleet import Fleet
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.server.metrics import Metrics
from dwcp_sidecar.verdicts import Explain, MemberVerdict, Verdict, Verdicts


def check_id(models: ModelSet | Fleet, wanted: str, field: str) -> None:
    """Refuses a set that is not in use with MODEL_SET_MISMATCH; an empty id asks for whichever is."""
    if wanted not in ("", models.id):
        what = f"model set {wanted[:64]} was asked for, {models.id} is in use; ask for that one or for none"
        raise ContractError("MODEL_SET_MISMATCH", field, what)


def explain_of(number: int, field: str = "explain") -> Explain:
    """The value of the enum in `scoring.proto`, or INVALID_REQUEST."""
    if number == scoring_pb2.EXPLAIN_UNSPECIFIED:
        return Explain.ALARMS
    if number not in scoring_pb2.Explain.values():
        raise ContractError("INVALID_REQUEST", field, f"explain is {number}; the contract has no such value")
    return Explain(number)


def top_feature(model: Scorer, verdict: Verdict) -> str:
    """Name of the feature that contributes most; empty where nothing was explained or nothing contributes."""
    if not verdict.contributions:
        return ""
    top = max(verdict.contributions)
    return model.feature_names[verdict.contributions.index(top)] if top > 0 else ""


def to_message(model: Scorer, verdict: Verdict) -> scoring_pb2.Verdict:
    """A verdict as its message."""
    return scoring_pb2.Verdict(
        score=verdict.score,
        is_anomaly=verdict.is_anomaly,
        threshold=model.threshold,
        p_value=verdict.p_value,
        level=verdict.level,
        contributions=verdict.contributions,
        expected=verdict.expected,
        top_feature=top_feature(model, verdict),
        depth_sum=verdict.depth_sum,
        members=[_member(said) for said in verdict.members] if verdict.members else None,
    )


def _member(said: MemberVerdict) -> scoring_pb2.MemberVerdict:
    return scoring_pb2.MemberVerdict(
        detector=said.detector,  # type: ignore[arg-type]  # an enum is a number
        weight=said.weight,
        score=said.score,
        normalized=said.normalized,
        missing=said.missing,
    )


def count_one(metrics: Metrics, model: Scorer, verdict: Verdict, row: np.ndarray) -> None:
    """Counts one score, its p-value and its alarm (M1), and keeps its last sample, float64 `[features]` (DR6)."""
    metrics.scored(model.name, 1)
    metrics.p_value(model.name, verdict.p_value)
    if metrics.recent is not None:
        metrics.recent.add(model, row)
    if verdict.is_anomaly:
        metrics.alarm(model.name, level_name(verdict.level), top_feature(model, verdict))


def count_batch(metrics: Metrics, model: Scorer, verdicts: Verdicts, rows: np.ndarray) -> None:
    """Counts the scores, p-values and alarms of a batch (M1), and keeps the last sample of each item, float64
    `[n, features]` (DR6)."""
    metrics.scored(model.name, len(verdicts.scores))
    metrics.p_values(model.name, verdicts.p_values)
    if metrics.recent is not None:
        metrics.recent.add_all(model, rows)
    alarms = np.flatnonzero(verdicts.is_anomaly)
    if not len(alarms):
        return
    largest = verdicts.contributions[alarms].argmax(axis=1)
    nothing = verdicts.contributions[alarms].max(axis=1) <= 0
    features = np.where(nothing, -1, largest)
    for (level, feature), count in zip(
        *np.unique(np.stack([verdicts.levels[alarms], features], axis=1), axis=0, return_counts=True), strict=True
    ):
        name = "" if feature < 0 else model.feature_names[feature]
        metrics.alarm(model.name, level_name(int(level)), name, int(count))
