"""Reading: columns by name, files in any order, formats that agree, and files that cannot be read (S1-4)."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_training.data import DataError, DataErrorCode, Telemetry, forest_rows, read_table, write_csv
from dwcp_training.profiles import load_profile

PROFILE = load_profile("dwcp")
NAMES = PROFILE.feature_schema.names
HEADER = ",".join(["timestamp", *NAMES])


def line(minute: int, values: str = "105.2,10.5,0.01,1.2,45.3,58.7,0.001") -> str:
    return f"2024-01-01T{minute // 60:02d}:{minute % 60:02d}:00Z,{values}"


def write(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def same(a: Telemetry, b: Telemetry) -> None:
    np.testing.assert_array_equal(a.values.view(np.uint64), b.values.view(np.uint64))
    assert a.timestamps is not None
    assert b.timestamps is not None
    np.testing.assert_array_equal(a.timestamps, b.timestamps)
    assert (a.segments, a.cadence_seconds) == (b.segments, b.cadence_seconds)


def test_document_example(tmp_path: Path) -> None:
    path = write(tmp_path / "normal.csv", line(0), line(1, "103.8,11.2,0.02,1.1,46.1,59.2,0.001"))
    read = read_table(path, PROFILE)
    assert read.values.tolist() == [
        [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001],
        [103.8, 11.2, 0.02, 1.1, 46.1, 59.2, 0.001],
    ]
    assert read.values.dtype == np.float64
    assert (read.cadence_seconds, read.segments, read.source) == (60.0, ((0, 2),), "normal.csv")
    assert (read.first_timestamp, read.last_timestamp) == ("2024-01-01T00:00:00Z", "2024-01-01T00:01:00Z")
    assert (read.report.rows_read, read.report.rows_used, read.report.dropped) == (2, 2, {})


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_round_trip_shuffled_columns_and_parquet_give_the_same_bits(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 30))
    features = PROFILE.feature_schema.features
    columns = [
        data.draw(st.lists(st.floats(f.minimum, f.maximum, allow_nan=False), min_size=n, max_size=n)) for f in features
    ]
    unit = data.draw(st.sampled_from([1, 10**3, 10**6, 10**9]))
    steps = data.draw(st.lists(st.integers(1, 10**6), min_size=n, max_size=n))
    times = np.cumsum(steps) * unit + np.int64(1_700_000_000) * 10**9 // unit * unit
    base = forest_rows(n)
    written = Telemetry(
        schema=base.schema,
        values=np.array(columns).T,
        timestamps=times.astype("datetime64[ns]"),
        timestamp_column="timestamp",
        cadence_seconds=None,
        segments=((0, n),),
        source="test",
        report=base.report,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        write_csv(written, path)
        read = read_table(path, PROFILE)
        np.testing.assert_array_equal(read.values.view(np.uint64), (written.values + 0.0).view(np.uint64))
        np.testing.assert_array_equal(read.timestamps, written.timestamps)
        assert [p.name for p in Path(folder).iterdir()] == ["a.csv"]

        table = pacsv.read_csv(path)
        names = list(table.column_names)
        random.Random(data.draw(st.integers(0, 99))).shuffle(names)
        shuffled = table.select(names).append_column("note", pa.array(["x, y"] * n))
        pacsv.write_csv(shuffled, Path(folder) / "b.csv")
        again = read_table(Path(folder) / "b.csv", PROFILE)
        same(read, again)
        assert again.report.ignored_columns == ("note",)

        typed = pa.table(
            [pa.array(read.timestamps, pa.timestamp("ns", "UTC")), *map(pa.array, read.values.T.copy())],
            names=["timestamp", *NAMES],
        )
        pq.write_table(typed.select(names), Path(folder) / "c.parquet")
        same(read, read_table(Path(folder) / "c.parquet", PROFILE))


def test_written_format_is_that_of_the_seed(tmp_path: Path) -> None:
    telemetry = read_table(write(tmp_path / "a.csv", line(0), line(1, "-0.0,10,1e-7,1,2,3,4")), PROFILE)
    write_csv(telemetry, tmp_path / "b.csv")
    lines = (tmp_path / "b.csv").read_text().splitlines()
    assert lines[:2] == [HEADER, line(0)]
    assert lines[2].startswith("2024-01-01T00:01:00Z,0")
    assert not np.signbit(telemetry.values).any()  # F5


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("pyarrow.csv.write_csv", fail)
    with pytest.raises(OSError, match="disk full"):
        write_csv(forest_rows(5), path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_several_files_in_any_order(tmp_path: Path) -> None:
    early = write(tmp_path / "z.csv", line(0), line(1))
    late = write(tmp_path / "a.csv", line(2), line(3), line(60))
    both = read_table([early, late], PROFILE)
    same(both, read_table([late, early], PROFILE))
    assert both.source == "z.csv, a.csv"
    assert both.segments == ((0, 4), (4, 5))  # the end of a file is no gap


def test_numbers_are_the_nearest_float64(tmp_path: Path) -> None:
    # Spellings on which a fast but inexact parser is off by one bit, and ones that not every parser takes.
    texts = ["0.1", "100.00000000000001", "7.2057594037927933", "+1.5", "1E1", ".5", "5.", " 3 ", "2.5e-320", "1e-400"]
    path = write(tmp_path / "a.csv", *[line(i, f"{text},1,1,1,1,1,1") for i, text in enumerate(texts)])
    assert read_table(path, PROFILE).values[:, 0].tolist() == [float(text) for text in texts]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_ends_of_line_byte_order_mark_and_blank_lines(tmp_path: Path, newline: str) -> None:
    path = tmp_path / "a.csv"
    body = newline.join([HEADER, line(0), "", "   ", line(1), line(2, "1,2,3,4,5,6,x"), "", ""])
    path.write_bytes(b"\xef\xbb\xbf" + body.encode())
    read = read_table(path, PROFILE, on_bad_rows="drop")
    assert (read.report.rows_read, read.report.rows_used) == (3, 2)
    assert [problem.line for problem in read.report.problems] == [6]


def test_blank_line_at_the_end_without_newline_and_line_of_commas(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join([HEADER, line(0), "", ",,,,,,,", line(1)]))
    with pytest.raises(DataError) as caught:
        read_table(path, PROFILE)
    assert {problem.line for problem in caught.value.problems} == {4}
    assert caught.value.counts == {"empty_cell": 8}


def test_times_in_other_zones_and_spellings(tmp_path: Path) -> None:
    values = ",1,1,1,1,1,1,1"
    texts = ["2024-01-01T02:00:00+02:00", "2024-01-01 00:01:00", "2024-01-01T00:02:00.000000001Z"]
    read = read_table(write(tmp_path / "a.csv", *[text + values for text in texts]), PROFILE)
    assert read.timestamps is not None
    expected = ["2024-01-01T00:00:00", "2024-01-01T00:01:00", "2024-01-01T00:02:00.000000001"]
    assert read.timestamps.tolist() == np.array(expected, "datetime64[ns]").tolist()


def test_missing_column_is_named_with_the_near_miss(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", line(0), header=HEADER.replace("packet_loss", "Packet Loss"))
    with pytest.raises(DataError, match="Is 'Packet Loss' meant") as caught:
        read_table(path, PROFILE)
    assert (caught.value.field, caught.value.code) == ("packet_loss", DataErrorCode.MISSING_COLUMN)


def test_missing_timestamp_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", line(0).split(",", 1)[1], header=",".join(NAMES))
    with pytest.raises(DataError) as caught:
        read_table(path, PROFILE)
    assert (caught.value.field, caught.value.code) == ("timestamp", DataErrorCode.MISSING_COLUMN)


def test_column_twice_is_named_unless_it_is_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", line(0) + ",1", header=HEADER + ",jitter")
    with pytest.raises(DataError, match="twice") as caught:
        read_table(path, PROFILE)
    assert caught.value.field == "jitter"
    path = write(tmp_path / "a.csv", line(0) + ",1,2", header=HEADER + ",x,x")
    assert len(read_table(path, PROFILE)) == 1


def test_semicolons_are_recognised(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", line(0).replace(",", ";"), header=HEADER.replace(",", ";"))
    with pytest.raises(DataError, match="separated by commas"):
        read_table(path, PROFILE)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.csv", b"", DataErrorCode.EMPTY),
        ("a.csv", b" \n\n", DataErrorCode.EMPTY),
        ("a.csv", HEADER.encode(), DataErrorCode.EMPTY),
        ("a.csv", HEADER.encode() + b"\n", DataErrorCode.EMPTY),
        ("a.csv", HEADER.encode() + b"\n\n  \n", DataErrorCode.EMPTY),
        ("a.csv", b"\n" + HEADER.encode() + b"\n", DataErrorCode.NOT_A_TABLE),
        ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", DataErrorCode.NOT_A_TABLE),
        ("a.csv", b"\xff\xfe\xfd\xfc\n1,2\n", DataErrorCode.NOT_A_TABLE),
        ("a.csv", HEADER.encode("utf-16"), DataErrorCode.NOT_A_TABLE),
        ("a.parquet", b"", DataErrorCode.EMPTY),
        ("a.parquet", b"not parquet at all", DataErrorCode.NOT_A_TABLE),
        ("a.xlsx", b"", DataErrorCode.UNKNOWN_FORMAT),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes, code: DataErrorCode) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="a\\.") as caught:
        read_table(tmp_path / name, PROFILE)
    assert caught.value.code is code


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name in ("folder.csv", "absent.csv", "absent.parquet"):
        with pytest.raises(DataError, match=name) as caught:
            read_table(tmp_path / name, PROFILE)
        assert caught.value.code is DataErrorCode.UNREADABLE
    with pytest.raises(DataError, match="no file"):
        read_table([], PROFILE)


def test_parquet_of_other_types(tmp_path: Path) -> None:
    telemetry = forest_rows(50)
    assert telemetry.timestamps is not None
    columns = {"timestamp": pa.array(telemetry.timestamps.astype("datetime64[us]"))}
    columns |= {name: pa.array(telemetry.values[:, i]) for i, name in enumerate(NAMES)}
    columns["jitter"] = pa.array([1] * 49 + [None], pa.int32())
    columns["latency"] = pa.array(["2.5"] * 49 + ["fast"])
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=7)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "a.parquet", PROFILE)
    assert [(p.line, p.column, p.kind.value) for p in caught.value.problems] == [
        (50, "latency", "text_in_number_column"),
        (50, "jitter", "empty_cell"),
    ]
    assert "row 50" in str(caught.value)
    for name, wrong in (("jitter", pa.array([[1.0]] * 50)), ("timestamp", pa.array(range(50)))):
        pq.write_table(pa.table(columns | {name: wrong}), tmp_path / "b.parquet")
        with pytest.raises(DataError, match=name) as caught:
            read_table(tmp_path / "b.parquet", PROFILE)
        assert (caught.value.field, caught.value.code) == (name, DataErrorCode.WRONG_COLUMN)


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    path = write(tmp_path / "a.csv", *[line(i) for i in range(20)])
    read_table(path, PROFILE, progress=lambda *step: seen.append(step))
    assert seen[-1] == ("a.csv", path.stat().st_size, path.stat().st_size)


def test_profile_without_times(tmp_path: Path) -> None:
    profile = PROFILE.model_copy(update={"timestamp_column": None})
    rows = [line(0).split(",", 1)[1]] * 4
    rows[2] = rows[2].replace("10.5", "")
    one = write(tmp_path / "a.csv", *rows, header=",".join(NAMES))
    two = write(tmp_path / "b.csv", *rows[:2], header=",".join(NAMES))
    read = read_table([one, two], profile, on_bad_rows="drop")
    assert read.timestamps is None
    assert read.cadence_seconds is None
    assert read.segments == ((0, 2), (2, 3), (3, 5))  # the dropped row and the end of the file
    write_csv(read, tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_text().splitlines()[0] == ",".join(NAMES)


def test_reading_is_vectorised(tmp_path: Path) -> None:
    """20,000 rows in well under a second: a Python loop over rows would be far slower."""
    write_csv(forest_rows(20_000), tmp_path / "a.csv")
    read_table(tmp_path / "a.csv", PROFILE)
    start = time.process_time()
    read_table(tmp_path / "a.csv", PROFILE)
    assert time.process_time() - start < 1.0
