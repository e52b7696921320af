"""Seeded random and adversarial inputs for one detector. Equal seeds and models give equal inputs."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dwcp.anomaly.v1 import model_pb2
from tests.conformance.cases import Case, Floats
from tests.conformance.invalid import fault_count, invalid_cases

INVALID_SHARE = 0.05
"""Share of inputs that must be refused; never fewer than there are faults."""

_EXTREMES = [
    1e300, -1e300, 1.7976931348623157e308, -1.7976931348623157e308, 1e20, -1e20, 3.4028235677973366e38, 3.5e38,
    1e15, 1e16, 1e-300, 5e-324, -5e-324, 2.2250738585072014e-308, 1.401298464324817e-45, 1e-45,
    0.0, -0.0, 1.0, 16777217.0,
]  # fmt: skip
_LARGEST_BISECTED = 256
"""Lines from a normal to an anomalous item that are bisected; further inputs lie around where these change."""


Special = Callable[[Floats, np.random.Generator], Floats]
"""Changes typical items `[n, timesteps, features]` to what one detector alone needs to be tried with."""

SPECIAL_WEIGHT = 0.15
"""Weight of each kind of special inputs."""


@dataclass(frozen=True)
class Source:
    """What inputs are made from.

    Attributes:
        metadata: of the model: schema, scaler, window length.
        decide: decisions of the reference on items, bool `[n]`; finds the threshold.
        absent: detectors of the contract that the set does not have.
        special: kind to the maker of inputs for this detector alone.
        splits: feature index to the scaled thresholds of a forest's splits; empty for other detectors.
    """

    metadata: model_pb2.ModelMetadata
    decide: Callable[[Floats], NDArray[np.bool_]]
    absent: tuple[str, ...] = ()
    special: dict[str, Special] = field(default_factory=dict)
    splits: dict[int, Floats] = field(default_factory=dict)

    @property
    def timesteps(self) -> int:
        return self.metadata.timesteps or 1

    @property
    def mean(self) -> Floats:
        return np.array(self.metadata.scaler.mean)

    @property
    def scale(self) -> Floats:
        return np.array(self.metadata.scaler.scale)

    @property
    def ranges(self) -> tuple[Floats, Floats]:
        """Smallest and largest plausible raw values."""
        features = self.metadata.feature_schema.features
        return np.array([f.minimum for f in features]), np.array([f.maximum for f in features])


def generate(source: Source, count: int, seed: int) -> list[Case]:
    """Exactly `count` inputs, at least one of each kind and of each fault, in shuffled order.

    Raises:
        ValueError: when `count` is too small for one of each.
    """
    detector = source.metadata.model_type
    rng = np.random.default_rng([seed, len(detector)])
    weights = {kind: KINDS[kind][0] if kind in KINDS else SPECIAL_WEIGHT for kind in kinds_of(source)}
    invalid = max(fault_count(source.timesteps, source.absent), round(INVALID_SHARE * count))
    valid = count - invalid
    if valid < 2 * len(weights):
        raise ValueError(f"{count} inputs cannot hold every kind and every fault; ask for {2 * invalid} or more")
    sizes = {kind: max(1, int(valid * weight / sum(weights.values()))) for kind, weight in weights.items()}
    sizes["typical"] += valid - sum(sizes.values())
    cases = []
    for kind, size in sizes.items():
        if kind in KINDS:
            items = KINDS[kind][2](source, rng, size)
        else:
            items = source.special[kind](typical(source, rng, size), rng)
        cases += [Case(f"{detector}/{kind}/{k:06d}", detector, kind, item) for k, item in enumerate(items)]
    cases += invalid_cases(detector, typical(source, rng, invalid), 0, rng, source.absent)
    return [cases[i] for i in rng.permutation(len(cases))]


def kinds_of(source: Source) -> list[str]:
    """The kinds of valid inputs for a detector."""
    return [kind for kind, (_, applies, _) in KINDS.items() if applies(source)] + list(source.special)


def typical(source: Source, rng: np.random.Generator, count: int) -> Floats:
    """Around the training distribution: a level for each item, noise for each sample, inside the plausible ranges."""
    shape = (count, source.timesteps, len(source.mean))
    z = rng.normal(0, 0.9, (count, 1, shape[2])) + rng.normal(0, 0.5, shape)
    return np.clip(source.mean + z * source.scale, *source.ranges)


def heavy_tailed(source: Source, rng: np.random.Generator, count: int) -> Floats:
    """Student's t with 1.2 degrees of freedom, in scales around the mean."""
    return source.mean + rng.standard_t(1.2, (count, source.timesteps, len(source.mean))) * source.scale


def uniform(source: Source, rng: np.random.Generator, count: int) -> Floats:
    """Over the plausible ranges, every other item uniform in the logarithm."""
    low, high = source.ranges
    u = rng.random((count, source.timesteps, len(low)))
    items = low + u * (high - low)
    items[1::2] = low + (high - low) * 10.0 ** (-9 * u[1::2])
    return items


def on_splits(source: Source, rng: np.random.Generator, count: int) -> Floats:
    """Typical rows with one value, or all, on a split threshold or up to two float32 steps beside it (IF1)."""
    items = typical(source, rng, count)
    features = sorted(source.splits)
    chosen = rng.integers(len(features), size=count)
    everywhere = rng.random(count) < 0.3
    for k, j in enumerate(features):
        rows = np.flatnonzero((chosen == k) | everywhere)
        at = rng.choice(source.splits[j], len(rows)).astype(np.float32)
        side = rng.choice(np.array([-np.inf, np.inf], np.float32), len(rows))
        steps = rng.integers(0, 3, len(rows))
        for step in range(2):
            at = np.where(steps > step, np.nextafter(at, side), at)
        items[rows, -1, j] = _raw_of(at, source.mean[j], source.scale[j])
    return items


def _raw_of(scaled: NDArray[np.float32], mean: float, scale: float) -> Floats:
    """Raw values whose scaled value rounds to the wanted float32 where one of the neighbours does, else next to it."""
    raw = guess = scaled.astype(np.float64) * scale + mean
    for steps in range(-4, 5):
        candidate = guess + steps * np.spacing(guess)
        raw = np.where(((candidate - mean) / scale).astype(np.float32) == scaled, candidate, raw)
    return raw


def bit_patterns(source: Source, rng: np.random.Generator, count: int) -> Floats:
    """Random finite float64 bit patterns: everywhere in every other item, in one value of the rest."""
    shape = (count, source.timesteps, len(source.mean))
    random = rng.integers(0, 2**64, shape, dtype=np.uint64).view(np.float64)
    random = np.where(np.isfinite(random), random, rng.choice(_EXTREMES, shape))
    items = typical(source, rng, count)
    items[::2] = random[::2]
    at, step, j = np.arange(count), rng.integers(shape[1], size=count), rng.integers(shape[2], size=count)
    items[at, step, j] = random[at, step, j]
    return items


def extreme(source: Source, rng: np.random.Generator, count: int) -> Floats:
    """Huge, tiny, denormal, zero and negative zero values: in one place, in a whole sample, or everywhere."""
    items = typical(source, rng, count)
    for k, item in enumerate(items):
        number = _EXTREMES[k % len(_EXTREMES)]
        reach = rng.integers(4)
        if reach == 0:
            item[:] = number
        elif reach == 1:
            item[-1] = number
        elif reach == 2:
            item[rng.integers(len(item)), rng.integers(item.shape[1])] = number
        else:
            item[:] = rng.choice(_EXTREMES, item.shape)
    return items


def limits(source: Source, rng: np.random.Generator, count: int) -> Floats:
    """Typical items with one metric at its warning or critical value, or a float64 step beside it."""
    items = typical(source, rng, count)
    features = source.metadata.feature_schema.features
    for k, item in enumerate(items):
        feature = features[k % len(features)]
        value = feature.warning if rng.random() < 0.5 else feature.critical
        item[-1, k % len(features)] = value + rng.integers(-1, 2) * np.spacing(value)
    return items


def near_threshold(source: Source, rng: np.random.Generator, count: int) -> Floats:
    """Items next to where the decision changes on the straight line from a normal to an anomalous item.

    The lines are bisected down to neighbouring float64 positions. Where scores are a step function (forest), inputs are
    these two positions and others a little away; elsewhere only the latter: a threshold is the midpoint of two float32
    numbers (D2), so an input at the very edge would be in P2's gap on purpose.
    """
    normal, anomalous = _both_sides(source, rng)
    lines = min(count, _LARGEST_BISECTED)
    start, end = normal[rng.integers(len(normal), size=lines)], anomalous[rng.integers(len(anomalous), size=lines)]
    low, high = np.zeros(lines), np.ones(lines)
    for _ in range(52):
        middle = (low + high) / 2
        alarmed = source.decide(_between(start, end, middle))
        low, high = np.where(alarmed, low, middle), np.where(alarmed, middle, high)
    line = np.arange(count) % lines
    steps = 10.0 ** rng.uniform(-9, -5, count)
    if source.splits:
        steps[rng.random(count) < 0.5] = 0.0
    at = np.where(rng.random(count) < 0.5, low[line] - steps, high[line] + steps)
    return _between(start[line], end[line], at)


def _between(start: Floats, end: Floats, at: Floats) -> Floats:
    return start + at[:, np.newaxis, np.newaxis] * (end - start)


def _both_sides(source: Source, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Normal and anomalous items, none empty.

    Raises:
        ValueError: when the model calls everything normal or everything anomalous.
    """
    pool = np.concatenate([typical(source, rng, 256), source.mean + (typical(source, rng, 256) - source.mean) * 8])
    alarmed = source.decide(pool)
    for factor in (0.3, 0.1, 64.0):  # calmer and wilder ones, for a model to which the others are all alike
        if alarmed.any() and not alarmed.all():
            break
        pool = np.concatenate([pool, source.mean + (typical(source, rng, 256) - source.mean) * factor])
        alarmed = source.decide(pool)
    if alarmed.all() or not alarmed.any():
        raise ValueError(f"{source.metadata.model_type} decides the same for everything: no inputs near its threshold")
    return pool[~alarmed], pool[alarmed]


def shapes(source: Source, rng: np.random.Generator, count: int) -> Floats:
    """Windows of one plain shape: constant, ramp, spike, step, two metrics swapped, samples in reverse."""
    items = typical(source, rng, count)
    steps, width = items.shape[1:]
    for k, item in enumerate(items):
        j = rng.integers(width)
        shape = k % 6
        if shape == 0:
            item[:] = item[0]
        elif shape == 1:
            item[:] = item[0] + np.linspace(0, rng.normal(0, 6), steps)[:, np.newaxis] * source.scale
        elif shape == 2:
            item[rng.integers(steps), j] += rng.normal(0, 20) * source.scale[j]
        elif shape == 3:
            item[rng.integers(steps) :, j] += rng.normal(0, 5) * source.scale[j]
        elif shape == 4:
            item[:, [j, (j + 1) % width]] = item[:, [(j + 1) % width, j]]
        else:
            item[:] = item[::-1].copy()
    return items


def with_history(source: Source, rng: np.random.Generator, count: int) -> list[Floats]:
    """More samples than are scored, up to the most that a request may carry (W1 to W3)."""
    lengths = np.concatenate([[256], rng.integers(source.timesteps + 1, 64, count)])[:count]
    items = typical(source, rng, count)
    older = heavy_tailed(source, rng, 256)[:, -1]
    return [np.vstack([older[: n - source.timesteps], item]) for n, item in zip(lengths, items, strict=True)]


def _always(source: Source) -> bool:
    return True


KINDS: dict[str, tuple[float, Callable[[Source], bool], Callable[..., Floats | list[Floats]]]] = {
    "typical": (0.25, _always, typical),
    "heavy_tailed": (0.15, _always, heavy_tailed),
    "uniform": (0.15, _always, uniform),
    "split": (0.15, lambda source: bool(source.splits), on_splits),
    "shape": (0.15, lambda source: source.timesteps > 1, shapes),
    "bits": (0.1, _always, bit_patterns),
    "extreme": (0.05, _always, extreme),
    "limit": (0.05, _always, limits),
    "threshold": (0.1, _always, near_threshold),
    "history": (0.02, _always, with_history),
}
"""Kind of valid input to its weight, the detectors that it applies to, and its maker."""
