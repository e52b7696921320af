"""`dwcp evaluate` for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_training.console import RefusedError, UsageError, guarded, out, print_data, print_warning, progress_bar
from dwcp_training.data import Exclusion, Telemetry, read_table
from dwcp_training.evaluation.assess import Assessed, Question, assess
from dwcp_training.evaluation.bootstrap import RESAMPLES
from dwcp_training.evaluation.content import content, write_json
from dwcp_training.evaluation.faults import STRENGTHS, TOGETHER, Plan
from dwcp_training.evaluation.tables import print_assessed
from dwcp_training.profiles import Profile, load_profile
from dwcp_training.publish import PublishError, check_writable


@dataclass(frozen=True)
class Wanted:
    """What of `dwcp evaluate` is not about the data: flags by name, None or empty for their defaults."""

    deletion: bool = False
    strengths: Sequence[float] = ()
    together: Sequence[int] = ()
    detectors: Sequence[str] = ()
    normal: Sequence[Path] = ()
    label_column: str | None = None
    normal_labels: Sequence[str] = ()
    html: Path | None = None
    resamples: int = RESAMPLES
    seed: int = 42


def run_evaluate(
    models: Path,
    data: Sequence[Path],
    labels: Sequence[Path] = (),
    grace_seconds: float = 0.0,
    *,
    injected: bool = False,
    json_file: Path | None = None,
    on_bad_rows: str = "fail",
    profile: str = "dwcp",
    wanted: Wanted | None = None,
) -> int:
    """Evaluates every detector of a set, or those wanted, and returns the exit status, as `run.run` does."""
    more = wanted or Wanted()

    def command() -> None:
        _check(labels, grace_seconds, more, injected=injected)
        files = {"--json": json_file, "--html": more.html}
        for flag, path in files.items():
            if path is not None:
                check_writable(path.parent, flag)
        opened = ModelSet.open(models)
        chosen = {name: opened.model(name) for name in more.detectors} or dict(opened.models)
        described = load_profile(profile)
        faults = Exclusion(tuple(labels)).read_intervals()
        telemetry = _read(data, described, on_bad_rows, more)
        print_data(telemetry)
        normal = None
        if more.normal:
            normal = read_table(list(more.normal), described, on_bad_rows=on_bad_rows, normal_only=True)  # type: ignore[arg-type]
            print_data(normal)
        question = Question(
            telemetry, faults, grace_seconds, inject=injected, deletion=more.deletion,
            plan=Plan(tuple(more.strengths) or STRENGTHS, tuple(more.together) or TOGETHER, more.seed), normal=normal,
            resamples=more.resamples, explain=more.html is not None,
        )  # fmt: skip
        found: dict[str, Assessed] = {}
        with progress_bar() as bar:
            task = bar.add_task("scoring", total=len(chosen) * question.steps())
            for name, model in chosen.items():
                bar.update(task, description=name)
                found[name] = assess(model, question, lambda: bar.advance(task))
        for name, assessed in found.items():
            print_assessed(name, assessed)
        if not more.detectors:
            for name in opened.metadata.keys() - found.keys():
                print_warning(f"{name} was left out: {opened.why_not(name)}")
        _write(opened.id, chosen, question, found, json_file, more.html)

    return guarded(command, "Nothing was evaluated.")


def _check(labels: Sequence[Path], grace_seconds: float, more: Wanted, *, injected: bool) -> None:
    """Raises UsageError for flags that contradict each other."""
    known = bool(labels) or more.label_column is not None
    for flag, given in (("--inject", injected), ("--deletion", more.deletion)):
        if given and known:
            raise UsageError(f"{flag} puts anomalies into normal data; with --labels the data is not normal: give one")
    if labels and more.label_column is not None:
        raise UsageError("--labels and --label-column both say where the faults are: give one")
    if more.normal_labels and more.label_column is None:
        raise UsageError("--normal-label needs --label-column, the column that holds the labels")
    if not 0 <= grace_seconds < float("inf"):
        raise UsageError(f"--grace {grace_seconds:g}: write a number of seconds, 0 or more")
    if grace_seconds and not labels:
        raise UsageError("--grace is the time after a fault of --labels, which is not given")
    if not (injected or more.deletion) and (more.strengths or more.together):
        raise UsageError("--strength and --together are about faults of --inject or --deletion, which is not given")
    for strength in more.strengths:
        if not 0 < strength < float("inf"):
            raise UsageError(f"--strength {strength:g}: write a number of standard deviations above 0")
    for together in more.together:
        if together < 1:
            raise UsageError(f"--together {together}: write a number of metrics, 1 or more")
    if more.resamples < 20:
        raise UsageError(f"--resamples {more.resamples}: an interval of 95 % needs 20 or more")
    if more.html is not None:
        _require_matplotlib()


def _require_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise RefusedError("--html draws with matplotlib, which is not installed: pip install matplotlib") from None


def _read(data: Sequence[Path], profile: Profile, on_bad_rows: str, more: Wanted) -> Telemetry:
    if more.label_column is None:
        return read_table(list(data), profile, on_bad_rows=on_bad_rows)  # type: ignore[arg-type]  # checked there
    return read_table(
        list(data),
        profile,
        on_bad_rows=on_bad_rows,  # type: ignore[arg-type]  # checked by read_table
        exclude=Exclusion(label_column=more.label_column, normal_labels=tuple(more.normal_labels)),
        anomalies=(),
    )


def _write(
    model_set: str,
    models: Mapping[str, Scorer],
    question: Question,
    found: dict[str, Assessed],
    json_file: Path | None,
    html: Path | None,
) -> None:
    try:
        if json_file is not None:
            write_json(json_file, content(model_set, question, found))
        if html is not None:
            from dwcp_training.evaluation.report import write_report

            write_report(html, model_set, models, question, found)
            out.print(f"report: {html}")
    except OSError as error:
        raise PublishError(
            f"{error.filename}: cannot be written ({error.strerror}). Name a file in a folder of yours."
        ) from None
