"""Which Mahalanobis distance a detector should have: kinds of covariance, with and without the samples before.

    python -m tests.bench.covariance_study
    python -m tests.bench.covariance_study --set linklab --set SKAB --no-robust

Prints the mean over the series of each set of the average precision, and the seconds of all its fits. Nothing is
tuned on a set; this compares designs.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.covariance import LedoitWolf, MinCovDet, empirical_covariance
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

from tests.bench.quality_sets import SETS, Floats, Series

ROOT = Path(__file__).resolve().parents[2]

LAGS: dict[str, tuple[int, ...]] = {"no lag": (), "lag 1": (1,), "lags 1-4": (1, 2, 3, 4), "lag 4": (4,)}

MOST_ROBUST_ROWS, MOST_ROBUST_COLUMNS = 5000, 80
"""MinCovDet takes minutes beyond this."""

Precision = Callable[[Floats], tuple[Floats, Floats]]
"""Scaled rows to a centre and the inverse of a covariance."""


def _empirical(rows: Floats) -> tuple[Floats, Floats]:
    """Directions without any variance in training are ignored (pseudo-inverse)."""
    return rows.mean(axis=0), np.linalg.pinv(empirical_covariance(rows), hermitian=True)


def _ridge(share: float) -> Precision:
    """The covariance with so much of the identity added; rows are scaled, so that 1 is the variance of a metric."""

    def fitted(rows: Floats) -> tuple[Floats, Floats]:
        return rows.mean(axis=0), np.linalg.inv(empirical_covariance(rows) + share * np.eye(rows.shape[1]))

    return fitted


def _ledoit_wolf(rows: Floats) -> tuple[Floats, Floats]:
    found = LedoitWolf().fit(rows)
    return found.location_, np.linalg.pinv(found.covariance_, hermitian=True)


def _robust(rows: Floats) -> tuple[Floats, Floats]:
    """MinCovDet on rows of which at most so many are drawn; columns that never change are left out."""
    if rows.shape[1] > MOST_ROBUST_COLUMNS:
        raise ValueError("too many columns")
    if len(rows) > MOST_ROBUST_ROWS:
        rows = rows[np.sort(np.random.default_rng(42).choice(len(rows), MOST_ROBUST_ROWS, replace=False))]
    # Rank-deficient rows stop MinCovDet; a thousandth of the deviation as noise is a ridge of 1e-6.
    noisy = rows + np.random.default_rng(42).normal(0, 1e-3, rows.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = MinCovDet(random_state=42).fit(noisy)
    return found.location_, np.linalg.pinv(found.covariance_, hermitian=True)


COVARIANCES: dict[str, Precision] = {
    "empirical": _empirical,
    "ridge 0.001": _ridge(0.001),
    "ridge 0.01": _ridge(0.01),
    "ridge 0.1": _ridge(0.1),
    "ridge 1": _ridge(1.0),
    "Ledoit-Wolf": _ledoit_wolf,
    "MinCovDet": _robust,
}


def with_lags(rows: Floats, lags: tuple[int, ...]) -> Floats:
    """Each row with those before it, `[n, F (1 + lags)]`; before the first row stands the first."""
    at = np.arange(len(rows))
    return np.hstack([rows, *(rows[np.maximum(at - lag, 0)] for lag in lags)])


def distances(rows: Floats, centre: Floats, precision: Floats) -> Floats:
    """Squared Mahalanobis distances, float64 `[n]`."""
    apart = rows - centre
    return np.einsum("ij,ij->i", apart @ precision, apart)


def precision_of(series: Series, scores: Floats) -> float:
    """Average precision on the rows that count."""
    return float(average_precision_score(series.faulty[series.counted], scores[series.counted]))


def study(every: list[Series], robust: bool, say: Callable[[str], None]) -> dict[str, dict[str, list[float]]]:
    """Variant to average precision of each series, and the seconds of each fit."""
    found: dict[str, dict[str, list[float]]] = {}
    for series in every:
        scaler = StandardScaler().fit(series.train)
        train, test = scaler.transform(series.train), scaler.transform(series.test)
        now: dict[str, Floats] = {}
        for lag_name, lags in LAGS.items():
            fitted_on, tested = with_lags(train, lags), with_lags(test, lags)
            for name, covariance in COVARIANCES.items():
                if covariance is _robust and not (robust and lag_name in ("no lag", "lag 1")):
                    continue
                start = time.perf_counter()
                try:
                    centre, precision = covariance(fitted_on)
                except ValueError:
                    continue
                seconds = time.perf_counter() - start
                entry = found.setdefault(f"{name}, {lag_name}", {"ap": [], "seconds": []})
                apart = distances(tested, centre, precision) / tested.shape[1]
                entry["ap"].append(precision_of(series, apart))
                entry["seconds"].append(seconds)
                if not lags:
                    now[name] = apart
                else:  # the distance of the row itself and that of the window, each by its number of columns
                    both = found.setdefault(f"{name}, now + {lag_name}", {"ap": [], "seconds": []})
                    both["ap"].append(precision_of(series, now[name] + apart))
                    both["seconds"].append(seconds)
        say(series.name)
    return found


def main() -> None:
    """Runs it and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", choices=[s.name for s in SETS], help="this set only; may be repeated")
    parser.add_argument("--no-robust", action="store_true", help="leave MinCovDet out, which is slow")
    arguments = parser.parse_args()
    console, results = Console(width=150), {}
    for data_set in SETS:
        every = data_set.load() if not arguments.set or data_set.name in arguments.set else []
        if every:
            results[data_set.name] = study(
                every, not arguments.no_robust, lambda name, s=data_set.name: console.print(f"{s}: {name}")
            )
            file = ROOT / "build" / "covariance_study.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(results, indent=1))
    table = Table("variant", *results, title="mean average precision (seconds of all fits)")
    for variant in dict.fromkeys(variant for found in results.values() for variant in found):
        cells = []
        for found in results.values():
            entry = found.get(variant)
            cells.append(f"{np.mean(entry['ap']):.3f} ({np.sum(entry['seconds']):.1f})" if entry else "-")
        table.add_row(variant, *cells)
    console.print(table)


if __name__ == "__main__":
    main()
