"""Holds the forest's graph against scikit-learn and against skl2onnx's own export of the same model."""

import numpy as np
import onnx

from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dwcp_training.export.run import cpu_session

SKLEARN_BOUND = 3e-15
"""Largest difference from scikit-learn's score (IF4)."""

SKL2ONNX_BOUND = 1e-5
"""Largest difference from skl2onnx's score where it takes the same leaves; it scales in float32, so a few rows take others."""

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


def cross_check_forest(
    model: onnx.ModelProto, forest: IsolationForest, scaler: StandardScaler, rows: np.ndarray
) -> dict[str, str]:
    """Compares scores and decisions on raw training rows `[n, features]`, at most 2,000 of them.

    Returns:
        What was compared, to the largest difference in words.

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
    if not difference <= SKLEARN_BOUND:
        raise CrossCheckError(f"scores differ from scikit-learn's by {difference:.2e}, more than {SKLEARN_BOUND}")
    if not np.array_equal(anomaly, wanted > -forest.offset_):
        raise CrossCheckError("decisions differ from scikit-learn's")

    other = cpu_session(skl2onnx_graph(forest, scaler))
    theirs = -other.run(["score_samples"], {"X": rows.astype(np.float32)})[0].ravel()
    apart = np.abs(theirs - scores)
    share = float((apart > SKL2ONNX_BOUND).mean())
    if not share <= 0.01:
        raise CrossCheckError(f"{100 * share:.2f} % of the rows score differently in skl2onnx's graph")
    return {
        "scikit-learn": f"largest difference {difference:.1e} on {len(rows):,} rows, decisions equal",
        "skl2onnx": f"{100 * (1 - share):.2f} % of rows within {SKL2ONNX_BOUND:g} (it scales in float32)",
    }
