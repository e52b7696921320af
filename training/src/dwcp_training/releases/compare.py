"""What changed from one model set to another: settings, thresholds, data, and the scores of the same samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain
from dwcp_training.data import Telemetry
from dwcp_training.telemetry_scores import series_scores


@dataclass(frozen=True)
class Change:
    """One thing that differs, in words: `before` and `after` are empty where one side has nothing."""

    what: str
    before: str
    after: str


@dataclass(frozen=True)
class ScoreChange:
    """How the scores of the same samples differ.

    Attributes:
        samples: number of scored samples.
        alarms_before, alarms_after: how many of them alarm.
        decisions: how many are decided differently.
        median, largest: of the absolute differences, relative to the threshold of the first set.
        rank_correlation: Spearman's, of the scores; None where one of them is constant.
    """

    samples: int
    alarms_before: int
    alarms_after: int
    decisions: int
    median: float
    largest: float
    rank_correlation: float | None


def changes(before: model_pb2.ModelMetadata, after: model_pb2.ModelMetadata) -> list[Change]:
    """What differs between two models of one detector, but for what differs with every training anyway."""
    first, second = (dict(_described(metadata)) for metadata in (before, after))
    names = list(dict.fromkeys([*first, *second]))
    pairs = [(name, first.get(name, ""), second.get(name, "")) for name in names]
    return [Change(*pair) for pair in pairs if pair[1] != pair[2]]


def _described(metadata: model_pb2.ModelMetadata) -> Iterator[tuple[str, str]]:
    """Names and values of what people compare."""
    record = metadata.training
    yield "features", ", ".join(metadata.feature_names)
    yield "threshold", f"{metadata.threshold:.6g}"
    yield "class", model_pb2.ParityClass.Name(metadata.parity_class).removeprefix("PARITY_CLASS_")
    yield "cadence", f"{metadata.cadence_seconds:g} s" if metadata.cadence_seconds else ""
    for member in metadata.ensemble.members:
        name = model_pb2.Detector.Name(member.detector).removeprefix("DETECTOR_").lower()
        yield f"weight of {name}", f"{member.weight:g}"
    for name, value in sorted(record.hyperparameters.items()):
        yield name, value
    yield "data", record.data_source
    yield "first row", record.first_timestamp
    yield "last row", record.last_timestamp
    yield "rows read", f"{record.rows_read:,}"
    yield "fitted on", f"{record.fitted_on:,}"
    yield "held out", f"{record.held_out:,}"
    for reason, rows in sorted(record.dropped.items()):
        yield f"left out, {reason.replace('_', ' ')}", f"{rows:,}"
    for j, name in enumerate(metadata.feature_names):
        if len(metadata.scaler.scale):
            yield f"{name}, mean and scale", f"{metadata.scaler.mean[j]:.4g}, {metadata.scaler.scale[j]:.4g}"
    yield "graph", metadata.graph.unavailable_reason or "exported"
    for library, version in sorted(record.library_versions.items()):
        yield f"library {library}", version


def golden_score_change(before: ModelSet, after: ModelSet, detector: str) -> ScoreChange | None:
    """How the scores of the golden samples of both sets differ; None where the models take different samples."""
    first, second = before.models[detector], after.models[detector]
    if not comparable(first, second):
        return None
    items = [
        [list(sample.values) for sample in case.samples][-first.timesteps :]
        for models in (before, after)
        for case in models.golden[detector].cases
        if case.WhichOneof("outcome") == "score" and len(case.samples) >= first.timesteps
    ]
    if not items:
        return None
    verdicts = [model.run(np.array(items, np.float64), Explain.NEVER) for model in (first, second)]
    return _change(first, *((verdict.scores, verdict.is_anomaly) for verdict in verdicts))


def data_score_change(before: ModelSet, after: ModelSet, detector: str, data: Telemetry) -> ScoreChange | None:
    """How the scores of the same rows differ; None where the models take other features or other windows.

    Rows that end no whole window are not scored.
    """
    first, second = before.models[detector], after.models[detector]
    if not comparable(first, second) or tuple(first.feature_names) != data.schema.names:
        return None
    scores = [series_scores(model, data) for model in (first, second)]
    rows = scores[0].scored
    if not rows.any():
        return None
    return _change(first, *((item.scores[rows], item.alarmed[rows]) for item in scores))


def comparable(first: Scorer, second: Scorer) -> bool:
    """Whether two models take the same samples."""
    return first.feature_names == second.feature_names and first.timesteps == second.timesteps


Scored = tuple[NDArray[np.float32], NDArray[np.bool_]]


def _change(model: Scorer, before: Scored, after: Scored) -> ScoreChange:
    (first, alarms), (second, alarms_after) = before, after
    difference = np.abs(second.astype(np.float64) - first.astype(np.float64)) / (abs(model.threshold) or 1.0)
    from scipy.stats import spearmanr  # here: it takes a second, and `dwcp releases list` compares nothing

    constant = len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0
    return ScoreChange(
        samples=len(first),
        alarms_before=int(alarms.sum()),
        alarms_after=int(alarms_after.sum()),
        decisions=int((alarms != alarms_after).sum()),
        median=float(np.median(difference)),
        largest=float(difference.max()),
        rank_correlation=None if constant else float(spearmanr(first, second).statistic),
    )
