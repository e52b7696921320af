"""Detection quality on real data, out of the box: our detectors beside simple baselines, without tuning per set.

    python -m tests.bench.quality --write docs/quality.md
    python -m tests.bench.quality --set linklab --set nezha
    python -m tests.bench.quality --series 3 --without lstm_autoencoder    # shorter
    python -m tests.bench.quality --all-networks                           # hours longer

The data is in ../shared/data; a set that is not there is left out by name. Whatever was measured stands in
build/quality/, a folder for each series, and is not measured again by the next run, which so goes on where one ended:
delete the folder, or give --fresh, after a change. Two processes measure, each a series at a time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dwcp_training.data.writers import whole_file
from dwcp_training.evaluation.bootstrap import RESAMPLES, Estimate
from tests.bench import quality_critical
from tests.bench.quality_figures import FIGURES, differences
from tests.bench.quality_jobs import CRITICAL, Job, Say, measure_all
from tests.bench.quality_kept import Kept
from tests.bench.quality_page import page
from tests.bench.quality_scorers import BASELINES, MOST_WINDOW_ROWS, OURS
from tests.bench.quality_sets import SETS, DataSet, Floats, Series

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "quality"
SUMMARY = "summary.json"

MOST_PROCESSES = 2


def summarise(data_set: DataSet, every: Sequence[Series], of: int, ours: Sequence[str]) -> dict[str, Any]:
    """Means over the series."""
    kept = {series.name: Kept.of(CACHE, data_set.name, series.name) for series in every}
    of_series = [each.found for each in kept.values()]
    members = [each["ensemble"]["members"] for each in of_series if "members" in each.get("ensemble", {})]
    said: dict[str, Any] = {
        "what": data_set.what, "measured": len(every), "of": of, "profile": data_set.profile, "figures": {},
        "why_not": {}, "compared": {}, "beside": data_set.only is not None,
        "members": {name: sum(name in each for each in members) for name in OURS if any(name in m for m in members)},
        "prevalence": float(np.mean([found["prevalence"] for found in of_series])),
    }  # fmt: skip
    for name in (*ours, *BASELINES):
        found = [each[name] for each in of_series if name in each]
        reasons = [each["why_not"] for each in found if "why_not" in each]
        if reasons:
            said["why_not"][name] = reasons[0]
        elif len(found) == len(every):
            said["figures"][name] = {
                key: float(np.mean([each[key] for each in found])) for key in (*FIGURES, "seconds")
            }
    return said


def compare(data_set: DataSet, every: Sequence[Series], found: dict[str, Any], ours: Sequence[str], count: int) -> None:
    """Adds the differences of the ensemble, and of the best of ours, and the best baseline."""
    if not any(name in found["figures"] for name in ours):
        return
    best = _best(found["figures"], BASELINES)
    for label, name in {"ensemble": "ensemble", "best": _best(found["figures"], ours)}.items():
        if name in found["figures"] and name not in [each["ours"] for each in found["compared"].values()]:
            apart = _apart(data_set, every, name, best, count)
            found["compared"][label] = {"ours": name, "baseline": best, **_interval(apart)}


def _apart(data_set: DataSet, every: Sequence[Series], name: str, other: str, count: int) -> Floats:
    pairs = []
    for series in every:
        kept = Kept.of(CACHE, data_set.name, series.name)
        pairs.append((series, kept.scores(name), kept.scores(other)))
    return differences(pairs, count)


def _interval(apart: Floats) -> dict[str, Any]:
    found = Estimate.of(apart)
    return {"value": found.value, "low": found.low, "high": found.high}


def _best(found: dict[str, dict[str, float]], names: Sequence[str] | dict[str, Any]) -> str:
    return max((name for name in names if name in found), key=lambda name: found[name]["average_precision"])


def of_the_mean(
    chosen: Sequence[tuple[DataSet, Sequence[Series]]], sets: dict[str, dict[str, Any]], count: int
) -> dict[str, Any]:
    """The mean over the sets of the ensemble, less that of the baseline that is best by its mean."""
    main = {name: found for name, found in sets.items() if not found["beside"]}
    if not main or not all("ensemble" in found["figures"] for found in main.values()):
        return {}
    means = {
        name: np.mean([found["figures"][name]["average_precision"] for found in main.values()]) for name in BASELINES
    }
    best = max(means, key=lambda name: means[name])
    apart = [_apart(data_set, every, "ensemble", best, count) for data_set, every in chosen if data_set.name in main]
    return {"ours": "ensemble", "baseline": best, **_interval(np.mean(apart, axis=0))}


def spread(every: list[Series], most: int | None) -> list[Series]:
    """At most so many of the series, evenly spread over them."""
    if most is None or len(every) <= most:
        return every
    return [every[at] for at in np.linspace(0, len(every) - 1, most).round().astype(int)]


def run(
    wanted: Sequence[str] = (), most: int | None = None, without: Sequence[str] = (), *, fresh: bool = False,
    count: int = RESAMPLES, critical: bool = True, say: Say = print, processes: int = 1,
    most_window_rows: int | None = MOST_WINDOW_ROWS,
) -> dict[str, Any]:  # fmt: skip
    """Measures what nothing is kept of; returns what the page is made of.

    Args:
        wanted: names of sets; none for all.
        most: series of each set.
        without: detectors of ours that are not measured, nor members of the ensemble.
        fresh: forget what was measured before.
        count: resamples of the intervals.
        critical: also measure recall of single critical values.
        say: told what is measured now.
        processes: that measure; 1 is this one.
        most_window_rows: as of `Trained`.
    """
    started = time.monotonic()
    jobs, chosen, missing = [], [], []
    for data_set in SETS:
        if wanted and data_set.name not in wanted:
            continue
        there = data_set.load()
        if not there:
            missing.append(data_set.name)
            say(f"{data_set.name} is left out: it is not in ../shared/data")
            continue
        every = spread(there, most)
        chosen.append((data_set, every, len(there)))
        jobs += [
            Job(data_set.name, data_set.profile, data_set.only, s, tuple(without), most_window_rows) for s in every
        ]
    if critical:
        jobs.append(Job(CRITICAL, quality_critical.PROFILE, None, None, tuple(without), most_window_rows))
    if fresh:
        for job in jobs:
            Kept.of(CACHE, job.data_set, CRITICAL if job.series is None else job.series.name).forget()
    measure_all(jobs, CACHE, processes, say)
    say("intervals")
    content: dict[str, Any] = {"sets": {}, "critical": {}, "missing": missing, "without": sorted(without)}
    for data_set, every, of in chosen:
        ours = [name for name in OURS if name not in without and (data_set.only is None or name in data_set.only)]
        content["sets"][data_set.name] = summarise(data_set, every, of, ours)
        compare(data_set, every, content["sets"][data_set.name], ours, count)
    content["mean"] = of_the_mean([(data_set, every) for data_set, every, _ in chosen], content["sets"], count)
    if critical:
        found = Kept.of(CACHE, CRITICAL, CRITICAL).found
        content["critical"] = {name: found[name] for name in OURS if name in found and name not in without}
    CACHE.mkdir(parents=True, exist_ok=True)
    with whole_file(CACHE / SUMMARY) as file:
        file.write(json.dumps(content, indent=1).encode())
    say(f"{len(jobs)} jobs in {(time.monotonic() - started) / 60:.0f} minutes")
    return content


def main() -> int:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the tables as a page, such as docs/quality.md"
    )
    parser.add_argument("--set", action="append", default=[], choices=[s.name for s in SETS], help="these sets only")
    parser.add_argument("--series", type=int, metavar="N", help="at most N series of a set, evenly spread")
    parser.add_argument("--without", action="append", default=[], choices=OURS, help="leave this detector out")
    parser.add_argument("--no-critical", action="store_true", help="leave single critical values out")
    parser.add_argument("--all-networks", action="store_true", help="also networks that take long on a series")
    parser.add_argument("--fresh", action="store_true", help="measure again what build/quality/ has")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help=f"for each interval (default {RESAMPLES})")
    parser.add_argument("--processes", type=int, default=MOST_PROCESSES, choices=range(1, MOST_PROCESSES + 1),
                        help=f"that measure (default {MOST_PROCESSES})")  # fmt: skip
    arguments = parser.parse_args()
    err = Console(stderr=True)
    content = run(
        arguments.set, arguments.series, arguments.without, fresh=arguments.fresh, count=arguments.resamples,
        critical=not arguments.no_critical, processes=arguments.processes,
        most_window_rows=None if arguments.all_networks else MOST_WINDOW_ROWS,
        say=lambda text: None if sys.stderr.isatty() else err.print(text, highlight=False),
    )  # fmt: skip
    text = page(content)
    print(text)
    if arguments.write:
        with whole_file(arguments.write) as file:
            file.write(text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
