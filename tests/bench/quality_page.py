"""docs/quality.md, from what build/quality.json has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from tests.bench.quality_scorers import BASELINES, OURS

INTRODUCTION = """# Detection quality

How well the detectors tell faults from normal operation on real data that the project does not carry, with the defaults
of their profile and without any tuning per set, beside simple baselines. Made by one command:

```sh
make quality
```

Higher is better. *Average precision* of guessing is the *prevalence*, the share of faulty rows. Every row counts by
itself: there is no point adjustment, and no threshold is chosen with the labels. The baselines are scikit-learn's on
rows scaled by their training part, row by row, with scikit-learn's defaults (PCA keeps 90 % of the variance). Ours are
trained through `dwcp_training.interface` and scored by the code that serves. A figure of a set is the mean over its
series, each with models of its own. LOF and SVM learn from 5,000 drawn rows where there are more.
"""


def page(content: dict[str, Any]) -> str:
    """The page as Markdown."""
    sets = {name: found for name, found in content["sets"].items() if found.get("figures")}
    return "\n".join([INTRODUCTION, *_sets(sets, content.get("missing", ())), *_critical(content["critical"])]) + "\n"


def _code(name: str) -> str:
    return f"`{name}`"


def _counted(found: dict[str, Any]) -> str:
    """How many series were measured, and of how many."""
    return str(found["of"]) if found["measured"] == found["of"] else f"{found['measured']} of {found['of']}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield _row(*head)
    yield "|" + "---|" * len(head)
    for row in rows:
        yield _row(*row)
    yield ""


def _sets(sets: dict[str, Any], missing: Sequence[str]) -> Iterator[str]:
    if not sets:
        yield "None of the sets is there: nothing was measured.\n"
        return
    yield "## The sets\n"
    yield from _table(
        ("set", "what", "profile of ours", "series", "prevalence"),
        [(n, s["what"], f"`{s['profile']}`", _counted(s), f"{s['prevalence']:.3f}") for n, s in sets.items()],
    )
    if missing:
        yield f"Not there and left out: {', '.join(missing)}.\n"
    for key, title in (("average_precision", "Average precision"), ("vus_pr", "VUS-PR"), ("roc_auc", "ROC AUC")):
        yield f"## {title}\n"
        rows = [_figures(name, sets, key) for name in (*OURS, *BASELINES)]
        if key == "average_precision":
            rows.insert(0, ["*prevalence*", *(f"*{found['prevalence']:.3f}*" for found in sets.values()), ""])
        yield from _table(("", *sets, "mean"), [row for row in rows if row])
    reasons = [f"{n} on {s}: {why}" for s, found in sets.items() for n, why in found["why_not"].items()]
    if reasons:
        yield f"Where there is no figure: {'; '.join(reasons)}; or it was not asked for.\n"
    smaller = {s: found["ensemble without"] for s, found in sets.items() if found.get("ensemble without")}
    if smaller:
        names = "; ".join(f"{s} without {', '.join(map(_code, out))}" for s, out in smaller.items())
        yield f"Measured with `--without`, so that the ensemble has fewer members than it has by default: {names}.\n"
    yield "## Ours against the best baseline\n"
    yield "Difference of the average precisions, with an interval of 95 % from resampled blocks of rows.\n"
    yield from _table(
        ("set", "ours", "best baseline", "difference", "interval"),
        [
            (name, c["ours"], c["baseline"], f"{c['value']:+.3f}", f"{c['low']:+.3f} to {c['high']:+.3f}")
            for name, found in sets.items()
            for c in found["compared"].values()
        ],
    )


def _figures(name: str, sets: dict[str, Any], key: str) -> list[str]:
    """A scorer's row; empty where it was measured nowhere. The mean is given of those that have all."""
    known = [found["figures"].get(name, {}).get(key) for found in sets.values()]
    if all(value is None for value in known):
        return []
    best = [max(figures[key] for figures in found["figures"].values()) for found in sets.values()]
    cells = [
        "-" if value is None else f"**{value:.3f}**" if value == top else f"{value:.3f}"
        for value, top in zip(known, best, strict=True)
    ]
    whole = [value for value in known if value is not None]
    mean = f"{sum(whole) / len(whole):.3f}" if len(whole) == len(known) else "-"
    label = f"`{name}`" if name in OURS else name.replace("|", r"\|")
    return [label, *cells, mean]


def _critical(found: dict[str, dict[str, float]]) -> Iterator[str]:
    if not found:
        return
    yield "## Single critical values\n"
    yield "Percent of rows that alarm when one metric of the profile `dwcp` is at its critical value and the others are"
    yield "typical, at the default threshold; trained on 10,000 synthetic rows. *typical*: no metric is changed, every"
    yield "alarm is false.\n"
    metrics = list(next(iter(found.values())))
    yield from _table(
        ("", *(f"*{m}*" if m == "typical" else m for m in metrics)),
        [(f"`{name}`", *(f"{100 * shares[m]:.1f}" for m in metrics)) for name, shares in found.items()],
    )
