"""Who is measured: our detectors as they are served, and the simple baselines that they must reach.

Ours are trained by `dwcp_training.interface` with the defaults of the set's profile and score by the serving core, so
the scores are those that a server publishes. The baselines are scikit-learn's, on rows scaled by their training part,
point by point, with scikit-learn's defaults; nothing is tuned per set.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from dwcp_sidecar import detectors
from dwcp_sidecar.verdicts import Explain, Verdicts
from dwcp_training.data import DataError
from dwcp_training.evaluation.baselines import BASELINES as TRIVIAL
from dwcp_training.interface import BY_NAME, SINGLE, Detector, EnsembleDetector
from dwcp_training.interface.ensemble import SHORT
from tests.bench.quality_sets import Floats, Series

MOST_ROWS = 5000
"""Training rows of LOF and SVM, drawn at random where there are more, as ours keep them."""

MOST_WINDOW_ROWS = 100_000
"""Rows in all training windows of a series above which a network with a window is not trained unless asked for."""

NEEDS_LABELS = "lstm_classifier"


def _drawn(rows: Floats) -> Floats:
    if len(rows) <= MOST_ROWS:
        return rows
    return rows[np.sort(np.random.default_rng(42).choice(len(rows), MOST_ROWS, replace=False))]


def _forest(train: Floats, test: Floats) -> Floats:
    return -IsolationForest(random_state=42).fit(train).score_samples(test)


def _lof(train: Floats, test: Floats) -> Floats:
    return -LocalOutlierFactor(novelty=True).fit(_drawn(train)).score_samples(test)


def _svm(train: Floats, test: Floats) -> Floats:
    return -OneClassSVM().fit(_drawn(train)).score_samples(test)


def _pca(train: Floats, test: Floats) -> Floats:
    """Squared error of the rows rebuilt from the components that hold 90 % of the variance."""
    model = PCA(0.9, svd_solver="full").fit(train)
    return ((test - model.inverse_transform(model.transform(test))) ** 2).sum(axis=1)


def _mahalanobis(train: Floats, test: Floats) -> Floats:
    return EmpiricalCovariance().fit(train).mahalanobis(test)


BASELINES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "forest (scikit-learn)": _forest,
    "LOF (scikit-learn)": _lof,
    "one-class SVM (scikit-learn)": _svm,
    "PCA": _pca,
    "mean z squared": lambda _, test: TRIVIAL["mean_z_squared"](test),
    "max |z|": lambda _, test: TRIVIAL["max_abs_z"](test),
    "Mahalanobis": _mahalanobis,
}
"""Name to the scores of scaled test rows by scaled training rows, higher is worse."""

OURS = tuple(name for name in BY_NAME if name != NEEDS_LABELS)
"""Ours, the ensemble last: it joins the others."""


@dataclass(frozen=True)
class Answer:
    """Scores of all test rows of a series, float64 `[m]`; None with the reason why there are none. Of an ensemble also
    its members with their weights."""

    scores: Floats | None
    seconds: float
    why_not: str = ""
    members: dict[str, float] | None = None


def baseline(name: str, series: Series) -> Answer:
    """Fits and scores one baseline."""
    start = time.perf_counter()
    scaler = StandardScaler().fit(series.train)
    scores = BASELINES[name](scaler.transform(series.train), scaler.transform(series.test))
    return Answer(scores, time.perf_counter() - start)


def window_rows(detector: Detector, rows: int) -> int:
    """Rows in all training windows of a network that reads them one after the other; 0 for other detectors."""
    if not hasattr(detector.settings, "epochs") or detector.sequence_length is None:
        return 0
    return rows * detector.sequence_length // getattr(detector.settings, "window_stride", 1)


class Trained:
    """Our detectors, each trained at most once on one series.

    Args:
        train: raw rows.
        profile: whose defaults they have.
        without: detectors that are not wanted, nor as members of the ensemble.
        most_window_rows: above which a detector with a window is not trained, nor a member; None for any number.
    """

    def __init__(
        self,
        train: Floats,
        profile: str,
        without: Sequence[str] = (),
        most_window_rows: int | None = MOST_WINDOW_ROWS,
    ) -> None:
        self._train, self._profile, self._without = train, profile, without
        self._most = most_window_rows
        self._members: dict[str, Detector] = {}
        self._reasons: dict[str, str] = {}

    def get(self, name: str) -> Detector | EnsembleDetector | str:
        """The trained detector, or why there is none."""
        if name in SINGLE:
            return self._member(name)
        wanted = EnsembleDetector(profile=self._profile).weights
        members = [
            each for each in OURS if each in SINGLE and each not in self._without and (not wanted or each in wanted)
        ]
        found = {each: member for each in members if not isinstance(member := self._member(each), str)}
        if len(found) < 2:
            return "fewer than two members"
        arguments = {long: short for short, long in SHORT.items()}
        weights = {each: wanted[each] for each in found} if wanted else None
        if weights:  # who is missing leaves its weight to the others (EN6)
            weights = {each: weight / sum(weights.values()) for each, weight in weights.items()}
        return EnsembleDetector(
            **{arguments.get(each, each): member for each, member in found.items()},  # type: ignore[arg-type]
            weights=weights,
            profile=self._profile,
        )

    def _member(self, name: str) -> Detector | str:
        if name not in self._members and name not in self._reasons:
            detector = SINGLE[name](profile=self._profile)
            if self._most is not None and window_rows(detector, len(self._train)) > self._most:
                self._reasons[name] = "left out, takes too long"
            else:
                try:
                    self._members[name] = remembering(detector.train_model(self._train))
                except Exception as error:  # a set that one detector cannot learn shall not stop the others
                    self._reasons[name] = _said(error)
        return self._members.get(name) or self._reasons[name]

    def answer(self, name: str, series: Series) -> Answer:
        """Trains where needed, and scores the test rows."""
        start = time.perf_counter()
        detector = self.get(name)
        if isinstance(detector, str):
            return Answer(None, 0.0, detector)
        try:
            scores = published(detector, series.test, series.before)[0]
        except DataError as error:  # members that cannot be joined are an answer, too
            return Answer(None, 0.0, _said(error))
        members = None
        if isinstance(detector, EnsembleDetector):
            members = {detectors.NAMES[m.detector]: m.weight for m in detector.metadata.ensemble.members}
        return Answer(scores, time.perf_counter() - start, members=members)


def remembering(detector: Detector) -> Detector:
    """A detector whose model scores the same items once, however often it is asked: by itself, and as a member."""
    model = detector.model
    assert model is not None
    run, known = model.run, {}

    def once(items: Floats, explain: Explain) -> Verdicts:
        key = (items.shape, explain, hashlib.sha256(np.ascontiguousarray(items)).digest())
        if key not in known:
            known[key] = run(items, explain)
        return known[key]

    model.run = once  # type: ignore[method-assign]
    return detector


def _said(error: Exception) -> str:
    """The first line of what an error says."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def published(detector: Detector | EnsembleDetector, rows: Floats, before: Floats) -> tuple[Floats, np.ndarray]:
    """The scores of rows that follow one another, float64 `[n]`, and which of them alarm, bool `[n]`."""
    history = (detector.sequence_length or 1) - 1
    every = np.concatenate([before[len(before) - history :], rows])
    if isinstance(detector, EnsembleDetector):
        parts = [detector.predict(part) for part in _overlapping(every, history)]
        levels = np.concatenate([part["alert_levels"] for part in parts])
        return np.concatenate([part["ensemble_scores"] for part in parts]).astype(np.float64), levels != "normal"
    answers = [detector.predict(part) for part in _overlapping(every, history)]
    return (
        np.concatenate([scores for scores, _ in answers]).astype(np.float64),
        np.concatenate([labels for _, labels in answers]).astype(bool),
    )


def _overlapping(rows: Floats, history: int, at_once: int = 8192) -> Iterator[Floats]:
    """Rows in parts that each have the history of their first one."""
    for start in range(history, len(rows), at_once):
        yield rows[start - history : start + at_once]
