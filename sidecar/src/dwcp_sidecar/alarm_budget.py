"""The share of normal samples that may alarm, as a model was trained for (rules C5, M4)."""

import re
from collections.abc import Iterator

from dwcp.anomaly.v1 import model_pb2

SECONDS = {"hour": 3_600.0, "day": 86_400.0, "week": 604_800.0}
"""Seconds of each unit that a budget may be given in."""

_BUDGET = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)/(hour|day|week)")


def trained_share(metadata: model_pb2.ModelMetadata) -> float | None:
    """Share of normal samples that may alarm (M4), above 0 and below 1; None where the metadata do not say."""
    return next((share for share in _stated(metadata) if 0 < share < 1), None)


def _stated(metadata: model_pb2.ModelMetadata) -> Iterator[float]:
    """What the metadata say, in the order of M4; may be no share at all."""
    budget = _BUDGET.fullmatch(metadata.training.hyperparameters.get("alarm_budget", ""))
    if budget:
        yield float(budget[1]) * metadata.cadence_seconds / SECONDS[budget[2]]
    if metadata.HasField("contamination"):
        yield metadata.contamination
    if metadata.HasField("lstm"):
        yield (100 - metadata.lstm.threshold_percentile) / 100
    if metadata.HasField("dense"):
        yield (100 - metadata.dense.threshold_percentile) / 100
