"""Runs `dwcp retrain` for a person: collect, train, compare, decide, publish or not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.progress import Progress
from rich.table import Column, Table

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.console import (
    RefusedError,
    UsageError,
    check_seconds,
    err,
    guarded,
    out,
    print_data,
    print_warning,
    progress_bar,
)
from dwcp_training.data import Exclusion, Telemetry
from dwcp_training.data.writers import whole_file
from dwcp_training.detectors.registry import DETECTORS
from dwcp_training.feedback.marks import Mark
from dwcp_training.feedback.store import FILE, FeedbackStore
from dwcp_training.monitor.web import checked_address
from dwcp_training.profiles import Profile, load_profile
from dwcp_training.prometheus_api import queries_of
from dwcp_training.publish import KEPT_RELEASES, PublishError, check_writable, publish_set
from dwcp_training.releases.history import current_release
from dwcp_training.releases.store import WORK
from dwcp_training.retrain.challenger import Plan, plan, train_challenger
from dwcp_training.retrain.collect import Rows, from_files, from_prometheus
from dwcp_training.retrain.executor import run_executor
from dwcp_training.retrain.gate import Decision, Row, deviations_of, judge
from dwcp_training.retrain.lock import only_one
from dwcp_training.retrain.marked import Marked, marked_rows
from dwcp_training.retrain.measures import make_faults
from dwcp_training.retrain.range_queries import RangeQueries
from dwcp_training.retrain.set_apart import set_apart
from dwcp_training.retrain.tracking import MlflowRuns
from dwcp_training.signing import read_signing_key

NOT_PROMOTED = 3
DAYS = 30.0
STEP_SECONDS = 60.0


@dataclass(frozen=True)
class Options:
    """What is asked for; the flags of the command line.

    Attributes:
        models: folder of the model set.
        data: files or folders; or
        prometheus, queries, step: address, ``feature=promql`` each, seconds between samples (None: the champion's).
        days: how far back.
        exclude, exclude_grace: CSV files with incidents, and seconds after each.
        on_bad_rows: `fail` or `drop`.
        profile: how rows are read, hyperparameters, gate.
        detectors: to train; empty means those of the champion.
        settings: `champion` or `profile`: where hyperparameters come from.
        keep_alarms: train also on what the champion alarms on.
        keep: releases to keep.
        executor: program that must pass the golden vectors too.
        mlflow: address of a tracking server.
        feedback: file of marks; None means `feedback.db` in `models`, where there is one.
        sign_key: PEM file of the private key that signs what is published; None leaves it unsigned.
        dry_run: decide, and publish nothing.
        as_json: print the decision as JSON on standard output, and all else on standard error.
        verbose: log more.
    """

    models: Path
    data: Sequence[Path] = ()
    prometheus: str | None = None
    queries: Sequence[str] = ()
    step: float | None = None
    days: float = DAYS
    exclude: Sequence[Path] = ()
    exclude_grace: float = 0.0
    on_bad_rows: str = "fail"
    profile: str = "dwcp"
    detectors: Sequence[str] = ()
    settings: Literal["champion", "profile"] = "champion"
    keep_alarms: bool = False
    keep: int = KEPT_RELEASES
    executor: Path | None = None
    mlflow: str | None = None
    sign_key: Path | None = None
    dry_run: bool = False
    as_json: bool = False
    verbose: bool = False
    feedback: Path | None = None

    def check(self) -> None:
        """Raises `UsageError` for flags that make no sense, alone or together."""
        if bool(self.data) == bool(self.prometheus):
            raise UsageError("name one source of rows: --data FILE, or --prometheus URL with --query for each metric")
        if self.queries and not self.prometheus:
            raise UsageError("--query is what is asked of a --prometheus, which is not given")
        if self.step is not None and not self.prometheus:
            raise UsageError("--step is about --prometheus, which is not given")
        check_seconds("--step", self.step)
        if self.step is not None and round(self.step * 1e3) < 1:
            raise UsageError(f"--step {self.step:g}: write a millisecond or more, in seconds")
        if not 0 < self.days <= 3660:
            raise UsageError(f"--days {self.days:g}: write a number of days, above 0 and at most 3660")
        if not 0 <= self.exclude_grace < float("inf"):
            raise UsageError(f"--exclude-grace {self.exclude_grace:g}: write a number of seconds, 0 or more")
        if self.keep < 1:
            raise UsageError(f"--keep {self.keep}: write 1 or more")
        for name in self.detectors:
            if name not in DETECTORS:
                raise UsageError(f"--detector {name}: known are {', '.join(DETECTORS)}")


def run_retrain(options: Options) -> int:
    """Retrains.

    Returns:
        Exit status: 0 promoted, or a dry run that would have; 1 refused; 2 wrong usage; 3 not promoted, and the
        challenger is kept as the candidate.
    """
    console = err if options.as_json else out
    decided: list[Decision] = []

    def command() -> None:
        options.check()
        profile = load_profile(options.profile)
        runs = MlflowRuns(options.mlflow) if options.mlflow else None
        check_writable(options.models, "--models")
        work = options.models / WORK
        try:
            with only_one(work, options.models), progress_bar() as bar:
                decided.append(_Retraining(options, profile, work, bar).run(runs))
        except OSError as error:
            raise PublishError(f"--models {options.models}: {error}. The current release was not touched.") from None

    status = guarded(command, "Nothing was retrained.", options.verbose)
    if decided and options.as_json:
        print(json.dumps(decided[0].as_json(), indent=2))
    if status == 0 and not decided[0].promote:
        console.print("Not promoted: the current release stays.", style="yellow")
        return NOT_PROMOTED
    return status


class _Retraining:
    """One run, under the lock."""

    def __init__(self, options: Options, profile: Profile, work: Path, bar: Progress) -> None:
        self.options, self.profile, self.work = options, profile, work
        self.console = err if options.as_json else out
        self._signer = read_signing_key(options.sign_key)  # before the long work
        self._marks = _marks_of(options)
        self._bar, self._task = bar, bar.add_task("", total=None)

    def run(self, runs: MlflowRuns | None) -> Decision:
        options, gate = self.options, self.profile.gate
        replaces = current_release(options.models)
        champion = self._champion()
        chosen = plan(self.profile, champion, options.detectors, options.settings)
        for note in chosen.notes:
            self.console.print(note)
        rows = self._collect(champion)
        telemetry = rows.telemetry
        print_data(telemetry, self.console)
        for note in rows.notes:
            self.console.print(f"  {note}")
        _same_features(champion, telemetry.schema.names)
        marked, notes = self._marked(telemetry)
        for note in notes:
            self.console.print(f"  {note}")

        window = chosen.window(champion)
        normal = telemetry if marked is None else marked.without_incidents()
        parts = set_apart(normal, champion, gate, window, keep_alarms=options.keep_alarms, marks=self._marks)
        if parts.left_out_rows:
            kind = "all alarms" if gate.champion_alarms == "all" else "excess alarms"
            named = ", ".join(f"{name} {count:,}" for name, count in parts.left_out.items() if count)
            self.console.print(f"  left out: {parts.left_out_rows:,} rows for {kind} of the current release ({named})")
        self.console.print(
            f"  {len(parts.fitted):,} rows to train on, {len(parts.held_out):,} held out, "
            f"{parts.held_out.first_timestamp or 'the end'} and later"
        )
        faults = make_faults(parts.held_out, deviations_of(parts.fitted), window, gate.events)

        folder = self.work / "challenger"
        shutil.rmtree(folder, ignore_errors=True)  # what a run before this one has left
        challenger = train_challenger(chosen, parts.fitted, champion, folder, self._say)
        decision = judge(challenger, champion, parts.held_out, faults, gate, self._say, marked)
        if options.executor is not None:
            row = run_executor(options.executor, challenger.path)
            decision = replace(decision, promote=decision.promote and row.passed, rows=(*decision.rows, row))
        self._bar.update(self._task, visible=False)
        decision = replace(decision, notes=(*chosen.notes, *rows.notes, *notes))
        self._print(decision, chosen)
        with whole_file(self.work / "decision.json") as file:
            file.write((json.dumps(decision.as_json(), indent=2) + "\n").encode())
        if decision.promote and not options.dry_run:
            published = publish_set(options.models, folder, "retrain", options.keep, "--models", replaces, self._signer)
            shutil.rmtree(folder, ignore_errors=True)
            self.console.print(f"promoted: {published.id[:16]} is current in {options.models}", style="green")
        elif decision.promote:
            self.console.print("It would be promoted. This was a dry run: nothing was published.", style="green")
        if not decision.promote or options.dry_run:
            self.console.print(
                f"The challenger is kept as the candidate: dwcp releases show candidate --models {options.models}"
            )
        if runs is not None:
            self._record(runs, decision, challenger)
        return decision

    def _marked(self, telemetry: Telemetry) -> tuple[Marked | None, list[str]]:
        """What operators said of these rows, and that in words; None and nothing where nothing is marked at all."""
        if not self._marks:
            return None, []
        marked = marked_rows(telemetry, self._marks)
        incident, normal = int(marked.incident.sum()), int(marked.normal.sum())
        notes = []
        if incident or normal:
            notes.append(
                f"feedback: {len(marked.incidents):,} incidents left out ({incident:,} rows), "
                f"{len(marked.false_alarms):,} false alarms kept ({normal:,} rows)"
            )
        if telemetry.timestamps is None:
            notes.append("feedback: not used, because these rows have no times")
        elif marked.outside:
            notes.append(f"feedback: {marked.outside:,} of {len(self._marks):,} marks have no row in this data")
        if marked.incident.all():
            raise RefusedError("every row is inside an incident that is marked: dwcp feedback list shows the marks.")
        return (marked if incident or normal else None), notes

    def _champion(self) -> ModelSet | None:
        """The set in use; None where there is none, or it does not open any more."""
        try:
            champion = ModelSet.open(self.options.models)
        except ContractError as error:
            if error.code != "MANIFEST_MISSING":
                print_warning(f"the current release does not open and is no measure: {error}", console=self.console)
            else:
                self.console.print(f"{self.options.models} has no release yet: the first one only has its own checks")
            return None
        self.console.print(f"champion: {champion.id[:16]} with {', '.join(champion.metadata)}")
        return champion

    def _collect(self, champion: ModelSet | None) -> Rows:
        options = self.options
        if not options.prometheus:
            reader = self.profile.reader
            exclude = Exclusion(
                tuple(options.exclude), options.exclude_grace, reader.label_column, reader.normal_labels
            )
            return from_files(options.data, self.profile, exclude, options.on_bad_rows, options.days)
        try:
            address = checked_address("--prometheus", options.prometheus)
        except ValueError as error:
            raise UsageError(str(error)) from None
        features: Sequence[str] = self.profile.feature_schema.names
        if not features:  # a profile that finds them in the data
            features = _features(champion) or [text.partition("=")[0].strip() for text in options.queries]
        cadence = next((m.cadence_seconds for m in champion.metadata.values()), 0.0) if champion else 0.0
        queries = RangeQueries(
            address,
            queries_of(options.queries, features),
            round((options.step or cadence or STEP_SECONDS) * 1e3),
            options.days,
            self.work,
        )
        exclude = Exclusion(tuple(options.exclude), options.exclude_grace)
        return from_prometheus(queries, self.profile, exclude, options.on_bad_rows, self._say)

    def _say(self, done: int, total: int, text: str) -> None:
        self._bar.update(self._task, completed=done, total=total, description=text)

    def _print(self, decision: Decision, chosen: Plan) -> None:
        self.console.print(
            f"challenger: {decision.challenger[:16]} with {', '.join([*chosen.carried, *chosen.settings])}"
        )
        table = Table("detector", Column("measured", no_wrap=True), "champion", "challenger", "interval", "limit", "")
        for row in decision.rows:
            verdict = "pass" if row.passed else "FAIL"
            table.add_row(
                row.detector, row.measure, figure(row.champion, row.unit), figure(row.challenger, row.unit),
                interval_text(row), row.limit, verdict, style=None if row.passed else "red",
            )  # fmt: skip
        self.console.print(table)
        for row in decision.failed:
            self.console.print(f"FAIL {row.detector}, {row.measure}: {why(row)}", style="red")
        if decision.champion and decision.champion == decision.challenger:
            self.console.print("The challenger is the champion, to the last bit.")

    def _record(self, runs: MlflowRuns, decision: Decision, challenger: ModelSet) -> None:
        """A tracking server that is away must not undo what was decided."""
        try:
            runs.record(decision, challenger, {"dry_run": str(self.options.dry_run), "profile": self.options.profile})
        except Exception as error:  # whatever MLflow raises
            print_warning(f"not recorded in MLflow: {error}", console=self.console)


def figure(value: float | None, unit: str) -> str:
    """A figure of a row, for people."""
    if value is None or value != value:
        return "-"
    if unit == "share":
        return f"{100 * value:.2f} %"
    if unit == "count":
        return f"{value:,.0f}"
    return f"{value:.3g} {unit}" if not unit.startswith("/") else f"{value:.3g}{unit}"


def interval_text(row: Row) -> str:
    """The interval of a row: of the difference in percentage points for recalls, else of the challenger's figure."""
    if row.interval is None:
        return ""
    low, high = row.interval
    if row.unit == "share" and row.measure.startswith("recall"):
        return f"{100 * low:+.1f} to {100 * high:+.1f} points"
    if high == float("inf"):
        return f"at least {figure(low, row.unit)}"
    return f"{figure(low, row.unit)} to {figure(high, row.unit)}"


def why(row: Row) -> str:
    """Why a row did not pass, in a sentence."""
    if row.measure.startswith("recall"):
        return (
            f"{figure(row.challenger, row.unit)} of the faults are found, {figure(row.champion, row.unit)} before; "
            f"the loss is no chance ({interval_text(row)})"
        )
    before = f", {figure(row.champion, row.unit)} before" if row.measure.startswith("feedback") else ""
    return f"{figure(row.challenger, row.unit)}{before}, wanted: {row.limit}"


def _marks_of(options: Options) -> list[Mark]:
    """What operators said of alarms; a file that was named must be there.

    Raises:
        DataError: the file cannot be used.
    """
    if options.feedback is not None and not options.feedback.is_file():
        raise RefusedError(f"--feedback {options.feedback}: there is no such file. dwcp feedback add makes one.")
    return FeedbackStore(options.feedback or options.models / FILE).all()


def _features(champion: ModelSet | None) -> list[str]:
    return next((list(metadata.feature_names) for metadata in champion.metadata.values()), []) if champion else []


def _same_features(champion: ModelSet | None, names: Sequence[str]) -> None:
    """A model of other metrics cannot take the place of the one in use: its clients send the metrics of that one."""
    had = _features(champion)
    if had and had != list(names):
        raise RefusedError(
            f"the current release scores {', '.join(had)}; these rows have {', '.join(names)}. Clients send what the "
            "current release scores: publish models of other metrics into a folder of their own, with dwcp train."
        )
