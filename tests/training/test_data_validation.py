"""Each kind of bad row is found, named with its line, counted, and refused or left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_training.data import DataError, DataErrorCode, ProblemKind, forest_rows, read_table, write_csv
from dwcp_training.data.time_order import in_order
from dwcp_training.profiles import load_profile

PROFILE = load_profile("dwcp")
HEADER = ",".join(["timestamp", *PROFILE.feature_schema.names])
GOOD = [f"2024-01-01T00:{minute:02d}:00Z,100,10,0.1,1,40,50,0.1" for minute in range(10)]


def table(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8", errors="surrogateescape")
    return path


# Kind, row index (line is two more), column, the changed row.
BAD = [
    ("text_in_number_column", "latency", GOOD[4].replace(",10,", ",fast,"), "'fast'"),
    ("text_in_number_column", "latency", GOOD[4].replace(",10,", ",1_0,"), "'1_0'"),
    ("text_in_number_column", "latency", GOOD[4].replace(",10,", ",0x10,"), "'0x10'"),
    ("text_in_number_column", "latency", GOOD[4].replace(",10,", ",NULL,"), "'NULL'"),
    ("text_in_number_column", "latency", GOOD[4].replace(",10,", ",\udcff\udcfe,"), "not a number"),
    ("empty_cell", "latency", GOOD[4].replace(",10,", ",,"), "empty"),
    ("empty_cell", "latency", GOOD[4].replace(",10,", ",  ,"), "empty"),
    ("not_finite", "latency", GOOD[4].replace(",10,", ",NaN,"), "NaN"),
    ("not_finite", "latency", GOOD[4].replace(",10,", ",-inf,"), "-inf"),
    ("not_finite", "latency", GOOD[4].replace(",10,", ",1e999,"), "1e999"),
    ("out_of_range", "latency", GOOD[4].replace(",10,", ",-1,"), "0 to 60000 ms"),
    ("out_of_range", "latency", GOOD[4].replace(",10,", ",60000.5,"), "0 to 60000 ms"),
    ("unparsable_timestamp", "timestamp", GOOD[4].replace("2024-01-01T00:04:00Z", "yesterday"), "'yesterday'"),
    ("unparsable_timestamp", "timestamp", GOOD[4].replace("2024-01-01T00:04:00Z", "now"), "'now'"),
    ("unparsable_timestamp", "timestamp", GOOD[4].replace("2024-01-01T00:04:00Z", "2024"), "'2024'"),
    ("unparsable_timestamp", "timestamp", GOOD[4].replace("2024-01-01T", "2024-13-01T"), "2024-13"),
    ("unparsable_timestamp", "timestamp", GOOD[4].replace("2024-01-01T", "9999-01-01T"), "9999"),
    ("empty_cell", "timestamp", GOOD[4].replace("2024-01-01T00:04:00Z", ""), "empty"),
    ("duplicate_timestamp", "timestamp", GOOD[3], "more than once"),
    ("unordered_timestamp", "timestamp", GOOD[4].replace("00:04:00Z", "00:02:30Z"), "out of order"),
    ("unordered_timestamp", "timestamp", GOOD[4].replace("2024-01-01", "2099-01-01"), "out of order"),
    ("wrong_width", "", GOOD[4] + ",1", "9 cells, the header has 8"),
    ("wrong_width", "", "2024-01-01T00:04:00Z,1", "2 cells, the header has 8"),
    ("wrong_width", "", GOOD[4].replace(",10,", ',"10,'), "quote"),
]


@pytest.mark.parametrize(("kind", "column", "row", "words"), BAD)
def test_bad_row_is_named_and_refused_or_left_out(tmp_path: Path, kind: str, column: str, row: str, words: str) -> None:
    path = table(tmp_path / "bad.csv", [*GOOD[:4], row, *GOOD[5:]])
    with pytest.raises(DataError) as caught:
        read_table(path, PROFILE)
    error = caught.value
    assert error.code is DataErrorCode.BAD_ROWS
    assert error.counts == {kind: 1}
    (problem,) = error.problems
    assert (problem.file, problem.line, problem.column, problem.kind) == ("bad.csv", 6, column, kind)
    assert "bad.csv line 6" in str(error)
    assert words in str(error)
    assert "drop" in error.remedy

    read = read_table(path, PROFILE, on_bad_rows="drop")
    assert read.report.dropped == {kind: 1}
    assert read.report.problems == error.problems
    assert len(read) == 9
    assert read.segments == ((0, 4), (4, 9))  # the row left out is a gap
    assert any("1 of 10 rows" in warning for warning in read.report.warnings)


def test_every_kind_has_a_case() -> None:
    assert {kind for kind, *_ in BAD} == {kind.value for kind in ProblemKind}


def test_row_left_out_without_a_gap_does_not_split(tmp_path: Path) -> None:
    read = read_table(table(tmp_path / "a.csv", [*GOOD[:5], GOOD[4], *GOOD[5:]]), PROFILE, on_bad_rows="drop")
    assert read.report.dropped == {"duplicate_timestamp": 1}
    assert read.segments == ((0, 10),)


def test_error_lists_ten_and_counts_all(tmp_path: Path) -> None:
    lines = [row.replace(",10,", ",x,").replace(",50,", ",500,") for row in GOOD]
    with pytest.raises(DataError) as caught:
        read_table(table(tmp_path / "a.csv", lines), PROFILE)
    assert [problem.line for problem in caught.value.problems] == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert caught.value.counts == {"text_in_number_column": 10, "out_of_range": 10}
    assert "10 of 10 rows" in caught.value.message
    assert "and 10 more" in str(caught.value)
    with pytest.raises(DataError) as caught:
        read_table(table(tmp_path / "a.csv", lines), PROFILE, on_bad_rows="drop")
    assert caught.value.code is DataErrorCode.EMPTY


def test_row_with_two_problems_counts_once_as_dropped(tmp_path: Path) -> None:
    lines = [*GOOD[:5], GOOD[5].replace(",10,", ",x,").replace(",50,", ",500,"), *GOOD[6:]]
    report = read_table(table(tmp_path / "a.csv", lines), PROFILE, on_bad_rows="drop").report
    assert report.problem_counts == {"text_in_number_column": 1, "out_of_range": 1}
    assert report.dropped == {"text_in_number_column": 1}
    assert report.rows_read == report.rows_used + sum(report.dropped.values())


def test_all_rows_broken(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_table(table(tmp_path / "a.csv", ["1,2", "3,4"]), PROFILE)
    assert [problem.line for problem in caught.value.problems] == [2, 3]


def test_lines_are_right_far_into_a_file_of_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dwcp_training.data.csv_table._BLOCK", 1 << 12)
    path = tmp_path / "a.csv"
    write_csv(forest_rows(3_000), path)
    lines = path.read_text().splitlines()
    wanted = {500: "1,2", 1_200: "", 1_999: lines[1_998].replace("Z,", "Z,x"), 2_500: 'a,"b', 2_998: "1"}
    for number, text in wanted.items():
        lines[number - 1] = text
    path.write_text("\n".join(lines))
    report = read_table(path, PROFILE, on_bad_rows="drop").report
    assert [problem.line for problem in report.problems] == [500, 1_999, 2_500, 2_998]
    assert report.rows_read == 2_999


def test_problems_name_the_right_file(tmp_path: Path) -> None:
    late = table(tmp_path / "late.csv", [*GOOD[5:8], GOOD[8].replace(",10,", ",x,")])
    early = table(tmp_path / "early.csv", [*GOOD[:4], GOOD[4].replace(",10,", ",y,")])
    report = read_table([late, early], PROFILE, on_bad_rows="drop").report
    assert [(p.file, p.line, p.value) for p in report.problems] == [("early.csv", 6, "y"), ("late.csv", 5, "x")]


def test_gap_is_reported_and_splits(tmp_path: Path) -> None:
    read = read_table(table(tmp_path / "a.csv", [*GOOD[:4], *GOOD[7:]]), PROFILE)
    assert read.segments == ((0, 4), (4, 7))
    (gap,) = read.report.gaps
    assert (gap.file, gap.line, gap.seconds) == ("a.csv", 6, 240.0)
    assert read.report.gap_count == 1
    assert read.report.dropped == {}
    assert any("1 gap" in warning and "4 min" in warning for warning in read.report.warnings)


def test_step_up_to_one_and_a_half_cadences_is_no_gap(tmp_path: Path) -> None:
    moved = [row.replace("00Z", "30Z") for row in GOOD[5:]]
    assert read_table(table(tmp_path / "a.csv", [*GOOD[:5], *moved]), PROFILE).segments == ((0, 10),)
    moved = [row.replace("00Z", "31Z") for row in GOOD[5:]]
    assert read_table(table(tmp_path / "a.csv", [*GOOD[:5], *moved]), PROFILE).segments == ((0, 5), (5, 10))


def test_given_cadence(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", GOOD)
    assert read_table(path, PROFILE, cadence=61.0).cadence_seconds == 61.0
    with pytest.raises(DataError, match="median step") as caught:
        read_table(path, PROFILE, cadence=1.0)
    assert (caught.value.field, caught.value.code) == ("cadence", DataErrorCode.WRONG_CADENCE)
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(DataError, match="cadence"):
            read_table(path, PROFILE, cadence=wrong)
    with pytest.raises(DataError, match="neither"):
        read_table(path, PROFILE, on_bad_rows="ignore")  # type: ignore[arg-type]


def test_little_data_is_a_warning(tmp_path: Path) -> None:
    warnings = read_table(table(tmp_path / "a.csv", GOOD), PROFILE).report.warnings
    assert any("fewer than the 10,000" in warning for warning in warnings)
    assert any("less than the 7 days" in warning for warning in warnings)
    assert any("bandwidth" in warning and "never changes" in warning for warning in warnings)
    write_csv(forest_rows(10_081), tmp_path / "week.csv")
    assert read_table(tmp_path / "week.csv", PROFILE).report.warnings == ()


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), max_size=14))
def test_in_order_keeps_a_longest_increasing_subsequence(numbers: list[int]) -> None:
    times = np.array(numbers, dtype=np.int64).astype("datetime64[ns]")
    kept = in_order(times)
    assert (np.diff(times[kept]) > np.timedelta64(0)).all()
    longest: list[int] = []
    for i, number in enumerate(numbers):
        longest.append(1 + max((longest[j] for j in range(i) if numbers[j] < number), default=0))
    assert kept.sum() == max(longest, default=0)


@pytest.mark.parametrize(
    ("numbers", "astray"),
    [
        ([1, 2, 4, 3, 5], [3]),  # the row that goes back, not the one before it
        ([1, 2, 99, 3, 4], [2]),  # one time in the far future condemns only itself
        ([1, 1, 2, 2, 3], [1, 3]),  # the first of equal times stays
        ([1, 2, 10, 11, 3, 4, 12], [4, 5]),
    ],
)
def test_in_order_blames_the_row_that_people_would(numbers: list[int], astray: list[int]) -> None:
    kept = in_order(np.array(numbers).astype("datetime64[s]").astype("datetime64[ns]"))
    assert np.flatnonzero(~kept).tolist() == astray


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(GOOD),
            st.sampled_from(["", "  ", ",,,,,,,", '"', '""', "1,2", GOOD[3] + "\r", "x\0y", "\ufeff" + GOOD[2]]),
            st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=20),
            st.lists(st.sampled_from(["1", "", "nan", "x", '"1"', "2024-01-01T00:00:00Z"]), min_size=8, max_size=8).map(
                ",".join
            ),
        ),
        max_size=12,
    )
)
def test_any_text_is_read_or_refused_with_its_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes("\n".join([HEADER, *lines]).encode())
    physical = path.read_bytes().splitlines()
    try:
        report = read_table(path, PROFILE, on_bad_rows="drop").report
    except DataError as error:
        problems = error.problems
    else:
        problems = report.problems
        # Blank as people see it: a line with nothing but a no-break space is blank too.
        assert report.rows_read == sum(bool(text.decode().strip()) for text in physical[1:])
        assert report.rows_read == report.rows_used + sum(report.dropped.values())
    for problem in problems:
        text = physical[problem.line - 1].decode()
        assert text.strip()
        assert problem.value in text.replace('""', '"')
