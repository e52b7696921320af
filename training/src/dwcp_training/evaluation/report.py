"""The report: one HTML file with everything inside, that needs no network, no script and no other file."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from pathlib import Path

from dwcp_sidecar.scorer import Scorer
from dwcp_training.data.writers import whole_file
from dwcp_training.evaluation import plots
from dwcp_training.evaluation.assess import Assessed, Question
from dwcp_training.evaluation.tables import BASELINE_NAMES, beside, counted_kinds, deletions, percent

_STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --text: #1b1f24; --line: #c9ced6; --soft: #f3f5f8;
  --warn: #9a3412; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15181c; --text: #e4e7eb; --line: #3c434d; --soft: #1f242a; --warn: #fdba74; }
}
body { background: var(--ground); color: var(--text); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 64rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.25rem; border-top: 1px solid var(--line); padding-top: 1.2rem; margin-top: 2rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
table { border-collapse: collapse; margin: .4rem 0 1rem; display: block; overflow-x: auto; }
th, td { border: 1px solid var(--line); padding: .25rem .6rem; text-align: left; }
th { background: var(--soft); } td { font-variant-numeric: tabular-nums; }
figure { margin: .4rem 0 1.2rem; } figure svg { max-width: 100%; height: auto; color: var(--text); }
figcaption { font-size: .9rem; } .warning { color: var(--warn); font-weight: 600; }
nav a { margin-right: 1rem; color: inherit; }
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The page may load nothing from anywhere."""


def write_report(
    path: Path, model_set: str, models: Mapping[str, Scorer], question: Question, found: Mapping[str, Assessed]
) -> None:
    """Writes the page, whole or not at all. Raises OSError."""
    with whole_file(path) as file:
        file.write(page(model_set, models, question, found).encode())


def page(model_set: str, models: Mapping[str, Scorer], question: Question, found: Mapping[str, Assessed]) -> str:
    """The page as text. The same figures give the same text."""
    links = "".join(f'<a href="#{name}">{html.escape(name)}</a>' for name in found)
    sections = "".join(
        "".join(_detector(name, number, models[name], question, assessed))
        for number, (name, assessed) in enumerate(found.items())
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(_POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation of model set {model_set[:16]}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>Evaluation of model set {model_set[:16]}</h1>{_about(question)}<nav>{links}</nav>{sections}"
        "</main></body></html>\n"
    )


def _about(question: Question) -> str:
    telemetry = question.telemetry
    span = f", {telemetry.first_timestamp} to {telemetry.last_timestamp}" if telemetry.first_timestamp else ""
    if question.inject:
        strengths = ", ".join(f"{strength:g}" for strength in question.plan.strengths)
        together = " or ".join(map(str, question.plan.together))
        what = (
            "The rows are taken for normal. Faults of each kind were put into a copy of them: in "
            f"{together} of the metrics at once, of {strengths} training standard deviations."
        )
    elif question.events() is not None:
        what = "The faults in the rows are known."
    else:
        what = "The rows are taken for normal."
    return (
        f"<p>Data: {html.escape(telemetry.source)}, {len(telemetry):,} rows{html.escape(span)}. {what} "
        f"Intervals are of 95 % confidence, from {question.resamples:,} resamples of blocks of rows; those of shares "
        "of faults are Wilson's. A row counts as found when its own verdict says so: no point adjustment.</p>"
    )


def _detector(name: str, number: int, model: Scorer, question: Question, found: Assessed) -> Iterator[str]:
    scorers = {name: found.figures, **{BASELINE_NAMES[key]: figures for key, figures in found.baselines.items()}}
    yield f'<section id="{name}"><h2>{html.escape(name)}</h2>'
    yield (
        f"<p>Threshold {found.threshold:.6g}: {percent(found.held_out_share)} of the held-out normal scores of "
        "training are above it. The baselines have the threshold that as many held-out normal rows are above.</p>"
    )
    yield _table(["", *scorers], beside(scorers))
    if found.copies:
        text = (
            f"Scores of {name} around one injected fault of each kind, shaded, and the threshold, dashed. "
            f"Median delay until the first alarm by kind: {_delays(found)}."
        )
        drawn = plots.scores_at_injected_faults(found)
        yield from _figure("Scores around injected faults", text, f"d{number}faults", drawn, (9.0, 4.2))
    else:
        times = None if question.telemetry.parallel else question.telemetry.timestamps
        text = f"Scores of {name} over time, {len(found.events)} faults shaded, and the threshold, dashed."
        yield from _figure("Scores over time", text, f"d{number}scores", plots.scores_over_time(found, times))
    if found.figures.kinds:
        yield from _kinds(name, number, scorers, found)
    if found.contributions:
        text = (
            f"Mean contribution of each metric to the scores of {name} in the rows of each kind of fault that alarm, "
            "or in all where none does."
        )
        height = 1.2 + 0.32 * len(found.contributions)
        drawn = plots.contributions(found, model.feature_names)
        yield from _figure("Contributions", text, f"d{number}contributions", drawn, (8.0, height))
    if found.deletion:
        yield "<h3>Deletion test</h3><p>Faults that alarm in which replacing the top contributor by its expected value "
        yield "lowers the score more than replacing any other metric.</p>"
        yield _table(["fault", "passed", "share", "top metric right", "passed, also without alarm"], deletions(found))
    yield from _calibration(name, number, model, found)
    yield "</section>"


def _kinds(name: str, number: int, scorers: Mapping[str, object], found: Assessed) -> Iterator[str]:
    own = found.figures.kinds
    said = ", ".join(f"{kind} {figures.found} of {figures.events}" for kind, figures in own.items())
    text = f"Share of the faults of each kind that {name} and the baselines found, with 95 % intervals: {said}."
    drawn = plots.recall_bars(scorers)  # type: ignore[arg-type]
    yield from _figure("Recall by kind of fault", text, f"d{number}recall", drawn, (9.0, 3.4))
    headings = ["fault", "found", "rows alarmed", "delay", *list(scorers)[1:]]
    yield _table(headings, counted_kinds(scorers))  # type: ignore[arg-type]
    rows = []
    for kind, figures in own.items():
        for note, values in figures.by.items():
            for value, share in values.items():
                ends = f"{percent(share.low, 0)} to {percent(share.high, 0)}"
                rows.append((kind, f"{_NOTES.get(note, note)} {value}", percent(share.value, 0), ends))
    if rows:
        yield "<details><summary>By strength and number of metrics</summary>"
        yield _table(["fault", "those with", "found", "95 % interval"], rows) + "</details>"


_NOTES = {"strength": "strength, standard deviations:", "metrics": "metrics at once:"}


def _calibration(name: str, number: int, model: Scorer, found: Assessed) -> Iterator[str]:
    if not found.coverage:
        return
    broken = [entry for entry in found.coverage if not entry.kept]
    words = (
        f"p-values of {name} on normal rows: the share of rows up to a level should be at most the level. "
        + (
            "At no level is it above it beyond its interval."
            if not broken
            else "It is above it beyond its interval at "
        )
        + ", ".join(f"{entry.level:g}" for entry in broken)
    )
    drawn = plots.calibration(model, found)
    yield from _figure("Calibration", words, f"d{number}calibration", drawn, (5.5, 3.6))
    if broken:
        yield '<p class="warning">This data is not as the held-out data of training was: p-values are too small.</p>'
    rows = []
    for entry in found.coverage:
        ends = f"{percent(entry.share.low)} to {percent(entry.share.high)}" if entry.share.low is not None else "-"
        rows.append((f"{entry.level:g}", percent(entry.share.value), ends, "kept" if entry.kept else "broken"))
    yield _table(["level", "normal rows up to it", "95 % interval", "promise"], rows)


def _delays(found: Assessed) -> str:
    return ", ".join(
        f"{kind} {'-' if figures.delay_seconds.value is None else f'{figures.delay_seconds.value:.3g} s'}"
        for kind, figures in found.figures.kinds.items()
    )


def _figure(
    heading: str, text: str, name: str, draw: plots.Draw, size: tuple[float, float] = (9.0, 3.0)
) -> Iterator[str]:
    yield f"<h3>{html.escape(heading)}</h3><figure>{plots.svg(draw, text, name, size)}"
    yield f"<figcaption>{html.escape(text)}</figcaption></figure>"


def _table(headings: list[str], rows: object) -> str:
    head = "".join(f'<th scope="col">{html.escape(heading)}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first.strip())}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for first, *cells in rows  # type: ignore[attr-defined]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
