"""The figures as JSON. The fields are described in docs/commands.md."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dwcp_training.data.writers import whole_file
from dwcp_training.evaluation.assess import Assessed, Question
from dwcp_training.evaluation.bootstrap import CONFIDENCE


def content(model_set: str, question: Question, found: dict[str, Assessed]) -> dict[str, Any]:
    """All figures, for `json`."""
    plan = asdict(question.plan) if question.inject or question.deletion else None
    return {
        "model_set": model_set,
        "data": question.telemetry.source,
        "grace_seconds": question.grace_seconds,
        "confidence": CONFIDENCE,
        "resamples": question.resamples,
        "injected": plan,
        "detectors": {name: _detector(assessed) for name, assessed in found.items()},
    }


def _detector(found: Assessed) -> dict[str, Any]:
    return {
        **asdict(found.evaluated),
        "threshold": found.threshold,
        "held_out_share": found.held_out_share,
        "figures": asdict(found.figures),
        "baselines": {name: asdict(figures) for name, figures in found.baselines.items()},
        "calibration": [asdict(entry) for entry in found.coverage],
        "deletion": {kind: asdict(outcome) for kind, outcome in found.deletion.items()},
        "without_trace": found.without_trace,
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a file that appears whole. Raises OSError."""
    with whole_file(path) as file:
        file.write((json.dumps(_finite(value), indent=2, allow_nan=False) + "\n").encode())


def _finite(value: Any) -> Any:
    """The same with null for what is no number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
