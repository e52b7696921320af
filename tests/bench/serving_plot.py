"""Draws build/serving.png from build/serving.json: one dot per server, a line from the least to the most of all rounds.

    python serving_plot.py build/serving.json build/serving.png     # needs matplotlib alone

The axis is logarithmic: the servers differ by a factor of 50. Every dot is labelled with its number.
"""

import json
import statistics
import sys
from pathlib import Path

import matplotlib.pyplot as plt

OURS, PEERS, REST = "#0b6e4f", "#c1440e", "#777777"


def panels(measurements: list[dict]) -> list[tuple[str, str, dict[str, list[float]]]]:
    """Title, unit, and values by server."""

    def of(case: str, *only: str) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for m in measurements:
            if m["case"] == case and (not only or m["server"].startswith(only)):
                found.setdefault(m["server"], []).append(m["rows_per_second"])
        return found

    unary = of("unary, 64 callers", "Triton", "plain")
    streams = of("64 callers on 4 streams") | {f"{name}, unary": values for name, values in unary.items()}
    batches = {name: v for name, v in of("batches of 256").items() if "echo" not in name}  # it returns what it was sent
    return [
        ("One caller", "calls a second", of("unary, 1 caller")),
        ("64 callers on 8 connections", "calls a second", of("unary, 64 callers")),
        ("64 callers: on 4 streams, or unary calls", "samples a second", streams),
        ("Batches of 256 rows, 4 callers", "rows a second", batches),
    ]


def colour(name: str) -> str:
    """One for our servers, one for peers, grey for what is no server to choose."""
    if "sidecar" in name:
        return OURS
    return PEERS if name.startswith(("Triton", "KServe", "MLServer")) else REST


def draw(document: dict, target: Path) -> None:
    """Writes the picture."""
    figure, axes = plt.subplots(2, 2, figsize=(13, 8.4), constrained_layout=True)
    for axis, (title, unit, values) in zip(axes.flat, panels(document["measurements"]), strict=True):
        names = sorted(values, key=lambda name: -statistics.median(values[name]))
        for place, name in enumerate(names):
            middle, tint = statistics.median(values[name]), colour(name)
            axis.plot([min(values[name]), max(values[name])], [-place] * 2, color=tint, linewidth=3, alpha=0.35)
            axis.plot(middle, -place, "o", color=tint, markersize=8)
            where = {"textcoords": "offset points", "va": "center", "color": tint}
            axis.annotate(f"{middle:,.0f}", (max(values[name]), -place), (9, 0), **where)
        axis.set_yticks([-place for place in range(len(names))], names)
        for label, name in zip(axis.get_yticklabels(), names, strict=True):
            label.set_color(colour(name))
        axis.set_xscale("log")
        axis.margins(x=0.06, y=0.08)
        axis.set_xlim(right=axis.get_xlim()[1] * 2)  # room for the last label
        axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
        axis.xaxis.set_minor_formatter(lambda value, _: f"{value / 1000:g}k" if f"{value:g}"[0] in "25" else "")
        axis.set_title(title, loc="left", fontweight="bold")
        axis.set_xlabel(f"{unit} (logarithmic)")
        axis.grid(axis="x", which="both", alpha=0.15)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    figure.suptitle(
        f"The same forest served: our sidecars (green), other servers (red), floor and limits (grey).\n"
        f"{document['cores']} cores shared by server and client; medians and range of {document['rounds']} rounds.",
        x=0.01,
        ha="left",
    )
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
