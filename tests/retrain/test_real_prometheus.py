"""Retraining from a real Prometheus that has days of history in its storage."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.retrain import range_queries
from tests.retrain.conftest import FOREST, Bench, series
from tests.retrain.metrics_history import QUERIES, openmetrics, real_prometheus

ROWS = 2400


def test_retrain_from_the_history_of_a_prometheus(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(range_queries, "WAITS", (0.1,))
    begin = (time.time() - 3600) // 60 * 60 - 60 * (ROWS - 1)
    kept = np.ones(ROWS, bool)
    kept[500:560] = False  # an outage: the last values go on for five minutes, as Prometheus does
    kept[900] = False
    lines = openmetrics(series(1, ROWS), begin, kept)
    first = bench.current
    with real_prometheus(tmp_path, lines) as address:
        arguments = ("--prometheus", address, *QUERIES, "--days", "2", "--on-bad-rows", "drop")
        result = bench.retrain(*arguments, *FOREST)
        assert result.exit_code == 0, result.output
        assert bench.current != first
        assert "values taken for missing" in result.output
        assert "gaps in the cadence: 1" in result.output, "the single missing row is repeated: no gap can be seen"
        record = ModelSet.open(bench.models).metadata["isolation_forest"]
        assert record.cadence_seconds == 60
        assert record.training.data_source == "prometheus.parquet"
        assert record.training.rows_read == ROWS - 60
        chunks = list((bench.models / ".retrain/prometheus").rglob("*.parquet"))
        assert len(chunks) >= 1

    result = bench.retrain(*arguments)  # it is gone: nothing changes, and what is there stays there
    assert result.exit_code == 1
    assert "cannot be reached" in result.output
    assert "run it again" in result.output
    assert list((bench.models / ".retrain/prometheus").rglob("*.parquet")) == chunks
