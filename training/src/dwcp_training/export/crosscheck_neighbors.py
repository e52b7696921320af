"""Holds the graph of the local outlier factor against scikit-learn and against skl2onnx's export of the same model."""

from typing import TYPE_CHECKING

import numpy as np
import onnx
from sklearn.neighbors import LocalOutlierFactor
from sklearn.preprocessing import StandardScaler

from dwcp_training.detectors.base import clamp_scaled
from dwcp_training.export.crosscheck_forest import SKL2ONNX_OPSETS, CrossCheckError
from dwcp_training.export.run import cpu_session, inner_values

if TYPE_CHECKING:
    from dwcp_training.detectors.local_outlier_factor import Neighborhood

BOUND = 1e-12
"""Largest relative difference of an unrounded score from scikit-learn's, where no rows tie (LF4)."""

SKL2ONNX_BOUND = 1e-9
"""Likewise from skl2onnx's graph in float64, which adds the squares in an order of its own."""

ROWS = 1_000
"""Rows that are compared."""


def cross_check_neighbors(
    model: onnx.ModelProto,
    fitted: LocalOutlierFactor,
    scaler: StandardScaler,
    neighborhood: "Neighborhood",
    rows: np.ndarray,
) -> dict[str, str]:
    """Compares unrounded scores of raw training rows `[n, features]`, each as a new sample, and as a training row.

    Where rows tie for the last place among neighbours, scikit-learn takes any of them: such scores are only counted.

    Returns:
        What was compared, to the largest difference in words.

    Raises:
        CrossCheckError: when a bound is exceeded.
    """
    rows = rows[:ROWS]
    scaled = clamp_scaled(rows, scaler.mean_, scaler.scale_)
    scores = inner_values(model, "score/float64", rows)
    ties = neighborhood.depends_on_ties(neighborhood.find(scaled))
    apart = relative(scores, -fitted.score_samples(scaled))
    largest = _largest(apart[~ties])
    if not largest <= BOUND:
        raise CrossCheckError(f"scores differ from scikit-learn's by {largest:.2e}, relatively, more than {BOUND:g}")

    own = relative(neighborhood.scores, -fitted.negative_outlier_factor_)
    largest_own = _largest(own[~neighborhood.depends_on_ties(neighborhood.own)])
    if not largest_own <= BOUND:
        raise CrossCheckError(f"scores of training rows differ from scikit-learn's by {largest_own:.2e}, relatively")
    return {
        "scikit-learn": f"largest relative difference {max(largest, largest_own):.1e} on {len(rows):,} rows"
        + _of_ties(ties, apart),
        "skl2onnx": _against_skl2onnx(fitted, scaled[~ties], scores[~ties]),
    }


def relative(values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Relative differences `[n]`."""
    return np.abs(values - wanted) / np.abs(wanted)


def _largest(differences: np.ndarray) -> float:
    """The largest difference, 0 where there is nothing to compare; NaN stays NaN."""
    return float(differences.max()) if len(differences) else 0.0


def _of_ties(ties: np.ndarray, apart: np.ndarray) -> str:
    if not ties.any():
        return ""
    return (
        f"; {int(ties.sum()):,} of them depend on rows that tie for the last place among neighbours, where "
        f"scikit-learn takes any: up to {_largest(apart[ties]):.1e}"
    )


def _against_skl2onnx(fitted: LocalOutlierFactor, scaled: np.ndarray, scores: np.ndarray) -> str:
    """Findings in words. Its graph compares every sample with every row, so that 100 samples are enough."""
    import skl2onnx

    scaled, scores = scaled[:100], scores[:100]
    if not len(scaled):
        return "nothing to compare: neighbours of all rows tie"
    try:
        theirs = skl2onnx.to_onnx(
            fitted, scaled[:1], target_opset=SKL2ONNX_OPSETS, options={id(fitted): {"score_samples": True}}
        )
    except (RuntimeError, NameError, NotImplementedError) as error:
        return f"does not convert it: {error}"
    found = cpu_session(theirs.SerializeToString()).run(["score_samples"], {"X": scaled})[0].ravel()
    largest = _largest(relative(-found, scores))
    if not largest <= SKL2ONNX_BOUND:
        raise CrossCheckError(f"scores differ from those of skl2onnx's graph by {largest:.2e}, relatively")
    return f"largest relative difference {largest:.1e} on {len(scaled):,} rows, in float64"
