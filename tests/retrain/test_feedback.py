"""Retraining with what operators marked: incidents left out, false alarms kept, and both compared in the gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import Telemetry, read_table, write_csv
from dwcp_training.data.chunks import ChunkReader
from dwcp_training.feedback.marks import Mark, Verdict
from dwcp_training.feedback.store import FILE, FeedbackStore
from dwcp_training.profiles import Gate, load_profile
from dwcp_training.retrain.marked import Comparison, compare, marked_rows
from dwcp_training.retrain.set_apart import set_apart
from dwcp_training.telemetry_scores import series_scores
from tests.retrain.conftest import Bench, series
from tests.training.test_cli import invoke

MINUTE = 60 * 10**9


def at(telemetry: Telemetry, first: int, last: int, verdict: Verdict, name: str = "") -> Mark:
    """A mark of the rows `first` to `last`, both of them in it."""
    times = telemetry.timestamps.astype("datetime64[ns]").astype(np.int64)
    return Mark(int(times[first]), int(times[last]), verdict, name)


def with_faults(telemetry: Telemetry, rows: list[tuple[int, int]], size: float = 12.0) -> Telemetry:
    """The same with a step of `size` deviations in latency and jitter in these rows, `[first, last]` each."""
    values = telemetry.values.copy()
    changed = [telemetry.schema.names.index(name) for name in ("latency", "jitter")]
    for first, last in rows:
        values[first : last + 1, changed] += size * telemetry.values.std(axis=0)[changed]
    return replace(telemetry, values=values)


@pytest.fixture
def store(bench: Bench) -> FeedbackStore:
    return FeedbackStore(bench.models / FILE)


def test_rows_of_marks_and_events() -> None:
    telemetry = series(2, 100)
    marks = [
        at(telemetry, 10, 12, Verdict.TRUE),
        at(telemetry, 13, 13, Verdict.MISSED),  # the row after it: one incident
        at(telemetry, 20, 20, Verdict.TRUE),
        at(telemetry, 50, 51, Verdict.FALSE, "any name, as there is one series without a name"),
        Mark(0, MINUTE, Verdict.TRUE),  # 1970
    ]
    found = marked_rows(telemetry, marks)
    assert np.flatnonzero(found.incident).tolist() == [10, 11, 12, 13, 20]
    assert np.flatnonzero(found.normal).tolist() == [50, 51]
    assert [rows.tolist() for rows in found.incidents] == [[10, 11, 12, 13], [20]]
    assert [rows.tolist() for rows in found.false_alarms] == [[50, 51]]
    assert found.outside == 1
    left = found.without_incidents()
    assert len(left) == 95
    assert left.segments == ((0, 10), (10, 16), (16, 95)), "no window crosses what was taken out"
    nothing = marked_rows(replace(telemetry, timestamps=None), marks)
    assert not nothing.incident.any()
    assert nothing.outside == 5


def test_marks_of_a_series_are_of_that_series_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_csv(series(2, 60), tmp_path / f"{name}.csv")
    profile = load_profile("dwcp")
    apart = profile.model_copy(update={"reader": profile.reader.model_copy(update={"series": "files"})})
    telemetry = read_table([tmp_path / "a.csv", tmp_path / "b.csv"], apart)
    assert telemetry.series_names == ("a.csv", "b.csv")
    cut = telemetry.take([(0, 5), (10, 70)])
    assert [cut.series_names[k] for k in range(len(cut.series))] == ["a.csv", "a.csv", "b.csv"]
    marks = [at(telemetry, 5, 6, Verdict.TRUE, "b.csv"), at(telemetry, 30, 30, Verdict.TRUE)]
    marks.append(at(telemetry, 8, 8, Verdict.TRUE, "c.csv"))
    found = marked_rows(telemetry, marks)
    assert np.flatnonzero(found.incident).tolist() == [30, 65, 66, 90]
    assert [rows.tolist() for rows in found.incidents] == [[30, 90], [65, 66]], "of all series: one incident"
    assert found.outside == 1
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").rename(tmp_path / f"{name}-2.csv")
    joined = series(3, 60)
    write_csv(joined, tmp_path / "later.csv")
    assert read_table(tmp_path / "later.csv", profile).series_names == ("",)


def test_series_have_the_names_that_alarms_give_them(tmp_path: Path) -> None:
    """As rows in memory, where marks are looked up, and in chunks, where `dwcp score` and `monitor` find alarms."""
    for folder, name, month in (("x", "a", 3), ("x", "b", 1), ("y", "a", 2)):
        (tmp_path / folder).mkdir(exist_ok=True)
        write_csv(series(month, 60), tmp_path / folder / f"{name}.csv")
    files = [tmp_path / "x/a.csv", tmp_path / "x/b.csv", tmp_path / "y/a.csv"]
    both = tmp_path / "both.csv"
    head, *lines = files[0].read_text().splitlines()
    both.write_text("\n".join([head + ",link", *(f"{line},l{k}" for line in lines for k in (1, 2))]) + "\n")
    profile = load_profile("dwcp")
    apart = profile.model_copy(update={"reader": profile.reader.model_copy(update={"series": "files"})})
    column = profile.model_copy(update={"reader": profile.reader.model_copy(update={"series_column": "link"})})
    for paths, described in ((files, apart), ([both], column), (files[:2], profile)):
        names = read_table(paths, described).series_names
        chunks = ChunkReader(paths, described.feature_schema.names, described)
        assert set(names) == {str(name) for chunk, _ in chunks for name in chunk.series}
        assert len(set(names)) == len(names)


def test_the_exact_test_on_discordant_events() -> None:
    even = Comparison(20, 10, 10, 3, 3)
    assert even.chance_of_fewer() == even.chance_of_more() == pytest.approx(0.65625)  # (20 + 15 + 6 + 1) / 64
    worse = Comparison(20, 10, 5, 5, 0)
    assert worse.chance_of_fewer() == pytest.approx(1 / 32)
    assert worse.chance_of_more() == 1
    assert Comparison(20, 10, 10, 0, 0).chance_of_fewer() == 1


def test_the_test_rarely_errs_between_equals() -> None:
    """Two models that find each event by the toss of a coin: refused at most as often as the level says."""
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        old, new = generator.random((2, 40)) < 0.5
        comparison = Comparison(40, int(old.sum()), int(new.sum()), int((old & ~new).sum()), int((new & ~old).sum()))
        refused += comparison.chance_of_fewer() <= 0.05
    assert refused / 500 <= 0.07


def test_only_marked_rows_are_scored_and_as_in_the_whole(months: Path) -> None:
    models = ModelSet.open(Path(__file__).parents[2] / "models/reference/v1")
    faulty = with_faults(series(2, 400), [(100, 110), (300, 300)])
    marks = [at(faulty, 100, 110, Verdict.TRUE), at(faulty, 300, 300, Verdict.TRUE), at(faulty, 3, 3, Verdict.TRUE)]
    marks += [at(faulty, 200, 204, Verdict.FALSE)]
    found = marked_rows(faulty, marks)
    for name in ("isolation_forest", "lstm_autoencoder"):
        model = models.models[name]
        whole = series_scores(model, faulty)
        incidents, false_alarms = compare(model, model, found)
        possible = [rows for rows in found.incidents if whole.scored[rows].any()]
        assert incidents.events == len(possible) == (3 if name == "isolation_forest" else 2)
        assert incidents.before == incidents.after == sum(bool(whole.alarmed[rows].any()) for rows in possible)
        assert false_alarms.before == int(whole.alarmed[200:205].any())
        assert incidents.only_before == incidents.only_after == 0


def test_where_nothing_is_marked_nothing_changes(bench: Bench, store: FeedbackStore) -> None:
    def decide(*more: str | Path) -> dict[str, object]:
        assert bench.retrain("--data", bench.data(2), "--dry-run", *more).exit_code == 0
        decision = bench.decision()
        decision["rows"] = [row for row in decision["rows"] if row["measure"] != "latency"]  # a time is never the same
        return decision

    before = decide()
    assert not any(row["measure"].startswith("feedback") for row in before["rows"])
    store.add([Mark(0, MINUTE, Verdict.TRUE)])  # of another year
    after = decide()
    assert after.pop("notes") == ["feedback: 1 of 1 marks have no row in this data"]
    assert before.pop("notes") == []
    assert after == before
    result = bench.retrain("--data", bench.data(2), "--feedback", bench.root / "absent.db")
    assert result.exit_code == 1
    assert "there is no such file" in result.output


def test_marked_incidents_are_left_out_and_compared(bench: Bench, store: FeedbackStore) -> None:
    """As --exclude, to the last bit of the model, and the gate says what both find."""
    clean = read_table(bench.data(2), load_profile("dwcp"))
    places = [(first, first + 9) for first in range(100, 1150, 130)]
    write_csv(with_faults(clean, places), bench.data(2))
    for number, (first, last) in enumerate(places):
        store.add([at(clean, first, last, Verdict.MISSED if number % 2 else Verdict.TRUE)])
    result = bench.retrain("--data", bench.data(2), "--dry-run")
    assert result.exit_code == 0, result.output
    assert "feedback: 9 incidents left out (90 rows), 0 false alarms kept" in result.output
    decision = bench.decision()
    (row,) = [row for row in decision["rows"] if row["measure"].startswith("feedback")]
    assert row["measure"] == "feedback incidents"
    assert row["champion"] == row["challenger"] == 9
    assert "of 9 marked (0 lost, 0 won" in row["limit"]
    with_feedback = ModelSet.open(bench.models / ".retrain/challenger")

    exported = bench.root / "incidents.csv"
    assert invoke("feedback", "export", "--models", bench.models, "--output", exported).exit_code == 0
    store.path.rename(bench.root / "aside.db")
    assert bench.retrain("--data", bench.data(2), "--dry-run", "--exclude", exported).exit_code == 0
    excluded = ModelSet.open(bench.models / ".retrain/challenger")
    rows = read_table(bench.data(2), load_profile("dwcp")).values[:50]
    both = [models.models["isolation_forest"] for models in (with_feedback, excluded)]
    assert both[0].threshold == both[1].threshold
    assert (both[0].score_batch(rows).scores == both[1].score_batch(rows).scores).all()


def test_a_challenger_that_finds_fewer_marked_incidents_is_refused(
    bench: Bench, store: FeedbackStore, profile_with: Callable[..., Path]
) -> None:
    clean = read_table(bench.data(2), load_profile("dwcp"))
    places = [(first, first + 1) for first in range(50, 1150, 60)]
    write_csv(with_faults(clean, places), bench.data(2))
    store.add([at(clean, first, last, Verdict.TRUE) for first, last in places])
    blind = profile_with({"recall_margin": 0.99}, n_estimators=1, contamination=0.0005, max_samples=2)
    result = bench.retrain("--data", bench.data(2), "--settings", "profile", profile=blind)
    assert result.exit_code == 3, result.output
    (failed,) = [row for row in bench.decision()["rows"] if row["measure"] == "feedback incidents"]
    assert not failed["passed"]
    assert failed["champion"] > failed["challenger"]
    assert f"{failed['champion'] - failed['challenger']:.0f} lost, 0 won" in failed["limit"]
    assert "FAIL isolation_forest, feedback incidents:" in result.output


def test_a_challenger_with_more_marked_false_alarms_is_refused(
    bench: Bench, store: FeedbackStore, profile_with: Callable[..., Path]
) -> None:
    clean = read_table(bench.data(2), load_profile("dwcp"))
    champion = series_scores(ModelSet.open(bench.models).models["isolation_forest"], clean)
    quiet = np.flatnonzero(~champion.alarmed)[::7]
    store.add([at(clean, row, row, Verdict.FALSE) for row in quiet.tolist()])
    loud = profile_with({"false_alarm_factor": 1000.0, "recall_margin": 0.99}, contamination=0.4)
    result = bench.retrain("--data", bench.data(2), "--settings", "profile", profile=loud)
    assert result.exit_code == 3, result.output
    (failed,) = [row for row in bench.decision()["rows"] if not row["passed"]]
    assert failed["measure"] == "feedback false alarms"
    assert failed["champion"] == 0
    assert failed["challenger"] > 20


def test_false_alarms_stay_in_what_is_trained_on(bench: Bench) -> None:
    telemetry = with_faults(series(2), [(100, 130), (400, 420)])
    champion, gate = ModelSet.open(bench.models), Gate(most_alarms=0.2)
    without = set_apart(telemetry, champion, gate, 1)
    kept = set_apart(telemetry, champion, gate, 1, marks=[at(telemetry, 100, 130, Verdict.FALSE)])
    times = set(telemetry.timestamps[100:131].tolist())
    others = set(telemetry.timestamps[400:421].tolist())
    assert len(times & set(without.fitted.timestamps.tolist())) < 5
    assert times <= set(kept.fitted.timestamps.tolist())
    assert len(others & set(kept.fitted.timestamps.tolist())) < 5, "what nobody marked is left out as before"


def test_a_file_that_is_no_store_is_refused_before_the_long_work(bench: Bench) -> None:
    (bench.models / FILE).write_bytes(b"no database" * 100)
    first = bench.current
    result = bench.retrain("--data", bench.data(2))
    assert result.exit_code == 1
    assert "not a database" in result.output
    assert "rows to train on" not in result.output
    assert bench.current == first


def test_marks_outlive_releases(bench: Bench, store: FeedbackStore) -> None:
    clean = read_table(bench.data(2), load_profile("dwcp"))
    store.add([at(clean, 10, 12, Verdict.TRUE)])
    assert bench.retrain("--data", bench.data(2), "--keep", "1").exit_code == 0
    assert len(store.all()) == 1
    assert ModelSet.open(bench.models)
