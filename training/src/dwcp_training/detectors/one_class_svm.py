"""One-class SVM: scaler, scikit-learn's support vectors, exact export (S2-1; rules SV1 to SV6).

Source of the method: Schoelkopf, Platt, Shawe-Taylor, Smola, Williamson: Estimating the Support of a High-Dimensional
Distribution, Neural Computation 2001.
"""

import pickle

import numpy as np
from sklearn.svm import OneClassSVM

from dwcp.anomaly.v1 import model_pb2
from dwcp_training.calibrate import midpoint_threshold
from dwcp_training.data.errors import DataError
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.data.windows import time_split
from dwcp_training.detectors.base import (
    HELD_OUT,
    Evaluation,
    Fitted,
    Floats,
    Progress,
    clamp_scaled,
    common_metadata,
    counted_above,
    counted_rows,
    fitted_scaler,
    shares,
    silent,
)
from dwcp_training.detectors.kept_rows import kept_rows
from dwcp_training.detectors.nearest import chunks, squared_distances
from dwcp_training.export import svm
from dwcp_training.export.crosscheck_svm import cross_check_svm
from dwcp_training.export.svm import INSIDE_FLOOR
from dwcp_training.profiles import OneClassSvmDefaults

SOLVER_TOLERANCE = 1e-3
"""How exactly scikit-learn's solver places support vectors on the boundary: `inside` of each is `rho` but for this.
The threshold leaves room for it: half of those vectors would alarm, and in data with many equal rows most rows."""


class SvmReference:
    """SV1 to SV6 in numpy; `-expm1(-u)` where the graph has a tangent (SV3).

    Args:
        vectors: raw support vectors, float64 `[support vectors, features]`.
        alpha: their weights, float64 `[support vectors]`.
        metadata: has `gamma`, the scaler and the reference values; the threshold is read at each evaluation.
    """

    def __init__(self, vectors: Floats, alpha: Floats, metadata: model_pb2.ModelMetadata) -> None:
        self.vectors, self._alpha = vectors, alpha
        self._metadata = metadata
        self._mean, self._scale = np.array(metadata.scaler.mean), np.array(metadata.scaler.scale)
        self._reference = np.array(metadata.reference_values)
        self._scaled = clamp_scaled(vectors, self._mean, self._scale)

    def sums(self, scaled: Floats) -> tuple[Floats, Floats]:
        """`inside` and `outside` of SV2 for scaled samples `[n, features]`; float64 `[n]` each."""
        inside, outside = np.empty(len(scaled)), np.empty(len(scaled))
        for part in chunks(len(scaled), len(self._scaled)):
            exponent = self._metadata.svm.gamma * squared_distances(scaled[part], self._scaled)
            inside[part] = np.exp(-exponent) @ self._alpha
            outside[part] = -np.expm1(-exponent) @ self._alpha
        return inside, outside

    def scores(self, scaled: Floats) -> Floats:
        """SV2 for scaled samples `[n, features]`; float64 `[n]`."""
        inside, outside = self.sums(scaled)
        return outside / np.maximum(inside, INSIDE_FLOOR)

    def evaluate(self, items: Floats) -> Evaluation:
        scaled = clamp_scaled(items[:, -1], self._mean, self._scale)
        scores = self.scores(scaled)
        return Evaluation(
            scores=scores,
            is_anomaly=scores > self._metadata.threshold,
            contributions=shares((scaled - (self._reference - self._mean) / self._scale) ** 2),
            expected=np.broadcast_to(self._reference, scaled.shape),
            expected_is_stored=True,
        )


def fit_one_class_svm(telemetry: Telemetry, settings: OneClassSvmDefaults, progress: Progress = silent) -> Fitted:
    """Fits the scaler on all but the last fifth of the rows, and the SVM on at most `max_rows` of these.

    Raises:
        DataError: when there are too few rows, or rows that are all alike.
    """
    progress(0, 3, "fitting the scaler")
    fit_part, held_out = time_split(telemetry, HELD_OUT, gap=1)
    kept = kept_rows(fit_part, settings.max_rows, settings.seed)
    scaler = fitted_scaler(fit_part)
    scaled = clamp_scaled(kept.values, scaler.mean_, scaler.scale_)
    progress(1, 3, f"support vectors of {len(scaled):,} rows")
    model = OneClassSVM(kernel="rbf", nu=settings.nu, gamma=settings.gamma, tol=SOLVER_TOLERANCE).fit(scaled)
    weights = model.dual_coef_.ravel()
    vectors, alpha = model.support_[weights > 0], weights[weights > 0]

    metadata = common_metadata(telemetry, "one_class_svm", scaler.mean_, scaler.scale_, fit_part.values)
    metadata.parity_class = model_pb2.PARITY_CLASS_EXACT
    metadata.svm.gamma = float(model._gamma)
    metadata.svm.nu = settings.nu
    metadata.svm.support_vectors = len(vectors)
    metadata.training.seed = settings.seed
    metadata.training.fitted_on, metadata.training.held_out = len(scaled), len(held_out)
    if kept.warning:
        metadata.training.warnings.append(kept.warning)

    progress(2, 3, "threshold")
    reference = SvmReference(kept.values[vectors], alpha, metadata)
    scores = reference.scores(scaled)
    metadata.training.history["score_range"].values.extend([scores.min(), scores.max()])
    threshold = _threshold(scores, float(alpha.sum()), float(model.offset_[0]), settings)
    metadata.threshold = threshold

    def follow(threshold: float) -> dict[str, bytes]:
        # The pickle decides as the contract does (D2): score > threshold where inside < rho.
        model.offset_ = np.array([alpha.sum() / (1 + threshold)])
        model.intercept_ = model._intercept_ = -model.offset_
        return {"one_class_svm.pkl": pickle.dumps(model)}

    if settings.contamination is not None:
        metadata.contamination = settings.contamination
    progress(3, 3, "done")
    return Fitted(
        metadata=metadata,
        graph=lambda: svm.export_svm(
            kept.values[vectors],
            alpha,
            metadata.svm.gamma,
            np.array(metadata.reference_values),
            scaler.mean_,
            scaler.scale_,
            metadata.feature_names,
            metadata.threshold,
        ),
        cross_check=lambda graph: cross_check_svm(graph, model, scaler, reference, kept.values),
        operators=svm.operators(metadata.n_features),
        layout=svm.LAYOUT,
        precision="float64",
        reference=reference,
        fitted_items=kept.values[:, np.newaxis],
        held_out_items=held_out.values[:, np.newaxis],
        byproducts={**follow(threshold), "one_class_svm_scaler.pkl": pickle.dumps(scaler)},
        metadata_file="one_class_svm_metadata.json",
        graph_file="one_class_svm.onnx",
        follow=follow,
        facts={
            "rows": counted_rows(telemetry, len(scaled), len(held_out)),
            **({"left out": kept.warning} if kept.warning else {}),
            "support vectors": f"{len(vectors):,}, gamma {metadata.svm.gamma:.6g}",
            "scores": f"{scores.min():.4f} to {scores.max():.4f} on the fitted rows",
            "threshold": counted_above(threshold, scores),
        },
    )


def _threshold(scores: Floats, total: float, rho: float, settings: OneClassSvmDefaults) -> float:
    """The score at which `inside = rho`, but for the solver's tolerance, or the percentile of `contamination` (SV6)."""
    if settings.contamination is None:
        boundary = rho - min(SOLVER_TOLERANCE, rho / 100)
        return midpoint_threshold((total - boundary) / boundary)
    trained = -float(np.percentile(-scores, 100 * settings.contamination))
    try:
        return midpoint_threshold(trained, scores)
    except ValueError:
        raise DataError(
            "rows",
            f"the fitted rows have scores from {scores.min():g} to {scores.max():g}, and contamination "
            f"{settings.contamination:g} the threshold {trained:g}: to the kernel they are all alike.",
            "Use rows that differ, a larger gamma, or no contamination.",
        ) from None
