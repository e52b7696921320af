"""The figures as tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from rich.table import Table

from dwcp_training.console import out, print_warning
from dwcp_training.evaluation.assess import Assessed
from dwcp_training.evaluation.bootstrap import Estimate
from dwcp_training.evaluation.counts import STRENGTH, Evaluated
from dwcp_training.evaluation.figures import Figures

Form = Callable[[float], str]

BASELINE_NAMES = {"mean_z_squared": "mean z squared", "max_abs_z": "max |z|"}


def print_assessed(name: str, found: Assessed) -> None:
    """Prints what was found about one detector."""
    _print_counts(name, found.evaluated)
    scorers = {name: found.figures, **{BASELINE_NAMES[key]: figures for key, figures in found.baselines.items()}}
    _print_beside(name, scorers)
    if found.figures.kinds:
        _print_kinds(name, scorers)
    if found.evaluated.injected:
        _print_injected(name, found.evaluated)
    for kind, without in found.without_trace.items():
        if without:
            print_warning(f"{without} injected {kind} could change nothing, at the edge of a metric's range: left out")
    if found.deletion:
        _print_deletion(name, found)
    broken = [entry for entry in found.coverage if not entry.kept]
    for entry in broken[:1]:
        print_warning(
            f"{name}: p-values up to {entry.level:g} should be those of at most {percent(entry.level)} of normal rows "
            f"and are those of {interval(entry.share, percent)}: this data is not as the held-out data of training was"
        )


def _print_counts(name: str, figures: Evaluated) -> None:
    table = Table(title=name, show_header=False, title_justify="left")
    per_hour = figures.false_alarms_per_hour
    table.add_row("normal rows scored", f"{figures.normal_rows:,}")
    table.add_row(
        "false positive rate",
        f"{percent(figures.false_positive_rate)}: {figures.false_alarms:,} rows"
        + (f", {per_hour:.1f} an hour" if per_hour is not None else ""),
    )
    if figures.kinds:
        table.add_row("false negative rate", f"{percent(figures.false_negative_rate)} of the rows inside faults")
        table.add_row("detection latency", f"{seconds(figures.detection_latency_seconds)}, median of the faults found")
    out.print(table)


def _print_beside(name: str, scorers: Mapping[str, Figures]) -> None:
    """The detector and its baselines, a column each."""
    title = f"{name} beside trivial baselines under the same threshold rule; in brackets 95 % intervals"
    table = Table("", *scorers, title=title, title_justify="left")
    for row in beside(scorers):
        table.add_row(*map(_in_two_lines, row))
    out.print(table)


def beside(scorers: Mapping[str, Figures]) -> Iterator[tuple[str, ...]]:
    """A row for each figure that any scorer has: its name, then what each scorer has."""
    rows = {
        "false alarms a day": ("false_alarms_per_day", number),
        "false positive rate": ("false_positive_rate", percent),
        "rows of faults alarmed": ("row_recall", percent),
        "average precision": ("average_precision", decimal),
        "  prevalence": ("prevalence", decimal),
        "VUS-PR": ("vus_pr", decimal),
        "ROC AUC": ("roc_auc", decimal),
    }
    for label, (field, form) in rows.items():
        estimates = [getattr(figures, field) for figures in scorers.values()]
        if any(estimate.value is not None for estimate in estimates):
            yield (label, *(interval(estimate, form) for estimate in estimates))


def _print_kinds(name: str, scorers: Mapping[str, Figures]) -> None:
    table = Table(title=f"{name}: recall per fault kind, with 95 % intervals", title_justify="left")
    for heading in ("fault", "found", "rows alarmed", "delay", *list(scorers)[1:]):
        table.add_column(heading, no_wrap=heading == "fault")
    for row in counted_kinds(scorers):
        table.add_row(*map(_in_two_lines, row))
    out.print(table)


def counted_kinds(scorers: Mapping[str, Figures]) -> Iterator[tuple[str, ...]]:
    """A row for each kind of fault: what the first scorer found of it, and how many each other one did."""
    own, *others = scorers.values()
    for kind, figures in own.kinds.items():
        yield (
            kind,
            f"{figures.found} of {figures.events} ({_ends(figures.recall, whole_percent)})",
            interval(figures.row_recall, whole_percent),
            seconds(figures.delay_seconds.value),
            *(f"{other.kinds[kind].found} of {other.kinds[kind].events}" for other in others),
        )


def _print_injected(name: str, figures: Evaluated) -> None:
    title = f"{name}: found of the anomalies injected into one metric, {STRENGTH:g} training standard deviations"
    table = Table("metric", *figures.injected, title=title, title_justify="left")
    for metric in next(iter(figures.injected.values())):
        recalls = [by_metric[metric] for by_metric in figures.injected.values()]
        table.add_row(metric, *(whole_percent(recall.found / recall.events) for recall in recalls))
    out.print(table)


def _print_deletion(name: str, found: Assessed) -> None:
    table = Table(
        "fault", "passed", "share", "top metric right", "passed, also without alarm",
        title=f"{name}: faults in which replacing the top contributor lowers the score most", title_justify="left",
    )  # fmt: skip
    rows = list(deletions(found))
    for number_of, row in enumerate(rows, 2):
        table.add_row(*map(_in_two_lines, row), end_section=number_of == len(rows) - 1)
    out.print(table)


def deletions(found: Assessed) -> Iterator[tuple[str, ...]]:
    """A row for each kind of fault, the last for all."""
    for kind, outcome in found.deletion.items():
        yield (
            kind,
            f"{outcome.passed} of {outcome.faults}",
            interval(outcome.share, whole_percent),
            f"{outcome.named} of {outcome.faults}",
            f"{outcome.all_passed} of {outcome.all_faults}",
        )


def _in_two_lines(cell: str) -> str:
    """The interval below the figure: columns are narrow in a terminal."""
    return cell.replace(" (", "\n(")


def interval(estimate: Estimate, form: Form) -> str:
    """A figure with its interval."""
    if estimate.value is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return str(form(estimate.value))
    return f"{form(estimate.value)} ({_ends(estimate, form)})"


def _ends(estimate: Estimate, form: Form) -> str:
    """The interval alone."""
    if estimate.low is None or estimate.high is None:
        return "-"
    return "-".join(form(end).removesuffix(" %") for end in (estimate.low, estimate.high))


def percent(share: float | None, decimals: int = 2) -> str:
    """A share in words."""
    return "-" if share is None else f"{100 * share:.{decimals}f} %"


def whole_percent(share: float | None) -> str:
    """A share in words, without decimals."""
    return percent(share, 0)


def decimal(value: float) -> str:
    """A number between 0 and 1."""
    return f"{value:.3f}"


def number(value: float) -> str:
    """A number of any size."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def seconds(value: float | None) -> str:
    """A time in words."""
    return "-" if value is None else f"{value:.3g} s"
