"""Our detectors beside scikit-learn's on the ADBench sets: the area under the ROC curve (AUC) of the same test rows.

Trained on half of the normal rows, tested on the other rows. scikit-learn is fitted here, on the rows that ours keeps,
with the same settings. It is compared as it comes, and with what it leaves open decided as the contract does.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from sklearn.svm import OneClassSVM

from dwcp_training.data import read_table
from dwcp_training.detectors.base import Fitted
from dwcp_training.detectors.registry import DETECTORS
from dwcp_training.export.run import cpu_session, inner_values
from dwcp_training.profiles import load_profile

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "adbench"

PROFILE = "feature_schema: {name: adbench, version: 1}\ntimestamp_column: null\nreader: {features: numeric}\n"

CLOSE = 1e-12
"""Scores that are closer than this, relatively, are one score: rounding may put them in either order."""


@dataclass(frozen=True)
class Comparison:
    """AUCs of one detector on one set.

    Attributes:
        name: of the set.
        rows, features: of the test rows.
        detector: its name.
        ours, published: AUC of our scores before they are rounded to float32, and of those that are published.
        theirs: AUC of scikit-learn's scores as they come.
        difference: of the AUCs once both sides decide alike what scikit-learn leaves open.
        note: what that was, with numbers; empty where nothing was open.
    """

    name: str
    rows: int
    features: int
    detector: str
    ours: float
    published: float
    theirs: float
    difference: float
    note: str


def compare(path: Path, most_rows: int | None = None, seed: int = 0) -> Iterator[Comparison]:
    """Compares the three detectors that scikit-learn has on one set.

    Args:
        path: `.npz` with `X` `[n, features]` and `y` `[n]`, 1 for anomalies.
        most_rows: of a larger set this many rows are drawn.
        seed: of that, of the rows to train on, and of the detectors.
    """
    with np.load(path) as data:
        values, labels = data["X"].astype(np.float64), data["y"].astype(bool)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(values))[:most_rows]
    values, labels = values[order], labels[order]
    fitted_on = np.flatnonzero(~labels)[: (~labels).sum() // 2]
    tested = np.setdiff1d(np.arange(len(values)), fitted_on)
    rows, labels = values[tested], labels[tested]
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/normal.npy", values[fitted_on])
        (Path(folder) / "adbench.yaml").write_text(PROFILE)
        telemetry = read_table(Path(folder) / "normal.npy", load_profile(f"{folder}/adbench.yaml"))
    for detector, side_by_side in _SIDE_BY_SIDE.items():
        settings = DETECTORS[detector].settings(seed=seed)
        fitted = DETECTORS[detector].fit(telemetry, settings)
        scaler = fitted.metadata.scaler
        both = side_by_side(fitted, settings, lambda x, s=scaler: (x - np.array(s.mean)) / np.array(s.scale), rows)
        yield Comparison(
            path.stem,
            *rows.shape,
            detector,
            *(float(roc_auc_score(labels, scores)) for scores in (both.ours, both.published, both.theirs)),
            float(roc_auc_score(labels, both.ours_alike) - roc_auc_score(labels, both.theirs_alike)),
            "; ".join(filter(None, [both.note, _rounding(both)])),
        )


@dataclass(frozen=True)
class _Scores:
    """Scores of both sides, higher is worse: as they come, and decided alike."""

    ours: np.ndarray
    published: np.ndarray
    theirs: np.ndarray
    ours_alike: np.ndarray
    theirs_alike: np.ndarray
    note: str = ""


Scale = Callable[[np.ndarray], np.ndarray]


def _forest(fitted: Fitted, settings, scale: Scale, rows: np.ndarray) -> _Scores:
    model = IsolationForest(n_estimators=settings.n_estimators, random_state=settings.seed).fit(
        scale(fitted.fitted_items[:, 0])
    )
    depth, published = cpu_session(_bytes(fitted)).run(["depth_sum", "score"], {"samples": rows})
    ours, theirs = np.exp2(depth * fitted.metadata.forest.score_rate), -model.score_samples(scale(rows))
    return _Scores(ours, published, theirs, _grouped(ours), _grouped(theirs))


class ByRule(LocalOutlierFactor):
    """scikit-learn's, but of rows that are equally far those count that come first in training (LF2)."""

    def kneighbors(self, X=None, n_neighbors=None, return_distance=True):
        assert return_distance
        samples = self._fit_X if X is None else X
        index = np.empty((len(samples), n_neighbors), np.intp)
        distance = np.empty((len(samples), n_neighbors))
        for i, sample in enumerate(samples):
            squared = sum((sample[j] - self._fit_X[:, j]) ** 2 for j in range(len(sample)))
            if X is None:
                squared[i] = np.inf
            index[i] = np.argsort(squared, kind="stable")[:n_neighbors]
            distance[i] = np.sqrt(squared[index[i]])
        return distance, index


def _neighbors(fitted: Fitted, settings, scale: Scale, rows: np.ndarray) -> _Scores:
    kept = scale(fitted.fitted_items[:, 0])
    graph = fitted.graph()
    ours = inner_values(graph, "score/float64", rows)
    theirs, ruled = (
        -kind(n_neighbors=settings.n_neighbors, novelty=True).fit(kept).score_samples(scale(rows))
        for kind in (LocalOutlierFactor, ByRule)
    )
    apart = int((np.abs(theirs - ours) > CLOSE * ours).sum())
    note = f"rows that tie: {apart} scores hang on which neighbour scikit-learn takes" if apart else ""
    return _Scores(ours, _published(graph, rows), theirs, _grouped(ours), _grouped(ruled), note)


def _svm(fitted: Fitted, settings, scale: Scale, rows: np.ndarray) -> _Scores:
    model = OneClassSVM(nu=settings.nu, gamma=settings.gamma).fit(scale(fitted.fitted_items[:, 0]))
    graph = fitted.graph()
    ours, theirs = inner_values(graph, "score/float64", rows), -model.decision_function(scale(rows))
    total = float(model.dual_coef_.sum())
    inside = inner_values(graph, "inside", rows).ravel()
    # scikit-learn's decision is inside - rho: what is below the last bit of rho is gone.
    gone = int((inside < np.spacing(model.offset_[0]) / 2).sum())
    note = f"scikit-learn's decision is -rho for all of {gone} far rows, which ours tells apart" if gone else ""
    return _Scores(ours, _published(graph, rows), theirs, _grouped(-inside, total), _grouped(theirs, total), note)


_SIDE_BY_SIDE = {"isolation_forest": _forest, "local_outlier_factor": _neighbors, "one_class_svm": _svm}


def _bytes(fitted: Fitted) -> bytes:
    return fitted.graph().SerializeToString()


def _published(graph: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    session = cpu_session(graph.SerializeToString())
    return np.concatenate([session.run(["score"], {"samples": rows[i : i + 64]})[0] for i in range(0, len(rows), 64)])


def _grouped(scores: np.ndarray, size: float = 0.0) -> np.ndarray:
    """Ranks of scores, equal for those that follow one another closer than `CLOSE` of the score, or of `size`."""
    order = np.argsort(scores, kind="stable")
    steps = np.diff(scores[order]) > CLOSE * np.maximum(np.abs(scores[order][1:]), size)
    ranks = np.empty(len(scores), np.intp)
    ranks[order] = np.concatenate([[0], np.cumsum(steps)])
    return ranks


def _rounding(both: _Scores) -> str:
    """What to say about scores that are equal but for rounding, whose order is that of the last bits."""
    ours, theirs = (
        len(np.unique(scores)) - (int(ranks.max()) + 1)
        for scores, ranks in ((both.ours, _grouped(both.ours)), (both.theirs, _grouped(both.theirs)))
    )
    return f"equal but for rounding: {ours} scores of ours, {theirs} of scikit-learn" if ours or theirs else ""


def sets() -> list[Path]:
    """The sets that are there, by name; empty where they are not."""
    return sorted(FOLDER.glob("*.npz"))
