"""Trains a fleet with a plain loop, processes and Ray, and scores a history: cost of a link, memory, overhead, rate.

    python -m tests.bench.fleet_training                                    # 1,000 links each: an hour or more
    python -m tests.bench.fleet_training --links 40 --engines loop,ray:1    # a quick look

CPU seconds are those of all processes of an engine, Ray's own too, while links are trained: its start and that of its
workers are told apart. Prints a table with each bar and writes build/fleet_training.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
LINKLAB = ROOT.parent / "shared/data/linklab/link-a/train.csv"
ENGINES = "loop,ray:1,ray:2,ray:4,command:2"
BARS = {"overhead": 0.25, "rate": 0.70, "minutes": 15.0}
_TICKS = os.sysconf("SC_CLK_TCK")


def write_links(data: Path, links: int, rows: int) -> None:
    """Synthetic links of different levels; every tenth is a piece of linklab's training data where that is there."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dwcp_training.data import lstm_series, read_table
    from dwcp_training.profiles import load_profile

    profile = load_profile("dwcp")
    measured = read_table(LINKLAB, profile, on_bad_rows="drop") if LINKLAB.is_file() else None
    limits = np.array([feature.maximum for feature in profile.feature_schema.features], np.float64)
    for number in range(links):
        telemetry = lstm_series(rows, seed=number)
        values = np.minimum(telemetry.values * (1 + 0.3 * np.sin(number)), limits)
        times = telemetry.timestamps
        if measured is not None and number % 10 == 9 and rows < len(measured):
            first = number * 97 % (len(measured) - rows)
            values, times = measured.values[first : first + rows], measured.timestamps[first : first + rows]
        folder = data / f"link=link-{number:05d}"
        folder.mkdir(parents=True)
        columns = [pa.array(times).cast(pa.timestamp("ns", "UTC")), *(pa.array(column) for column in values.T.copy())]
        pq.write_table(pa.table(columns, names=["timestamp", *telemetry.schema.names]), folder / "part-0.parquet")


def cpu_of_tree(root: int) -> float:
    """CPU seconds so far of a process and all that descend from it and still run."""
    parents, seconds = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                cells = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = int(cells[1])
            seconds[int(folder.name)] = (int(cells[11]) + int(cells[12])) / _TICKS
    found = {root}
    for _ in range(20):  # deeper than any tree of these
        found |= {process for process, parent in parents.items() if parent in found}
    return sum(seconds[process] for process in found if process in seconds)


def measure(engine: str, data: Path, output: Path) -> dict[str, Any]:
    """Trains every link of a folder with one engine, in this process; what it cost."""
    from dwcp_training.fleet.engines import engine_of
    from dwcp_training.fleet.partitions import find_partitions
    from dwcp_training.fleet.recipe import Recipe, link_profile
    from dwcp_training.fleet.tasks import Job, train_job
    from dwcp_training.profiles import load_profile

    name, _, count = engine.partition(":")
    workers = int(count or 1)
    partitions = find_partitions(data, "link", output / "cut").partitions
    profile = load_profile("dwcp")
    settings = {"isolation_forest": profile.detectors.isolation_forest}
    recipe = Recipe(
        output / "fleet", link_profile(profile, "link", partitions), tuple(settings), settings, min_rows=100
    )
    began = time.monotonic()
    with engine_of("ray" if name == "ray" else "local", workers) as running:
        first = [Job(f"own {partition.name}", (partition,)) for partition in partitions[: 2 * workers]]
        list(running.run(train_job, recipe, first))  # workers start and import their libraries
        started = time.monotonic() - began
        jobs = [Job(f"own {partition.name}", (partition,)) for partition in partitions[2 * workers :]]
        before, began = cpu_of_tree(os.getpid()), time.monotonic()
        outcomes = [outcome for _, outcome in running.run(train_job, recipe, jobs)]
        wall, cpu = time.monotonic() - began, cpu_of_tree(os.getpid()) - before
    failed = [outcome.record.reason for outcome in outcomes if not outcome.record.set_id]
    if failed:
        raise RuntimeError(f"{len(failed)} links failed: {failed[0]}")
    sizes = [sum(path.stat().st_size for path in folder.iterdir()) for folder in (recipe.fleet / "sets").iterdir()]
    return {
        "links": len(jobs),
        "start_seconds": started,
        "wall_seconds": wall / len(jobs),
        "cpu_seconds": cpu / len(jobs),
        "job_cpu_seconds": statistics.mean(outcome.cpu_seconds for outcome in outcomes),
        "worker_mb": max(outcome.peak_mb for outcome in outcomes),
        "set_bytes": statistics.mean(sizes),
    }


def command(workers: int, data: Path, output: Path) -> dict[str, Any]:
    """`dwcp fleet train` as a person runs it; minutes of the whole."""
    began = time.monotonic()
    subprocess.run(
        [
            Path(sys.executable).with_name("dwcp"), "fleet", "train", "--data", data, "--output", output / "fleet",
            "--workers", str(workers), "--min-rows", "100",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return {"minutes": (time.monotonic() - began) / 60, "links": len(list(data.iterdir()))}


def history(rows: int, folder: Path, rounds: int) -> dict[str, Any]:
    """Rows a CPU second of `dwcp fleet score`, of one long history, beside those of the same model on an array."""
    import shutil

    from dwcp_sidecar.model_set import ModelSet
    from dwcp_sidecar.verdicts import Explain
    from dwcp_training.data import lstm_series
    from dwcp_training.fleet.index import set_path
    from dwcp_training.fleet.partitions import find_partitions
    from dwcp_training.fleet.recipe import Recipe, link_profile
    from dwcp_training.fleet.scoring import ScoringJob, ScoringRecipe, score_series
    from dwcp_training.fleet.tasks import train_set
    from dwcp_training.profiles import load_profile

    write_links(folder / "history", 1, rows)
    partitions = find_partitions(folder / "history", "link", folder / "cut").partitions
    profile = link_profile(load_profile("dwcp"), "link", partitions)
    settings = {"isolation_forest": profile.detectors.isolation_forest}
    set_id = train_set(Recipe(folder, profile, tuple(settings), settings), lstm_series(2_000, seed=0))
    began = time.process_time()
    model = ModelSet.open(set_path(folder, set_id)).model("isolation_forest")
    opening = time.process_time() - began
    values = lstm_series(rows, seed=0).values
    job, recipe = ScoringJob(partitions[0], set_id), ScoringRecipe(folder, folder / "scores", profile)
    rates = []
    score_series(recipe, job)  # opens the set, which is told apart
    for _ in range(rounds):
        began = time.process_time()
        for first in range(0, rows, 16_384):
            model.score_batch(values[first : first + 16_384], Explain.NEVER)
        alone = rows / (time.process_time() - began)
        shutil.rmtree(folder / "scores", ignore_errors=True)
        outcome = score_series(recipe, job)
        rates.append((alone, outcome.rows / outcome.cpu_seconds))
    sizes = [sum(path.stat().st_size for path in (folder / name).rglob("*.parquet")) for name in ("history", "scores")]
    return {
        "rows": rows,
        "open_seconds": opening,
        "data_bytes_a_row": sizes[0] / rows,
        "scores_bytes_a_row": sizes[1] / rows,
        "in_process": statistics.median(alone for alone, _ in rates),
        "history": statistics.median(scored for _, scored in rates),
        "share": statistics.median(scored / alone for alone, scored in rates),
    }


def index_cost(series: int, folder: Path) -> dict[str, Any]:
    """What one process does alone for so many series: CPU seconds to write and to read `fleet.json`, and its size."""
    from dwcp.anomaly.v1 import features_pb2, fleet_pb2
    from dwcp_sidecar.fleet_index import INDEX, read_message
    from dwcp_training.fleet.index import write_index
    from dwcp_training.profiles import load_profile

    index = fleet_pb2.FleetIndex(
        schema_version=1,
        feature_schema=features_pb2.FeatureSchema(**load_profile("dwcp").feature_schema.model_dump()),
        global_set_id="0" * 64,
    )
    for number in range(series):
        set_id = f"{number:064x}"
        index.series.add(name=f"link-{number:08d}", model_set_id=set_id, origin=fleet_pb2.FLEET_ORIGIN_OWN, rows=10_000)
    folder.mkdir()
    began = time.process_time()
    write_index(folder, index)
    written = time.process_time()
    read_message(folder)
    return {
        "series": series,
        "write_seconds": written - began,
        "read_seconds": time.process_time() - written,
        "bytes": (folder / INDEX).stat().st_size,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=2_000, help="of each link")
    parser.add_argument("--engines", default=ENGINES, help="loop, local:N, ray:N, command:N, comma separated; or none")
    parser.add_argument("--history-rows", type=int, default=400_000)
    parser.add_argument("--index-series", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3, help="of history scoring")
    parser.add_argument("--output", type=Path, default=ROOT / "build/fleet_training.json")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)  # engine, data, output: in a process of its own
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], *map(Path, options.measure[1:]))))
        return 0
    found: dict[str, Any] = {"links": options.links, "rows": options.rows, "engines": {}}
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        base = Path(folder)
        engines = [engine for engine in options.engines.split(",") if engine not in ("", "none")]
        if engines:
            write_links(base / "data", options.links, options.rows)
        for number, engine in enumerate(engines):
            found["engines"][engine] = _measured(engine, base / "data", base / str(number))
            print(engine, json.dumps(found["engines"][engine]), flush=True)
        if options.history_rows:
            found["history"] = history(options.history_rows, base / "h", options.rounds)
        if options.index_series:
            found["index"] = index_cost(options.index_series, base / "i")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    return _print(found)


def _measured(engine: str, data: Path, output: Path) -> dict[str, Any]:
    name, _, count = engine.partition(":")
    if name == "command":
        return command(int(count), data, output)
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.fleet_training", "--measure", engine, data, output],
        check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _print(found: dict[str, Any]) -> int:
    """The table, and 1 where a bar was missed."""
    table, missed = Table("what", "measured", "bar"), 0

    def row(what: str, value: str, bar: str = "", met: bool = True) -> None:
        nonlocal missed
        missed += not met
        table.add_row(what, value, bar + ("" if met else " missed"))

    loop = found["engines"].get("loop")
    for engine, measured in found["engines"].items():
        if "minutes" in measured:
            minutes = measured["minutes"]
            whole = measured["links"] >= 1_000
            row(f"{engine}: {measured['links']:,} links", f"{minutes:.1f} minutes",
                f"< {BARS['minutes']:g}" if whole else "", not whole or minutes < BARS["minutes"])  # fmt: skip
            continue
        cpu, wall, memory = measured["cpu_seconds"], measured["wall_seconds"], measured["worker_mb"]
        row(f"{engine}: a link", f"{cpu:.2f} CPU s, {wall:.2f} s, worker {memory:.0f} MiB")
        row(f"{engine}: beside the jobs", f"{100 * (cpu / measured['job_cpu_seconds'] - 1):.0f} % more CPU")
        if loop and engine != "loop":
            over = measured["cpu_seconds"] / loop["cpu_seconds"] - 1
            row(f"{engine}: overhead", f"{100 * over:.0f} %", "<= 25 %", over <= BARS["overhead"])
    if loop:
        row("a set on disk", f"{loop['set_bytes'] / 1e3:.0f} kB")
    if "history" in found:
        rate = found["history"]
        row("in process", f"{rate['in_process']:,.0f} rows a CPU second")
        row("history", f"{rate['history']:,.0f} rows a CPU second")
        row("history against in process", f"{100 * rate['share']:.0f} %", ">= 70 %", rate["share"] >= BARS["rate"])
        row("a set opened and proven", f"{rate['open_seconds']:.2f} CPU s")
        row("bytes a row", f"{rate['data_bytes_a_row']:.0f} of data, {rate['scores_bytes_a_row']:.0f} of scores")
    if "index" in found:
        cost = found["index"]
        said = f"{cost['bytes'] / 1e6:.1f} MB, {cost['write_seconds']:.1f} CPU s to write"
        row(f"index of {cost['series']:,} series", f"{said}, {cost['read_seconds']:.1f} to read")
    Console().print(table)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
