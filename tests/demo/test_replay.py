"""The demo's machinery on a short series: a real sidecar, the Go program that calls Score, and the comparison."""

from pathlib import Path

import pandas as pd
import pytest

from dwcp_training.data import lstm_series, write_csv
from tests.demo.demo import DATA, GRACE, REFERENCE, label, recall_table, replay, sidecar


def test_sidecar_and_native_go_give_the_same_verdicts(tmp_path: Path) -> None:
    write_csv(lstm_series(60), tmp_path / "series.csv")
    with sidecar(REFERENCE) as address:
        scores = replay(REFERENCE, address, tmp_path / "series.csv")
    assert scores.groupby("detector").size().to_dict() == {"isolation_forest": 60, "lstm_autoencoder": 51}
    assert scores.equal.all()
    assert (scores.sidecar_us > scores.native_us).mean() > 0.9


def test_measured_link_is_scored_the_same(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip("left out: ../shared/data/linklab is not here")
    rows = (DATA / "test.csv").read_text().splitlines(keepends=True)
    (tmp_path / "test.csv").write_text("".join(rows[:301]))
    with sidecar(REFERENCE) as address:
        scores = replay(REFERENCE, address, tmp_path / "test.csv")
    assert len(scores) == 300 + 291
    assert scores.equal.all()


def test_rows_are_labelled_by_the_faults() -> None:
    times = pd.Series(pd.date_range("2026-01-01", periods=40, freq="1s", tz="UTC"))
    faults = pd.DataFrame({"start": [times[10]], "end": [times[14]], "kind": ["blackout"], "strength": [1]})
    kinds = label(times, faults)
    assert list(kinds[10:15]) == ["blackout"] * 5
    assert list(kinds[15 : 15 + GRACE.seconds]) == ["grace"] * GRACE.seconds
    assert (kinds[:10] == "normal").all()
    scores = pd.DataFrame({"timestamp": times, "detector": "x", "is_anomaly": times >= times[12], "label": kinds})
    (row,) = recall_table(scores, faults).columns[1].cells
    assert row.startswith("60 %   1/1   2.0 s")
