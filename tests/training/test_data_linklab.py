"""Measured telemetry: the linklab capture, where it is at hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from dwcp_training.data import Exclusion, read_intervals, read_table, time_split, windows
from dwcp_training.profiles import load_profile

PROFILE = load_profile("dwcp")


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data beside the project's root."""
    return Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def linklab(shared_data: Path, request: pytest.FixtureRequest) -> Path:
    folder = shared_data / "linklab" / "link-a"
    if not folder.is_dir():
        pytest.skip(f"{request.node.name} left out: ../shared/data/linklab is not here")
    return folder


def test_linklab_train_is_clean(linklab: Path) -> None:
    read = read_table(linklab / "train.csv", PROFILE)
    assert (len(read), read.cadence_seconds, read.segments) == (7_200, 0.25, ((0, 7_200),))
    assert read.report.dropped == {}
    assert read.report.gap_count == 0
    fit, held_out = time_split(read, 0.2, gap=10)
    assert windows(fit.values, fit.segments, 10).shape == (len(fit) - 9, 10, 7)
    assert len(held_out) == 1_440


def test_linklab_faults_are_left_out_with_their_grace(linklab: Path) -> None:
    labels = read_intervals(linklab / "labels.csv")
    assert len(labels.kind) == 36
    assert len(set(labels.kind)) == 12
    files = [linklab / "test.csv", linklab / "train.csv"]
    read = read_table(files, PROFILE, exclude=Exclusion([linklab / "labels.csv"], grace_seconds=7))
    assert read.source == "train.csv, test.csv"
    assert read.report.rows_read == 7_200 + 4_561
    assert read.report.dropped == {"excluded_interval": 1_884, "excluded_grace": 1_008}
    assert read.report.gap_count == 0
    assert len(read.segments) == 37  # 36 faults cut one capture


def test_linklab_fault_column_is_a_label(linklab: Path, tmp_path: Path) -> None:
    """The capture's own mark of the active fault, joined to the metrics, leaves about the same rows out."""
    test = pd.read_csv(linklab / "test.csv", dtype=str)
    aux = pd.read_csv(linklab / "aux.csv", dtype=str, keep_default_na=False)
    test.merge(aux[["timestamp", "fault"]], on="timestamp").to_csv(tmp_path / "a.csv", index=False)
    by_label = read_table(tmp_path / "a.csv", PROFILE, exclude=Exclusion(label_column="fault"))
    assert by_label.report.dropped["excluded_label"] == pytest.approx(1_884, abs=40)
