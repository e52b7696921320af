"""How many cores and how much memory N links need at one sample each 10 s: in process, by sidecar, and by stream.

    python -m tests.bench.capacity                            # measure and print, some three minutes
    python -m tests.bench.capacity --write docs/capacity.md   # and write the page
    python -m tests.bench.capacity --again --write docs/capacity.md

Measures the CPU time of one sample in each way of scoring, and the memory of a process and of a series in a stream;
the rest is arithmetic. CPU time, unlike a rate, does not depend on who else uses the machine's cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import serving_install as install
from tests.bench.serving_rounds import write_rows
from tests.bench.serving_servers import GO, PYTHON, SERVERS, Running

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "build/capacity.json"

INTERVAL = 10.0
"""Seconds between two samples of a link."""

BUSY = 0.7
"""Share of a core that is planned with: above it a queue grows with every burst."""

LINKS = (100, 1_000, 10_000, 100_000, 1_000_000)
DETECTORS = {"isolation_forest": 1, "lstm_autoencoder": 10}
"""Detectors of the reference set, and the rows that one sample of it is asked with where no stream keeps them."""

STREAMS, SERIES = 4, (10, 5_000)
"""Streams, and numbers of series in each, whose memory is compared."""


@dataclass(frozen=True)
class Way:
    """A way to ask a sidecar: the kind of call, its flags, and how many samples a request carries."""

    call: str
    flags: tuple[str, ...]
    samples: int


WAYS = {
    "unary calls": Way("score", ("--concurrency", "16", "--connections", "8"), 1),
    "stream, 16 samples a message": Way(
        "stream", ("--streams", "4", "--connections", "4", "--outstanding", "512", "--series", "20", "--unchecked"), 16
    ),
    "batches of 256": Way("batch", ("--concurrency", "2", "--connections", "2"), 256),
}
"""Samples of an LSTM come as whole windows in all but streams, where the server keeps them."""


@dataclass(frozen=True)
class Cost:
    """What one way of scoring takes.

    Attributes:
        detector, where, way: what was measured.
        microseconds: CPU time of a sample on the side that scores, median of the rounds.
        low, high: least and most of them.
        client: CPU time of a sample in the load generator, which a client in Go pays; 0 in process.
        megabytes: resident memory of the process afterwards.
    """

    detector: str
    where: str
    way: str
    microseconds: float
    low: float
    high: float
    client: float
    megabytes: float

    def cores(self, links: int) -> float:
        """Cores for so many links, each planned with at most BUSY of its time."""
        return links / INTERVAL * self.microseconds / 1e6 / BUSY


def measure(rounds: int, seconds: float) -> dict:
    """Every cost, and the bytes of one series in a stream by server and detector."""
    install.programs()
    rows = install.BUILD / "rows.f64"
    write_rows(rows)
    times = ("--duration", f"{seconds}s", "--warm-up", f"{seconds / 4}s")
    costs = [*_in_process(rows, times, rounds, seconds)]
    series = {}
    for server in (entry for entry in SERVERS if entry.name in (PYTHON, GO)):
        for detector in DETECTORS:
            costs += _served(server, detector, rows, times, rounds, seconds)
            series[f"{server.name}, {detector}"] = _bytes_of_a_series(server, detector, rows)
    return {"cores": os.cpu_count(), "rounds": rounds, "costs": [vars(cost) for cost in costs], "series": series}


def _in_process(rows: Path, times: tuple[str, ...], rounds: int, seconds: float) -> Iterator[Cost]:
    for detector in DETECTORS:
        for name, command in (
            ("Go", [install.LOAD, "--in-process", install.MODELS, "--rows-file", rows, *times]),
            ("Python", [sys.executable, Path(__file__).with_name("capacity_inprocess.py"), install.MODELS, rows]),
        ):
            found = []
            for _ in range(rounds):
                go = ["--detector", detector, "--rows", str(DETECTORS[detector])]
                extra = go if name == "Go" else [detector, str(seconds)]
                done = subprocess.run([*command, *extra], check=True, capture_output=True, text=True, timeout=120)
                found.append(json.loads(done.stdout))
            each = [one["client_cpu_share_of_a_core"] / one["requests_per_second"] * 1e6 for one in found]
            yield _cost(detector, f"{name}, in process", "one sample at a time", each, 0.0, _peak(found))


def _served(server, detector: str, rows: Path, times: tuple[str, ...], rounds: int, seconds: float) -> list[Cost]:
    costs = []
    running = Running(server, rows)
    try:
        for name, way in WAYS.items():
            rows_of_one = 1 if way.call == "stream" else DETECTORS[detector]
            flags = (*way.flags, "--rows", str(way.samples * rows_of_one), "--detector", detector, *times)
            each, clients = [], []
            for _ in range(rounds):
                before = running.cpu_seconds()
                found = running.load(way.call, *flags, "--rows-file", str(rows))
                busy = running.cpu_seconds() - before
                samples = found["requests_per_second"] * found["seconds"] * way.samples
                # The server's time is that of the warm-up, too.
                each.append(busy / (samples * (1 + seconds / 4 / found["seconds"])) * 1e6)
                clients.append(found["client_cpu_seconds"] / samples * 1e6)
            memory = running.memory()[0][0]
            costs.append(_cost(detector, server.name, name, each, statistics.median(clients), memory))
    finally:
        running.stop()
    return costs


def _bytes_of_a_series(server, detector: str, rows: Path) -> float:
    """Growth of the resident memory by one series of a stream, after every series had more samples than a window."""
    resident = []
    for count in SERIES:
        running = Running(server, rows)
        try:
            flags = ("--streams", str(STREAMS), "--connections", str(STREAMS), "--rows", "512", "--outstanding", "2048")
            flags += ("--unchecked", "--series", str(count), "--detector", detector, "--duration", "4s")
            running.load("stream", *flags, "--rows-file", str(rows))
            resident.append(running.memory()[0][0])
        finally:
            running.stop()
    return (resident[1] - resident[0]) / (STREAMS * (SERIES[1] - SERIES[0])) * 2**20


def _cost(detector: str, where: str, way: str, each: list[float], client: float, megabytes: float) -> Cost:
    return Cost(detector, where, way, statistics.median(each), min(each), max(each), client, megabytes)


def _peak(found: list[dict]) -> float:
    return max(one.get("resident_mb", 0.0) for one in found)


def page(document: dict) -> str:
    """docs/capacity.md."""
    costs = [Cost(**cost) for cost in document["costs"]]
    lines = [
        "# Capacity",
        "",
        f"How many cores and how much memory do N links need, at one sample each {INTERVAL:.0f} s? Made by one",
        "command, on the machine that it is about:",
        "",
        "```sh",
        "make capacity",
        "```",
        "",
        f"Measured on {document['cores']} cores with the reference set (7 metrics; a forest of 100 trees, an LSTM "
        "autoencoder with a window of 10), medians of",
        f"{document['rounds']} rounds. CPU time is counted, not rates: it does not depend on what else runs.",
        "Alarms are explained, as by default.",
        "",
        "## What one sample takes",
        "",
        "| detector | where | how | CPU time of the scoring side, us | of a client in Go, us | memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for cost in costs:
        spread = f"{_micro(cost.microseconds)} ({_micro(cost.low)} to {_micro(cost.high)})"
        client = _micro(cost.client) if cost.client else "-"
        memory = f"{cost.megabytes:.0f}" if cost.megabytes else "-"
        lines.append(f"| `{cost.detector}` | {cost.where} | {cost.way} | {spread} | {client} | {memory} |")
    lines += [
        "",
        "A stream keeps the last samples of each series, so that its client sends each sample once. One series takes:",
        "",
        "| server, detector | bytes |",
        "|---|---|",
        *(f"| {name} | {size:,.0f} |" for name, size in document["series"].items()),
        "",
        "## Cores",
        "",
        f"`N / {INTERVAL:.0f} s x CPU time / {BUSY}`: a core is planned with {BUSY:.0%} of its time, because above "
        "that a queue grows with every burst. Less than 1 means a part of a core.",
        "",
        "| detector | where | how | " + " | ".join(f"{links:,} links" for links in LINKS) + " |",
        "|---|---|---|" + "---|" * len(LINKS),
    ]
    for cost in costs:
        cells = " | ".join(_figure(cost.cores(links)) for links in LINKS)
        lines.append(f"| `{cost.detector}` | {cost.where} | {cost.way} | {cells} |")
    lines += [
        "",
        "Memory is that of a process, for each worker of a Python sidecar once; a Go process uses all cores. "
        "Streams add the bytes of their series: the links that",
        "a process holds, times the figure above. Detectors add up: an ensemble costs the sum of its members.",
        "",
        "What decides is the number of calls, not the scores: a stream or a batch with many samples a message costs a "
        "fraction of a unary call for each. Where a set of",
        "its own is kept for each link, memory decides instead: see [fleets](fleet-serving.md).",
        "",
    ]
    return "\n".join(lines)


def _figure(cores: float) -> str:
    if cores < 0.01:
        return "< 0.01"
    return f"{cores:,.0f}" if cores >= 10 else f"{cores:.2g}"


def _micro(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def show(document: dict, console: Console) -> None:
    """The same as a table on a screen."""
    table = Table(title=f"cores for N links, one sample each {INTERVAL:.0f} s, {BUSY:.0%} busy")
    for column in ("detector", "where", "how", "us a sample", *(f"{links:,}" for links in LINKS)):
        table.add_column(column, justify="left" if column in ("detector", "where", "how") else "right")
    for cost in (Cost(**cost) for cost in document["costs"]):
        cells = (_figure(cost.cores(links)) for links in LINKS)
        table.add_row(cost.detector, cost.where, cost.way, _micro(cost.microseconds), *cells)
    console.print(table)
    for name, size in document["series"].items():
        console.print(f"a series of a stream, {name}: {size:,.0f} bytes")


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds of each measurement (default 1)")
    parser.add_argument("--again", action="store_true", help="measure nothing: use build/capacity.json")
    parser.add_argument("--write", type=Path, metavar="FILE.md", help="write the page")
    arguments = parser.parse_args()
    if arguments.again:
        document = json.loads(RESULT.read_text())
    else:
        document = measure(arguments.rounds, arguments.seconds)
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(document, indent=1))
    show(document, Console(width=160))
    if arguments.write:
        arguments.write.write_text(page(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
