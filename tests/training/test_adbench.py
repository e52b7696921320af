"""Forest, local outlier factor and one-class SVM rank the rows of the ADBench sets as scikit-learn does."""

from __future__ import annotations

import pytest

from tests.bench.adbench import FOLDER, compare

SETS = (
    "14_glass", "18_Ionosphere", "20_letter", "23_mammography", "29_Pima", "32_shuttle", "38_thyroid", "40_vowels",
    "42_WBC", "45_wine", "4_breastw", "6_cardio",
)  # fmt: skip

MOST_ROWS = 600
"""Rows of a set: the benchmark takes them all."""


@pytest.mark.parametrize("name", SETS)
def test_auc_is_that_of_scikit_learn(name: str) -> None:
    path = FOLDER / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{name} left out: ../shared/data/adbench is not here")
    found = list(compare(path, MOST_ROWS))
    assert [comparison.detector for comparison in found] == [
        "isolation_forest", "local_outlier_factor", "one_class_svm",
    ]  # fmt: skip
    for comparison in found:
        assert abs(comparison.difference) <= 1e-12, comparison
        if not comparison.note:  # nothing was left open: as it comes, too
            assert abs(comparison.ours - comparison.theirs) <= 1e-12, comparison
        assert abs(comparison.published - comparison.ours) <= 1e-4, comparison
