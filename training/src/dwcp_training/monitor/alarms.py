"""Alarms: what is known about a row that a detector found, and how it is said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dwcp_sidecar.calibration import level_name
from dwcp_sidecar.scorer import Scorer
from dwcp_training.data.row_judge import Chunk
from dwcp_training.data.telemetry import rfc3339
from dwcp_training.series_scores import Scored


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm of one detector.

    Attributes:
        time: RFC 3339, of the row; empty for data without times.
        place: file and line of the row.
        series: name of its run, file or device; empty where there is only one.
        detector: that found it.
        level: `WARNING` or `CRITICAL` (C4).
        score, threshold, p_value: of the row, of the detector, of the score (C2).
        feature: that contributes most; empty where none does.
        unit: of its value.
        value, expected: of the feature, raw; None without one.
    """

    time: str
    place: str
    series: str
    detector: str
    level: str
    score: float
    threshold: float
    p_value: float
    feature: str
    unit: str
    value: float | None
    expected: float | None

    def __str__(self) -> str:
        why = ""
        if self.value is not None:
            unit = f" {self.unit}" if self.unit else ""
            why = f": {self.feature} {self.value:.6g}{unit}, expected {self.expected:.6g}{unit}"
        of = f" [{self.series}]" if self.series else ""
        where = self.time or self.place
        return f"{where}{of} {self.level} {self.detector} {self.score:.6g} over {self.threshold:.6g}{why}"

    def as_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def alert(self, now: str, model_set: str) -> dict[str, Any]:
        """As Alertmanager wants it (its API, version 2).

        Args:
            now: RFC 3339, for alarms without a time of their own.
            model_set: id of the set that found it.
        """
        labels = {
            "alertname": "DwcpAnomaly",
            "detector": self.detector,
            "severity": self.level.lower(),
            "series": self.series,
            "metric": self.feature,
        }
        facts = {
            "summary": str(self),
            "score": f"{self.score:.9g}",
            "threshold": f"{self.threshold:.17g}",
            "p_value": f"{self.p_value:.6g}",
            "value": "" if self.value is None else f"{self.value:.17g}",
            "expected": "" if self.expected is None else f"{self.expected:.9g}",
            "model_set": model_set,
        }
        return {
            "labels": {name: text for name, text in labels.items() if text},
            "annotations": {name: text for name, text in facts.items() if text},
            "startsAt": self.time or now,
        }


def alarms_of(chunk: Chunk, model: Scorer, columns: Sequence[int], scored: Scored) -> Iterator[tuple[int, Alarm]]:
    """The alarms among the verdicts on some rows of a chunk, each with its row.

    Args:
        columns: of the chunk's values, one for each feature of the model.
    """
    verdicts = scored.verdicts
    units = {feature.name: feature.unit for feature in model.metadata.feature_schema.features}
    for at in verdicts.is_anomaly.nonzero()[0].tolist():
        row = int(scored.rows[at])
        top = int(verdicts.contributions[at].argmax())
        named = bool(verdicts.contributions[at, top] > 0)
        feature = model.feature_names[top] if named else ""
        yield (
            row,
            Alarm(
                time=rfc3339(chunk.times[row : row + 1])[0] if chunk.times is not None else "",
                place=f"{chunk.file} line {chunk.rows[row]}",
                series=str(chunk.series[row]),
                detector=model.name,
                level=level_name(int(verdicts.levels[at])),
                score=float(verdicts.scores[at]),
                threshold=model.threshold,
                p_value=float(verdicts.p_values[at]),
                feature=feature,
                unit=units.get(feature, ""),
                value=float(chunk.values[row, columns[top]]) if named else None,
                expected=float(verdicts.expected[at, top]) if named else None,
            ),
        )
