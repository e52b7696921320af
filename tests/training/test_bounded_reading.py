"""Data larger than memory: chunks say what reading as a whole says, and memory does not grow with the rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dwcp_training.data import DataError, DataErrorCode, Telemetry, lstm_series, read_table, write_csv
from dwcp_training.data.chunks import ChunkReader
from dwcp_training.profiles import Profile, load_profile
from tests.training.conftest import REPOSITORY

DWCP = load_profile("dwcp")
NAMES = DWCP.feature_schema.names
HEADER = ",".join(["timestamp", *NAMES])


def changed(**values: object) -> Profile:
    """The profile dwcp with other values of its reader or of itself."""
    own = {key: values.pop(key) for key in list(values) if key in Profile.model_fields}
    return Profile.model_validate({**DWCP.model_dump(), **own, "reader": {**DWCP.reader.model_dump(), **values}})


def in_chunks(
    paths: Path | list[Path], profile: Profile = DWCP, names: tuple[str, ...] = NAMES, **options: Any
) -> tuple[np.ndarray, np.ndarray | None, list[int], ChunkReader]:
    """Values, times, first rows of segments, and the reader."""
    reader = ChunkReader(paths, names, profile, **options)
    chunks = [chunk for chunk, _ in reader]
    times = None if chunks[0].times is None else np.concatenate([chunk.times for chunk in chunks])
    fresh = np.concatenate([chunk.fresh for chunk in chunks])
    return np.concatenate([chunk.values for chunk in chunks]), times, np.flatnonzero(fresh).tolist(), reader


def assert_same(found: tuple, whole: Telemetry) -> None:
    values, times, starts, reader = found
    assert values.tobytes() == whole.values.tobytes()
    assert (times is None) == (whole.timestamps is None)
    if times is not None:
        assert (times == whole.timestamps).all()
    assert starts == [start for start, _ in whole.segments]
    assert reader.report.rows_read == whole.report.rows_read
    assert reader.report.dropped == whole.report.dropped
    assert reader.report.gap_count == whole.report.gap_count


def with_gap_and_bad_rows(folder: Path) -> Path:
    """500 rows: 20 are missing, some cells are bad, two lines are blank, one line is too long, one time is doubled."""
    path = folder / "faulty.csv"
    write_csv(lstm_series(500), path)
    lines = path.read_text().splitlines()
    for line, old, new in ((40, "Z,", "Z,x"), (41, "Z,", "Z,,"), (200, "Z,", "Z,nan,"), (201, "2024", "soon")):
        lines[line] = lines[line].replace(old, new)
    lines[300] = lines[299]
    lines[350] += ",1"
    lines[351] = ""
    lines.insert(352, "  ")
    del lines[100:120]
    path.write_text("\n".join(lines))  # without a last end of line
    return path


SIZES = [(65_536, 1 << 22), (1, 1 << 22), (7, 100), (64, 1_000), (499, 17)]


@pytest.mark.parametrize(("rows", "block"), SIZES)
def test_csv_in_chunks_is_the_csv(rows: int, block: int, tmp_path: Path) -> None:
    path = with_gap_and_bad_rows(tmp_path)
    whole = read_table(path, DWCP, on_bad_rows="drop")
    assert whole.report.gap_count >= 1
    assert whole.report.dropped
    found = in_chunks(path, on_bad_rows="drop", rows=rows, block=block)
    assert_same(found, whole)
    problems = [str(problem) for problem in whole.report.problems]
    # The order of faults of a row is that of the columns on both sides.
    assert [str(problem) for problem in found[3].report.problems] == problems


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("block", [16, 1 << 20])
def test_ends_of_line_and_byte_order_mark(end: str, block: int, tmp_path: Path) -> None:
    write_csv(lstm_series(50), tmp_path / "plain.csv")
    text = (tmp_path / "plain.csv").read_text()
    (tmp_path / "other.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", end).encode())
    assert_same(in_chunks(tmp_path / "other.csv", block=block), read_table(tmp_path / "plain.csv", DWCP))


@pytest.mark.parametrize("rows", [65_536, 13, 100])
@pytest.mark.parametrize("group", [1_000, 37])
def test_parquet_in_chunks_is_the_parquet(rows: int, group: int, tmp_path: Path) -> None:
    series = lstm_series(1_000)
    columns = {"timestamp": pa.array(series.timestamps), "more": pa.array(range(1_000))}
    columns |= {name: pa.array(series.values[:, j]) for j, name in enumerate(NAMES)}
    pq.write_table(pa.table(columns), tmp_path / "data.parquet", row_group_size=group)
    found = in_chunks(tmp_path / "data.parquet", rows=rows)
    assert_same(found, read_table(tmp_path / "data.parquet", DWCP))
    assert found[3].report.ignored_columns == ("more",)


@pytest.mark.parametrize("rows", [65_536, 3])
def test_arrays_raw_and_padded(rows: int, tmp_path: Path) -> None:
    profile = load_profile("edge-host")
    names = profile.feature_schema.names
    values = np.abs(np.random.default_rng(0).normal(5, 1, (40, len(names))))
    divisors = np.array([profile.scaling.divisors[name] for name in names])
    np.save(tmp_path / "raw.npy", values)
    np.save(tmp_path / "padded.npy", np.pad(values / divisors, ((0, 0), (0, 64 - len(names)))))
    np.save(tmp_path / "fortran.npy", np.asfortranarray(values))
    for name in ("raw", "padded", "fortran"):
        file = tmp_path / f"{name}.npy"
        assert_same(in_chunks(file, profile, names, rows=rows), read_table(file, profile))


@pytest.mark.parametrize("rows", [65_536, 11])
def test_several_files_of_one_series_in_the_order_of_time(rows: int, tmp_path: Path) -> None:
    series = lstm_series(300)
    for name, part in (("b", series.rows(0, 100)), ("a", series.rows(100, 300))):
        write_csv(part, tmp_path / f"{name}.csv")
    found = in_chunks([tmp_path / "a.csv", tmp_path / "b.csv"], rows=rows)
    assert_same(found, read_table([tmp_path / "a.csv", tmp_path / "b.csv"], DWCP))
    assert found[2] == [0]


def test_files_that_are_series_of_their_own(tmp_path: Path) -> None:
    series = lstm_series(60)
    (tmp_path / "x").mkdir()
    for path in (tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "x/a.csv"):
        write_csv(series, path)
    profile = changed(series="files")
    reader = ChunkReader([tmp_path, tmp_path / "x"], NAMES, profile, rows=50)
    names = {name for chunk, _ in reader for name in chunk.series}
    assert names == {str(tmp_path / "a.csv"), "b.csv", str(tmp_path / "x/a.csv")}
    assert in_chunks(tmp_path, profile)[2] == [0, 60]


def test_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("2024_idle", "2025_normal"):
        (tmp_path / name).mkdir()
        values = rng.normal(0, 1, (120, 2))
        rows = "".join(f"{0.1 * i:.1f},{a!r},idle,{b!r}\n" for i, (a, b) in enumerate(values.tolist()))
        (tmp_path / name / "telemetry.csv").write_text("t_wall,perf cycles,label,temp-0\n" + rows)
    profile = load_profile("telemetry-runs")
    whole = read_table(tmp_path, profile)
    names = whole.schema.names
    assert names == ("perf_cycles", "temp_0")
    assert_same(in_chunks(tmp_path, profile, names, rows=50), whole)
    # A model may have the features in another order.
    values = in_chunks(tmp_path, profile, names[::-1])[0]
    assert (values[:, ::-1] == whole.values).all()


@pytest.mark.parametrize("rows", [65_536, 10])
def test_devices_side_by_side(rows: int, tmp_path: Path) -> None:
    """Rows of three devices in turn, of which one pauses: its window begins anew, the others' do not."""
    lines = [HEADER + ",device"]
    for i in range(90):
        for device in ("a", "b", "c"):
            if device == "b" and 30 <= i < 40:
                continue
            lines.append(f"2024-01-01T{i // 60:02}:{i % 60:02}:00Z," + ",".join(["1"] * 7) + f",{device}")
    (tmp_path / "devices.csv").write_text("\n".join(lines))
    reader = ChunkReader(tmp_path / "devices.csv", NAMES, changed(series_column="device"), rows=rows)
    fresh: list[tuple[str, str]] = []
    for chunk, _ in reader:
        assert chunk.times is not None
        fresh += [
            (str(name), str(time)[11:16])
            for name, time in zip(chunk.series[chunk.fresh], chunk.times[chunk.fresh], strict=True)
        ]
    assert fresh == [("a", "00:00"), ("b", "00:00"), ("c", "00:00"), ("b", "00:40")]


def test_given_cadence_decides_what_a_gap_is(tmp_path: Path) -> None:
    write_csv(lstm_series(30), tmp_path / "a.csv")
    assert in_chunks(tmp_path / "a.csv", cadence=60.0)[2] == [0]
    assert in_chunks(tmp_path / "a.csv", cadence=10.0)[2] == list(range(30))


BAD = {
    "nothing": (b"", DataErrorCode.EMPTY, "is empty"),
    "a header": (HEADER.encode() + b"\n", DataErrorCode.EMPTY, "no rows"),
    "blank lines": (HEADER.encode() + b"\n\n \n\n", DataErrorCode.EMPTY, "no rows"),
    "binary": (HEADER.encode() + b"\n\0\0\0", DataErrorCode.NOT_A_TABLE, "binary"),
    "no column": (b"timestamp,bandwidth\n2024-01-01,1\n", DataErrorCode.MISSING_COLUMN, "no column 'latency'"),
    "a bad cell": (
        f"{HEADER}\n2024-01-01,1,1,1,1,1,1,1\n2024-01-02,1,fast,1,1,1,1,1\n".encode(),
        DataErrorCode.BAD_ROWS,
        "x.csv line 3, latency: 'fast' is not a number",
    ),
    "an earlier time": (
        f"{HEADER}\n2024-01-02,1,1,1,1,1,1,1\n2024-01-01,1,1,1,1,1,1,1\n".encode(),
        DataErrorCode.BAD_ROWS,
        "x.csv line 3, timestamp",
    ),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("block", [8, 1 << 20])
def test_bad_files_are_refused_with_their_place(name: str, block: int, tmp_path: Path) -> None:
    content, code, words = BAD[name]
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataError, match=words) as refused:
        for _ in ChunkReader(tmp_path / "x.csv", NAMES, DWCP, block=block):
            pass
    assert refused.value.code is code


def test_other_refusals(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        ChunkReader(tmp_path / "none.csv", NAMES, DWCP)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(DataError, match="is not Parquet"):
        ChunkReader(tmp_path / "x.parquet", NAMES, DWCP)
    write_csv(lstm_series(20), tmp_path / "x.csv")
    for options, field in (
        ({"rows": 0}, "rows"), ({"cadence": -1.0}, "cadence"), ({"on_bad_rows": "ignore"}, "on_bad_rows"),
    ):  # fmt: skip
        with pytest.raises(DataError) as refused:
            ChunkReader(tmp_path / "x.csv", NAMES, DWCP, **options)  # type: ignore[arg-type]  # wrong on purpose
        assert refused.value.field == field
    bad = f"{HEADER}\n" + "2024-01-01,x,1,1,1,1,1,1\n" * 3
    (tmp_path / "y.csv").write_text(bad)
    with pytest.raises(DataError, match="none of 3 rows is left"):
        list(ChunkReader(tmp_path / "y.csv", NAMES, DWCP, on_bad_rows="drop"))


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy"])
def test_progress_ends_with_all_bytes(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{kind}"
    telemetry = lstm_series(300)
    if kind == "csv":
        write_csv(telemetry, path)
    elif kind == "parquet":
        times = pa.array(telemetry.timestamps)
        values = [pa.array(column) for column in telemetry.values.T]
        pq.write_table(pa.table([times, *values], names=["timestamp", *NAMES]), path)
    else:
        np.save(path, telemetry.values)
    profile = changed(timestamp_column=None) if kind == "npy" else DWCP
    reader = ChunkReader([path], NAMES, profile, rows=70, block=4096)
    done = [number for _, number in reader]
    assert len(done) > 4
    assert done == sorted(done)
    assert done[0] > 0
    assert done[-1] == reader.total_bytes == path.stat().st_size


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dwcp_training.data.pieces.LONGEST_LINE", 10_000)
    (tmp_path / "x.csv").write_text(HEADER + "\n2024-01-01," + "1" * 100_000)
    with pytest.raises(DataError, match="has a line of more than"):
        list(ChunkReader(tmp_path / "x.csv", NAMES, DWCP, block=1_000))


@pytest.mark.slow
def test_wide_samples_make_shorter_chunks(tmp_path: Path) -> None:
    """A chunk has a bounded number of cells, not only of rows."""
    width = 4_096
    np.save(tmp_path / "wide.npy", np.zeros((2_100, width)))
    profile = Profile.model_validate(
        {
            "feature_schema": {"name": "wide", "version": 1},
            "timestamp_column": None,
            "reader": {"features": "numeric"},
        }
    )
    names = [f"x{j}" for j in range(width)]
    assert [len(chunk) for chunk, _ in ChunkReader(tmp_path / "wide.npy", names, profile)] == [2_048, 52]


@pytest.mark.parametrize("kind", ["parquet", "csv", "npy"])
@pytest.mark.slow  # reads a million rows
def test_memory_does_not_grow_with_the_rows(kind: str, tmp_path: Path) -> None:
    """Each in a process of its own. Read as a whole, the longer file would take 50 MiB more than the shorter one at
    the least: its values as float64."""

    def step(*arguments: str | Path) -> str:
        command = [sys.executable, "-m", "tests.bench.reading", *map(str, arguments)]
        return subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True).stdout

    peaks = []
    for rows in (150_000, 1_150_000):
        step("write", kind, str(rows), tmp_path / f"{rows}.{kind}")
        if kind == "parquet":  # in one row group, which must not be read at once
            whole = pq.read_table(tmp_path / f"{rows}.parquet")
            pq.write_table(whole, tmp_path / f"{rows}.parquet", row_group_size=rows, use_dictionary=False)
        found = json.loads(step("read", tmp_path / f"{rows}.{kind}"))
        assert found["rows"] == rows
        peaks.append(found["peak_mb"])
    assert peaks[1] - peaks[0] < 30, peaks
