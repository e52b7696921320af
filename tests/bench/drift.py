"""How often drift is seen where there is none, and how often where there is: the critical values of DR4, measured.

Rows without drift are stretches of the training rows, drawn anew, and rows that the same process made later. Rows that
follow one another are alike in all processes but `independent`: a test for independent rows fails on that.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from dwcp_sidecar.drift import FeatureDrift, Reference, Sketch
from dwcp_training.data import Report, Telemetry
from dwcp_training.drift_reference import STRETCH, describe
from dwcp_training.profiles import Feature, FeatureSchema

WIDTH = 4
"""Metrics of each process."""

DAY = 1440
"""Rows of a day."""

RATE = 0.01
"""Nominal share of comparisons without drift in which drift is seen."""

Process = Callable[[np.random.Generator, int], np.ndarray]
"""Makes rows that follow one another, float64 `[n, WIDTH]`."""


def _regressive(weight: float) -> Process:
    """Each row is `weight` times the one before, and noise; standard deviation 1."""

    def made(random: np.random.Generator, rows: int) -> np.ndarray:
        warm = int(10 / (1 - weight))
        noise = random.standard_normal((rows + warm, WIDTH)) * np.sqrt(1 - weight**2)
        found: np.ndarray = lfilter([1], [1, -weight], noise, axis=0)[warm:]
        return found

    return made


def _season(random: np.random.Generator, rows: int) -> np.ndarray:
    """A day's wave twice as high as the noise on it, which is alike from row to row."""
    wave: np.ndarray = 2 * np.sin(2 * np.pi * np.arange(rows) / DAY)[:, np.newaxis]
    return wave + _regressive(0.8)(random, rows)


def _counts(random: np.random.Generator, rows: int) -> np.ndarray:
    """Whole numbers, many of them 0, a few large."""
    found: np.ndarray = np.floor(np.exp(_regressive(0.9)(random, rows)))
    return found


PROCESSES: dict[str, Process] = {
    "independent": _regressive(0.0),
    "AR(1), 0.9": _regressive(0.9),
    "AR(1), 0.98": _regressive(0.98),
    "daily season": _season,
    "counts": _counts,
}


def telemetry(values: np.ndarray) -> Telemetry:
    """Rows without times, as training gets them."""
    names = [f"m{j}" for j in range(values.shape[1])]
    return Telemetry(
        schema=FeatureSchema(name="drift", version=1, features=tuple(Feature(name=name, unit="") for name in names)),
        values=values,
        timestamps=None,
        timestamp_column=None,
        cadence_seconds=None,
        segments=((0, len(values)),),
        source="made up",
        report=Report(rows_read=len(values), rows_used=len(values)),
    )


def reference_of(values: np.ndarray, seed: int = 42) -> Reference:
    """The drift reference of training rows."""
    found = describe(telemetry(values), seed).reference
    assert found is not None
    return found


def drifted(found: list[FeatureDrift]) -> bool:
    """Whether any feature drifted."""
    return any(feature.drifted for feature in found)


def without_thresholds(reference: Reference) -> Reference:
    """Decides by critical values alone: how good these are."""
    return reference.with_thresholds(0.0, 0.0)


def stretches(values: np.ndarray, rows: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """`draws` times `rows` of the training rows, in stretches as DR4 takes them."""
    random = np.random.default_rng(seed)
    number = -(-rows // (len(values) // STRETCH))
    lengths = rows // number + (np.arange(number) < rows % number)
    for _ in range(draws):
        starts = random.integers(len(values), size=number)
        at = np.concatenate([np.arange(s, s + length) for s, length in zip(starts, lengths, strict=True)])
        yield values[at % len(values)]


@dataclass(frozen=True)
class Rates:
    """Shares of comparisons in which drift was seen: in stretches of the training rows by critical values alone, and in
    rows that came later, by critical values alone and with the thresholds."""

    training: float
    later_critical: float
    later: float


def false_drift(process: Process, training: int, rows: int, draws: int, trainings: int = 10) -> Rates:
    """Compares rows without drift, `draws` times in all, with as many references as `trainings`."""
    own = critical = both = 0
    each = draws // trainings
    later_each = min(20, each)
    for number in range(trainings):
        made = process(np.random.default_rng(1000 + number), training + later_each * rows)
        values, later = made[:training], made[training:]
        reference = reference_of(values, number)
        bare = without_thresholds(reference)
        own += sum(drifted(bare.compare(Sketch(bare).add(part))) for part in stretches(values, rows, each, 77 + number))
        for part in np.split(later, later_each):
            critical += drifted(bare.compare(Sketch(bare).add(part)))
            both += drifted(reference.compare(Sketch(reference).add(part)))
    count = later_each * trainings
    return Rates(own / (each * trainings), critical / count, both / count)


def power(process: Process, training: int, rows: int, shift: float, trainings: int = 10) -> float:
    """Share of comparisons that see one metric of `WIDTH` shifted by so many standard deviations."""
    seen = 0
    for number in range(trainings):
        made = process(np.random.default_rng(1000 + number), training + 10 * rows)
        values, later = made[:training], made[training:].copy()
        later[:, 0] += shift * values[:, 0].std()
        reference = reference_of(values, number)
        seen += sum(drifted(reference.compare(Sketch(reference).add(part))) for part in np.split(later, 10))
    return seen / (10 * trainings)
