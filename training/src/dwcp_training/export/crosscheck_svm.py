"""Holds the graph of the one-class SVM against scikit-learn and against skl2onnx's export of the same model."""

from typing import TYPE_CHECKING

import numpy as np
import onnx
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from dwcp_training.detectors.base import clamp_scaled
from dwcp_training.export.crosscheck_forest import SKL2ONNX_OPSETS, CrossCheckError
from dwcp_training.export.run import cpu_session, inner_values

if TYPE_CHECKING:
    from dwcp_training.detectors.one_class_svm import SvmReference

BOUND = 1e-12
"""Largest difference of `inside - rho` from scikit-learn's decision function, in parts of `sum(alpha)`."""

SKL2ONNX_BOUND = 1e-4
"""Likewise from skl2onnx's graph, which computes in float32."""

ROWS = 1_000
"""Rows that are compared."""


def cross_check_svm(
    model: onnx.ModelProto, fitted: OneClassSVM, scaler: StandardScaler, reference: "SvmReference", rows: np.ndarray
) -> dict[str, str]:
    """Compares raw training rows `[n, features]`, and as many moved away from the mean, up to ten times as far.

    Returns:
        What was compared, to the largest difference in words.

    Raises:
        CrossCheckError: when a bound is exceeded, or a score falls where scikit-learn's decision function falls too.
    """
    rows = rows[:ROWS]
    rows = np.vstack([rows, scaler.mean_ + (rows - scaler.mean_) * np.linspace(1, 10, len(rows))[:, np.newaxis]])
    scaled = clamp_scaled(rows, scaler.mean_, scaler.scale_)
    total = float(fitted.dual_coef_.sum())
    decision = fitted.score_samples(scaled) - float(fitted.offset_[0])

    inside = inner_values(model, "inside", rows).ravel()
    largest = float(np.abs(inside - float(fitted.offset_[0]) - decision).max()) / total
    if not largest <= BOUND:
        raise CrossCheckError(f"inside - rho differs from scikit-learn's by {largest:.2e} of sum(alpha)")
    score = inner_values(model, "score/float64", rows)
    falls = np.diff(score[np.argsort(-decision, kind="stable")])
    # Decisions closer than the bound may change places.
    apart = -np.diff(-np.sort(-decision)) > 2 * BOUND * total
    if bool((falls[apart] < 0).any()):
        raise CrossCheckError("scores do not rise as scikit-learn's decision function falls (SV2)")
    return {
        "scikit-learn": f"decision function: largest difference {largest:.1e} of sum(alpha) on {len(rows):,} rows, "
        "scores rise as it falls",
        "skl2onnx": _against_skl2onnx(fitted, scaled, decision, total),
    }


def _against_skl2onnx(fitted: OneClassSVM, scaled: np.ndarray, decision: np.ndarray, total: float) -> str:
    import skl2onnx

    narrow = scaled.astype(np.float32)
    try:
        theirs = skl2onnx.to_onnx(fitted, narrow[:1], target_opset=SKL2ONNX_OPSETS)
    except (RuntimeError, NameError, NotImplementedError) as error:
        return f"does not convert it: {error}"
    found = cpu_session(theirs.SerializeToString()).run(["scores"], {"X": narrow})[0].ravel()
    largest = float(np.abs(found - decision).max()) / total
    if not largest <= SKL2ONNX_BOUND:
        raise CrossCheckError(f"decisions of skl2onnx's graph differ by {largest:.2e} of sum(alpha)")
    return f"largest difference {largest:.1e} of sum(alpha), in float32"
