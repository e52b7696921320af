"""Plots as SVG that stands inside a page: no script, no file of its own, readable on light and on dark ground.

Text and axes take the colour of the page's text; what is drawn has colours that stand out from both.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwcp_training.evaluation.assess import Assessed, Copy
from dwcp_training.evaluation.coverage import p_values
from dwcp_training.evaluation.events import masks
from dwcp_training.evaluation.figures import Figures

_TEXT = "#010203"  # stands for the colour of the page's text
_SCORE, _FAULT, _THRESHOLD = "#3b82c4", "#d9480f", "#b8860b"
_BARS = ("#3b82c4", "#9a6fb0", "#4f9d69")
_POINTS = 1_500
"""Pieces that a long series is drawn in: of each the highest and the lowest score."""

Draw = Callable[[Any], None]


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    settings = {
        "svg.fonttype": "none",  # text stays text: small, and found by a reader
        "svg.hashsalt": "dwcp",  # the same figures give the same bytes
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
    }
    colours = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    with matplotlib.rc_context({**settings, **dict.fromkeys(colours, _TEXT)}):
        yield


def svg(draw: Draw, title: str, name: str, size: tuple[float, float] = (9.0, 3.0)) -> str:
    """Draws a figure and gives it as an SVG element.

    Args:
        draw: gets an empty matplotlib figure.
        title: what it shows, in words, for those who cannot see it.
        name: of letters and digits, unlike that of any other figure of the page.
        size: inches.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=size)
        FigureCanvasSVG(figure)
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = text.replace(_TEXT, "currentColor")
    opening = f'<svg role="img" aria-labelledby="{name}-title"'
    return text.replace("<svg", opening, 1).replace(">", f'><title id="{name}-title">{html.escape(title)}</title>', 1)


def scores_over_time(found: Assessed, times: NDArray[np.datetime64] | None) -> Draw:
    """The scores of the rows as they are, with faults shaded and the threshold."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        place = np.arange(len(found.rows.scores)) if times is None else times
        x, y = _thinned(place, found.rows.scores)
        axes.plot(x, y, color=_SCORE, linewidth=0.7)
        for event in found.events:
            last = min(event.stop, len(place)) - 1
            if event.first <= last:
                axes.axvspan(place[event.first], place[last], color=_FAULT, alpha=0.25, linewidth=0)
        _threshold(axes, found.threshold)
        axes.set(ylabel="score", xlabel="row" if times is None else "time, UTC")
        axes.margins(x=0)

    return draw


def scores_at_injected_faults(found: Assessed) -> Draw:
    """Of each kind of injected fault the scores around one of them."""

    def draw(figure: Any) -> None:
        panels = figure.subplots((len(found.copies) + 3) // 4, 4, squeeze=False).ravel()
        for axes, (kind, copy) in zip(panels, found.copies.items(), strict=False):
            _around(axes, kind, copy)
            _threshold(axes, found.threshold)
        for axes in panels[len(found.copies) :]:
            axes.set_axis_off()
        figure.supxlabel("row")
        figure.supylabel("score")

    return draw


def _around(axes: Any, kind: str, copy: Copy) -> None:
    axes.set_title(kind.replace("_", " "), fontsize=9)
    if not copy.injected.events:
        return
    # The middle one by strength and place: neither the plainest nor the faintest.
    event = sorted(copy.injected.events, key=lambda event: float(event.notes.get("strength", 0)))[
        len(copy.injected.events) // 2
    ]
    margin = max(30, event.stop - event.first)
    rows = np.arange(max(0, event.first - margin), min(len(copy.scored.scores), event.stop + margin))
    axes.plot(rows, copy.scored.scores[rows], color=_SCORE, linewidth=0.9)
    axes.axvspan(event.first - 0.5, event.stop - 0.5, color=_FAULT, alpha=0.25, linewidth=0)
    several = "" if event.notes["metrics"] == "1" else "s"
    strength = f", {event.notes['strength']} sd" if "strength" in event.notes else ""
    axes.set_title(f"{kind.replace('_', ' ')}\n{event.notes['metrics']} metric{several}{strength}", fontsize=8)
    axes.xaxis.set_major_locator(_few_ticks())
    axes.margins(x=0)


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(3, integer=True)


def calibration(model: Any, found: Assessed) -> Draw:
    """Share of normal rows with a p-value up to a level, against the level."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        normal = found.rows.scored & ~masks(found.events, len(found.rows.scored))[1]
        values = np.sort(p_values(model, found.rows.scores[normal]))
        smallest = 1 / (len(model.metadata.calibration.scores) + 1)
        levels = np.geomspace(smallest, 1, 200)
        shares = np.searchsorted(values, levels, side="right") / max(1, len(values))
        axes.plot(levels, levels, color=_TEXT, linewidth=0.8, linestyle="--", label="promised: at most this")
        axes.plot(levels, np.where(shares > 0, shares, np.nan), color=_SCORE, linewidth=1.5, label="measured")
        for entry in found.coverage:
            if entry.share.value and entry.share.low is not None:
                low, high = max(entry.share.low, 1e-6), entry.share.high
                axes.plot([entry.level] * 2, [low, high], color=_SCORE, linewidth=4, alpha=0.35)
        axes.set(xscale="log", yscale="log", xlabel="level of the p-value", ylabel="share of normal rows up to it")
        axes.legend(frameon=False, loc="upper left")

    return draw


def recall_bars(scorers: dict[str, Figures]) -> Draw:
    """Recall per kind of fault, of the detector and its baselines, with intervals."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        kinds = list(next(iter(scorers.values())).kinds)
        width = 0.8 / len(scorers)
        for number, (name, figures) in enumerate(scorers.items()):
            at = np.arange(len(kinds)) + (number - (len(scorers) - 1) / 2) * width
            known = [(x, figures.kinds[kind].recall) for x, kind in zip(at, kinds, strict=True)]
            known = [(x, recall) for x, recall in known if recall.value is not None]
            if not known:
                continue
            x = [place for place, _ in known]
            y = np.array([recall.value for _, recall in known])
            error = np.abs(np.array([[recall.low, recall.high] for _, recall in known]).T - y)
            axes.bar(x, y, width, color=_BARS[number % len(_BARS)], label=name)
            axes.errorbar(x, y, error, fmt="none", ecolor=_TEXT, elinewidth=0.8, capsize=1.5)
        axes.set_xticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds], rotation=25, ha="right")
        axes.set(ylim=(0, 1.02), ylabel="share of faults found")
        figure.legend(loc="outside upper left", ncols=len(scorers), frameon=False)

    return draw


def contributions(found: Assessed, names: Sequence[str]) -> Draw:
    """Mean contribution of each metric in each kind of fault."""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        kinds = list(found.contributions)
        shares = np.array([found.contributions[kind] for kind in kinds])
        shown = np.argsort(-shares.max(axis=0), kind="stable")[:12]
        shown = np.sort(shown)
        # A mesh of drawn squares: an image would be smeared by the browser.
        axes.pcolormesh(shares[:, shown], cmap="Blues", vmin=0, vmax=1, edgecolors="none", rasterized=False)
        axes.invert_yaxis()
        for i, j in np.ndindex(len(kinds), len(shown)):
            share = shares[i, shown[j]]
            axes.text(
                j + 0.5, i + 0.5, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.5 else "black"
            )
        axes.set_xticks(np.arange(len(shown)) + 0.5, [names[j] for j in shown], rotation=25, ha="right")
        axes.set_yticks(np.arange(len(kinds)) + 0.5, [kind.replace("_", " ") for kind in kinds])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)

    return draw


def _threshold(axes: Any, threshold: float) -> None:
    axes.axhline(threshold, color=_THRESHOLD, linewidth=1.2, linestyle="--")


def _thinned(place: NDArray[Any], scores: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Highest and lowest of each piece of a long series, so that no spike is lost."""
    if len(scores) <= 2 * _POINTS:
        return place, scores
    edges = np.linspace(0, len(scores), _POINTS + 1).astype(int)
    kept: list[int] = []
    for first, stop in pairwise(edges.tolist()):
        part = scores[first:stop]
        if np.isfinite(part).any():
            kept += sorted({first + int(np.nanargmin(part)), first + int(np.nanargmax(part))})
    return place[kept], scores[kept]
