"""A real Prometheus that has the history of a link, and a stand-in that answers range queries as told."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data import Telemetry
from tests.deploy.tools import free_port, tool
from tests.deploy.watched import Prometheus as Server
from tests.deploy.watched import process
from tests.training.monitored import http_server

FEATURES = ("bandwidth", "latency", "packet_loss", "jitter", "cpu_usage", "memory_usage", "error_rate")
METRICS = tuple(f"link_{name}" for name in FEATURES)
QUERIES = [word for name in FEATURES for word in ("--query", f"{name}=link_{name}")]


def openmetrics(
    telemetry: Telemetry, begin: float, kept: NDArray[np.bool_], metrics: Sequence[str] = METRICS
) -> list[str]:
    """Lines of the samples from `begin` on, seconds since 1970, a minute apart; `kept` are the rows that exist."""
    lines = []
    for j, name in enumerate(metrics):
        lines.append(f"# TYPE {name} gauge")
        for row in np.flatnonzero(kept):
            lines.append(f"{name} {float(telemetry.values[row, j])!r} {begin + 60 * row:.3f}")
    return lines


@contextlib.contextmanager
def real_prometheus(folder: Path, lines: Sequence[str]) -> Iterator[str]:
    """A Prometheus with these samples in its storage; gives its address."""
    (folder / "history.txt").write_text("\n".join([*lines, "# EOF"]) + "\n")
    subprocess.run(
        [tool("promtool"), "tsdb", "create-blocks-from", "openmetrics", folder / "history.txt", folder / "data"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    (folder / "p.yml").write_text("scrape_configs: []\n")
    address = f"127.0.0.1:{free_port()}"
    command = [
        tool("prometheus"), f"--config.file={folder / 'p.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=10y", f"--web.listen-address={address}", "--log.level=warn",
    ]  # fmt: skip
    with process(command, folder):
        server = Server(address)
        assert server.until(lambda: server.get("status/runtimeinfo")), (folder / "log").read_text()
        yield f"http://{address}"


Values = Mapping[str, Callable[[NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]]


class StandIn:
    """Answers as Prometheus does, from functions of time.

    Args:
        values: query to a function from seconds since 1970 to the values of each series by labels, NaN for none.
        now: seconds since 1970 by its clock.
    """

    def __init__(self, values: Values, now: float) -> None:
        self.values, self.now = dict(values), now
        self.asked: list[tuple[str, float]] = []
        self.failing: Callable[[int], tuple[int, Any] | None] = lambda number: None
        self.warnings: list[str] = []
        self.delay = 0.0

    def answer(self, method: str, path: str, _: bytes) -> tuple[int, Any]:
        """One answer: status and body."""
        assert method == "GET"
        time.sleep(self.delay)
        parts = urllib.parse.urlsplit(path)
        asked = dict(urllib.parse.parse_qsl(parts.query))
        if parts.path == "/api/v1/query" and asked["query"] == "time()":
            return 200, {"status": "success", "data": {"resultType": "scalar", "result": [self.now, str(self.now)]}}
        assert parts.path == "/api/v1/query_range", path
        start, end, step = (float(asked[name]) for name in ("start", "end", "step"))
        self.asked.append((asked["query"], start))
        if (failure := self.failing(len(self.asked))) is not None:
            return failure
        if (end - start) / step > 11_000:
            return 400, {"status": "error", "error": "exceeded maximum resolution of 11,000 points per timeseries"}
        times = start + step * np.arange(int((end - start) / step + 0.5) + 1)
        result = []
        for labels, values in self.values[asked["query"]](times).items():
            points = [[t, repr(float(v))] for t, v in zip(times, values, strict=True) if v != -1]
            metric = dict(part.split("=") for part in labels.split(",") if part)
            if points:
                result.append({"metric": {"__name__": asked["query"], **metric}, "values": points})
        answer = {"status": "success", "data": {"resultType": "matrix", "result": result}}
        return 200, answer | ({"warnings": self.warnings} if self.warnings else {})


@contextlib.contextmanager
def stand_in(values: Values, now: float) -> Iterator[tuple[str, StandIn]]:
    """A stand-in on loopback: its address, and itself."""
    made = StandIn(values, now)
    with http_server(made.answer) as address:
        yield address, made


def dumped(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())
