"""Run folders (S0-3, S0-4, S0-5): labels, intervals, features from the data, windows that never cross runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dwcp_training.data import DataError, DataErrorCode, Exclusion, read_table, time_split, windows
from dwcp_training.profiles import load_profile

PROFILE = load_profile("telemetry-runs")
PERF = [f"perf_{name}" for name in ("cycles", "instructions", "cache_misses", "branches")]
TEMPERATURES = [f"temp_{name}_c" for name in ("cpu", "gpu")]
START = 1_700_000_000.0
BENIGN = Exclusion(label_column="label", normal_labels=PROFILE.reader.normal_labels)


def write_run(folder: Path, name: str, rows: int = 40, start: float = START, label: str | None = None) -> Path:
    """A run at 10 Hz; the label is a column where it is given."""
    rng = np.random.default_rng(len(name))
    frame = pd.DataFrame()
    if label is not None:
        frame["label"] = [label] * rows
    for column in PERF:
        frame[column] = rng.integers(1_000, 2_000, rows)
    frame["t_wall"] = np.round(start + 0.1 * np.arange(rows), 3)
    for column in TEMPERATURES:
        frame[column] = np.round(rng.normal(50, 1, rows), 2)
    frame["ts_unix"] = frame["t_wall"]
    frame["trojan_active"] = 0
    run = folder / name
    run.mkdir(parents=True)
    frame.to_csv(run / "telemetry.csv", index=False)
    return run


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    write_run(folder, "20240101-120000_idle", label="idle")
    write_run(folder, "20240101-121000_normal", start=START + 600, label="normal")
    trojan = write_run(folder, "20240101-122000_trojan_memory", start=START + 1200, label="trojan_memory")
    (trojan / "trojan_intervals.csv").write_text(f"{START + 1201},{START + 1202}\n\n")
    (folder / "notes").mkdir()
    return folder


def test_features_are_the_numeric_columns_in_their_order(runs: Path) -> None:
    read = read_table(runs, PROFILE, exclude=BENIGN, normal_only=True)
    assert read.schema.names == (*PERF, *TEMPERATURES)
    assert read.schema.name == "telemetry-runs"
    assert all(f.minimum < f.warning < f.critical < f.maximum for f in read.schema.features)
    assert read.cadence_seconds == pytest.approx(0.1)


def test_a_trojan_run_gives_nothing_to_train_on(runs: Path) -> None:
    read = read_table(runs, PROFILE, exclude=BENIGN, normal_only=True)
    assert len(read) == 80
    assert read.report.dropped == {"excluded_interval": 11, "excluded_label": 29}
    assert read.segments == read.series == ((0, 40), (40, 80))
    assert read.source.startswith("20240101-120000_idle/telemetry.csv, ")


def test_no_window_crosses_runs_or_touches_an_interval(runs: Path) -> None:
    """With the trojan's own label among the train labels only its intervals are left out."""
    everything = Exclusion(label_column="label", normal_labels=("idle", "normal", "trojan_memory"))
    read = read_table(runs, PROFILE, exclude=everything, normal_only=True)
    assert read.segments == ((0, 40), (40, 80), (80, 90), (90, 109))
    assert read.series == ((0, 40), (40, 80), (80, 109))
    assert len(windows(read.values, read.segments, 10)) == 31 + 31 + 1 + 10
    whole = read_table(runs, PROFILE)
    assert len(whole) == 120, "without normal_only nothing is left out: evaluation needs the faults"


def test_label_from_meta_json_or_the_name_of_the_folder(tmp_path: Path) -> None:
    write_run(tmp_path, "2024-01-01_12-00-00_idle")
    named = write_run(tmp_path, "2024-01-01_12-10-00_x", start=START + 600)
    (named / "meta.json").write_text(json.dumps({"label": "trojan_io"}))
    read = read_table(tmp_path, PROFILE, exclude=BENIGN, normal_only=True)
    assert read.report.excluded_by_kind == {"trojan_io": 40}
    assert len(read) == 40


def test_times_that_start_at_zero_in_each_run_are_runs_side_by_side(tmp_path: Path) -> None:
    for name in ("1_idle", "2_idle", "3_idle"):
        write_run(tmp_path, name, start=0.0)
    read = read_table(tmp_path, PROFILE, exclude=BENIGN, normal_only=True)
    assert read.parallel
    fit, held_out = time_split(read, 0.25, gap=5)
    assert fit.segments == ((0, 25), (25, 50), (50, 75))
    assert held_out.segments == ((0, 10), (10, 20), (20, 30))
    np.testing.assert_array_equal(held_out.values[:10], read.values[30:40])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"{START},{START - 1}\n", "line 1: .* ends after it starts"),
        ("start,end\n1,2\n", "line 1: 'start' to 'end'"),
        ("5\n", "line 1: wanted start,end, found '5'"),
    ],
)
def test_bad_intervals_name_run_and_line(runs: Path, content: str, words: str) -> None:
    (runs / "20240101-122000_trojan_memory" / "trojan_intervals.csv").write_text(content)
    with pytest.raises(DataError, match=f"20240101-122000_trojan_memory/trojan_intervals.csv {words}") as caught:
        read_table(runs, PROFILE, normal_only=True)
    assert caught.value.code is DataErrorCode.BAD_INTERVALS


def test_what_is_wrong_with_a_run_names_the_run(tmp_path: Path) -> None:
    write_run(tmp_path, "run_without_label")
    with pytest.raises(DataError, match=r"run run_without_label has no label.*meta.json"):
        read_table(tmp_path, PROFILE, exclude=BENIGN)
    (tmp_path / "run_without_label").rename(tmp_path / "1_idle")
    other = write_run(tmp_path, "2_idle") / "telemetry.csv"
    other.write_text(other.read_text().replace("perf_branches", "perf_branch"))
    with pytest.raises(DataError, match=r"run 2_idle: telemetry.csv has no column 'perf_branches'"):
        read_table(tmp_path, PROFILE)
    other.write_text(other.read_text().replace("perf_branch", "perf_branches").replace(str(START), "soon"))
    with pytest.raises(DataError, match=r"2_idle/telemetry.csv line 2, t_wall: 'soon' is not a number of seconds"):
        read_table(tmp_path, PROFILE)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"has no run folder.*\n.*<stamp>_<label>/telemetry.csv"):
        read_table(empty, PROFILE)


def test_window_longer_than_every_run(runs: Path) -> None:
    read = read_table(runs, PROFILE, exclude=BENIGN, normal_only=True)
    with pytest.raises(DataError, match="the longest run without a gap has 40") as caught:
        windows(read.values, read.segments, 50)
    assert caught.value.code is DataErrorCode.TOO_SHORT
