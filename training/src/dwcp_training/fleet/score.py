"""`dwcp fleet score`: drives the workers and tells the person."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from dwcp_sidecar.fleet_index import read_message
from dwcp_training.console import RefusedError, UsageError, guarded, out, print_warning, progress_bar
from dwcp_training.exit_status import PARTIAL
from dwcp_training.fleet.engines import Lost, engine_of
from dwcp_training.fleet.partitions import clear, find_partitions
from dwcp_training.fleet.recipe import link_profile
from dwcp_training.fleet.scoring import ScoringJob, ScoringOutcome, ScoringRecipe, score_series
from dwcp_training.profiles import load_profile
from dwcp_training.publish import check_writable

LISTED = 20

_CUT = ".cut"


@dataclass(frozen=True)
class Options:
    """The command line of `dwcp fleet score`, see there."""

    fleet: Path
    data: Path
    output: Path
    by: str = "link"
    engine: str = "local"
    workers: int | None = None
    detectors: Sequence[str] = ()
    profile: str = "dwcp"
    on_bad_rows: str = "fail"
    only_alarms: bool = False
    verbose: bool = False


def run_score(options: Options) -> int:
    """Scores histories for a person.

    Returns:
        Exit status: 0 done, 1 refused, 2 wrong usage, `PARTIAL` done but for files that failed.
    """
    failures: list[tuple[str, str]] = []
    status = guarded(lambda: failures.extend(_score(options)), "Not everything was scored.", options.verbose)
    return status or (PARTIAL if failures else 0)


def _score(options: Options) -> list[tuple[str, str]]:
    """What failed, and why."""
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers {options.workers}: write 1 or more")
    if options.output.resolve() == options.data.resolve():
        raise UsageError("--output is --data: scores would take the place of the data; name another folder")
    check_writable(options.output)
    index, fleet_id = read_message(options.fleet)
    sets = {series.name: series.model_set_id for series in index.series}
    cut = options.output / _CUT
    clear(cut)
    began = time.monotonic()
    outcomes: list[ScoringOutcome] = []
    try:
        found = find_partitions(options.data, options.by, cut)
        if not found.partitions:
            raise RefusedError(f"{options.data} has no series that can be used.")
        failures = list(found.unusable)
        recipe = ScoringRecipe(
            fleet=options.fleet.resolve(),
            output=options.output.absolute(),
            profile=link_profile(load_profile(options.profile), options.by, found.partitions),
            detectors=tuple(name.replace("-", "_") for name in options.detectors),
            on_bad_rows=options.on_bad_rows,
            only_alarms=options.only_alarms,
        )
        jobs = []
        for partition in found.partitions:
            set_id = sets.get(partition.name, index.global_set_id)
            if set_id:
                jobs.append(ScoringJob(partition, set_id))
            else:
                failures.append((partition.name, "the fleet has no set for it (UNKNOWN_SERIES)"))
        with engine_of(options.engine, options.workers) as engine, progress_bar() as bar:
            task = bar.add_task("scoring", total=len(jobs))
            for job, outcome in engine.stream(score_series, recipe, jobs):
                if isinstance(outcome, Lost):
                    failures.append((job.partition.name, outcome.reason))
                else:
                    outcomes.append(outcome)
                    failures += outcome.failures
                rows = sum(done.rows for done in outcomes[-1:])
                bar.update(task, advance=1, description=f"scoring: {rows:,} rows of {job.partition.name}")
    finally:
        clear(cut)
    _print(outcomes, fleet_id, len(jobs), options.output, time.monotonic() - began)
    _print_failures(failures)
    return failures


def _print(outcomes: Sequence[ScoringOutcome], fleet_id: str, series: int, output: Path, seconds: float) -> None:
    rows, cpu = sum(done.rows for done in outcomes), sum(done.cpu_seconds for done in outcomes)
    table = Table(title="scores", show_header=False, title_justify="left")
    table.add_row("fleet", fleet_id[:16])
    table.add_row("series", f"{series:,}")
    table.add_row(
        "files", f"{sum(done.written for done in outcomes):,} written to {output}, "
        f"{sum(done.kept for done in outcomes):,} kept from before",
    )  # fmt: skip
    table.add_row("rows", f"{rows:,} scored, {sum(done.alarms for done in outcomes):,} alarms")
    if rows:
        table.add_row("time", f"{seconds:.1f} s; CPU {cpu:.1f} s, {rows / max(cpu, 1e-9):,.0f} rows a second of a core")
    out.print(table)


def _print_failures(failures: Sequence[tuple[str, str]]) -> None:
    if not failures:
        return
    table = Table("file or series", "why", title="without scores", title_justify="left")
    for name, reason in failures[:LISTED]:
        table.add_row(name, reason)
    out.print(table)
    if len(failures) > LISTED:
        print_warning(f"and {len(failures) - LISTED:,} more")
