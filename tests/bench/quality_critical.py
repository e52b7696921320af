"""Recall of single critical values: one DWCP metric at the value at which an operator wants to be woken, the others as
they mostly are. Each detector is trained on made-up normal rows and decides at its default threshold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dwcp_training.data import forest_rows
from dwcp_training.interface import Detector, EnsembleDetector
from dwcp_training.profiles import load_profile
from tests.bench.quality_kept import Kept
from tests.bench.quality_scorers import Trained
from tests.bench.quality_sets import Floats

PROFILE = "dwcp"
ROWS = 500
"""Windows of typical rows that each metric is set in."""


def rows() -> Floats:
    """Made-up normal rows to train on."""
    return forest_rows().values


def measure(kept: Kept, trained: Trained, names: Sequence[str], say: Callable[[str], None]) -> None:
    """Keeps metric to recall, and the share of typical rows that alarm, of those detectors that nothing is kept of."""
    for name in names:
        if name in kept.found:
            continue
        say(f"single critical values: {name}")
        detector = trained.get(name)
        if not isinstance(detector, str):
            kept.keep(name, recall(detector))


def recall(detector: Detector | EnsembleDetector) -> dict[str, float]:
    """Metric to the share of rows that alarm when it is at its critical value; `typical`: when none is."""
    length = detector.sequence_length or 1
    typical = forest_rows(ROWS * length, seed=7).values.reshape(ROWS, length, -1)
    shares = {"typical": _alarms(detector, typical)}
    for j, feature in enumerate(load_profile(PROFILE).feature_schema.features):
        changed = typical.copy()
        changed[:, -1, j] = feature.critical
        shares[feature.name] = _alarms(detector, changed)
    return shares


def _alarms(detector: Detector | EnsembleDetector, items: Floats) -> float:
    """Share of windows `[n, length, features]` whose last row alarms."""
    windowed = detector.sequence_length is not None
    if isinstance(detector, EnsembleDetector):
        said = detector.predict(X_sequences=items) if windowed else detector.predict(items[:, -1])
        return float(np.mean(said["alert_levels"] != "normal"))
    return float(np.mean(detector.predict(items if windowed else items[:, -1])[1]))
