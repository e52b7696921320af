"""Average precision, ROC AUC and VUS-PR against scikit-learn and a slow implementation that follows the paper."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from dwcp_training.evaluation.ranking import Ranking, buffer_lengths, buffered


def range_labels(labels: list[int], length: int) -> list[float]:
    """Section 3.1 of Paparrizos et al.: the label of a point falls with its distance from the ends of faults."""
    result = []
    for i in range(len(labels)):
        total = float(labels[i])
        for s in range(len(labels)):
            begins = labels[s] and (s == 0 or not labels[s - 1])
            ends = labels[s] and (s == len(labels) - 1 or not labels[s + 1])
            if begins and s - length / 2 <= i < s:
                total += (1 - (s - i) / length) ** 0.5
            if ends and s < i <= s + length / 2:
                total += (1 - (i - s) / length) ** 0.5
        result.append(min(1.0, total))
    return result


def segments_of(labels: list[float]) -> list[list[int]]:
    found: list[list[int]] = []
    for i, label in enumerate(labels):
        if label > 0:
            if i and labels[i - 1] > 0:
                found[-1].append(i)
            else:
                found.append([i])
    return found


def slow_range_pr(scores: list[float], labels: list[int], length: int) -> float:
    """Range-AUC-PR of one buffer length, threshold by threshold, point by point."""
    soft = range_labels(labels, length)
    segments = segments_of(soft)
    positives = (sum(labels) + sum(soft)) / 2
    area, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        called = [score >= threshold for score in scores]
        true = sum(soft[i] for i in range(len(soft)) if called[i])
        found = sum(any(called[i] for i in segment) for segment in segments)
        recall = min(1.0, true / positives) * found / len(segments)
        area += (recall - recall_before) * true / sum(called)
        recall_before = recall
    return area


def slow_vus_pr(scores: list[float], labels: list[int], lengths: list[int]) -> float:
    return sum(slow_range_pr(scores, labels, length) for length in lengths) / len(lengths)


series = st.integers(5, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 9).map(float), min_size=n, max_size=n),
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(any),
        st.integers(0, 9),
    )
)


@settings(deadline=None, max_examples=150)
@given(series)
def test_vus_pr_is_that_of_the_paper(case: tuple[list[float], list[int], int]) -> None:
    scores, labels, longest = case
    faulty = np.array(labels, bool)
    lengths = buffer_lengths(longest)
    ranking = Ranking(np.array(scores), faulty, [buffered(faulty, length) for length in lengths])
    found = ranking.weighed(np.ones((1, len(scores)))).vus_pr()[0]
    assert found == pytest.approx(slow_vus_pr(scores, labels, lengths), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(series, st.integers(0, 2**32 - 1))
def test_weights_are_repeated_rows(case: tuple[list[float], list[int], int], seed: int) -> None:
    """A row with weight 2 counts as two rows; one with weight 0 as none, also for the share of faults found."""
    scores, labels, longest = np.array(case[0]), np.array(case[1], bool), case[2]
    weights = np.random.default_rng(seed).integers(0, 3, len(scores)).astype(float)
    drawn = np.repeat(np.arange(len(scores)), weights.astype(int))
    if not labels[drawn].any():
        return
    buffers = [buffered(labels, length) for length in buffer_lengths(longest)]
    repeated = [(soft[drawn], numbers[drawn]) for soft, numbers in buffers]
    ours = Ranking(scores, labels, buffers).weighed(np.array([weights, weights]))
    plain = Ranking(scores[drawn], labels[drawn], repeated).weighed(np.ones((2, len(drawn))))
    assert ours.vus_pr() == pytest.approx(plain.vus_pr(), abs=1e-12)
    assert ours.average_precision() == pytest.approx(plain.average_precision(), abs=1e-12)


@pytest.mark.parametrize("ties", [True, False])
def test_average_precision_and_auc_are_those_of_scikit_learn(ties: bool) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        scores = rng.integers(0, 20, 300).astype(float) if ties else rng.normal(size=300)
        faulty = rng.random(300) < 0.2
        weights = rng.integers(0, 4, 300).astype(float)
        found = Ranking(scores, faulty).weighed(weights[np.newaxis])
        assert found.average_precision() == pytest.approx(
            average_precision_score(faulty, scores, sample_weight=weights), abs=1e-12
        )
        assert found.roc_auc() == pytest.approx(roc_auc_score(faulty, scores, sample_weight=weights), abs=1e-12)


def test_what_cannot_be_known_is_no_number() -> None:
    scores, faulty = np.array([1.0, 2.0, 3.0]), np.array([False, True, False])
    ranking = Ranking(scores, faulty, [buffered(faulty, 2)])
    nothing = ranking.weighed(np.array([[1.0, 0.0, 1.0]]))
    assert np.isnan([nothing.average_precision(), nothing.roc_auc(), nothing.vus_pr()]).all()
    assert np.isnan(ranking.weighed(np.array([[0.0, 1.0, 0.0]])).roc_auc())


def test_longest_buffer_is_the_fault() -> None:
    assert buffer_lengths(30) == [0, 6, 12, 18, 24, 30]
    assert buffer_lengths(3) == [0, 1, 2, 3]
    assert buffer_lengths(0) == [0]
    assert max(buffer_lengths(10_000)) == 100
