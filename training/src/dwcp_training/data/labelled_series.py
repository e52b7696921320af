"""Made-up labelled rows: a normal series with anomalies of every kind in it."""

from dataclasses import replace

import numpy as np

from dwcp_training.data.injection import KINDS, inject
from dwcp_training.data.synthetic import lstm_series
from dwcp_training.data.telemetry import Telemetry

STRENGTH = 5.0
"""Size of the anomalies in standard deviations of each metric."""

ROWS_AN_EVENT = 600
"""Rows to one anomaly of each kind: some 18 % of the rows are anomalous."""


def labelled_series(n: int = 10_000, seed: int = 42) -> Telemetry:
    """`lstm_series` with anomalies of every kind of `inject` in all metrics, and labels that say where they are.

    Raises:
        DataError: `n` is too small for an anomaly of each kind.
    """
    telemetry = lstm_series(n, seed)
    deviations = telemetry.values.std(axis=0)
    labels = np.zeros(n, dtype=bool)
    for k, kind in enumerate(KINDS):
        values, marked = inject(
            telemetry,
            kind,
            strength=STRENGTH,
            deviations=deviations,
            events=max(1, n // ROWS_AN_EVENT),
            seed=seed + k,
        )
        telemetry, labels = replace(telemetry, values=values), labels | marked
    return replace(telemetry, labels=labels)
