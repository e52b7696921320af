"""Holds the forest's graph against scikit-learn and against skl2onnx's own export of the same model."""

import copy
import math

import numpy as np
import onnx
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dwcp_sidecar.audit import LEAF_GRID
from dwcp_training.export.forest import average_path_length
from dwcp_training.export.run import cpu_session

ARITHMETIC_BOUND = 2e-15
"""Largest difference from scikit-learn's score that rounding in either sum and power makes."""

SKL2ONNX_BOUND = 1e-5
"""Largest difference from skl2onnx's score where it takes the same leaves. It scales in float32: a few do not."""

TREES_AT_ONCE = 10
"""Trees that skl2onnx is given at once: its time grows with the square of them (18 s for 100, minutes for 300)."""

SKL2ONNX_OPSETS = {"": 17, "ai.onnx.ml": 3}


class CrossCheckError(AssertionError):
    """A graph that scores differently from the model it was made of."""


def skl2onnx_graph(forest: IsolationForest, scaler: StandardScaler) -> bytes:
    """skl2onnx's own export, for comparison: float32 input `X`, outputs label, scores, decision function."""
    import skl2onnx

    return skl2onnx.to_onnx(
        make_pipeline(scaler, forest),
        np.zeros((1, len(scaler.mean_)), np.float32),
        target_opset=SKL2ONNX_OPSETS,
        options={id(forest): {"score_samples": True}},
    ).SerializeToString()


def sklearn_bound(max_samples: int) -> float:
    """Largest difference from scikit-learn's score that rounding leaf weights to the grid of IF2 can make.

    A weight moves by half a step at most, so the mean over the trees does too, however many they are: the score, at
    most 1, by `ln 2 / c(max_samples)` of it. With 100 trees the parts cancel and 3e-15 is what is seen (IF4); with one
    they do not.
    """
    return ARITHMETIC_BOUND + math.log(2) / average_path_length(max_samples) / (2 * LEAF_GRID)


def against_sklearn(
    model: onnx.ModelProto, forest: IsolationForest, scaler: StandardScaler, rows: np.ndarray
) -> tuple[dict[str, str], np.ndarray]:
    """Compares scores and decisions on raw training rows `[n, features]`, at most 2,000 of them, with scikit-learn's.

    Returns:
        What was compared, to the largest difference in words; and the scores of the graph, float64 `[n]`.

    Raises:
        CrossCheckError: when a bound is exceeded or a decision differs.
    """
    rows = rows[:2000]
    session = cpu_session(model.SerializeToString())
    depth, anomaly = session.run(["depth_sum", "is_anomaly"], {"samples": rows})
    exponent = next(i for i in model.graph.initializer if i.name == "score_rate")
    scores = np.exp2(depth * onnx.numpy_helper.to_array(exponent))
    wanted = -forest.score_samples(scaler.transform(rows))
    difference = float(np.abs(scores - wanted).max())
    bound = sklearn_bound(forest._max_samples)
    if not difference <= bound:
        raise CrossCheckError(f"scores differ from scikit-learn's by {difference:.2e}, more than {bound:.2e}")
    if not np.array_equal(anomaly, wanted > -forest.offset_):
        raise CrossCheckError("decisions differ from scikit-learn's")
    return {"scikit-learn": f"largest difference {difference:.1e} on {len(rows):,} rows, decisions equal"}, scores


def cross_check_forest(
    model: onnx.ModelProto, forest: IsolationForest, scaler: StandardScaler, rows: np.ndarray
) -> dict[str, str]:
    """`against_sklearn`, and then the scores against skl2onnx's graph: seconds, nearly all of them to make that graph.

    Raises:
        CrossCheckError: when a bound is exceeded or a decision differs.
    """
    findings, scores = against_sklearn(model, forest, scaler, rows)
    rows = rows[:2000]
    apart = np.abs(_skl2onnx_scores(forest, scaler, rows) - scores)
    share = _share_apart(apart)
    where = "it scales in float32"
    if share > 0.01:
        # Wide schemas and large raw values lose more rows to its scaling in float32; without it all must agree.
        apart = np.abs(_skl2onnx_scores(forest, _identity(rows.shape[1]), scaler.transform(rows)) - scores)
        share, where = _share_apart(apart), "of rows scaled in float64"
    if not share <= 0.01:
        raise CrossCheckError(f"{100 * share:.2f} % of the rows score differently in skl2onnx's graph")
    return {
        **findings,
        "skl2onnx": f"{100 * (1 - share):.2f} % of rows within {SKL2ONNX_BOUND:g} ({where})",
    }


def _skl2onnx_scores(forest: IsolationForest, scaler: StandardScaler, rows: np.ndarray) -> np.ndarray:
    """Scores of rows by skl2onnx's graphs of a few trees each: the logarithm of a score is a mean over trees."""
    logarithm = np.zeros(len(rows))
    for first in range(0, len(forest.estimators_), TREES_AT_ONCE):
        part = copy.copy(forest)
        part.estimators_ = forest.estimators_[first : first + TREES_AT_ONCE]
        part.estimators_features_ = forest.estimators_features_[first : first + TREES_AT_ONCE]
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite there
            session = cpu_session(skl2onnx_graph(part, scaler))
            scores = -session.run(["score_samples"], {"X": rows.astype(np.float32)})[0].ravel()
        logarithm += np.log2(scores.astype(np.float64)) * len(part.estimators_)
    return np.exp2(logarithm / len(forest.estimators_))


def _share_apart(differences: np.ndarray) -> float:
    """Share of the rows whose scores differ; one that is no number differs."""
    return float((~(differences <= SKL2ONNX_BOUND)).mean())


def _identity(features: int) -> StandardScaler:
    """A scaler that changes nothing."""
    scaler = StandardScaler(with_mean=False, with_std=False).fit(np.zeros((2, features)))
    scaler.mean_, scaler.scale_ = np.zeros(features), np.ones(features)
    return scaler
