"""What sites add up: moments, histograms, fixed point, robust averages."""

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from dwcp_training.federated import sketch
from dwcp_training.federated.fixed_point import COUNTS, PRECISE, Form, limb_bits, weight_form
from dwcp_training.federated.moments import Moments
from dwcp_training.federated.plan import Privacy
from dwcp_training.federated.privacy import epsilon
from dwcp_training.federated.robust import robust_total, trimmed, usable
from dwcp_training.federated.rounds import _whole

RNG = np.random.default_rng(7)


def rows_of_sites() -> list[np.ndarray]:
    """Sites of unlike size and level, with a metric far from zero and one that never changes."""
    sites = [RNG.normal(k, 1 + k, (50 + 300 * k, 4)) for k in range(4)]
    for rows in sites:
        rows[:, 2] += 1e9
        rows[:, 3] = 5.0
    return sites


def test_merged_moments_are_those_of_all_rows() -> None:
    sites = rows_of_sites()
    merged = Moments.of(sites[0])
    for rows in sites[1:]:
        merged = merged.merged(Moments.of(rows))
    scaler = StandardScaler().fit(np.concatenate(sites))
    np.testing.assert_allclose(merged.mean, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(merged.scale, scaler.scale_, rtol=1e-7)  # scikit-learn's own error, far from zero
    assert merged.scale[3] == 1.0


def test_sums_alone_give_the_same_moments() -> None:
    sites = rows_of_sites()
    all_rows = np.concatenate(sites)
    count = sum(Moments.of(rows).count for rows in sites)
    mean = sum(Moments.of(rows).mean * len(rows) for rows in sites) / count
    squares = sum(Moments.of(rows).around(mean) for rows in sites)
    scaler = StandardScaler().fit(all_rows)
    np.testing.assert_allclose(Moments(count, mean, squares).scale, scaler.scale_, rtol=1e-7)


@pytest.mark.parametrize("bins", [sketch.RECONSTRUCTION, sketch.ISOLATION])
@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_a_quantile_of_summed_histograms_is_less_than_a_bin_too_high(bins: sketch.Bins, share: float) -> None:
    sites = [RNG.beta(2, 5, 400 * (k + 1)) * 0.7 + 0.15 for k in range(3)]
    total = sum(bins.counts(scores) for scores in sites)
    scores = np.concatenate(sites)
    found = bins.quantile(total, share)
    exact = float(np.quantile(scores, share, method="inverted_cdf"))
    width = bins.edges[1] / bins.edges[0]
    assert exact <= found < exact * width
    assert (scores <= found).mean() >= share


def test_values_outside_the_bins_count_at_their_ends() -> None:
    counts = sketch.SCALED.counts(np.array([-1e300, 0.0, 1e300]))
    assert counts.sum() == 3
    assert counts[0] == 1
    assert counts[-1] == 1
    assert sketch.SCALED.quantile(counts, 1.0) == 8.0


def test_drawn_calibration_scores_are_quantiles() -> None:
    scores = RNG.lognormal(-3, 1, 10_000)
    drawn = sketch.RECONSTRUCTION.drawn(sketch.RECONSTRUCTION.counts(scores), 2000)
    assert len(drawn) == 2000
    assert (np.diff(drawn) >= 0).all()
    np.testing.assert_allclose(np.quantile(drawn, [0.1, 0.5, 0.99]), np.quantile(scores, [0.1, 0.5, 0.99]), rtol=0.03)


@pytest.mark.parametrize("clients", [3, 10, 100])
def test_limbs_add_up_modulo_the_protocol(clients: int) -> None:
    bits = limb_bits(clients)
    values = RNG.standard_normal((clients, 30)) * 10.0 ** RNG.integers(-6, 20, 30)
    limbs = [PRECISE.encode(row, bits) for row in values]
    assert max(np.abs(limb).max() for limb in limbs) <= 2**bits
    assert clients * 2 ** (bits + 1) < 2**32
    np.testing.assert_allclose(PRECISE.decode(sum(limbs), bits), values.sum(axis=0), rtol=1e-12)
    counts = RNG.integers(0, 1 << 38, (clients, 5)).astype(float)
    total = COUNTS.decode(sum(COUNTS.encode(row, bits) for row in counts[:, :1]), bits)
    assert total == counts[:, :1].sum(axis=0)


def test_weights_lose_less_than_float32_does() -> None:
    form, bits = weight_form(limb_bits(10)), limb_bits(10)
    weights = RNG.standard_normal((10, 1000))
    total = form.decode(sum(form.encode(row, bits) for row in weights), bits)
    assert np.abs(total - weights.sum(axis=0)).max() <= 10 * 2.0 ** -(bits - 4) / 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 17.0, -17.0])
def test_numbers_without_room_are_refused(bad: float) -> None:
    bits = limb_bits(10)
    with pytest.raises(ValueError, match="too large or not finite"):
        weight_form(bits).encode(np.array([0.0, bad]), bits)


def test_too_many_clients_for_a_sum_are_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        limb_bits(10_000_000)
    assert Form(0, 1).encode(np.array([3.0]), limb_bits(1000)).tolist() == [[3]]


def test_a_trimmed_mean_ignores_the_extremes() -> None:
    honest = RNG.standard_normal((8, 5))
    lying = np.vstack([honest, np.full((1, 5), 1e30), np.full((1, 5), -1e30)])
    found = trimmed(lying, 2)
    assert (honest.min(axis=0) <= found).all()
    assert (found <= honest.max(axis=0)).all()


def test_a_liar_moves_robust_sums_little() -> None:
    def answer(rows: np.ndarray) -> list[np.ndarray]:
        return [np.array([float(len(rows))]), rows.sum(axis=0)]

    sites = [RNG.normal(3, 1, (200, 2)) for _ in range(6)]
    lie = [np.array([1e12]), np.array([-1e30, 1e30])]
    number, sums = robust_total([*map(answer, sites), lie], 1)
    assert number[0] == 200 * 7
    np.testing.assert_allclose(sums / number, [3, 3], atol=0.2)
    plain = sum(answer[1] for answer in [*map(answer, sites), lie])
    assert np.abs(plain).min() > 1e29


def test_robust_histograms_keep_their_mass() -> None:
    bins = sketch.RECONSTRUCTION
    sites = [RNG.lognormal(-2, 0.5, 60) for _ in range(6)]
    answers = [[np.array([60.0]), bins.counts(scores).astype(float)] for scores in sites]
    lie = np.zeros(len(bins.edges) + 1)
    lie[-1] = 1e9
    number, counts = robust_total([*answers, [np.array([1e9]), lie]], 1, histograms=True)
    assert counts.sum() == pytest.approx(number[0])
    assert (counts >= 0).all()
    found = bins.quantile(np.rint(counts * 1000).astype(np.int64), 0.9)
    assert found == pytest.approx(np.quantile(np.concatenate(sites), 0.9), rel=0.4)


def test_answers_of_wrong_shape_or_not_finite_are_not_used() -> None:
    good = [np.ones(3), np.ones((2, 2))]
    shapes = [(3,), (2, 2)]
    assert usable([good, [np.ones(3)], [np.ones(3), np.ones(4)], [np.ones(3), np.full((2, 2), np.nan)]], shapes) == [
        good
    ]


def test_the_privacy_loss_grows_with_rounds_and_falls_with_noise() -> None:
    assert epsilon(Privacy(1.0, 1.0), 1) == pytest.approx(0.5 + 2 * np.sqrt(0.5 * np.log(1e5)))
    assert epsilon(Privacy(1.0, 1.0), 10) > epsilon(Privacy(1.0, 1.0), 1) > epsilon(Privacy(1.0, 2.0), 1)


def test_counts_of_a_robust_average_become_whole_and_keep_their_sum() -> None:
    counts = np.full((2, 30), 0.3)
    found = _whole(counts)
    assert found.dtype == np.int64
    assert found.sum(axis=1).tolist() == [9, 9]
    assert found.max() == 1
