"""Histograms with fixed bins: sketches of quantiles that sites can add up without anybody seeing one of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp_training.detectors.base import Floats

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Bins:
    """Bins `(edge[i - 1], edge[i]]`, the first from minus infinity, and one above the last edge.

    Attributes:
        edges: float64 `[bins - 1]`, ascending.
        error: bound of the error of a quantile between the first and the last edge, in words.
    """

    edges: Floats
    error: str

    def counts(self, values: Floats) -> Counts:
        """How many values lie in each bin, int64 `[bins]`."""
        return np.bincount(np.searchsorted(self.edges, values, side="left"), minlength=len(self.edges) + 1)

    def quantile(self, counts: Counts, share: float) -> float:
        """The upper edge of the bin in which the quantile lies: at least `share` of the values are not above it.

        Values above the last edge count as if they were next to it.
        """
        total = counts.sum()
        if total <= 0:
            raise ValueError("no values were counted")
        place = int(np.searchsorted(np.cumsum(counts), share * total, side="left"))
        return float(self.edges[min(place, len(self.edges) - 1)])

    def drawn(self, counts: Counts, most: int) -> Floats:
        """At most so many values as a sorted sample of what was counted: evenly spaced quantiles, as upper edges."""
        total = int(counts.sum())
        number = min(total, most)
        ranks = (np.arange(number) + 0.5) * (total / number)
        places = np.searchsorted(np.cumsum(counts), ranks, side="left")
        return self.edges[np.minimum(places, len(self.edges) - 1)]


def log_bins(low: float, high: float, number: int) -> Bins:
    """Bins whose edges have the same ratio, from `low` to `high`: the relative error is bounded by it."""
    ratio = (high / low) ** (1 / number)
    return Bins(np.geomspace(low, high, number + 1), f"{100 * (ratio - 1):.2g} % of the value, upwards")


def even_bins(low: float, high: float, number: int) -> Bins:
    """Bins of the same width from `low` to `high`."""
    return Bins(np.linspace(low, high, number + 1), f"{(high - low) / number:.2g}, upwards")


RECONSTRUCTION = log_bins(1e-9, 1e6, 15 * 256)
"""Of reconstruction errors: 256 bins for each power of ten, 0.9 % wide."""

ISOLATION = log_bins(0.1, 1.0, 4096)
"""Of an isolation forest's scores: bins 0.056 % wide."""

SCALED = even_bins(-8.0, 8.0, 1024)
"""Of scaled values, for their medians: bins of a 64th of a standard deviation."""
