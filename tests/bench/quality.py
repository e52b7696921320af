"""Detection quality on real data, out of the box: our detectors beside simple baselines, without tuning per set.

    python -m tests.bench.quality --write docs/quality.md
    python -m tests.bench.quality --set linklab --set nezha
    python -m tests.bench.quality --series 3 --without lstm_autoencoder    # shorter

The data is in ../shared/data; a set that is not there is left out by name. Whatever was measured stands in
build/quality.json and is not measured again by the next run: delete the file, or give --fresh, after a change.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dwcp_training.console import progress_bar
from dwcp_training.data.writers import whole_file
from dwcp_training.evaluation.bootstrap import RESAMPLES, Estimate, block_length, in_batches
from dwcp_training.evaluation.ranking import Ranking, buffer_lengths, buffered
from tests.bench.quality_critical import recalls
from tests.bench.quality_page import page
from tests.bench.quality_scorers import BASELINES, OURS, Answer, Trained, baseline
from tests.bench.quality_sets import SETS, DataSet, Floats, Series

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "quality.json"

FIGURES = ("average_precision", "vus_pr", "roc_auc")

Say = Callable[[str], None]


def _runs(faulty: np.ndarray) -> list[int]:
    """Rows in each fault."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], faulty.astype(np.int8), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


def figures(series: Series, scores: Floats) -> dict[str, float]:
    """Average precision, VUS-PR and ROC AUC on the rows that count."""
    counted = series.counted
    longest = buffer_lengths(int(np.median(_runs(series.faulty))))
    buffers = [buffered(series.faulty, length) for length in longest]
    ranking = Ranking(scores[counted], series.faulty[counted], [(a[counted], b[counted]) for a, b in buffers])
    weighed = ranking.weighed(np.ones((1, int(counted.sum()))))
    return {name: float(getattr(weighed, name)()[0]) for name in FIGURES}


def resampled(series: Series, scores: Floats, count: int) -> Floats:
    """Average precision in the data and in `count` resamples, float64 `[1 + count]`; the resamples of a series are the
    same for all scores."""
    counted = series.counted
    faulty = series.faulty[counted]
    ranking = Ranking(scores[counted], faulty)
    block = block_length(len(faulty), 1, _runs(series.faulty))
    batches = in_batches(len(faulty), block, count, seed=42)
    return np.concatenate([ranking.weighed(weights).average_precision() for weights in batches])


def difference(every: Sequence[tuple[Series, Floats, Floats]], count: int) -> Estimate:
    """The mean over the series of the average precision of the first scores less that of the second."""
    apart = [resampled(series, a, count) - resampled(series, b, count) for series, a, b in every]
    return Estimate.of(np.nanmean(np.array(apart), axis=0))


class Cache:
    """What was measured, in a file that is written after each answer."""

    def __init__(self, fresh: bool) -> None:
        self.content: dict[str, Any] = {"sets": {}, "critical": {}}
        if not fresh and CACHE.exists():
            self.content = json.loads(CACHE.read_text())

    def save(self) -> None:
        CACHE.parent.mkdir(exist_ok=True)
        with whole_file(CACHE) as file:
            file.write(json.dumps(self.content, indent=1).encode())

    def of(self, data_set: str, series: str) -> dict[str, Any]:
        """Scorer to figures of one series."""
        return self.content["sets"].setdefault(data_set, {"series": {}})["series"].setdefault(series, {})

    @staticmethod
    def scores_file(data_set: str, series: str, scorer: str) -> Path:
        """Where the scores are kept, for the interval of a difference."""
        name = "".join(letter if letter.isalnum() else "_" for letter in scorer)
        return CACHE.parent / "quality" / data_set / series / f"{name}.npy"


def measure_set(data_set: DataSet, every: Sequence[Series], cache: Cache, without: Sequence[str], say: Say) -> None:
    """Measures every scorer on every series that the cache has not."""
    for series in every:
        known = cache.of(data_set.name, series.name)
        trained = Trained(series.train, data_set.profile, without=without)
        for name, answer in _answers(series, trained, known, without):
            say(f"{data_set.name}, {series.name}: {name}")
            found = answer()
            if found.scores is None:
                known[name] = {"why_not": found.why_not}
                cache.save()
                continue
            file = cache.scores_file(data_set.name, series.name, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, found.scores)
            known[name] = {**figures(series, found.scores), "seconds": round(found.seconds, 2)}
            if name == "ensemble":
                known["ensemble without"] = sorted(without)
            cache.save()
        known["prevalence"] = float(series.faulty[series.counted].mean())
        cache.save()


def _answers(
    series: Series, trained: Trained, known: dict[str, Any], without: Sequence[str]
) -> Iterator[tuple[str, Callable[[], Answer]]]:
    if known.get("ensemble without") != sorted(without):
        known.pop("ensemble", None)  # it had other members
    for name in BASELINES:
        if name not in known:
            yield name, lambda name=name: baseline(name, series)
    for name in OURS:
        if name not in known and name not in without:
            yield name, lambda name=name: trained.answer(name, series)


def summarise(data_set: DataSet, every: Sequence[Series], of: int, cache: Cache, count: int) -> None:
    """Means over the series, and the difference of the best of ours and the best baseline."""
    stored = cache.content["sets"][data_set.name]
    of_series = [stored["series"][series.name] for series in every]
    stored |= {"what": data_set.what, "measured": len(every), "of": of, "figures": {}, "why_not": {}}
    stored["profile"] = data_set.profile
    stored["ensemble without"] = sorted({name for found in of_series for name in found.get("ensemble without", ())})
    stored["prevalence"] = float(np.mean([found["prevalence"] for found in of_series]))
    for name in (*OURS, *BASELINES):
        found = [each[name] for each in of_series if name in each]
        reasons = [each["why_not"] for each in found if "why_not" in each]
        if reasons:
            stored["why_not"][name] = reasons[0]
        elif len(found) == len(every):
            stored["figures"][name] = {key: float(np.mean([each[key] for each in found])) for key in found[0]}
    stored["compared"] = {}
    best = _best(stored["figures"], BASELINES)
    for label, ours in (("best", _best(stored["figures"], OURS)), ("ensemble", "ensemble")):
        if ours not in stored["figures"]:
            continue
        pairs = [
            (series, *(np.load(cache.scores_file(data_set.name, series.name, name)) for name in (ours, best)))
            for series in every
        ]
        found = difference(pairs, count)
        stored["compared"][label] = {
            "ours": ours, "baseline": best, "value": found.value, "low": found.low, "high": found.high,
        }  # fmt: skip
    cache.save()


def _best(found: dict[str, dict[str, float]], names: Sequence[str] | dict[str, Any]) -> str:
    return max((name for name in names if name in found), key=lambda name: found[name]["average_precision"])


def spread(every: list[Series], most: int | None) -> list[Series]:
    """At most so many of the series, evenly spread over them."""
    if most is None or len(every) <= most:
        return every
    return [every[at] for at in np.linspace(0, len(every) - 1, most).round().astype(int)]


def run(
    wanted: Sequence[str] = (), most: int | None = None, without: Sequence[str] = (), *, fresh: bool = False,
    count: int = RESAMPLES, critical: bool = True, say: Say = print,
) -> dict[str, Any]:  # fmt: skip
    """Measures what is not in the cache; returns the content of build/quality.json.

    Args:
        wanted: names of sets; none for all.
        most: series of each set.
        without: detectors of ours that are not measured, nor members of the ensemble.
        fresh: forget what was measured before.
        count: resamples of the intervals.
        critical: also measure recall of single critical values.
        say: told what is measured now.
    """
    cache = Cache(fresh)
    missing = []
    with progress_bar() as bar:
        task = bar.add_task("detection quality", total=None)

        def told(text: str) -> None:
            bar.update(task, description=text)
            say(text)

        for data_set in SETS:
            if wanted and data_set.name not in wanted:
                continue
            there = data_set.load()
            every = spread(there, most)
            if not every:
                missing.append(data_set.name)
                told(f"{data_set.name} is left out: it is not in ../shared/data")
                continue
            measure_set(data_set, every, cache, without, told)
            summarise(data_set, every, len(there), cache, count)
        if critical:
            if cache.content.get("critical without") != sorted(without):
                cache.content["critical"].pop("ensemble", None)  # it had other members
            cache.content["critical without"] = sorted(without)
            recalls(cache.content["critical"], without, told, cache.save)
    cache.content["missing"] = missing
    cache.save()
    return cache.content


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
    parser.add_argument("--fresh", action="store_true", help="measure again what build/quality.json has")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help=f"for each interval (default {RESAMPLES})")
    arguments = parser.parse_args()
    err = Console(stderr=True)
    content = run(
        arguments.set, arguments.series, arguments.without, fresh=arguments.fresh, count=arguments.resamples,
        critical=not arguments.no_critical, say=lambda text: None if sys.stderr.isatty() else err.print(text),
    )  # fmt: skip
    text = page(content)
    print(text)
    if arguments.write:
        with whole_file(arguments.write) as file:
            file.write(text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
