"""`dwcp feedback`: what is taken, what is refused and how, what is reported, what others read."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import Result

from dwcp_training.data import DataError, read_intervals
from dwcp_training.feedback.marks import Verdict, contradicts, joined, mark_of
from dwcp_training.feedback.rates import rates
from dwcp_training.feedback.store import FILE, SCHEMA_VERSION, ContradictionError, FeedbackStore
from dwcp_training.feedback.table import import_table
from tests.training.test_cli import invoke

NOW = 1_900_000_000 * 10**9
"""Some time after everything that is marked here."""


def run(*arguments: object) -> Result:
    """Runs `dwcp feedback`; it must not end with a traceback."""
    result = invoke("feedback", *arguments)
    assert "Traceback" not in result.output, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def add(folder: Path, start: str, end: str, verdict: str, *more: str) -> Result:
    return run("add", "--models", folder, "--start", start, "--end", end, "--verdict", verdict, *more)


def mark(start: str, end: str, verdict: str, series: str = "", detector: str = ""):
    return mark_of(start, end, verdict, now=NOW, series=series, detector=detector)


def test_what_is_marked_is_listed(tmp_path: Path) -> None:
    more = ("--series", "link-1", "--detector", "isolation-forest", "--by", "ann", "--note", "backup [nightly], 1")
    assert add(tmp_path, "2024-01-31T10:05+02:00", "", "false", *more).exit_code == 0
    assert add(tmp_path, "2024-01-30 07:00", "2024-01-30T07:30:00.5Z", "missed").exit_code == 0
    listed = json.loads(run("list", "--models", tmp_path, "--json").stdout)
    assert [item["verdict"] for item in listed] == ["missed", "false"], "by time"
    del listed[1]["marked_at"]
    assert listed[1] == {
        "id": 1, "start": "2024-01-31T08:05:00Z", "end": "2024-01-31T08:05:00Z", "verdict": "false",
        "series": "link-1", "detector": "isolation_forest", "note": "backup [nightly], 1", "by": "ann",
    }  # fmt: skip
    assert listed[0]["end"] == "2024-01-30T07:30:00.500Z"
    table = run("list", "--feedback", tmp_path / FILE).output
    for word in ("2024-01-31T08:05:00Z", "missed", "link-1", "ann"):
        assert word in table


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    add(tmp_path, "2024-01-31T10:05", "", "true", "--by", "ann")
    again = add(tmp_path, "2024-01-31T10:05", "", "true", "--by", "bob")
    assert again.exit_code == 0
    assert "has said so since" in again.output
    assert "by ann" in again.output
    assert len(FeedbackStore(tmp_path / FILE).all()) == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--start", "yesterday", "--verdict", "true"), "start: 'yesterday' is no time. Write ISO 8601"),
        (("--start", "2024-01-01", "--end", "2023-01-01", "--verdict", "true"), "end: '2023-01-01' is before"),
        (("--start", "2924-01-01", "--verdict", "true"), "start: '2924-01-01' is no time"),
        (("--start", "2201-01-01", "--verdict", "true"), "start: '2201-01-01' is in the future"),
        (("--start", "2024-01-01", "--verdict", "true", "--detector", "isolation_forst"), "'isolation_forest' meant"),
        (("--start", "2024-01-01", "--verdict", "missed", "--detector", "ensemble"), "has no alarm, so no detector"),
        (("--start", "2024-01-01", "--verdict", "true", "--note", "a\nb"), "note: holds a line break"),
        (("--start", "2024-01-01", "--verdict", "true", "--series", "x" * 201), "series: has 201 characters"),
    ],
)
def test_a_wrong_mark_is_named_and_not_stored(flags: tuple[str, ...], words: str, tmp_path: Path) -> None:
    result = run("add", "--models", tmp_path, *flags)
    assert result.exit_code == 1
    assert words in " ".join(result.output.split())
    assert FeedbackStore(tmp_path / FILE).all() == []


def test_wrong_usage(tmp_path: Path) -> None:
    assert run("add", "--models", tmp_path, "--start", "2024-01-01", "--verdict", "maybe").exit_code == 2
    result = run("list")
    assert result.exit_code == 2
    assert "--models DIR" in result.output
    assert run("export", "--models", tmp_path, "--verdict", "maybe").exit_code == 2
    absent = add(tmp_path / "absent", "2024-01-01", "", "true")
    assert absent.exit_code == 1
    assert "is no folder" in absent.output


@pytest.mark.parametrize(
    ("first", "second", "wrong"),
    [
        (("10:00", "10:10", "true", ""), ("10:00", "10:10", "false", ""), True),
        (("10:00", "10:10", "true", "a"), ("10:10", "10:20", "false", "a"), True),
        (("10:00", "10:10", "missed", ""), ("10:05", "10:06", "false", "a"), True),
        (("10:00", "10:10", "true", "a"), ("10:00", "10:10", "missed", "a"), True),
        (("10:00", "10:10", "true", "a"), ("10:00", "10:10", "false", "b"), False),
        (("10:00", "10:10", "true", "a"), ("10:11", "10:20", "false", "a"), False),
        (("10:00", "10:10", "missed", "a"), ("10:05", "10:20", "true", "a"), False),
        (("10:00", "10:10", "true", "a"), ("10:05", "10:20", "true", ""), False),
    ],
)
def test_contradictions(first: tuple[str, ...], second: tuple[str, ...], wrong: bool, tmp_path: Path) -> None:
    (old, new) = (mark(f"2024-01-31T{a}", f"2024-01-31T{b}", v, s) for a, b, v, s in (first, second))
    assert contradicts(old, new) is contradicts(new, old) is wrong
    store = FeedbackStore(tmp_path / FILE)
    store.add([old])
    if wrong:
        with pytest.raises(ContradictionError):
            store.add([mark("2024-02-01", "", "true"), new])
        assert len(store.all()) == 1, "nothing of what was given is stored"
    else:
        store.add([new])
        assert len(store.all()) == 2


def test_a_contradiction_has_a_remedy_that_works(tmp_path: Path) -> None:
    add(tmp_path, "2024-01-31T10:00", "2024-01-31T10:10", "true", "--by", "ann")
    result = add(tmp_path, "2024-01-31T10:00", "2024-01-31T10:10", "false")
    assert result.exit_code == 1
    assert "by ann" in result.output
    assert "dwcp feedback remove 1 --models" in result.output
    assert run("remove", 1, "--models", tmp_path).exit_code == 0
    assert add(tmp_path, "2024-01-31T10:00", "2024-01-31T10:10", "false").exit_code == 0
    gone = run("remove", 1, "--models", tmp_path)
    assert gone.exit_code == 1
    assert "there is no mark 1" in gone.output


def test_a_file_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "marks.csv"
    path.write_text(
        "start,end,verdict,series,detector,note\n"
        "2024-01-31T10:00Z,2024-01-31T10:10Z,true,a,isolation_forest,\n"
        "\n"
        "2024-01-31T12:00Z,2024-01-31T11:00Z,true,a,,\n"
        "2024-01-31T13:00Z,,wrong,a,,\n"
        "2024-01-31T13:00Z,true\n"
        "2024-01-31T14:00Z,,FALSE,b,,plain\n"
    )
    result = run("import", path, "--models", tmp_path)
    assert result.exit_code == 1
    for words in ("3 of 5 lines", "line 4, end:", "line 5, verdict: 'wrong'", "line 6: has 2 cells"):
        assert words in result.output, result.output
    assert not (tmp_path / FILE).exists()
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[6]]) + "\n")
    assert "marks.csv: 2 marked" in run("import", path, "--models", tmp_path).output
    assert "0 marked, 2 known before" in run("import", path, "--models", tmp_path).output
    assert len(FeedbackStore(tmp_path / FILE).all()) == 2


def test_lines_that_contradict_each_other_or_the_store_are_named(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / FILE)
    store.add([mark("2024-01-30T10:00", "2024-01-30T11:00", "false", "a")])
    path = tmp_path / "marks.csv"
    path.write_text(
        "verdict,start,end,other\n"
        "true,2024-01-31T10:00Z,2024-01-31T10:10Z,x\n"
        "missed,2024-01-30T10:30Z,2024-01-30T10:40Z,x\n"
        "false,2024-01-31T10:05Z,,x\n"
    )
    with pytest.raises(DataError) as caught:
        import_table(path, store, NOW)
    assert "2 of 3 lines" in str(caught.value)
    assert "marks.csv line 3, verdict:" in str(caught.value)
    assert "contradicts mark 1, which is stored" in str(caught.value)
    assert "marks.csv line 4, verdict:" in str(caught.value)
    assert "contradicts line 2:" in str(caught.value)
    assert len(store.all()) == 1
    path.write_text("start,end\n2024-01-31,\n")
    with pytest.raises(DataError, match="verdict"):
        import_table(path, store, NOW)


def test_rates_by_period() -> None:
    marks = [
        mark("2024-01-29T00:00", "", "true"),  # a Monday
        mark("2024-02-04T23:59", "", "false"),  # the Sunday after it
        mark("2024-02-05T00:00", "2024-02-05T02:00", "true"),
        mark("2024-02-05T01:00", "2024-02-05T03:00", "true", detector="ensemble"),  # the same incident
        mark("2024-02-06T01:00", "2024-02-06T03:00", "missed"),
    ]
    first, second, every = rates(marks, "week")
    assert (str(first.period), first.right, first.wrong, first.found, first.missed) == ("2024-01-29", 1, 1, 1, 0)
    assert (str(second.period), second.right, second.wrong, second.found, second.missed) == ("2024-02-05", 2, 0, 1, 1)
    assert every.period is None
    assert every.precision.value == 3 / 4
    assert every.recall.value == 2 / 3
    # Wilson's interval of 3 of 4 (Wilson, 1927), to four places.
    assert (every.precision.low, every.precision.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert [str(item.period) for item in rates(marks, "month")] == ["2024-01-01", "2024-02-01", "None"]
    assert len(rates(marks, "day")) == 5


def test_a_missed_interval_in_a_found_incident_is_no_miss() -> None:
    marks = [
        mark("2024-02-05T01:00", "2024-02-05T02:00", "true", "a"),
        mark("2024-02-05T00:30", "2024-02-05T01:10", "missed", "a"),
        mark("2024-02-05T00:30", "2024-02-05T01:10", "missed", "b"),
    ]
    assert len(joined(marks)) == 2
    assert rates(marks, "day")[-1].recall.value == 0.5


def test_the_report_for_people_and_for_programs(tmp_path: Path) -> None:
    assert "Nothing is marked yet" in run("report", "--models", tmp_path).output
    add(tmp_path, "2024-01-29T10:00", "", "true")
    add(tmp_path, "2024-01-29T11:00", "", "false")
    add(tmp_path, "2024-02-29T11:00", "", "missed")
    shown = run("report", "--models", tmp_path, "--by", "month").output
    for words in ("month of", "2024-01-01", "1 of 2", "50 % (9 to 91)", "2024-02-01", "all"):
        assert words in shown
    report = json.loads(run("report", "--models", tmp_path, "--json").stdout)
    assert [item["period"] for item in report["periods"]] == ["2024-01-29", "2024-02-26", "all"]
    assert report["periods"][-1]["false_positive_share"] == 0.5
    assert report["periods"][-1]["false_negative_share"] == 0.5
    assert report["periods"][1]["precision"]["value"] is None


def test_what_is_exported_comes_back_and_is_read_by_others(tmp_path: Path) -> None:
    add(tmp_path, "2024-01-29T10:00", "2024-01-29T10:30", "true", "--series", "a", "--note", 'said "no", [then] yes')
    add(tmp_path, "2024-01-29T11:00", "", "false")
    add(tmp_path, "2024-02-29T11:00", "2024-02-29T12:00", "missed")
    path = tmp_path / "incidents.csv"
    assert run("export", "--models", tmp_path, "--output", path).exit_code == 0
    intervals = read_intervals(path)
    assert intervals.kind == ("true", "missed"), "what is not normal, and nothing else"
    assert str(intervals.end[0]) == "2024-01-29T10:30:00.000000000"
    everything = run("export", "--models", tmp_path, "--verdict", "false", "--verdict", "true", "--verdict", "missed")
    path.write_text(everything.stdout)
    (tmp_path / "other").mkdir()
    assert run("import", path, "--models", tmp_path / "other").exit_code == 0

    def said(folder: Path) -> list[tuple[object, ...]]:
        marks = FeedbackStore(folder / FILE).all()
        return [(m.start, m.end, m.verdict, m.series, m.detector, m.note) for m in marks]

    assert said(tmp_path) == said(tmp_path / "other")
    assert len(said(tmp_path)) == 3
    nothing = run("export", "--models", tmp_path / "other", "--verdict", "false", "--feedback", tmp_path / "none.db")
    assert nothing.exit_code == 1
    assert "nothing is marked false" in nothing.output


def test_files_that_are_not_a_store_are_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(b"start,end\n" * 200)
    result = run("list", "--models", tmp_path)
    assert result.exit_code == 1
    assert "not a database" in result.output
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE other (x)")
    database.close()
    result = add(tmp_path, "2024-01-29T10:00", "", "true")
    assert result.exit_code == 1
    assert "a database of another program" in result.output


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    add(tmp_path, "2024-01-29T10:00", "", "true")
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    for result in (run("list", "--models", tmp_path), add(tmp_path, "2024-01-30T10:00", "", "true")):
        assert result.exit_code == 1
        assert "schema version 2" in result.output
        assert "a newer one" in result.output


def test_the_file_is_what_it_says(tmp_path: Path) -> None:
    add(tmp_path, "2024-01-29T10:00", "", "true")
    database = sqlite3.connect(tmp_path / FILE)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    with pytest.raises(sqlite3.IntegrityError):
        database.execute("UPDATE mark SET verdict = 'perhaps'")
    database.close()
    assert FeedbackStore(tmp_path / FILE).all()[0].verdict is Verdict.TRUE


def test_help_shows_examples() -> None:
    text = " ".join(run("--help").output.split())
    for word in ("add", "import", "list", "remove", "report", "export"):
        assert word in text
    assert "Example: dwcp feedback add --models models" in " ".join(run("add", "--help").output.split())
