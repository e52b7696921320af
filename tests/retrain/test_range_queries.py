"""Range queries: chunked, resumed, and nothing taken for a sample that is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from dwcp_training.console import RefusedError
from dwcp_training.data import Exclusion
from dwcp_training.monitor.web import EndpointError
from dwcp_training.profiles import load_profile
from dwcp_training.retrain import range_queries
from dwcp_training.retrain.collect import from_prometheus
from dwcp_training.retrain.range_queries import SERIES, RangeQueries, drop_stale
from tests.retrain.metrics_history import FEATURES, StandIn, stand_in

NOW = 1_700_000_000.0
DAY = 86_400
Series = Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]
NONE = -1.0
"""What stands for no value in the stand-in's answers."""


def wave(phase: float) -> Series:
    return lambda times: {"": 50 + 10 * np.sin(times / 997 + phase)}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_queries, "WAITS", (0.01, 0.01))


def queries(
    address: str, work: Path, days: float = 2, step: float = 60, names: tuple[str, ...] = ("a", "b")
) -> RangeQueries:
    return RangeQueries(address, dict(zip(names, names, strict=True)), round(step * 1e3), days, work)


def collect(asked: RangeQueries) -> range_queries.Collected:
    return asked.collect(lambda *_: None)


def times_of(collected: range_queries.Collected) -> NDArray[np.int64]:
    return pq.read_table(collected.file)["timestamp"].to_numpy().astype("datetime64[s]").astype(np.int64)


def test_finished_chunks_are_not_asked_for_again(tmp_path: Path) -> None:
    with stand_in({"a": wave(0), "b": wave(1)}, NOW) as (address, server):
        first = collect(queries(address, tmp_path))
        assert len(server.asked) == 2 * 3, "two days touch three days since 1970, with one query for each feature"
        times = times_of(first)
        assert len(times) == 2 * DAY / 60
        assert (np.diff(times) == 60).all()
        assert (times % 60 == 0).all()
        values = pq.read_table(first.file)
        assert np.allclose(values["b"].to_numpy(), wave(1)(times)[""])

        server.asked.clear()
        server.now += 3600
        second = collect(queries(address, tmp_path))
        assert {start for _, start in server.asked} == {NOW // DAY * DAY}, "only today's chunk goes on"
        assert times_of(second)[-1] == times[-1] + 3600
        assert times_of(second)[0] == times[0] + 3600

        server.asked.clear()
        server.now += 40 * DAY
        collect(queries(address, tmp_path))
        kept = [path.name for path in queries(address, tmp_path).folder.iterdir()]
        assert len(kept) == 2, "chunks that are too old are gone"
        server.asked.clear()
        collect(queries(address, tmp_path, step=30))
        assert len(server.asked) == 6, "another step is another question"


def test_a_fast_cadence_keeps_the_limit_of_points(tmp_path: Path) -> None:
    with stand_in({"a": wave(0), "b": wave(1)}, NOW) as (address, server):
        asked = queries(address, tmp_path, days=1, step=2)
        assert asked.chunk_steps < 11_000
        assert len(times_of(collect(asked))) == DAY / 2
        assert len(server.asked) > 2 * 4


def test_killed_or_away_it_goes_on_where_it_was(tmp_path: Path) -> None:
    with stand_in({"a": wave(0), "b": wave(1)}, NOW) as (address, server):
        server.failing = lambda number: (503, "starting") if number > 4 else None
        with pytest.raises(EndpointError, match="What was collected is kept: run it again"):
            collect(queries(address, tmp_path))
        asked = [start for _, start in server.asked]
        (queries(address, tmp_path).folder / ".half.parquet.tmp").write_text("of a process that was killed")
        server.asked.clear()
        server.failing = lambda number: (503, "busy") if number == 1 else None  # one refusal is tried again
        assert len(times_of(collect(queries(address, tmp_path)))) == 2 * DAY / 60
        again = [start for _, start in server.asked]
        assert set(asked) - set(again), "what was finished before is not asked for again"
        assert not list(queries(address, tmp_path).folder.glob(".*"))


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ((400, {"error": "parse error: unexpected end of input"}), "parse error"),
        ((200, "<html>a login page</html>"), "does not answer 'a' as Prometheus does"),
        ((200, {"status": "success", "data": {"resultType": "vector", "result": []}}), "as Prometheus does"),
    ],
)
def test_an_answer_that_is_none_is_an_error(failure: tuple[int, object], words: str, tmp_path: Path) -> None:
    with stand_in({"a": wave(0), "b": wave(1)}, NOW) as (address, server):
        server.failing = lambda number: failure
        with pytest.raises(EndpointError) as caught:
            collect(queries(address, tmp_path))
        assert words in str(caught.value)
        assert len(server.asked) == 1, "asking again would not help"


def test_a_slow_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_queries, "TIMEOUT", 0.2)
    with stand_in({"a": wave(0), "b": wave(1)}, NOW) as (address, server):
        server.delay = 0.5
        with pytest.raises(EndpointError, match=r"no answer within 0\.2 s"):
            collect(queries(address, tmp_path))


def test_nothing_listens(tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="cannot be reached"):
        collect(queries("http://127.0.0.1:1", tmp_path))


def test_partial_answers_are_said_and_asked_for_again(tmp_path: Path) -> None:
    with stand_in({"a": wave(0), "b": wave(1)}, NOW) as (address, server):
        server.warnings = ["remote storage: one of two is away"]
        collected = collect(queries(address, tmp_path))
        assert collected.notes[0] == "Prometheus warns: remote storage: one of two is away"
        server.warnings = []
        server.asked.clear()
        assert collect(queries(address, tmp_path)).notes == []
        assert len(server.asked) == 6


def holes(values: Series, change: Callable[[NDArray[np.int64], NDArray[np.float64]], None]) -> Series:
    """A series with values changed by minute of the last two days."""

    def changed(times: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        found = {name: part.copy() for name, part in values(times).items()}
        minutes = np.rint((times - (NOW - 2 * DAY)) / 60).astype(np.int64)
        for part in found.values():
            change(minutes, part)
        return found

    return changed


def test_gaps_nan_and_infinities_are_no_samples(tmp_path: Path) -> None:
    def change(minutes: NDArray[np.int64], part: NDArray[np.float64]) -> None:
        part[(minutes >= 100) & (minutes < 130)] = NONE
        part[minutes == 200] = np.nan
        part[minutes == 300] = np.inf

    with stand_in({"a": wave(0), "b": holes(wave(1), change)}, NOW) as (address, _):
        collected = collect(queries(address, tmp_path))
        times = times_of(collected)
        assert len(times) == 2 * DAY / 60 - 32
        assert sorted(np.diff(times))[-3:] == [120, 120, 31 * 60]
        assert collected.notes == ["32 of 2,880 instants left out, where a metric has no value: b 32"]
        table = pq.read_table(collected.file)
        assert np.isfinite(table["b"].to_numpy()).all()


def test_what_prometheus_repeats_before_a_gap_is_no_sample(tmp_path: Path) -> None:
    def change(minutes: NDArray[np.int64], part: NDArray[np.float64]) -> None:
        part[(minutes >= 100) & (minutes < 105)] = part[minutes == 99][:1].sum()
        part[(minutes >= 105) & (minutes < 130)] = NONE

    constant: Series = lambda times: {"": np.full(len(times), 3.0)}  # noqa: E731
    with stand_in({"a": constant, "b": holes(wave(1), change)}, NOW) as (address, _):
        collected = collect(queries(address, tmp_path))
        assert len(times_of(collected)) == 2 * DAY / 60 - 30
        assert "5 values taken for missing" in collected.notes[1]


@pytest.mark.parametrize(
    ("values", "times", "left"),
    [
        ([1, 2, 2, 2], [0, 1, 2, 3], [1, 2, 2, 2]),  # goes on until now
        ([1, 2, 2, 2], [-100, -99, -98, -97], [1, 2, np.nan, np.nan]),  # ended long ago
        ([1, 1, 1, 5, 5], [0, 1, 2, 7, 8], [1, np.nan, np.nan, 5, 5]),
        ([1, 2, np.nan, 4, 4, np.nan, 7], [0, 1, 2, 3, 4, 5, 6], [1, 2, np.nan, 4, np.nan, np.nan, 7]),
        ([1] * 8 + [3], [*range(8), 20], [1, 1, 1, *[np.nan] * 5, 3]),  # a lookback and no more
    ],
)
def test_drop_stale(values: list[float], times: list[int], left: list[float]) -> None:
    array = np.array(values, float)
    minutes = np.array(times, np.int64) * 60_000
    dropped = drop_stale(minutes, array, 60_000, now_ms=60_000 * 8 if times[-1] < 20 else 60_000 * 21)
    assert np.array_equal(array, np.array(left, float), equal_nan=True)
    assert dropped == int(np.isnan(left).sum() - np.isnan(np.array(values, float)).sum())


def test_series_with_equal_labels_are_samples(tmp_path: Path) -> None:
    def two(phase: float) -> Series:
        return lambda times: {f"host={name}": 50 + np.sin(times / 500 + phase + k) for k, name in enumerate("xy")}

    only_x: Series = lambda times: {"host=x": two(2)(times)["host=x"]}  # noqa: E731
    with stand_in({"a": two(0), "b": two(1)}, NOW) as (address, _):
        table = pq.read_table(collect(queries(address, tmp_path)).file)
        assert sorted(set(table[SERIES].to_pylist())) == ["host=x", "host=y"]
    with stand_in({"a": two(0), "b": only_x}, NOW) as (address, _):
        collected = collect(queries(address, tmp_path))
        assert set(pq.read_table(collected.file)[SERIES].to_pylist()) == {"host=x"}
        assert "b 2,880" in collected.notes[0]


def test_nothing_at_all_is_refused(tmp_path: Path) -> None:
    nothing: Series = lambda times: {}  # noqa: E731
    for a, words in ((wave(0), "no whole sample of the last 2 days; missing were: b"), (nothing, "with nothing")):
        with (
            stand_in({"a": a, "b": nothing}, NOW) as (address, _),
            pytest.raises(RefusedError, match=words),
        ):
            collect(queries(address, tmp_path))


def test_the_clock_is_that_of_the_server(tmp_path: Path) -> None:
    """Its now is years before ours: a clock that is wrong here must not ask for days that are not there."""
    with stand_in({"a": wave(0), "b": wave(1)}, NOW - 900 * DAY) as (address, _):
        assert times_of(collect(queries(address, tmp_path)))[-1] == (NOW - 900 * DAY) // 60 * 60


def test_rows_are_judged_as_those_of_a_file(tmp_path: Path) -> None:
    profile = load_profile("dwcp")
    values = {name: (lambda times: {"": 1 + 0.1 * np.sin(times)}) for name in FEATURES}

    def change(minutes: NDArray[np.int64], part: NDArray[np.float64]) -> None:
        part[minutes == 50] = 1e9

    values["latency"] = holes(values["latency"], change)
    with stand_in(values, NOW) as (address, _):
        asked = queries(address, tmp_path, names=FEATURES)
        rows = from_prometheus(asked, profile, Exclusion(), "drop", lambda *_: None)
        assert rows.telemetry.schema.names == FEATURES
        assert rows.telemetry.cadence_seconds == 60
        assert len(rows.telemetry) == 2879
        assert len(rows.telemetry.segments) == 2
        assert sum(rows.telemetry.report.dropped.values()) == 1


def test_the_stand_in_refuses_what_prometheus_refuses() -> None:
    made = StandIn({"a": wave(0)}, NOW)
    status, _ = made.answer("GET", "/api/v1/query_range?query=a&start=0&end=22000&step=1", b"")
    assert status == 400
