"""`dwcp fleet train`: drives the workers, keeps the journal, writes the index, tells the person."""

from __future__ import annotations

import fcntl
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress
from rich.table import Table

from dwcp.anomaly.v1 import fleet_pb2
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.fleet_index import INDEX, SETS, read_message
from dwcp_training.alarm_budget import AlarmBudget
from dwcp_training.console import RefusedError, UsageError, guarded, out, print_warning, progress_bar
from dwcp_training.data import Exclusion
from dwcp_training.detectors.registry import DETECTORS
from dwcp_training.exit_status import PARTIAL
from dwcp_training.fleet import index as fleets
from dwcp_training.fleet.clusters import clustered
from dwcp_training.fleet.engines import Engine, Lost, engine_of
from dwcp_training.fleet.journal import Journal, Record
from dwcp_training.fleet.partitions import Partition, clear, find_partitions
from dwcp_training.fleet.pool import drawn
from dwcp_training.fleet.recipe import Recipe, link_profile
from dwcp_training.fleet.tasks import Job, Outcome, Summary, summarise, train_job
from dwcp_training.profiles import load_profile
from dwcp_training.publish import PublishError, check_writable
from dwcp_training.run import checked_settings
from dwcp_training.signing import read_signing_key

TRAINABLE = tuple(name for name in DETECTORS if name not in ("ensemble", "lstm_classifier"))
"""Detectors that learn from the normal rows of a series alone."""

GLOBAL = "global"
LISTED = 20
"""Links that are named in the table of those without a set of their own."""

_CUT = ".cut"


@dataclass(frozen=True)
class Options:
    """The command line of `dwcp fleet train`, see there."""

    data: Path
    output: Path
    by: str = "link"
    engine: str = "local"
    workers: int | None = None
    clusters: int | None = None
    min_rows: int = 1_000
    profile: str = "dwcp"
    detectors: Sequence[str] = ()
    seed: int | None = None
    alarm_budget: AlarmBudget | None = None
    on_bad_rows: str = "fail"
    exclude: Sequence[Path] = ()
    exclude_grace: float = 0.0
    drift: bool = False
    sign_key: Path | None = None
    verbose: bool = False


@dataclass
class Tally:
    """What came of all jobs.

    Attributes:
        outcomes: task to its outcome.
        lost: task to why it has none.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    def record(self, task: str) -> Record:
        """What a task came to; one without a set where it was lost."""
        if task in self.outcomes:
            return self.outcomes[task].record
        return Record(task, "", "", 0, self.lost[task])

    def failed(self, task: str) -> bool:
        """Whether there is no set for another reason than too few rows."""
        return task in self.lost or self.outcomes[task].failed


def run_train(options: Options) -> int:
    """Trains a fleet for a person.

    Returns:
        Exit status: 0 done, 1 refused, 2 wrong usage, `PARTIAL` done but for links that failed.
    """
    failures: list[str] = []
    status = guarded(lambda: failures.extend(_train(options)), "The fleet was not trained.", options.verbose)
    return status or (PARTIAL if failures else 0)


def _train(options: Options) -> list[str]:
    """Names of the series that failed."""
    recipe_of = _checked(options)
    check_writable(options.output)
    began = time.monotonic()
    with _writing(options.output), engine_of(options.engine, options.workers) as engine, progress_bar() as bar:
        found = find_partitions(options.data, options.by, options.output / _CUT)
        try:
            if not found.partitions:
                raise RefusedError(f"{options.data} has no series that can be used: {_first(found.unusable)}.")
            recipe = recipe_of(found.partitions)
            index, tally, failed = _made(recipe, found.partitions, options.clusters, engine, bar)
        finally:
            clear(options.output / _CUT)
        before = _index_before(options.output)
        fleet_id = fleets.write_index(options.output, index)
        fleets.prune_sets(options.output, [index, *before])
    _print(index, tally, fleet_id, options.output, time.monotonic() - began)
    _print_failed(index, failed)
    for name, reason in found.unusable[:LISTED]:
        print_warning(f"{name} was left out: {reason}")
    return [*failed, *(name for name, _ in found.unusable)]


def _checked(options: Options) -> Any:
    """Checks the command line; what makes a recipe once the series are known."""
    names = [name.replace("-", "_") for name in options.detectors] or ["isolation_forest"]
    for name in names:
        if name not in TRAINABLE:
            raise UsageError(f"--detector {name}: a fleet has {', '.join(TRAINABLE)}")
    for flag, number in (("--workers", options.workers), ("--clusters", options.clusters)):
        if number is not None and number < 1:
            raise UsageError(f"{flag} {number}: write 1 or more")
    if options.min_rows < 10:
        raise UsageError(f"--min-rows {options.min_rows}: write 10 or more")
    profile = load_profile(options.profile)
    settings = {
        name: checked_settings(getattr(profile.detectors, name), {"seed": options.seed})
        for name in dict.fromkeys(names)
    }
    read_signing_key(options.sign_key)  # refuses now what each worker would
    reader = profile.reader

    def recipe(partitions: Sequence[Partition]) -> Recipe:
        return Recipe(
            fleet=options.output.absolute(),
            profile=link_profile(profile, options.by, partitions),
            detectors=tuple(settings),
            settings=settings,
            seed=42 if options.seed is None else options.seed,
            min_rows=options.min_rows,
            alarm_budget=options.alarm_budget,
            on_bad_rows=options.on_bad_rows,
            exclude=Exclusion(tuple(options.exclude), options.exclude_grace, reader.label_column, reader.normal_labels),
            drift=options.drift,
            sign_key=options.sign_key,
        )

    return recipe


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """One run at a time, in a folder without what a run that was killed has left."""
    try:
        (output / SETS).mkdir(parents=True, exist_ok=True)
        with (output / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RefusedError(
                    f"--output {output}: another run is training this fleet. Wait until it ends."
                ) from None
            fleets.clear_leftovers(output)
            clear(output / _CUT)
            yield
    except OSError as error:
        raise PublishError(f"--output {output}: {error}. The fleet in use was not touched; run it again.") from None


def _made(
    recipe: Recipe, partitions: Sequence[Partition], clusters: int | None, engine: Engine, bar: Progress
) -> tuple[fleet_pb2.FleetIndex, Tally, dict[str, str]]:
    """The index, what came of all jobs, and the series that failed with the reason."""
    journal = Journal(recipe.fleet)
    summaries: dict[str, Summary] = {}
    groups: dict[str, str] = {}
    try:
        jobs = [_job(GLOBAL, drawn(partitions, recipe.seed), journal, alone=False, thorough=True)]
        if clusters is None:
            jobs += [_job(f"own {partition.name}", [partition], journal) for partition in partitions]
        else:
            summaries = _summaries(recipe, partitions, engine, bar)
            groups = clustered(
                {name: summary.numbers for name, summary in summaries.items() if summary.numbers}, clusters, recipe.seed
            )
            for cluster in sorted(set(groups.values())):
                members = [partition for partition in partitions if groups.get(partition.name) == cluster]
                jobs.append(_job(f"cluster {cluster}", drawn(members, recipe.seed), journal, alone=False))
        tally = _run(recipe, jobs, journal, engine, bar)
        fallback = tally.record(GLOBAL)
        if not fallback.set_id:
            raise RefusedError(f"there is no set for the links without one of their own: {fallback.reason}")
        journal.keep([job.task for job in jobs])
    finally:
        journal.close()
    index = fleet_pb2.FleetIndex(
        schema_version=1,
        feature_schema=fleets.features_of_set(recipe.fleet, fallback.set_id),
        global_set_id=fallback.set_id,
    )
    failed = {}
    for partition in partitions:
        cluster = groups.get(partition.name, "")
        task = f"cluster {cluster}" if cluster else f"own {partition.name}"
        if clusters is not None and not cluster:
            summary = summaries[partition.name]
            record, broke = Record("", "", "", summary.rows, summary.reason), summary.failed
        else:
            record, broke = tally.record(task), tally.failed(task)
        origin = fleet_pb2.FLEET_ORIGIN_CLUSTER if cluster else fleet_pb2.FLEET_ORIGIN_OWN
        index.series.add(
            name=partition.name,
            model_set_id=record.set_id or fallback.set_id,
            origin=origin if record.set_id else fleet_pb2.FLEET_ORIGIN_GLOBAL,
            cluster=cluster,
            rows=summaries[partition.name].rows if cluster else record.rows,
            reason=record.reason,
        )
        if broke:
            failed[partition.name] = record.reason
    return index, tally, failed


def _job(task: str, partitions: Sequence[Partition], journal: Journal, **what: bool) -> Job:
    return Job(task, tuple(partitions), known=journal.records.get(task), **what)


def _summaries(recipe: Recipe, partitions: Sequence[Partition], engine: Engine, bar: Progress) -> dict[str, Summary]:
    """Each series with its summary, in the order of the series."""
    task = bar.add_task("looking at links", total=len(partitions))
    found: dict[str, Summary] = {}
    for partition, summary in engine.run(summarise, recipe, partitions):
        found[partition.name] = Summary(0, (), summary.reason, True) if isinstance(summary, Lost) else summary
        bar.advance(task)
    return {partition.name: found[partition.name] for partition in partitions}


def _run(recipe: Recipe, jobs: Sequence[Job], journal: Journal, engine: Engine, bar: Progress) -> Tally:
    tally = Tally()
    shown = bar.add_task("training", total=len(jobs))
    counts: Counter[str] = Counter()
    for job, outcome in engine.run(train_job, recipe, jobs):
        if isinstance(outcome, Lost):
            tally.lost[job.task] = outcome.reason
            counts["failed"] += 1
        else:
            tally.outcomes[job.task] = outcome
            journal.add(outcome.record)
            counts[_kind(outcome)] += 1
        said = ", ".join(f"{number:,} {kind}" for kind, number in sorted(counts.items()))
        bar.update(shown, advance=1, description=f"training: {said}")
    return tally


def _kind(outcome: Outcome) -> str:
    if outcome.kept:
        return "kept"
    if outcome.record.set_id:
        return "new"
    return "failed" if outcome.failed else "young"


def _index_before(output: Path) -> list[fleet_pb2.FleetIndex]:
    """The index in use, whose sets a server may still open until it has seen the new one."""
    with suppress(ContractError):
        return [read_message(output)[0]]
    return []


def _first(unusable: Sequence[tuple[str, str]]) -> str:
    return f"{unusable[0][0]}, {unusable[0][1]}" if unusable else "there is none"


def _print(index: fleet_pb2.FleetIndex, tally: Tally, fleet_id: str, output: Path, seconds: float) -> None:
    done = [outcome for outcome in tally.outcomes.values() if not outcome.kept and outcome.record.set_id]
    origins = Counter(series.origin for series in index.series)
    table = Table(title="fleet", show_header=False, title_justify="left")
    table.add_row("id", f"{fleet_id[:16]} in {output}")
    table.add_row("series", f"{len(index.series):,}")
    table.add_row("  set of its own", f"{origins[fleet_pb2.FLEET_ORIGIN_OWN]:,}")
    if clusters := origins[fleet_pb2.FLEET_ORIGIN_CLUSTER]:
        names = {series.cluster for series in index.series if series.cluster}
        table.add_row("  set of a cluster", f"{clusters:,} in {len(names):,} clusters")
    table.add_row("  global set", f"{origins[fleet_pb2.FLEET_ORIGIN_GLOBAL]:,}")
    kept = sum(outcome.kept for outcome in tally.outcomes.values())
    table.add_row("sets", f"{len(done):,} trained and proven, {kept:,} kept from before")
    if done:
        cpu = sum(outcome.cpu_seconds for outcome in done)
        median = statistics.median(outcome.cpu_seconds for outcome in done)
        table.add_row("time", f"{seconds:.1f} s; CPU {cpu:.1f} s, {median:.2f} s for a set (median)")
        table.add_row("memory", f"{max(outcome.peak_mb for outcome in done):,.0f} MiB, the largest worker")
    out.print(table)


def _print_failed(index: fleet_pb2.FleetIndex, failed: dict[str, str]) -> None:
    """The series that are scored by the global set, and why: first those that failed."""
    without = [series for series in index.series if series.origin == fleet_pb2.FLEET_ORIGIN_GLOBAL]
    without.sort(key=lambda series: series.name not in failed)
    if not without:
        return
    table = Table("series", "rows", "why", title="scored by the global set", title_justify="left")
    for series in without[:LISTED]:
        word = "failed: " if series.name in failed else ""
        table.add_row(series.name, f"{series.rows:,}", word + series.reason)
    out.print(table)
    if len(without) > LISTED:
        out.print(f"and {len(without) - LISTED:,} more; all are in {INDEX} with the reason")
