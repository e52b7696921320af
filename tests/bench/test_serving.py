"""The serving benchmark's arithmetic, and a short run of it against real servers."""

import copy
from pathlib import Path

import pytest

from tests.bench import serving, serving_install, serving_rounds
from tests.bench import serving_cases as cases
from tests.bench import serving_servers as servers
from tests.bench.serving_bars import Bar, Measured, Spread, bars, ratios

RATES = {
    (servers.PYTHON, cases.UNARY_1): 1500,
    (servers.KSERVE, cases.UNARY_1): 1000,
    (servers.MLSERVER, cases.UNARY_1): 700,
    (servers.PYTHON_ALL, cases.STREAM): 9000,
    (servers.TRITON, cases.UNARY_64): 5000,
    (servers.TRITON, cases.UNARY_64_1): 8000,
    (servers.GO, cases.UNARY_64): 17000,
    (servers.GO, cases.UNARY_1): 6000,
    (servers.PYTHON, cases.BATCH): 90_000,
    (servers.PYTHON, cases.BATCH_ONE_CORE): 90_000,
    (cases.PYTHON_LIMIT, cases.BATCH_ONE_CORE): 100_000,
    (servers.GO, cases.BATCH): 450_000,
    (servers.GO, cases.BATCH_ONE_CORE): 450_000,
    (cases.GO_LIMIT, cases.BATCH_ONE_CORE): 500_000,
}


def promised(measured: dict) -> list[Bar]:
    """The bars, without what is only told."""
    return [bar for bar in bars(Measured(measured)) if bar.bar]


def document() -> dict:
    """Three rounds on a machine that gets slower by half every time: no ratio may notice."""
    ours = (servers.PYTHON, servers.PYTHON_ALL, servers.GO)
    return {
        "skipped": {},
        "starts": [{"server": name, "seconds": 0.5} for name in ours],
        "memory": [{"server": name, "each_mb": [35.0, 20.0], "together_mb": 50.0} for name in ours],
        "measurements": [
            {"round": n, "server": server, "case": case, "rows_per_second": rate / 2**n, "latency_ms": {"p99": 0.4}}
            | ({"client_cpu_share_of_a_core": 0.5} if "in process" in server else {"server_cpu_share": 0.9})
            for n in range(3)
            for (server, case), rate in RATES.items()
        ],
    }


def test_all_bars_met() -> None:
    found = promised(document())
    assert [bar.met for bar in found] == [True] * 13
    assert found[0].value == "1.50x [1.50 to 1.50]"
    assert found[2].value == "1.12x [1.12 to 1.12]", "Triton counts where it is fastest"


def test_batches_are_told_by_cpu_time_too() -> None:
    told = [bar.value for bar in bars(Measured(document())) if "CPU time" in bar.what]
    assert told == ["0.50x [0.50 to 0.50]"] * 2, "0.9 of the rate in 0.9 of a core, against 0.5 of a core"


@pytest.mark.parametrize(
    ("index", "server", "case", "rate"),
    [
        (0, servers.KSERVE, cases.UNARY_1, 1100),
        (1, servers.MLSERVER, cases.UNARY_1, 760),
        (2, servers.TRITON, cases.UNARY_64, 9100),
        (3, servers.TRITON, cases.UNARY_64_1, 8600),
        (4, servers.PYTHON, cases.BATCH, 79_000),
        (5, servers.GO, cases.BATCH, 399_000),
    ],
)
def test_each_ratio_can_be_missed(index: int, server: str, case: str, rate: float) -> None:
    changed = document()
    for m in changed["measurements"]:
        if (m["server"], m["case"]) == (server, case):
            m["rows_per_second"] = rate / 2 ** m["round"]
    met = [bar.met for bar in promised(changed)]
    assert met[index] is False


def test_limits_can_be_missed() -> None:
    changed = document()
    for m in changed["measurements"]:
        m["latency_ms"] = {"p99": 1.2}
    for m in changed["memory"]:
        m["each_mb"] = [120.0]
    for s in changed["starts"]:
        s["seconds"] = 1.1
    assert [bar.met for bar in promised(changed)][6:] == [False] * 7


def test_what_is_left_out_is_not_met() -> None:
    without = copy.deepcopy(document())
    without["measurements"] = [m for m in without["measurements"] if m["server"] != servers.TRITON]
    without["skipped"] = {servers.TRITON: "does not install: no wheel"}
    found = [bar for bar in promised(without) if servers.TRITON in bar.what]
    assert [(bar.met, bar.value) for bar in found] == [(None, "not measured: does not install: no wheel")] * 2


def test_ratios_are_paired() -> None:
    assert ratios({0: 10.0, 1: 40.0, 2: 7.0}, {0: 5.0, 1: 10.0}) == Spread(3.0, 2.0, 4.0)
    assert ratios({0: 1.0}, {1: 1.0}) is None


def test_different_scores_are_noticed() -> None:
    same = {"measurements": [{"first_score": 0.5}], "starts": [{"first_score": 0.5}, {"first_score": None}]}
    serving.same_scores(same)
    with pytest.raises(ValueError, match="same score"):
        serving.same_scores({**same, "starts": [{"first_score": 0.25}]})


@pytest.mark.slow  # makes a virtual environment
def test_a_peer_that_does_not_install_says_why(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(serving_install, "HERE", tmp_path)
    monkeypatch.setattr(serving_install, "BUILD", serving_install.ROOT / "build")
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # as a machine without an index
    (tmp_path / "test-peer.txt").write_text("no-such-package-of-the-benchmark==1.0\n")
    why = serving_install.environment("test-peer")
    assert "does not install" in why
    assert "no-such-package-of-the-benchmark" in why
    assert not (serving_install.BUILD / "test-peer").exists()


@pytest.mark.slow
def test_a_short_run() -> None:
    """Our Go sidecar, the plain server and the echo server, for moments: all give a rate and nobody fails."""
    serving_install.programs()
    chosen = [servers.GO, servers.FLOOR, servers.CEILING]
    asked = [case for case in cases.CASES if case.name in (cases.UNARY_64, cases.STREAM, cases.BATCH_ONE_CORE)]
    found = serving.measure(1, 0.25, chosen, [case.name for case in asked])
    assert not found["skipped"]
    assert not found["failed"]
    wanted = {
        (server.name, case.name)
        for server in servers.SERVERS
        for case in asked
        if server.name in chosen and case.call in server.calls and (server.kind == "ours" or not case.ours)
    }
    limits = {(name, case.name) for case in asked for name, _ in case.limits}
    rates = {(m["server"], m["case"]): m["rows_per_second"] for m in found["measurements"]}
    assert rates.keys() == wanted | limits
    assert all(rate > 0 for rate in rates.values())
    assert not any(m.get("errors") for m in found["measurements"])
    assert {s["server"] for s in found["starts"]} == set(chosen)


@pytest.mark.slow
def test_every_process_of_a_server_is_seen_and_stopped(tmp_path) -> None:
    serving_install.programs()
    rows = tmp_path / "rows"
    serving_rounds.write_rows(rows)
    server = next(s for s in servers.SERVERS if s.name == servers.PYTHON_ALL)
    running = servers.Running(server, rows)
    try:
        pids = running.processes()
        assert len(pids) > servers.CORES, "the supervisor and its workers"
        each, together = running.memory()
        assert len(each) == len(pids)
        assert max(each) < together < sum(each), "shared pages are counted once"
        assert running.cpu_seconds() > 0
    finally:
        running.stop()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
