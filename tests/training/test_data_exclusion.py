"""Only confirmed-normal rows are used: intervals, the grace after them, and labels leave rows out (S1-15)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_training.data import DataError, DataErrorCode, Exclusion, Intervals, read_intervals, read_table
from dwcp_training.profiles import load_profile

PROFILE = load_profile("dwcp")
HEADER = ",".join(["timestamp", *PROFILE.feature_schema.names])
ROWS = [f"2024-01-01T00:{minute:02d}:00Z,100,10,0.{minute + 1},1,40,50,0.1" for minute in range(20)]


@pytest.fixture
def normal(tmp_path: Path) -> Path:
    path = tmp_path / "a.csv"
    path.write_text("\n".join([HEADER, *ROWS]) + "\n")
    return path


def intervals(path: Path, *lines: str, header: str = "start,end,kind,strength") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def test_rows_inside_intervals_and_their_grace_are_left_out(tmp_path: Path, normal: Path) -> None:
    file = intervals(
        tmp_path / "labels.csv",
        "2024-01-01T00:03:00Z,2024-01-01T00:05:00Z,spike,1",
        "2024-01-01T00:10:30Z,2024-01-01T00:11:30Z,drop,2",
    )
    read = read_table(normal, PROFILE, exclude=Exclusion([file]))
    assert read.report.dropped == {"excluded_interval": 4}  # ends belong to the interval: minutes 3, 4, 5 and 11
    assert read.report.excluded_by_kind == {"drop": 1, "spike": 3}
    assert read.segments == ((0, 3), (3, 8), (8, 16))
    assert read.report.gaps == ()  # the file itself has none

    read = read_table(normal, PROFILE, exclude=Exclusion([file], grace_seconds=60))
    assert read.report.dropped == {"excluded_interval": 4, "excluded_grace": 2}
    assert read.report.excluded_by_kind == {"drop": 2, "spike": 4}
    assert read.report.rows_read == read.report.rows_used + sum(read.report.dropped.values())


def test_excluded_rows_are_not_validated(tmp_path: Path, normal: Path) -> None:
    normal.write_text(normal.read_text().replace("00:04:00Z,100", "00:04:00Z,unknown"))
    with pytest.raises(DataError, match="line 6, bandwidth"):
        read_table(normal, PROFILE)
    file = intervals(tmp_path / "x.csv", "2024-01-01T00:04:00Z,2024-01-01T00:04:00Z", header="start,end")
    read = read_table(normal, PROFILE, exclude=Exclusion([file]))
    assert (read.report.dropped, read.report.excluded_by_kind) == ({"excluded_interval": 1}, {"interval": 1})


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=6),
    st.lists(st.integers(-5, 50), max_size=40),
    st.integers(0, 5),
)
def test_covers_equals_its_definition(spans: list[tuple[int, int]], seconds: list[int], grace: int) -> None:
    start = np.array([first for first, _ in spans], dtype="datetime64[s]").astype("datetime64[ns]")
    end = np.array([first + length for first, length in spans], dtype="datetime64[s]").astype("datetime64[ns]")
    times = np.array(seconds, dtype="datetime64[s]").astype("datetime64[ns]")
    expected = [any(first <= t <= first + length + grace for first, length in spans) for t in seconds]
    assert Intervals(start, end, ("x",) * len(spans)).covers(times, grace).tolist() == expected


def test_unknown_time_is_in_no_interval() -> None:
    always = Intervals(np.array(["1700-01-01"], "M8[ns]"), np.array(["2200-01-01"], "M8[ns]"), ("x",))
    assert always.covers(np.array(["NaT", "2024-01-01"], "M8[ns]")).tolist() == [False, True]


@pytest.mark.parametrize("labels", [["", "0", "0.0", "fault", "normal"], ["0", "0", "-0", "1", "normal"]])
def test_label_column(tmp_path: Path, labels: list[str]) -> None:
    path = tmp_path / "a.csv"
    lines = [f"{row},{label}" for row, label in zip(ROWS, labels, strict=False)]
    path.write_text("\n".join([HEADER + ",label", *lines]))
    strict = read_table(path, PROFILE, exclude=Exclusion(label_column="label"))
    assert strict.report.dropped == {"excluded_label": 2}
    assert strict.report.excluded_by_kind == {labels[3]: 1, "normal": 1}
    assert strict.report.ignored_columns == ()
    lenient = read_table(path, PROFILE, exclude=Exclusion(label_column="label", normal_labels=("normal", "idle")))
    assert lenient.report.dropped == {"excluded_label": 1}
    assert lenient.segments == ((0, 3), (3, 4))


def test_typed_labels(tmp_path: Path) -> None:
    base = {name: pa.array(np.arange(4.0) + 1) for name in PROFILE.feature_schema.names}
    base["timestamp"] = pa.array(np.arange(4).astype("M8[m]").astype("M8[ns]"))
    for labels in ([False, True, False, None], [0, 1, 0, 0], [0.0, 2.0, 0.0, 0.0]):
        pq.write_table(pa.table(base | {"label": pa.array(labels)}), tmp_path / "a.parquet")
        read = read_table(tmp_path / "a.parquet", PROFILE, exclude=Exclusion(label_column="label"))
        assert read.report.dropped == {"excluded_label": 1}


def test_missing_label_column_is_named(normal: Path) -> None:
    with pytest.raises(DataError, match="'labl'") as caught:
        read_table(normal, PROFILE, exclude=Exclusion(label_column="labl"))
    assert caught.value.code is DataErrorCode.MISSING_COLUMN


def test_exclusion_that_matches_nothing_is_a_warning(tmp_path: Path, normal: Path) -> None:
    file = intervals(tmp_path / "x.csv", "2025-01-01T00:00:00Z,2025-01-01T00:04:00Z,late,1")
    warnings = read_table(normal, PROFILE, exclude=Exclusion([file])).report.warnings
    assert any("matched no row" in warning for warning in warnings)


def test_nothing_left_is_an_error(tmp_path: Path, normal: Path) -> None:
    file = intervals(tmp_path / "x.csv", "2023-01-01T00:00:00Z,2025-01-01T00:04:00Z,all,1")
    with pytest.raises(DataError, match="20 excluded interval") as caught:
        read_table(normal, PROFILE, exclude=Exclusion([file]))
    assert caught.value.code is DataErrorCode.EMPTY


@pytest.mark.parametrize(
    "line", ["2024-01-01T00:05:00Z,2024-01-01T00:04:00Z,x,1", "soon,2024-01-01T00:04:00Z,x,1", ",,,", "1,2"]
)
def test_bad_interval_names_its_line(tmp_path: Path, line: str) -> None:
    file = intervals(tmp_path / "x.csv", "2024-01-01T00:00:00Z,2024-01-01T00:01:00Z,x,1", line)
    with pytest.raises(DataError, match=r"x\.csv line 3") as caught:
        read_intervals(file)
    assert caught.value.code is DataErrorCode.BAD_INTERVALS


def test_intervals_without_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'end'"):
        read_intervals(intervals(tmp_path / "x.csv", "2024-01-01T00:00:00Z,1", header="start,stop"))


def test_arguments_that_make_no_sense(normal: Path) -> None:
    with pytest.raises(DataError, match="grace_seconds"):
        Exclusion(grace_seconds=-1)
    with pytest.raises(DataError, match="normal_labels"):
        Exclusion(normal_labels=("normal",))
    now = np.array(["2024-01-01"], "M8[ns]")
    profile = PROFILE.model_copy(update={"timestamp_column": None})
    with pytest.raises(DataError, match="without times"):
        read_table(normal, profile, exclude=Exclusion([Intervals(now, now, ("x",))]))
    with pytest.raises(DataError, match="before it starts"):
        Intervals(now + np.timedelta64(1, "s"), now, ("x",))


@pytest.mark.parametrize("header", ["start,end,kind\n", "start,end\n\n", "start,end,kind"])
def test_a_list_without_intervals_yet_excludes_nothing(tmp_path: Path, header: str) -> None:
    path = tmp_path / "incidents.csv"
    path.write_text(header)
    found = read_intervals(path)
    assert (len(found.start), found.kind) == (0, ())
    assert not found.covers(np.array(["2024-01-01"], "datetime64[ns]")).any()


def test_an_empty_file_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "incidents.csv").write_text("")
    with pytest.raises(DataError, match="empty"):
        read_intervals(tmp_path / "incidents.csv")
