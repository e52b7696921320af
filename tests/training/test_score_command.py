"""`dwcp score`: every verdict is that of the serving core, whatever the chunks; nothing half-written stays."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from dwcp.anomaly.v1 import model_pb2, scoring_pb2
from dwcp_sidecar.model import Explain
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import lstm_series, read_table, windows, write_csv
from dwcp_training.data.chunks import ChunkReader
from dwcp_training.evaluate import alarms
from dwcp_training.profiles import load_profile
from dwcp_training.score import run_score
from dwcp_training.series_scores import SeriesScorer
from tests.training.conftest import COMMAND, REPOSITORY
from tests.training.test_cli import invoke

REFERENCE = REPOSITORY / "models/reference/v1"
DETECTORS = ("isolation_forest", "lstm_autoencoder")


@pytest.fixture(scope="module")
def models() -> ModelSet:
    return ModelSet.open(REFERENCE)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 rows with faults in them and two gaps, one of them too long ago for the window after it."""
    path = tmp_path_factory.mktemp("score") / "data.csv"
    write_csv(lstm_series(600), path)
    lines = path.read_text().splitlines()
    for line in (50, 300, 301, 302, 580):
        cells = lines[line].split(",")
        lines[line] = ",".join([cells[0], "30", "95", *cells[3:]])
    del lines[120:140]
    del lines[145:150]
    path.write_text("\n".join(lines) + "\n")
    return path


def scored(tmp_path: Path, data: Path, *flags: str, output: str = "scores.csv") -> Path:
    target = tmp_path / output
    result = invoke("score", "--models", REFERENCE, "--data", data, "--output", target, *flags)
    assert result.exit_code == 0, result.output
    return target


@pytest.fixture(scope="module")
def at_once(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scored(tmp_path_factory.mktemp("at_once"), data)


def test_rows_are_those_of_the_serving_core(at_once: Path, data: Path, models: ModelSet) -> None:
    """Against the data read as a whole, and each window scored by itself, where the file has one row a verdict."""
    table = pd.read_csv(at_once, dtype={"score": str, "timestamp": str}, keep_default_na=False)
    telemetry = read_table(data, load_profile("dwcp"))
    assert len(telemetry.segments) == 3
    for name in DETECTORS:
        model = models.model(name)
        rows = table[table.detector == name].reset_index(drop=True)
        items = windows(telemetry.values, telemetry.segments, model.timesteps)
        wanted = [model.score(item.tolist(), Explain.ALARMS) for item in items]
        ends, alarmed = (np.flatnonzero(mask) for mask in alarms(model, telemetry.values, telemetry.segments))
        assert len(rows) == len(wanted) == len(ends)
        assert len(alarmed)
        assert telemetry.timestamps is not None
        times = pd.to_datetime(rows.timestamp, utc=True).dt.tz_localize(None).to_numpy()
        assert (times == telemetry.timestamps[ends]).all()
        assert set(rows.index[rows.is_anomaly]) == set(np.searchsorted(ends, alarmed))
        for row, verdict in zip(rows.itertuples(), wanted, strict=True):
            assert np.float32(row.score).tobytes() == verdict.scores[0].tobytes()
            assert row.is_anomaly == verdict.is_anomaly[0]
            assert row.p_value == verdict.p_values[0]
            assert f"LEVEL_{row.level}" == scoring_pb2.Level.Name(int(verdict.levels[0]))
            if row.is_anomaly:
                top = int(verdict.contributions[0].argmax())
                assert row.top_feature == model.feature_names[top]
                assert np.float32(row.expected).tobytes() == verdict.expected[0, top].tobytes()
                assert float(row.top_value) == telemetry.values[ends[row.Index], top]
            else:
                assert (row.top_feature, row.top_value, row.expected) == ("", "", "")


@pytest.mark.parametrize("rows", [pytest.param(1, marks=pytest.mark.slow), 9, 10, 64, 599])
def test_chunks_change_no_byte(rows: int, at_once: Path, data: Path, tmp_path: Path) -> None:
    assert scored(tmp_path, data, "--chunk-rows", str(rows)).read_bytes() == at_once.read_bytes()


def test_blocks_and_batches_change_no_bit(data: Path, models: ModelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a chunk is scored in several batches, and a line lies in two blocks of the file."""

    def bits(**options: Any) -> bytes:
        model = models.model("lstm_autoencoder")
        scorer = SeriesScorer(model, model.feature_names)
        reader = ChunkReader(data, model.feature_names, load_profile("dwcp"), **options)
        return b"".join(part.verdicts.scores.tobytes() for chunk, _ in reader for part in scorer.score(chunk))

    wanted = bits()
    monkeypatch.setattr("dwcp_training.series_scores._MOST_BYTES", 8 * 10 * 7 * 5)
    assert bits(rows=48, block=333) == wanted


def test_devices_side_by_side_do_not_share_windows(models: ModelSet, tmp_path: Path) -> None:
    """Rows of two devices in turn give the scores of each device alone."""
    series = [lstm_series(80, seed=seed) for seed in (1, 2)]
    model = models.model("lstm_autoencoder")
    head = "timestamp," + ",".join(model.feature_names) + ",device"
    assert series[0].timestamps is not None
    lines = [
        f"{series[0].timestamps[i]}Z,{','.join(map(repr, one.values[i].tolist()))},{name}"
        for i in range(80)
        for name, one in zip("ab", series, strict=True)
    ]
    (tmp_path / "devices.csv").write_text("\n".join([head, *lines]) + "\n")
    dump = "\n".join(
        [
            "feature_schema:",
            "  name: devices",
            "  version: 1",
            "reader:",
            "  features: numeric",
            "  series_column: device",
        ]
    )
    (tmp_path / "devices.yaml").write_text(dump)
    for rows in ("7", "1000"):
        flags = ("--profile", str(tmp_path / "devices.yaml"), "--chunk-rows", rows, "--detector", model.name)
        table = pd.read_csv(scored(tmp_path, tmp_path / "devices.csv", *flags), dtype={"score": str})
        for name, one in zip("ab", series, strict=True):
            found = table.score[table.series == name].astype(np.float32).to_numpy()
            assert found.tobytes() == model.score_batch(one.values, series=True).scores.tobytes()


def test_parquet_says_the_same_with_types(at_once: Path, data: Path, tmp_path: Path) -> None:
    table = pq.read_table(scored(tmp_path, data, output="scores.parquet"))
    text = pd.read_csv(at_once, dtype={"score": np.float32, "expected": np.float32})
    found = table.to_pandas()
    assert str(table.schema.field("score").type) == "float"
    assert (found.timestamp == pd.to_datetime(text.timestamp, utc=True)).all()
    for name in ("detector", "level", "score", "p_value", "is_anomaly"):
        assert (found[name] == text[name]).all()
    assert found.top_feature.isna().equals(~found.is_anomaly)


def test_alarms_alone_and_one_detector_on_standard_output(at_once: Path, data: Path, dwcp: Callable) -> None:
    done = dwcp("score", "--models", REFERENCE, "--data", data, "--only-alarms", "--detector", "lstm_autoencoder")
    assert done.returncode == 0
    whole = at_once.read_text().splitlines()
    wanted = [line for line in whole if '"lstm_autoencoder"' in line and ",true," in line]
    assert wanted
    assert done.stdout.splitlines() == [whole[0], *wanted]
    assert "575 of 575 rows" in done.stderr
    assert "gaps in the cadence: 2" in done.stderr
    counted = re.search(r"lstm_autoencoder[^\d]*(\d+)[^\d]*(\d+)[^\d]*(\d+)", done.stderr)
    assert counted is not None
    assert int(counted[1]) == 575 - 27
    assert int(counted[2]) + int(counted[3]) == len(wanted)


def test_files_and_rows_are_named_where_there_are_no_times(tmp_path: Path, models: ModelSet) -> None:
    names = models.model("isolation_forest").feature_names
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(",".join(names) + "\n" + "1,1,1,1,1,1,1\n" * 12)
    (tmp_path / "p.yaml").write_text(
        "feature_schema: {name: p, version: 1}\ntimestamp_column: null\nreader: {features: numeric}\n"
    )
    flags = ("--profile", str(tmp_path / "p.yaml"), "--data", str(tmp_path / "b.csv"))
    table = pd.read_csv(scored(tmp_path, tmp_path / "a.csv", *flags))
    found = table[table.detector == "lstm_autoencoder"]
    # The rows of two files are not known to be neighbours: each has three windows of ten.
    assert list(zip(found.file, found.row, strict=True)) == [(f"{f}.csv", row) for f in "ab" for row in (11, 12, 13)]


def test_bad_rows_stop_it_or_are_left_out(data: Path, tmp_path: Path) -> None:
    lines = data.read_text().splitlines()
    lines[400] = lines[400].replace("Z,", "Z,x")
    (tmp_path / "bad.csv").write_text("\n".join(lines))
    flags = ("score", "--models", REFERENCE, "--data", tmp_path / "bad.csv", "--output", tmp_path / "o.csv")
    result = invoke(*flags)
    assert result.exit_code == 1
    assert "bad.csv line 401, bandwidth: 'x" in result.stderr
    assert "--on-bad-rows drop" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]
    result = invoke(*flags, "--on-bad-rows", "drop")
    assert result.exit_code == 0
    assert "574 of 575 rows" in result.stdout
    # The window does not reach over the row that was left out: nine rows after it have no score.
    found = pd.read_csv(tmp_path / "o.csv").detector.value_counts()
    assert found.to_dict() == {"isolation_forest": 574, "lstm_autoencoder": 574 - 36}


def test_values_out_of_the_plausible_range_are_scored(data: Path, tmp_path: Path) -> None:
    """They are what is looked for (F4); training refuses them."""
    lines = data.read_text().splitlines()
    lines[400] = ",".join([lines[400].split(",")[0], *["1e9"] * 7])
    (tmp_path / "far.csv").write_text("\n".join(lines))
    table = pd.read_csv(scored(tmp_path, tmp_path / "far.csv"))
    assert len(table) == 575 + 575 - 27
    assert table.score.max() > 1e6


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        (["--output", "o.txt"], 2, "--output o.txt"),
        (["--chunk-rows", "0"], 2, "--chunk-rows 0"),
        (["--cadence", "-1"], 2, "--cadence -1"),
        (["--detector", "isolation_tree"], 1, "'isolation_tree' is no detector"),
        (["--detector", "one_class_svm"], 1, "DETECTOR_UNAVAILABLE"),
        (["--profile", "bearing"], 1, "file"),
        (["--profile", "edge-host"], 1, "Name the profile"),
        (["--models", "nowhere"], 1, "is no model set"),
        (["--data", "none.csv"], 1, "cannot read none.csv"),
        (["--output", "/proc/x/o.csv"], 1, "--output"),
    ],
)
def test_refusals_leave_nothing(
    flags: list[str], status: int, words: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("score", "--models", REFERENCE, "--data", data, *flags)
    assert result.exit_code == status, result.output
    assert words in result.output
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_reader_of_standard_output_may_leave(data: Path) -> None:
    command = [COMMAND, "score", "--models", REFERENCE, "--data", data]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 0
        assert b"Traceback" not in process.stderr.read()


def test_what_is_left_out_is_said_with_the_reason(
    data: Path, models: ModelSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of an ensemble its members' reasons: it has no graph that could be unavailable (EN7)."""
    converted = model_pb2.ModelMetadata(graph={"unavailable_reason": "the converter failed"})
    joined = model_pb2.ModelMetadata(
        ensemble={"members": [{"detector": "DETECTOR_DENSE_AUTOENCODER"}, {"detector": "DETECTOR_ONE_CLASS_SVM"}]}
    )
    metadata = {**models.metadata, "dense_autoencoder": converted, "ensemble": joined}
    partial = ModelSet(models.id, models.path, dict(models.models), metadata, dict(models.golden))
    monkeypatch.setattr("dwcp_training.score.ModelSet.open", lambda path: partial)
    result = invoke("score", "--models", REFERENCE, "--data", data, "--output", tmp_path / "o.csv")
    assert result.exit_code == 0, result.output
    assert "warning: dense_autoencoder was left out: the converter failed\n" in result.stdout
    assert (
        "warning: ensemble was left out: none of its members can be scored: dense_autoencoder: the converter failed; "
        "one_class_svm: it is not part of the set\n"
    ) in result.stdout


def test_called_as_a_function(data: Path, tmp_path: Path) -> None:
    assert run_score(REFERENCE, [data], output=str(tmp_path / "a.parquet")) == 0
    assert pq.read_metadata(tmp_path / "a.parquet").num_rows == 575 + 575 - 27
