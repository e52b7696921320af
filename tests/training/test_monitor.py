"""`dwcp monitor` as a process: files that grow, are rotated and cut; Prometheus; standard input; Alertmanager."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dwcp_training.monitor.command import _stopped_by_signals
from tests.deploy.tools import free_port, tool
from tests.deploy.watched import Prometheus as PrometheusServer
from tests.deploy.watched import process
from tests.training.monitored import REFERENCE, WAIT, Ended, Monitor, append, ended, http_server, lines_of, monitor
from tests.training.test_cli import invoke

FOREST = ("--detector", "isolation_forest")
FAST = ("--interval", "0.05")
NAMES = ("bandwidth", "latency", "packet_loss", "jitter", "cpu_usage", "memory_usage", "error_rate")


def wanted_alarms(path: Path, *flags: str | Path) -> list[tuple[str, ...]]:
    """Time, detector, level, score and feature of the alarms that `dwcp score` finds in a file."""
    output = path.with_suffix(".parquet")
    result = invoke("score", "--models", REFERENCE, "--data", path, "--only-alarms", "--output", output, *flags)
    assert result.exit_code == 0, result.output
    table = pq.read_table(output).to_pandas()
    return [
        (f"{row.timestamp:%Y-%m-%dT%H:%M:%SZ}", row.detector, row.level, f"{row.score:.9g}", row.top_feature)
        for row in table.itertuples()
    ]


def found_alarms(process: Monitor | Ended) -> list[tuple[str, ...]]:
    """The same of JSON lines."""
    alarms = map(json.loads, process.alarms)
    return [(a["time"], a["detector"], a["level"], f"{a['score']:.9g}", a["feature"]) for a in alarms]


def test_a_growing_file(tmp_path: Path) -> None:
    """Rows that come one by one, several at once, and in two halves give the alarms of the whole file."""
    lines = lines_of(tmp_path, 60, alarms_at=(15, 16, 40, 59))
    whole, growing = tmp_path / "whole.csv", tmp_path / "growing.csv"
    whole.write_text("\n".join(lines) + "\n")
    wanted = wanted_alarms(whole)
    assert {alarm[1] for alarm in wanted} == {"isolation_forest", "lstm_autoencoder"}
    growing.write_text("")
    with monitor("--follow", growing, "--json", *FAST) as running:
        append(growing, lines[0])
        for line in lines[1:20]:
            append(growing, line)
        append(growing, *lines[20:40], lines[40][:25], end="")
        time.sleep(0.3)
        append(growing, lines[40][25:], *lines[41:])
        running.until(lambda: len(running.alarms) >= len(wanted))
        assert running.end(signal.SIGTERM) == 0
        assert found_alarms(running) == wanted
        assert "60 rows read" in running.said
        assert "lstm_autoencoder: 51 scored" in running.said


def test_lines_for_people(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, 30, alarms_at=(20,))
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    running = ended("--follow", tmp_path / "a.csv", "--once", *FOREST)
    assert running.status == 0
    (alarm,) = running.alarms
    assert alarm.startswith("2024-01-01T00:20:00Z CRITICAL isolation_forest 0.")
    assert " over 0.576265: " in alarm
    feature, value = alarm.split(": ")[1].split(", expected ")[0].split(" ", 1)
    assert value in {"bandwidth": "20 Mbps", "latency": "140 ms", "packet_loss": "5 %", "jitter": "30 ms"}[feature]


def test_a_signal_while_it_looks_at_the_clock_is_no_deadlock() -> None:
    """Whatever the main thread holds when the signal comes, as here the lock of the event."""
    stop = threading.Event()
    with _stopped_by_signals(stop):
        with stop._cond:  # type: ignore[attr-defined]  # what `stop.wait` holds for a moment
            signal.raise_signal(signal.SIGINT)
        assert stop.wait(10)


def test_begins_at_the_end_unless_told_otherwise(tmp_path: Path) -> None:
    """What is there says the cadence; it is not scored."""
    lines = lines_of(tmp_path, 60, alarms_at=(20, 50))
    path = tmp_path / "a.csv"
    append(path, *lines[:41], lines[41][:30], end="")
    with monitor("--follow", path, "--json", *FAST, *FOREST) as running:
        append(path, lines[41][30:], *lines[42:])
        running.until(lambda: running.alarms)
        assert running.end(signal.SIGINT) == 0
    assert [alarm[0] for alarm in found_alarms(running)] == ["2024-01-01T00:50:00Z"]
    assert "20 rows read" in running.said
    running = ended("--follow", path, "--json", "--once", *FOREST)
    assert running.status == 0
    assert [alarm[0][14:16] for alarm in found_alarms(running)] == ["20", "50"]


def test_rotated_and_cut_files(tmp_path: Path) -> None:
    """Windows go on over a rotation where the times do; a half line that was left behind is said."""
    lines = lines_of(tmp_path, 90, alarms_at=(33, 62, 85))
    (tmp_path / "whole.csv").write_text("\n".join(lines) + "\n")
    wanted = wanted_alarms(tmp_path / "whole.csv")
    path = tmp_path / "a.csv"
    append(path, *lines[:31])
    with monitor("--follow", path, "--json", "--from-start", *FAST) as running:
        append(path, lines[31], lines[32], "2024-01-01T00:3", end="")
        time.sleep(0.3)
        path.rename(tmp_path / "a.csv.1")
        running.noticed("the last line has no end yet")
        append(path, lines[0], *lines[33:61])
        running.until(lambda: any(alarm[0] == "2024-01-01T00:33:00Z" for alarm in found_alarms(running)))
        # Cut in place, as copytruncate does, and written on without a header.
        os.truncate(path, 0)
        running.noticed("was cut or written anew")
        append(path, *lines[61:71])
        running.until(lambda: any(alarm[0] == "2024-01-01T01:02:00Z" for alarm in found_alarms(running)))
        # Written anew, and longer than before at once: the size alone would not tell.
        path.write_text("\n".join([lines[0], *lines[71:]]) + "\n")
        running.until(lambda: found_alarms(running) == wanted)
        assert running.end(signal.SIGTERM) == 0
    assert "90 rows read" in running.said
    assert "lstm_autoencoder: 81 scored" in running.said
    assert "a.csv was replaced" in running.said


def test_a_gap_and_a_clock_that_goes_back_empty_the_window(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, 60)
    path = tmp_path / "a.csv"
    append(path, *lines[:21])
    with monitor("--follow", path, "--from-start", *FAST) as running:
        append(path, *lines[31:46])  # 10 rows are missing
        running.noticed("gap in the cadence")
        append(path, *lines[11:21])  # earlier, and 12 rows again after it
        running.noticed("goes back: windows begin anew")
        assert running.end(signal.SIGTERM) == 0
    assert "45 rows read" in running.said
    # Windows of 20, of 15 and of 10 rows in a row.
    assert "lstm_autoencoder: 18 scored" in running.said
    assert "isolation_forest: 45 scored" in running.said


def test_bad_rows_are_said_and_left_out(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, 30)
    path = tmp_path / "a.csv"
    append(path, *lines[:21])
    with monitor("--follow", path, "--from-start", *FAST) as running:
        append(path, lines[21].replace("Z,", "Z,x"), lines[22] + ",1", lines[23], "")
        running.noticed("a.csv line 23: has 9 cells")
        assert running.end(signal.SIGTERM) == 0
    # One note or two, as the lines came.
    assert sum(map(int, re.findall(r"(\d+) of \d+ rows left out", running.said))) == 2
    assert "a.csv line 22, bandwidth: 'x" in running.said
    assert "isolation_forest: 21 scored" in running.said
    assert "lstm_autoencoder: 11 scored" in running.said


@pytest.fixture
def runs_profile(tmp_path: Path) -> Path:
    """The metrics of the reference set in run folders."""
    profile = tmp_path / "runs.yaml"
    profile.write_text(
        "feature_schema: {name: runs, version: 1}\nreader: {format: runs, features: numeric}\n", encoding="utf-8"
    )
    return profile


def test_run_folders(tmp_path: Path, runs_profile: Path) -> None:
    """The newest run is followed, and those that come after it; the windows of two runs do not touch."""
    lines = lines_of(tmp_path, 60, alarms_at=(25, 45))
    runs = tmp_path / "runs"
    for name in ("2023_idle", "2024_idle"):
        (runs / name).mkdir(parents=True)
        append(runs / name / "telemetry.csv", *lines[:21])
        os.utime(runs / name / "telemetry.csv", (1, 1 if name < "2024" else 2))
    with monitor("--follow", runs, "--profile", runs_profile, "--json", *FAST) as running:
        append(runs / "2024_idle/telemetry.csv", *lines[21:31])
        running.until(lambda: len(running.alarms) >= 2)
        (runs / "2025_idle").mkdir()
        append(runs / "2025_idle/telemetry.csv", lines[0], *lines[31:51])
        running.noticed("new run 2025_idle")
        running.until(lambda: any('"2025_idle"' in alarm for alarm in running.alarms))
        assert running.end(signal.SIGTERM) == 0
    assert {json.loads(alarm)["series"] for alarm in running.alarms} == {"2024_idle", "2025_idle"}
    assert "30 rows read" in running.said
    assert "lstm_autoencoder: 12 scored" in running.said  # 10 - 9 and 20 - 9
    running = ended("--follow", runs / "2024_idle", "--profile", runs_profile, "--once", *FOREST)
    assert running.status == 0
    assert "30 rows read" in running.said
    assert "[2024_idle]" in running.alarms[0]


@pytest.mark.parametrize("form", ["csv", "json"])
def test_standard_input(form: str, tmp_path: Path) -> None:
    lines = lines_of(tmp_path, 40, alarms_at=(12, 39))
    (tmp_path / "whole.csv").write_text("\n".join(lines) + "\n")
    wanted = wanted_alarms(tmp_path / "whole.csv")
    names = lines[0].split(",")
    if form == "json":
        rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
        numbers = [{k: v if k == "timestamp" else float(v) for k, v in row.items()} for row in rows]
        lines = [json.dumps(row) for row in numbers]
    with monitor("--json", "-") as running:
        assert running.process.stdin is not None
        running.process.stdin.write("\n".join(lines[:25]) + "\n")
        running.process.stdin.flush()
        running.until(lambda: running.alarms)  # before the input ends
        running.process.stdin.write("\n".join(lines[25:]))  # the last line has no end
        running.process.stdin.close()
        assert running.end() == 0
    assert found_alarms(running) == wanted


def test_json_lines_that_are_none(tmp_path: Path) -> None:
    good = json.dumps({"timestamp": "2024-01-01T00:00:00Z", **dict.fromkeys(NAMES, 1)})
    lines = [
        good,
        "[1, 2]",
        "{broken",
        good.replace("00:00:00", "00:02:00").replace('"latency": 1', '"latency": NaN'),
        good.replace("00:00:00", "00:03:00").replace('"jitter": 1', '"jitter": [1]'),
        good.replace("00:00:00", "00:04:00").replace('"jitter": 1', '"jitter": null'),
        "",
        good.replace("00:00:00", "00:05:00"),
    ]
    with monitor("-", *FOREST) as running:
        assert running.process.stdin is not None
        running.process.stdin.write("\n".join(lines) + "\n")
        running.process.stdin.close()
        assert running.end() == 0
    for words in (
        "line 2: is no JSON object: it holds list",
        "line 3: is no JSON object",
        "line 4, latency: NaN is not",
        "line 5, jitter: \"['1']\" is not a number",
        "line 6, jitter: the cell is empty",
        "7 rows read",
        "isolation_forest: 2 scored",
    ):
        assert words in running.said


@pytest.mark.slow  # waits
def test_stops_while_it_waits_for_input() -> None:
    with monitor("-") as running:
        assert running.end(signal.SIGTERM) == 0
    assert "0 rows read" in running.said


# Prometheus


@contextlib.contextmanager
def real_prometheus(folder: Path, target: str) -> Iterator[PrometheusServer]:
    """Debian's Prometheus, scraping one target every half second."""
    address = f"127.0.0.1:{free_port()}"
    (folder / "p.yml").write_text(
        "global: {scrape_interval: 500ms}\nscrape_configs:\n"
        f"- {{job_name: link, static_configs: [{{targets: ['{target.removeprefix('http://')}']}}]}}\n"
    )
    command = [
        tool("prometheus"), f"--config.file={folder / 'p.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}", "--log.level=warn",
    ]  # fmt: skip
    with process(command, folder):
        yield PrometheusServer(address)


def test_a_real_prometheus(tmp_path: Path) -> None:
    values = dict(zip(NAMES, (100.0, 10.0, 0.01, 1.0, 28.0, 42.0, 0.001), strict=True))

    def page(*_: Any) -> tuple[int, str]:
        return 200, "".join(f'link_{name}{{link="a"}} {value}\n' for name, value in values.items())

    queries = [part for name in NAMES for part in ("--query", f'{name}=link_{name}{{link="a"}}')]
    with http_server(page) as target, real_prometheus(tmp_path, target) as server:
        assert server.until(lambda: len(server.query("link_latency")) == 1)
        address = f"http://{server.address}"
        with monitor("--prometheus", address, *queries, "--interval", "0.3", "--json") as running:
            values.update(latency=140.0, packet_loss=5.0, jitter=30.0)
            running.until(lambda: any("lstm" in alarm for alarm in running.alarms))
            assert running.end(signal.SIGTERM) == 0
        found = [json.loads(alarm) for alarm in running.alarms]
        assert {alarm["detector"] for alarm in found} == {"isolation_forest", "lstm_autoencoder"}
        assert all(alarm["value"] == values[alarm["feature"]] for alarm in found)
        queries[3] = "latency=link_latency{"
        running = ended("--prometheus", address, *queries, "--once")
        assert running.status == 1
        assert "answers 400" in running.said
        assert "parse error" in running.said


class Api:
    """A Prometheus's HTTP API, for answers that a real one seldom gives.

    `results` has the vector of each feature, or a status and a body.
    """

    def __init__(self) -> None:
        self.results: dict[str, Any] = {name: [({}, 1.0)] for name in NAMES}
        self.asked: list[dict[str, list[str]]] = []

    def __call__(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        url = urllib.parse.urlsplit(path)
        assert (method, url.path, body) == ("GET", "/api/v1/query", b"")
        query = urllib.parse.parse_qs(url.query)
        self.asked.append(query)
        result = self.results[query["query"][0]]
        if not isinstance(result, list):
            return result
        vector = [{"metric": {"__name__": "m", **labels}, "value": [0, str(value)]} for labels, value in result]
        return 200, {"status": "success", "data": {"resultType": "vector", "result": vector}}


QUERIES = [part for name in NAMES for part in ("--query", f"{name}={name}")]


def test_one_instant_for_all_features_and_series_by_their_labels() -> None:
    api = Api()
    for name in NAMES:
        api.results[name] = [({"link": "a"}, 1.0), ({"link": "b"}, 1e6)]
    api.results["jitter"] = [({"link": "a"}, 1.0), ({"link": "c"}, 5.0)]
    with http_server(api) as address:
        running = ended("--prometheus", address, *QUERIES, "--once", "--json", *FOREST)
    assert running.status == 0
    assert [query["query"] for query in api.asked] == [[name] for name in NAMES]
    assert len({query["time"][0] for query in api.asked}) == 1
    assert {json.loads(alarm)["series"] for alarm in running.alarms} == {"link=a"}
    assert "no sample of link=b: nothing found for jitter" in running.said
    assert "1 rows read" in running.said


@pytest.mark.slow  # waits
def test_a_prometheus_that_fails_for_a_while(tmp_path: Path) -> None:
    """Failures are said, no sample is made up, and the window begins anew after them."""
    api = Api()
    with (
        http_server(api) as address,
        monitor("--prometheus", address, *QUERIES, "--interval", "0.1", "--cadence", "0.1") as running,
    ):
        running.until(lambda: len(api.asked) > 7 * 12)
        api.results["jitter"] = (503, "going down")
        running.noticed("answers 503 Service Unavailable: going down (asked for jitter)")
        api.results["jitter"] = [({}, float("nan"))]
        running.noticed("jitter: nan is not a finite number")
        api.results["jitter"] = []
        running.noticed("nothing found for jitter")
        time.sleep(0.3)
        before = len(api.asked)
        api.results["jitter"] = [({}, 1.0)]
        running.noticed("gap in the cadence")
        running.until(lambda: len(api.asked) > before + 7 * 3)
        assert running.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, "not JSON"), "does not answer 'bandwidth' as Prometheus does"),
        ((200, {"status": "success"}), "does not answer"),
        ((200, {"data": {"resultType": "matrix", "result": []}}), "it gives a matrix"),
        ((422, "bad query"), "answers 422 Unprocessable Entity: bad query"),
        ((302, ""), "answers 302"),
    ],
)
def test_a_prometheus_that_is_none(answer: tuple[int, Any], words: str) -> None:
    api = Api()
    api.results["bandwidth"] = answer
    with http_server(api) as address:
        running = ended("--prometheus", address, *QUERIES, *FAST)
    assert running.status == 1
    assert words in running.said
    assert "Traceback" not in running.said


# Alertmanager


class Alertmanager:
    """Takes alerts; `statuses` are given first, one each post."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.posts = 0
        self.alerts: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def __call__(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        assert (method, path) == ("POST", "/api/v2/alerts")
        with self._lock:
            self.posts += 1
            status = self.statuses.pop(0) if self.statuses else 200
            if status == 200:
                self.alerts += json.loads(body)
        return status, "" if status == 200 else "no"


def test_alarms_are_forwarded(tmp_path: Path) -> None:
    """The first two posts fail; nothing is lost, and nothing is sent twice."""
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines_of(tmp_path, 40, alarms_at=(20,))) + "\n")
    receiver = Alertmanager(503, 500)
    with http_server(receiver) as address:
        running = ended("--follow", path, "--once", "--json", "--forward", address)
    assert running.status == 0, running.said
    printed = [json.loads(alarm) for alarm in running.alarms]
    assert len(printed) == len(receiver.alerts) > 1
    for alarm, alert in zip(printed, receiver.alerts, strict=True):
        assert alert["startsAt"] == alarm["time"]
        labels = {"detector": alarm["detector"], "severity": alarm["level"].lower(), "metric": alarm["feature"]}
        assert alert["labels"] == {"alertname": "DwcpAnomaly", **labels}
        notes = alert["annotations"]
        assert np.float32(notes["score"]) == np.float32(alarm["score"])
        assert float(notes["threshold"]) == alarm["threshold"]
        assert float(notes["value"]) == alarm["value"]
        assert alarm["detector"] in notes["summary"]
        assert all(isinstance(text, str) and text for text in [*alert["labels"].values(), *notes.values()])
    assert f"{len(printed)} alarms forwarded to {address}" in running.said


@pytest.mark.parametrize(
    "kind", ["refused", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("down", "silent"))]
)
def test_what_could_not_be_forwarded_is_said(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines_of(tmp_path, 30, alarms_at=(20,))) + "\n")
    silent = threading.Event()

    def answer(*_: Any) -> tuple[int, str]:
        if kind == "silent":
            silent.wait(WAIT)
        return 400, "bad labels"

    with http_server(answer) as server:
        address = server if kind != "down" else f"http://127.0.0.1:{free_port()}"
        begin = time.monotonic()
        running = ended("--follow", path, "--once", "--forward", address, *FOREST)
        assert running.status == 1
        assert time.monotonic() - begin < 25
        silent.set()
    (alarm,) = running.alarms
    words = {"refused": "answers 400 Bad Request: bad labels", "down": "cannot be reached: Connection refused, tried"}
    said = [line for line in running.notices if line.startswith("not forwarded")]
    assert said == [line for line in said if words.get(kind, "no answer within") in line and line.endswith(alarm)]
    assert len(said) == 1
    assert "1 NOT forwarded" in running.said
    assert "1 alarms were not forwarded" in running.said


@pytest.mark.slow  # waits
def test_a_receiver_that_is_slow_delays_no_alarm(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    lines = lines_of(tmp_path, 60, alarms_at=(20, 30, 40))
    append(path, lines[0])
    slow = threading.Event()
    receiver = Alertmanager()

    def answer(*request: Any) -> tuple[int, Any]:
        slow.wait(3)
        return receiver(*request)

    with http_server(answer) as address, monitor("--follow", path, "--forward", address, *FAST, *FOREST) as running:
        append(path, *lines[1:26])
        running.until(lambda: len(running.alarms) == 1)
        begin = time.monotonic()
        append(path, *lines[26:])
        running.until(lambda: len(running.alarms) == 3)
        assert time.monotonic() - begin < 3
        slow.set()
        assert running.end(signal.SIGTERM) == 0, running.said
    assert len(receiver.alerts) == 3


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        ([], 2, "name one source"),
        (["-", "--follow", "x.csv"], 2, "name one source"),
        (["x.csv"], 2, "--follow x.csv"),
        (["-", "--query", "latency=1"], 2, "--query"),
        (["-", "--from-start"], 2, "--from-start"),
        (["-", "--interval", "0"], 2, "--interval 0"),
        (["-", "--cadence", "nan"], 2, "--cadence nan"),
        (["-", "--forward", "127.0.0.1:9093"], 2, "--forward 127.0.0.1:9093"),
        (["-", "--forward", "http://user:secret@127.0.0.1"], 2, "write no name or password"),
        (["--prometheus", "ftp://x"], 2, "--prometheus ftp://x"),
        (["--prometheus", "http://127.0.0.1:1"], 2, "--query is missing for bandwidth"),
        (["--prometheus", "http://127.0.0.1:1", "--query", "latency"], 2, "write FEATURE=PROMQL"),
        (["--prometheus", "http://127.0.0.1:1", "--query", "latncy=1"], 2, "Did you mean 'latency'?"),
        (["--prometheus", "http://127.0.0.1:1", "--query", "jitter=1", "--query", "jitter=2"], 2, "jitter has a query"),
        (["--follow", "none.csv"], 1, "cannot read none.csv"),
        (["--follow", "."], 1, "has no run folder"),
        (["-", "--detector", "forest"], 1, "'forest' is no detector"),
        (["-", "--profile", "edge-host"], 1, "Name the profile"),
    ],
)
def test_wrong_usage_and_refusals(
    flags: list[str], status: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("monitor", "--models", REFERENCE, *flags)
    assert result.exit_code == status, result.output
    assert words in result.output
    assert "secret" not in result.output
    assert "Traceback" not in result.output


def test_a_header_without_the_metrics_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("timestamp,bandwidth\n2024-01-01,1\n")
    running = ended("--follow", tmp_path / "a.csv")
    assert running.status == 1
    assert "a.csv has no column 'latency'" in running.said
