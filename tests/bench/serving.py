"""Serving, measured: both sidecars beside a plain server, an echo server, scoring in process, and other model servers.

    python tests/bench/bench.py --only serving               # some ten minutes; the first time, peers are installed
    python -m tests.bench.serving --rounds 2 --seconds 0.5   # the same, shorter

Every round starts all servers and asks each of them in every case before the next case begins. Prints tables, and
writes build/serving.json and build/serving.png. See README.md beside this file.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.bench import serving_cases as cases
from tests.bench.serving_bars import Bar, Measured, Spread, bars, p99, rows
from tests.bench.serving_install import BUILD, ROOT, environment, programs
from tests.bench.serving_servers import SERVERS

RESULT, PLOT = ROOT / "build/serving.json", ROOT / "build/serving.png"


def namespace() -> list[str]:
    """How to run something where there is no network but loopback; empty where the system does not allow it."""
    command = ["unshare", "--map-root-user", "--net"]
    try:
        return command if subprocess.run([*command, "true"], capture_output=True).returncode == 0 else []
    except OSError:
        return []


def measure(rounds: int, seconds: float, chosen: Collection[str] = (), only: Collection[str] = ()) -> dict:
    """Installs, measures, and returns the document with all measurements and bars.

    Args:
        rounds: how often everything is measured.
        seconds: how long each time.
        chosen: names of servers; empty for all.
        only: names of cases; empty for all.

    Raises:
        ValueError: the servers did not give the same score.
        CalledProcessError: nothing could be measured.
    """
    programs()
    for server in SERVERS:
        if server.peer and (not chosen or server.name in chosen) and (why := environment(server.peer)):
            print(f"  left out: {server.name}: {why}", flush=True)
    apart = namespace()
    out = BUILD / "rounds.json"
    command = [*apart, sys.executable, "-m", "tests.bench.serving_rounds", "--out", str(out)]
    command += ["--rounds", str(rounds), "--seconds", str(seconds), *(["--loopback-only"] if apart else [])]
    command += [*(f"--server={name}" for name in chosen), *(f"--case={name}" for name in only)]
    subprocess.run(command, cwd=ROOT, check=True)
    document = json.loads(out.read_text())
    same_scores(document)
    document["bars"] = [asdict(bar) for bar in bars(Measured(document))]
    return document


def same_scores(document: dict) -> None:
    """Demands that every server gave the same score for the first row: else they did not do the same work.

    Raises:
        ValueError: they did not.
    """
    noted = document["measurements"] + document["starts"]
    scores = {float(np.float32(m["first_score"])) for m in noted if m.get("first_score") is not None}
    if len(scores) != 1:
        raise ValueError(f"the servers do not give the same score for the same row: {sorted(scores)}")


def tables(document: dict, console: Console) -> None:
    """Prints what every server reached."""
    measured = Measured(document)
    seen = {m["server"] for m in document["measurements"]}
    names = [s.name for s in SERVERS if s.name in seen] + [cases.PYTHON_LIMIT, cases.GO_LIMIT]
    first = [case for case in cases.CASES if case.call in ("score", "infer")]
    second = [case for case in cases.CASES if case not in first]
    for title, columns in (("calls a second", first), ("rows or samples a second", second)):
        table = Table(title=f"{title}: median \\[least to most]; p50 / p99 in ms", show_lines=True)
        table.add_column("")
        for case in columns:
            table.add_column(case.name, justify="right")
        for name in names:
            cells = [_cell(measured, name, case.name) for case in columns]
            if any(cells):
                table.add_row(name, *cells)
        console.print(table)
    console.print(_costs(document, measured, names))
    console.print(
        "* pages that several processes share are counted once. Resident memory is that after all load of a round. "
        "Where the client takes about as much CPU time as the server, it takes it from the same cores: a rate is then "
        "less than the server could reach by itself."
    )


def _costs(document: dict, measured: Measured, names: list[str]) -> Table:
    """Start, memory and CPU time."""
    table = Table(title="what it takes")
    table.add_column("")
    for column in (
        "first answer, s", "processes", "resident, largest, MB", "all together*, MB", "server CPU, us a call, 1 caller",
        "64 callers", "client CPU, us a call", "client's share of all CPU time",
    ):  # fmt: skip
        table.add_column(column, justify="right", overflow="fold")
    for name in names:
        start = measured.starts(name)
        if start is None:
            continue
        memory = [m for m in document["memory"] if m["server"] == name]
        together, largest = Spread.of(m["together_mb"] for m in memory), measured.largest_process(name)
        one, many = (measured.spread(name, case, _server_us) for case in (cases.UNARY_1, cases.UNARY_64))
        client = measured.spread(name, cases.UNARY_64, _client_us)
        table.add_row(
            name,
            start.text(),
            str(len(memory[-1]["each_mb"])) if memory else "",
            largest.text(".0f") if largest else "",
            f"{together.middle:.0f}" if together else "",
            *(f"{x.middle:.0f}" if x else "" for x in (one, many, client)),
            f"{client.middle / (client.middle + many.middle):.0%}" if client and many else "",
        )
    return table


def _cell(measured: Measured, server: str, case: str) -> str:
    rate = measured.spread(server, case, rows)
    if rate is None:
        return ""
    text = f"{rate.middle:,.0f}\n[{rate.least:,.0f} to {rate.most:,.0f}]"
    try:
        p50 = measured.spread(server, case, lambda m: m["latency_ms"]["p50"])
        high = measured.spread(server, case, p99)
    except KeyError:  # in-process scoring in Python notes no latencies
        return text
    errors: Counter[str] = Counter()
    for found in measured.by_round(server, case, lambda m: m["errors"]).values():
        errors.update(found)
    text += f"\n{p50.middle:.3g} / {high.middle:.3g}"
    return text + "".join(f"\n{count} {code}" for code, count in errors.items())


def _server_us(m: dict) -> float:
    return m["server_cpu_share"] / m["requests_per_second"] * 1e6


def _client_us(m: dict) -> float:
    return m["client_cpu_share_of_a_core"] / m["requests_per_second"] * 1e6


def bars_table(found: list[Bar], console: Console) -> None:
    """Prints the bars."""
    table = Table(title="bars; ratios are medians of paired rounds")
    for column in ("what", "measured", "bar", "met"):
        table.add_column(column, overflow="fold")
    for bar in found:
        met = {None: "?" if bar.bar else "", True: "yes", False: "[red]NO[/red]"}[bar.met]
        table.add_row(bar.what, bar.value, bar.bar, met)
    console.print(table)


def draw() -> str:
    """Draws build/serving.png; returns why it could not."""
    if why := environment("plot"):
        return f"matplotlib {why}"
    command = [BUILD / "plot/bin/python", Path(__file__).with_name("serving_plot.py"), RESULT, PLOT]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MPLBACKEND": "Agg"})
    return "" if done.returncode == 0 else done.stderr


def main() -> int:
    """Measures, prints, writes; exit status 1 when a bar was missed, 2 when nothing could be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=0.8, help="seconds of each measurement (default 0.8)")
    parser.add_argument("--server", action="append", default=[], choices=[s.name for s in SERVERS], help="only these")
    parser.add_argument("--again", action="store_true", help="measure nothing: tables and plot of build/serving.json")
    arguments = parser.parse_args()
    console = Console(width=170)
    if arguments.again:
        document = json.loads(RESULT.read_text())
    else:
        RESULT.unlink(missing_ok=True)  # nobody takes an old one for the result of a run that failed
        try:
            document = measure(arguments.rounds, arguments.seconds, arguments.server)
        except (subprocess.CalledProcessError, ValueError) as error:
            print(f"serving: error: {error}", file=sys.stderr)
            return 2
        draft = RESULT.with_suffix(".draft")
        draft.write_text(json.dumps(document, indent=1))
        draft.replace(RESULT)
    console.print(
        f"{document['cores']} cores, shared by the server and the load generator; {document['rounds']} rounds of "
        f"{document['seconds']} s a measurement; one forest, {len(document['skipped'])} left out"
    )
    tables(document, console)
    for name, why in document["skipped"].items():
        console.print(f"left out: {name}: {why}", markup=False)
    for failure in document["failed"]:
        console.print(f"failed in round {failure['round'] + 1}: {failure['what']}: {failure['why']}", markup=False)
    found = [Bar(**bar) for bar in document["bars"]]
    bars_table(found, console)
    why = draw()
    console.print(f"no plot: {why}" if why else f"plot: {PLOT.relative_to(ROOT)}")
    return int(any(bar.met is False for bar in found))


if __name__ == "__main__":
    sys.exit(main())
