"""An explanation: the verdict on a row, and of each metric the value, what was expected, and its contribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwcp_sidecar import detectors
from dwcp_sidecar.calibration import level_name
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain, MemberVerdict
from dwcp_training.data.telemetry import rfc3339
from dwcp_training.explain.choice import Chosen


@dataclass(frozen=True, slots=True)
class Part:
    """What one metric has to do with a score.

    Attributes:
        metric, unit: of the schema.
        value: of the last sample, raw.
        low, high: smallest and largest value in the window, raw; the value itself where a single sample is scored.
        expected: of the same, raw; None where it is beyond float32 (P1).
        contribution: its share of the score, as the contract says (IF7, LA6, ...).
        shap: its SHAP value; None unless asked for.
    """

    metric: str
    unit: str
    value: float
    low: float
    high: float
    expected: float | None
    contribution: float
    shap: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict on a row, with its parts by contribution, the largest first.

    Attributes:
        members: of an ensemble, what each of them said.
    """

    detector: str
    time: str
    file: str
    row: int
    series: str
    score: float
    threshold: float
    is_anomaly: bool
    p_value: float
    level: str
    parts: tuple[Part, ...]
    members: tuple[MemberVerdict, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """All of it with plain values."""
        found: dict[str, Any] = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("parts", "members")
        }
        found["metrics"] = [
            {
                "metric": part.metric,
                "unit": part.unit,
                "value": part.value,
                "low": part.low,
                "high": part.high,
                "expected": part.expected,
                "contribution": part.contribution,
                **({} if part.shap is None else {"shap": part.shap}),
            }
            for part in self.parts
        ]
        if self.members:
            found["members"] = [
                {
                    "detector": detectors.NAMES[member.detector],
                    "weight": member.weight,
                    "score": member.score,
                    "normalized": member.normalized,
                    **({"missing": member.missing} if member.missing else {}),
                }
                for member in self.members
            ]
        return found


ShapValues = Callable[[Scorer, NDArray[np.float64]], NDArray[np.float64]]
"""From a model and a window to the SHAP value of each metric."""


def explain(model: Scorer, chosen: Chosen, shap: ShapValues | None = None) -> Explanation:
    """Explains the verdict of a model on a row, by the code that serves."""
    verdict = model.verdict_of(chosen.window, Explain.ALWAYS)
    assert verdict.contributions is not None
    assert verdict.expected is not None
    units = {feature.name: feature.unit for feature in model.metadata.feature_schema.features}
    values = None if shap is None else shap(model, chosen.window)
    order = np.argsort(-np.array(verdict.contributions), kind="stable").tolist()
    return Explanation(
        detector=model.name,
        time="" if chosen.time is None else rfc3339(np.array([chosen.time]))[0],
        file=chosen.file,
        row=chosen.row,
        series=chosen.series,
        score=verdict.score,
        threshold=model.threshold,
        is_anomaly=verdict.is_anomaly,
        p_value=verdict.p_value,
        level=level_name(verdict.level),
        parts=tuple(
            Part(
                metric=model.feature_names[j],
                unit=units.get(model.feature_names[j], ""),
                value=float(chosen.window[-1, j]),
                low=float(chosen.window[:, j].min()),
                high=float(chosen.window[:, j].max()),
                expected=verdict.expected[j] if math.isfinite(verdict.expected[j]) else None,
                contribution=verdict.contributions[j],
                shap=None if values is None else float(values[j]),
            )
            for j in order
        ),
        members=verdict.members,
    )
