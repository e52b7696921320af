"""What a model keeps of its training rows to see drift by: bins, and critical values (rules DR1 to DR4).

Critical values answer how far rows without drift are from the training rows. A test for independent rows would call the
data it was made from drifted, because rows that follow one another are alike: an hour of a calm night is unlike a week,
and that is no drift. So stretches of the training rows themselves are compared with all of them, as long as what is
compared later, up to an eighth of the rows; more rows are several such stretches. This is a circular block bootstrap
(Politis, Romano: A circular block-resampling procedure for stationary data, 1992).
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dwcp_sidecar.drift import Bins, Counts, Floats, Reference
from dwcp_training.data.telemetry import Telemetry

BY_PRODUCT = "drift_reference.npz"
"""File of a set with the references of all its detectors, as arrays (S3-2)."""

PARTS = 50
"""Quantiles are taken at every 1 / PARTS of the rows."""

SMALLEST, LARGEST = 64, 65_536
"""Critical values are computed for `SMALLEST` rows, twice as many, and so on, up to `LARGEST` or all training rows."""

STRETCH = 8
"""A stretch is at most one part in so many of the training rows."""

LEAST_ROWS = SMALLEST * STRETCH
"""With fewer training rows there is no reference."""

MOST_FEATURES = 1024
"""With more features there is none: it would take more room than the model."""

RESAMPLES, FEWEST_RESAMPLES = 1000, 400
"""How often stretches are drawn for each size: fewer, down to the second, for more than `NARROW` features."""

NARROW = 32

TAIL = 0.9
"""Quantile above which a statistic is described by its mean excess."""

CONFIDENCE = 0.95
"""With which the rate that was asked for is not exceeded: the stretches are only so many."""


@dataclass(frozen=True)
class Described:
    """The reference for a model, or why there is none, in words."""

    reference: Reference | None
    warning: str = ""


def describe(telemetry: Telemetry, seed: int) -> Described:
    """The drift reference of training data: of its normal rows, in the order of time.

    Time: some 10 ns for each row, feature and size, and 3 ms for each feature and size. Memory: that of the rows once
    more, a byte a value, and 10 MB.

    Args:
        telemetry: all rows, the held-out ones too; what is left out of training is no part of it.
        seed: of the stretches; the same seed and rows give the same numbers.
    """
    normal = telemetry.normal()
    values = normal.values
    if len(values) < LEAST_ROWS:
        return Described(None, f"{len(values):,} rows are too few to see drift by; at least {LEAST_ROWS} are needed.")
    if values.shape[1] > MOST_FEATURES:
        what = f"{values.shape[1]:,} metrics are too many to see drift by; at most {MOST_FEATURES:,} are possible."
        return Described(None, what)
    if normal.parallel and normal.timestamps is not None:  # a sidecar gets the rows of all series in turn
        values = values[np.argsort(normal.timestamps, kind="stable")]
    features = [bins_of(values[:, j]) for j in range(values.shape[1])]
    for name, bins in zip(telemetry.schema.names, features, strict=True):
        if not (np.isfinite(bins.scale) and np.isfinite(bins.edges[-1] - bins.edges[0])):
            return Described(None, f"{name} is too large to see drift by: its spread is no float64 number.")
    sizes = sizes_for(len(values))
    rate = telemetry.drift.rate
    psi, wasserstein = critical_values(values, features, sizes, rate, seed)
    return Described(
        Reference(
            names=telemetry.schema.names,
            features=tuple(features),
            sizes=sizes,
            psi_critical=psi,
            wasserstein_critical=wasserstein,
            rate=rate,
            psi_threshold=telemetry.drift.psi_threshold,
            wasserstein_threshold=telemetry.drift.wasserstein_threshold,
        )
    )


def bins_of(values: Floats) -> Bins:
    """The bins of one feature (DR1), from its training rows, float64 `[n]`."""
    with np.errstate(over="ignore", invalid="ignore"):
        below = np.nextafter(values.min(), -np.inf)
        quantiles = np.quantile(values, np.arange(PARTS + 1) / PARTS, method="lower")
        edges = np.unique(np.append(quantiles, below))
        scale = float(values.std())
    edges = edges + 0.0  # F5
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return Bins(edges, counts.astype(np.int64), scale if scale != 0 else 1.0)


def sizes_for(rows: int) -> Counts:
    """The sizes for which critical values are stored, for so many training rows."""
    doublings = int(np.log2(min(rows, LARGEST) / SMALLEST))
    return SMALLEST << np.arange(doublings + 1, dtype=np.int64)


def critical_values(
    values: Floats, features: Sequence[Bins], sizes: Counts, rate: float, seed: int
) -> tuple[Floats, Floats]:
    """Critical values of all features for each size (DR4), PSI and Wasserstein distance, float64 `[features, sizes]`.

    Args:
        values: training rows in the order of time, float64 `[rows, features]`.
        features: their bins.
        sizes: numbers of rows.
        rate: share of comparisons in which any statistic may exceed its critical value.
        seed: of the stretches.
    """
    rows, width = values.shape
    placed = np.empty((width, rows), np.uint8)
    for j, bins in enumerate(features):
        placed[j] = _as_if_new(values[:, j], bins)
    resamples = max(FEWEST_RESAMPLES, min(RESAMPLES, RESAMPLES * NARROW // width))
    random = np.random.default_rng(seed)
    critical = np.empty((2, width, len(sizes)))
    for k, size in enumerate(sizes.tolist()):
        stretches = Stretches.draw(rows, size, resamples, random)
        found = np.empty((2, width, resamples))
        for j, bins in enumerate(features):
            counts = stretches.counts(placed[j], len(bins.counts))
            found[0, j], found[1, j] = bins.psi(counts), bins.wasserstein(counts)
        raised = raised_together(found.reshape(2 * width, resamples), rate, rows / stretches.length)
        raised = raised.reshape(2, width)
        # A stretch is a part of the rows that it is compared with, and those are a sample themselves: rows that come
        # later are further from them. The variance of a difference of shares is larger by this; PSI is a variance.
        more = (1 + size / rows) / (1 - stretches.length / rows)
        critical[0, :, k], critical[1, :, k] = raised[0] * more, raised[1] * np.sqrt(more)
    return critical[0], critical[1]


def _as_if_new(values: Floats, bins: Bins) -> NDArray[np.intp]:
    """The bin of each training row in a stretch that stands for rows that come later.

    Later rows go beyond what was seen, below and above, in one of `n + 1` rows each. A stretch never would: so the one
    row with the smallest value, and the one with the largest, count as never seen where a stretch has them.
    """
    placed = bins.place(values)
    for extreme, outside in ((values.min(), 0), (values.max(), len(bins.edges))):
        at = np.flatnonzero(values == extreme)
        if len(at) == 1:  # a value that comes again and again, such as 0, is an end that rows do not go beyond
            placed[at] = outside
    return placed


def raised_together(found: Floats, rate: float, independent: float) -> Floats:
    """Critical values such that any of several statistics exceeds its own in at most a share `rate` of the draws.

    Each is its quantile TAIL and so many times its mean excess over it, the same number of times for all: statistics
    with longer tails are raised further.

    Args:
        found: float64 `[statistics, draws]`, drawn together.
        rate: that share.
        independent: how many stretches that do not overlap there are to draw from, above 1.

    Returns:
        float64 `[statistics]`.
    """
    from scipy import stats  # here: most commands import this module and draw nothing

    draws = found.shape[1]
    start = np.quantile(found, TAIL, axis=1, method="higher", keepdims=True)
    above = np.maximum(found - start, 0)
    often = (above > 0).sum(axis=1, keepdims=True)
    excess = np.divide(above.sum(axis=1, keepdims=True), often, out=np.zeros_like(start), where=often > 0)
    times = np.divide(above, excess, out=np.zeros_like(above), where=excess > 0).max(axis=0)
    # As few draws exceed as leave no doubt that not more than `rate` of all possible ones do (Clopper, Pearson: The use
    # of confidence or fiducial limits, 1934).
    exceeding = max(0, int(stats.binom.ppf(1 - CONFIDENCE, draws, rate)) - 1)
    enough = np.sort(times)[draws - 1 - exceeding]
    # However often one draws from a few stretches, they show no more of the tail: Student's t in the place of a normal.
    level = 1 - rate / len(found)
    enough *= stats.t.ppf(level, independent - 1) / stats.norm.ppf(level)
    critical: Floats = (start + enough * excess)[:, 0]
    return critical


@dataclass(frozen=True)
class Stretches:
    """Places of stretches of rows that follow one another in a circle, several for each draw.

    Attributes:
        rows: number of all rows.
        length: of a stretch, the longest.
        marks: int64 `[m]`, ascending: rows at which a stretch begins, or that follow its end; the first is 0.
        starts, ends: intp `[draws, stretches]`, places in `marks`.
        wraps: bool `[draws, stretches]`, whether the stretch goes on at the first row.
    """

    rows: int
    length: int
    marks: Counts
    starts: NDArray[np.intp]
    ends: NDArray[np.intp]
    wraps: NDArray[np.bool_]

    @classmethod
    def draw(cls, rows: int, size: int, draws: int, random: np.random.Generator) -> "Stretches":
        """Draws `size` rows, `draws` times, in stretches of at most a part of STRETCH of all rows."""
        number = -(-size // (rows // STRETCH))
        lengths = size // number + (np.arange(number) < size % number)
        begin = random.integers(rows, size=(draws, number))
        end = begin + lengths
        wraps = end >= rows
        marks, places = np.unique(np.concatenate([[0], begin.ravel(), (end % rows).ravel()]), return_inverse=True)
        starts, ends = places[1:].reshape(2, draws, number)
        return cls(rows, int(lengths[0]), marks, starts, ends, wraps)

    def counts(self, placed: NDArray[np.uint8], bins: int) -> Counts:
        """How often each bin occurs in each draw, int64 `[draws, bins]`.

        Args:
            placed: the bin of each row, `[rows]`.
            bins: how many there are.
        """
        pieces = np.diff(self.marks, append=self.rows)
        at = np.repeat(np.arange(len(pieces)) * bins, pieces)
        at += placed
        held = np.bincount(at, minlength=len(pieces) * bins).reshape(-1, bins)
        before = np.concatenate([np.zeros((1, bins), np.int64), np.cumsum(held, axis=0)])
        counts: Counts = (before[self.ends] - before[self.starts] + self.wraps[..., np.newaxis] * before[-1]).sum(
            axis=1
        )
        return counts


def as_arrays(references: Mapping[str, Reference]) -> bytes:
    """The bytes of `drift_reference.npz`: for each detector `<detector>.features`, `.edges` (`[features, most edges]`,
    NaN where there are fewer), `.counts` (likewise, 0), `.scale`, `.sizes`, `.psi_critical`, `.wasserstein_critical`,
    `.rate`, `.psi_threshold` and `.wasserstein_threshold`. The same references give the same bytes.
    """
    arrays: dict[str, NDArray] = {}
    for detector, reference in references.items():
        most = max(len(bins.edges) for bins in reference.features)
        edges = np.full((len(reference.features), most), np.nan)
        counts = np.zeros((len(reference.features), most + 1), np.int64)
        for j, bins in enumerate(reference.features):
            edges[j, : len(bins.edges)] = bins.edges
            counts[j, : len(bins.counts)] = bins.counts
        named = {
            "features": np.array(reference.names),
            "edges": edges,
            "counts": counts,
            "scale": np.array([bins.scale for bins in reference.features]),
            "sizes": reference.sizes,
            "psi_critical": reference.psi_critical,
            "wasserstein_critical": reference.wasserstein_critical,
            "rate": np.array(reference.rate),
            "psi_threshold": np.array(reference.psi_threshold),
            "wasserstein_threshold": np.array(reference.wasserstein_threshold),
        }
        arrays |= {f"{detector}.{name}": array for name, array in named.items()}
    file = io.BytesIO()
    np.savez(file, **arrays)  # its entries carry no time of day
    return file.getvalue()
