"""The histogram of p-values (rule M3). Imported by a process that counts alone, as `prometheus_client` is."""

from bisect import bisect_left

import numpy as np
from prometheus_client import Histogram

BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Upper bounds, the same in every implementation."""

_BOUNDS = np.array(BOUNDS)


class PValues(Histogram):
    """A histogram that takes many values at once, and one in a microsecond.

    `Histogram` walks its bounds from the lowest for each value. P-values of normal data are spread from 0 to 1, so most
    of them would be compared with nearly all bounds; and a batch would be counted item by item.
    """

    def add(self, p_value: float) -> None:
        """Counts one p-value, from 0 to 1."""
        self._buckets[bisect_left(BOUNDS, p_value)].inc(1)
        self._sum.inc(p_value)

    def add_all(self, p_values: np.ndarray) -> None:
        """Counts those of a batch, float64 `[n]`, from 0 to 1."""
        if not len(p_values):
            return
        counts = np.bincount(np.searchsorted(_BOUNDS, p_values, side="left"))
        for bucket in np.flatnonzero(counts):
            self._buckets[bucket].inc(int(counts[bucket]))
        self._sum.inc(float(p_values.sum()))
