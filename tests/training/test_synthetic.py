"""Synthetic telemetry is as the seed describes it (S1-12); injected anomalies are where their labels say (S1-20)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from dwcp_training.data import INJECTION_KINDS, DataError, Telemetry, fingerprint, forest_rows, inject, lstm_series

COLUMNS = ("bandwidth", "latency", "packet_loss", "jitter", "cpu_usage", "memory_usage", "error_rate")


def test_forest_rows_have_the_distributions_of_the_seed() -> None:
    rows = forest_rows()
    assert rows.values.shape == (10_000, 7)
    assert rows.schema.names == COLUMNS
    expected = [
        stats.norm(100, 15),
        stats.norm(10, 2),
        stats.gamma(2, scale=0.005),
        stats.gamma(2, scale=0.5),
        stats.beta(2, 5, scale=100),
        stats.beta(3, 4, scale=100),
        stats.gamma(2, scale=0.0005),
    ]
    for column, distribution in enumerate(expected):
        assert stats.kstest(rows.values[:, column], distribution.cdf).pvalue > 0.01, COLUMNS[column]
    assert (rows.values.max(axis=0) <= [200, 50, 5, 10, 100, 100, 1]).all()
    assert (rows.values >= 0).all()
    correlation = np.corrcoef(rows.values.T) - np.eye(7)
    assert np.abs(correlation).max() < 0.05  # each metric has a stream of its own


def test_lstm_series_has_the_season_of_the_seed() -> None:
    series = lstm_series()
    season = np.sin(2 * np.pi * np.arange(10_000) / 24)
    for column, mean, amplitude, noise in ((0, 100, 10, 5), (1, 10, -1, 0.5)):
        values = series.values[:, column]
        fitted = 2 * np.mean((values - values.mean()) * season)
        assert values.mean() == pytest.approx(mean, rel=0.01)
        assert fitted == pytest.approx(amplitude, rel=0.05)
        assert np.std(values - mean - amplitude * season) == pytest.approx(noise, rel=0.05)
    # Bandwidth is highest where latency is lowest.
    assert np.corrcoef(series.values[:, 0], series.values[:, 1])[0, 1] < -0.5


@pytest.mark.parametrize("make", [forest_rows, lstm_series])
def test_times_and_prefixes(make: Callable[..., Telemetry]) -> None:
    rows = make(50)
    assert (rows.first_timestamp, rows.last_timestamp) == ("2024-01-01T00:00:00Z", "2024-01-01T00:49:00Z")
    assert (rows.cadence_seconds, rows.segments, rows.source) == (60.0, ((0, 50),), "synthetic")
    assert "synthetic" in rows.report.warnings[0]
    np.testing.assert_array_equal(rows.values, make(200).values[:50])
    assert not np.array_equal(rows.values, make(50, seed=1).values)
    with pytest.raises(DataError):
        make(0)


def test_synthetic_data_is_the_same_everywhere() -> None:
    """Pinned: these digests travel in metadata. A change of the draws is a change of every synthetic model."""
    assert fingerprint(forest_rows().values) == "e1e1a6af2190d9f6c433b7a6d564cedc7856350c7bff09a0297ecce54e6de910"
    assert fingerprint(lstm_series().values) == "d9b80ccdda2cdfae1cbd34bcacb6feb7e8c494f2cfcb6ac6730c1455bacbcf99"


@pytest.mark.parametrize("kind", INJECTION_KINDS)
def test_injection_changes_only_what_it_labels(kind: str) -> None:
    normal = lstm_series(2_000)
    before = normal.values.copy()
    values, labels = inject(normal, kind, metrics=["latency", "jitter"], events=8, strength=6.0)
    again, _ = inject(normal, kind, metrics=["latency", "jitter"], events=8, strength=6.0)
    np.testing.assert_array_equal(values, again)
    np.testing.assert_array_equal(normal.values, before)
    changed = values != before
    assert not changed[:, [0, 2, 4, 5, 6]].any()
    assert not changed[~labels].any()
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    edges = np.diff(np.concatenate([[0], labels.astype(int), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    assert len(starts) == 8
    assert len(set((ends - starts).tolist())) == 1
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        assert changed[start:end].any()


def test_shapes_of_the_kinds() -> None:
    normal = forest_rows(500)
    deviations = np.full(7, 2.0)

    def change(kind: str) -> np.ndarray:
        values, labels = inject(
            normal, kind, metrics=["bandwidth"], deviations=deviations, strength=3.0, events=1, duration=6
        )
        return (values - normal.values)[labels, 0]

    np.testing.assert_allclose(change("spike"), 6.0)
    np.testing.assert_allclose(change("step"), 6.0)
    np.testing.assert_allclose(change("drop"), -6.0)
    np.testing.assert_allclose(change("ramp"), [1, 2, 3, 4, 5, 6])
    assert set(np.round(change("burst"), 6)) <= {0.0, 6.0}
    np.testing.assert_allclose(change("burst")[[0, -1]], 6.0)
    assert np.std(change("noise")) > 0
    values, labels = inject(normal, "freeze", metrics=["bandwidth"], events=1, duration=6)
    assert len(set(values[labels, 0].tolist())) == 1


def test_events_stay_within_segments() -> None:
    normal = replace(forest_rows(400), segments=((0, 90), (90, 200), (210, 400)))
    _, labels = inject(normal, "step", events=5, duration=12)
    starts = np.flatnonzero(np.diff(np.concatenate([[0], labels.astype(int)])) == 1)
    assert len(starts) == 5
    for start in starts.tolist():
        assert any(first <= start and start + 12 <= stop for first, stop in normal.segments)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"kind": "spikes"}, "kind"),
        ({"kind": "spike", "metrics": ["latncy"]}, "metrics"),
        ({"kind": "spike", "strength": 0.0}, "strength"),
        ({"kind": "spike", "strength": float("nan")}, "strength"),
        ({"kind": "spike", "events": 0}, "events"),
        ({"kind": "step", "events": 50}, "events"),
        ({"kind": "step", "duration": 0}, "length"),
    ],
)
def test_injection_arguments(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(DataError) as caught:
        inject(forest_rows(200), **arguments)  # type: ignore[arg-type]
    assert caught.value.field == field
