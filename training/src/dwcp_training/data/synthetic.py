"""Synthetic normal telemetry, for trying things out; the same bits on every machine and numpy release.

numpy keeps the bit streams of its generators but not the algorithms behind ``normal``, ``gamma`` and ``beta``, so
these draw only uniform numbers from numpy and build the distributions from their definitions:

- ``N(0, 1) = sqrt(-2 ln U1) cos(2 pi U2)`` (Box and Muller, 1958);
- ``Gamma(2, s) = -s (ln U1 + ln U2)``, the sum of two exponential variables;
- ``Beta(k, n + 1 - k)`` is the k-th smallest of n uniform variables.

Values are rounded to 9 decimals, which hides a last-bit difference between two libraries' ``log`` or ``cos``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from dwcp_training.data.errors import DataError
from dwcp_training.data.report import Report
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.profiles import Profile, load_profile

START = np.datetime64("2024-01-01T00:00:00", "ns")
CADENCE_SECONDS = 60.0
SEASON_PERIOD = 24
"""Samples in one season of `lstm_series`."""
SEASON_AMPLITUDE = 10.0
"""Amplitude of the season in Mbps; latency has a tenth of it, in ms, with the opposite sign."""

_DECIMALS = 9
_WARNING = "synthetic data: for trying things out only; train on measured, confirmed-normal data before production."

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def forest_rows(n: int = 10_000, seed: int = 42) -> Telemetry:
    """Independent rows, one a minute from 2024-01-01T00:00:00Z.

    Bandwidth N(100, 15) Mbps clipped to 0..200, latency N(10, 2) ms to 0..50, packet loss Gamma(2, .005) % to 0..5,
    jitter Gamma(2, .5) ms to 0..10, CPU 100 Beta(2, 5) %, memory 100 Beta(3, 4) %, error rate Gamma(2, .0005) % to
    0..1. The first rows are the same for every `n`.

    Raises:
        DataError: `n` is less than 1.
    """
    return _telemetry(_columns(n, seed, _NORMAL_OPERATION))


def lstm_series(n: int = 10_000, seed: int = 42) -> Telemetry:
    """A series with a season of 24 samples, one a minute from 2024-01-01T00:00:00Z.

    With ``s(t) = 10 sin(2 pi t / 24)``: bandwidth ``100 + s(t) + N(0, 5)`` Mbps clipped to 0..200, latency
    ``10 - s(t) / 10 + N(0, .5)`` ms clipped to 0..50: both have a season with twice the amplitude of their noise. The
    other metrics are noise, distributed as in `forest_rows`. The first rows are the same for every `n`.

    Raises:
        DataError: `n` is less than 1.
    """
    draws = (_normal(0.0, 5.0), _normal(0.0, 0.5), *_NORMAL_OPERATION[2:])
    columns = _columns(n, seed, draws)
    season = SEASON_AMPLITUDE * np.sin(2 * np.pi * (np.arange(n) % SEASON_PERIOD) / SEASON_PERIOD)
    columns[0] = np.clip(100.0 + season + columns[0], 0.0, 200.0)
    columns[1] = np.clip(10.0 - season / 10.0 + columns[1], 0.0, 50.0)
    return _telemetry(columns)


def standard_normal(generator: np.random.Generator, n: int) -> NDArray[np.float64]:
    """``[n]`` draws of N(0, 1) from uniform numbers alone."""
    uniform = generator.random((n, 2))
    # 1 - U is never 0, whose logarithm is infinite.
    return np.sqrt(-2.0 * np.log(1.0 - uniform[:, 0])) * np.cos(2.0 * np.pi * uniform[:, 1])


def _normal(mean: float, deviation: float, clip: tuple[float, float] = (-np.inf, np.inf)) -> Draw:
    return lambda generator, n: np.clip(mean + deviation * standard_normal(generator, n), *clip)


def _gamma2(scale: float, clip: tuple[float, float]) -> Draw:
    def draw(generator: np.random.Generator, n: int) -> NDArray[np.float64]:
        logarithms = np.log(1.0 - generator.random((n, 2)))
        return np.clip(-scale * (logarithms[:, 0] + logarithms[:, 1]), *clip)

    return draw


def _beta_percent(a: int, b: int) -> Draw:
    return lambda generator, n: 100.0 * np.sort(generator.random((n, a + b - 1)), axis=1)[:, a - 1]


_NORMAL_OPERATION: tuple[Draw, ...] = (
    _normal(100.0, 15.0, (0.0, 200.0)),
    _normal(10.0, 2.0, (0.0, 50.0)),
    _gamma2(0.005, (0.0, 5.0)),
    _gamma2(0.5, (0.0, 10.0)),
    _beta_percent(2, 5),
    _beta_percent(3, 4),
    _gamma2(0.0005, (0.0, 1.0)),
)


def _columns(n: int, seed: int, draws: Sequence[Draw]) -> list[NDArray[np.float64]]:
    """One column per draw, each from its own stream, so that no metric depends on how another is drawn."""
    if n < 1:
        raise DataError("n", f"{n} must be 1 or more.")
    streams = np.random.SeedSequence(seed).spawn(len(draws))
    generators = [np.random.Generator(np.random.PCG64(stream)) for stream in streams]
    return [draw(generator, n) for draw, generator in zip(draws, generators, strict=True)]


@cache
def _profile() -> Profile:
    return load_profile("dwcp")


def _telemetry(columns: Sequence[NDArray[np.float64]]) -> Telemetry:
    profile = _profile()
    values: NDArray[np.float64] = np.round(np.column_stack(columns), _DECIMALS).astype(np.float64) + 0.0
    n = len(values)
    return Telemetry(
        schema=profile.feature_schema,
        values=values,
        timestamps=START + np.arange(n) * np.timedelta64(int(CADENCE_SECONDS), "s"),
        timestamp_column=profile.timestamp_column,
        cadence_seconds=CADENCE_SECONDS,
        segments=((0, n),),
        source="synthetic",
        report=Report(rows_read=n, rows_used=n, warnings=(_WARNING,)),
    )
