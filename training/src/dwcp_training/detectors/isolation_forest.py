"""Isolation forest: scaler, scikit-learn's forest, exact export (S1-10; rules IF1 to IF8)."""

import pickle

import numpy as np
import onnx
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.preprocessing import StandardScaler

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit import LEAF_GRID
from dwcp_training.calibrate import depth_threshold, midpoint_threshold
from dwcp_training.data.errors import DataError, DataErrorCode
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
from dwcp_training.export.crosscheck_forest import against_sklearn, cross_check_forest
from dwcp_training.export.forest import LAYOUT, OPERATORS, average_path_length, export_forest, score_rate
from dwcp_training.profiles import IsolationForestDefaults

REPLACED_NUMBERS = 4_000_000
"""Numbers in memory at once while features are replaced: a tree is walked for many rows in one call."""


class ForestReference:
    """scikit-learn's trees, walked by scikit-learn, summed by the rules IF2 to IF7."""

    def __init__(self, forest: IsolationForest, scaler: StandardScaler, metadata: model_pb2.ModelMetadata) -> None:
        self._forest = forest
        self._mean, self._scale = scaler.mean_, scaler.scale_
        self._metadata = metadata
        self._reference = np.array(metadata.reference_values)
        self._leaf_weights = [self._weights(estimator) for estimator in forest.estimators_]
        every = np.arange(len(scaler.mean_))
        self._trees = [  # each with its columns; None are all of them in their order
            (estimator.tree_, None if np.array_equal(columns, every) else columns)
            for estimator, columns in zip(forest.estimators_, forest.estimators_features_, strict=True)
        ]

    @staticmethod
    def _weights(estimator) -> Floats:
        tree = estimator.tree_
        depth = np.zeros(tree.node_count)
        for node in range(tree.node_count):  # children come after their parent
            for child in (tree.children_left[node], tree.children_right[node]):
                if child >= 0:
                    depth[child] = depth[node] + 1
        paths = [d + average_path_length(int(n)) for d, n in zip(depth, tree.n_node_samples, strict=True)]
        return np.rint(np.array(paths) * LEAF_GRID) / LEAF_GRID

    def depth_sums(self, scaled: Floats) -> Floats:
        """IF1 and IF3 for scaled rows `[n, features]`; float64 `[n]`."""
        narrow = scaled.astype(np.float32, order="C")
        total = np.zeros(len(narrow))
        for (tree, columns), weights in zip(self._trees, self._leaf_weights, strict=True):
            rows = narrow if columns is None else np.ascontiguousarray(narrow[:, columns])
            total += weights[tree.apply(rows)]
        return total

    def _depths_replaced(self, scaled: Floats, reference: Floats) -> Floats:
        """Depth sums `[n, 1 + features]` of scaled rows as they are, then with one feature after the other at its
        reference value."""
        width = scaled.shape[1]
        every = np.arange(width)
        depths = np.zeros((len(scaled), 1 + width))
        step = max(1, REPLACED_NUMBERS // (width * (1 + width)))
        for start in range(0, len(scaled), step):
            copies = np.repeat(scaled[start : start + step, np.newaxis], 1 + width, axis=1)
            copies[:, 1 + every, every] = reference
            depths[start : start + step] = self.depth_sums(copies.reshape(-1, width)).reshape(-1, 1 + width)
        return depths

    def splits(self) -> dict[int, Floats]:
        """Feature index to the scaled thresholds of all splits on it."""
        found: dict[int, list[float]] = {}
        for estimator, columns in zip(self._forest.estimators_, self._forest.estimators_features_, strict=True):
            tree = estimator.tree_
            for node in np.flatnonzero(tree.children_left >= 0):
                found.setdefault(int(columns[tree.feature[node]]), []).append(float(tree.threshold[node]))
        return {feature: np.array(thresholds) for feature, thresholds in found.items()}

    def depths(self, rows: Floats) -> Floats:
        """Depth sums of raw rows `[n, features]`, without the explanation that `evaluate` adds."""
        return self.depth_sums(clamp_scaled(rows, self._mean, self._scale))

    def verdicts(self, rows: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Scores and decisions `[n]` of raw rows, without the explanation: for wide rows most of the work."""
        depth = self.depths(rows)
        return np.exp2(depth * self._metadata.forest.score_rate), depth < self._metadata.forest.depth_threshold

    def are_anomalies(self, rows: Floats) -> NDArray[np.bool_]:
        """Decisions `[n]` on raw rows `[n, features]` (IF5)."""
        return self.depths(rows) < self._metadata.forest.depth_threshold

    def evaluate(self, items: Floats) -> Evaluation:
        scaled = clamp_scaled(items[:, -1], self._mean, self._scale)
        reference = clamp_scaled(self._reference, self._mean, self._scale)
        depths = self._depths_replaced(scaled, reference)
        depth = depths[:, 0]
        gains = np.maximum(depths[:, 1:] - depths[:, :1], 0)
        none = gains.sum(axis=1, keepdims=True) == 0
        return Evaluation(
            scores=np.exp2(depth * self._metadata.forest.score_rate),
            is_anomaly=depth < self._metadata.forest.depth_threshold,
            contributions=shares(np.where(none, scaled * scaled, gains)),
            expected=np.broadcast_to(self._reference, scaled.shape),
            depth_sums=depth,
            expected_is_stored=True,
        )


def fit_isolation_forest(
    telemetry: Telemetry, settings: IsolationForestDefaults, progress: Progress = silent
) -> Fitted:
    """Fits scaler and forest on all but the last fifth of the rows.

    Raises:
        DataError: when there are too few rows.
    """
    progress(0, 3, "fitting the scaler")
    fit_part, held_out = time_split(telemetry, HELD_OUT, gap=1)
    if len(fit_part) < 2:
        raise DataError(
            "rows",
            "a forest needs at least 2 rows to fit, and a fifth to hold out.",
            "Use more data.",
            code=DataErrorCode.TOO_SHORT,
        )
    scaler = fitted_scaler(fit_part)
    scaled = scaler.transform(fit_part.values)
    progress(1, 3, f"growing {settings.n_estimators} trees")
    forest = IsolationForest(
        n_estimators=settings.n_estimators,
        contamination=settings.contamination,
        max_samples=settings.max_samples,
        max_features=settings.max_features,
        bootstrap=settings.bootstrap,
        random_state=settings.seed,
    ).fit(scaled)
    progress(2, 3, "threshold")
    scores = -forest.score_samples(scaled)
    threshold = midpoint_threshold(-float(forest.offset_), scores)
    metadata = common_metadata(telemetry, "isolation_forest", scaler.mean_, scaler.scale_, fit_part.values)
    metadata.threshold = threshold
    metadata.training.fitted_on, metadata.training.held_out = len(fit_part), len(held_out)
    metadata.training.history["score_range"].values.extend([scores.min(), scores.max()])
    progress(3, 3, "done")
    return assembled(
        forest,
        scaler,
        metadata,
        settings,
        fit_part.values[:, np.newaxis],
        held_out.values[:, np.newaxis],
        {
            "rows": counted_rows(telemetry, len(fit_part), len(held_out)),
            "scores": f"{scores.min():.4f} to {scores.max():.4f} on the fitted rows",
            "threshold": counted_above(threshold, scores),
        },
    )


def assembled(
    forest: IsolationForest,
    scaler: StandardScaler,
    metadata: model_pb2.ModelMetadata,
    settings: IsolationForestDefaults,
    fitted_items: Floats,
    held_out_items: Floats,
    facts: dict[str, str],
) -> Fitted:
    """A grown forest, its scaler, and metadata with a threshold as a fitted detector; items as of `Fitted`."""
    rate = score_rate(len(forest.estimators_), forest._max_samples)
    metadata.n_estimators = settings.n_estimators
    metadata.contamination = settings.contamination
    metadata.parity_class = model_pb2.PARITY_CLASS_EXACT
    metadata.forest.max_samples = forest._max_samples
    metadata.forest.score_rate = rate
    metadata.training.seed = settings.seed
    reference = np.array(metadata.reference_values)
    rows = fitted_items[:, -1]

    def build() -> onnx.ModelProto:
        return export_forest(
            forest, scaler, reference, metadata.feature_names, metadata.threshold, metadata.forest.depth_threshold
        )

    def follow(threshold: float) -> dict[str, bytes]:
        metadata.forest.depth_threshold = depth_threshold(threshold, rate)
        forest.offset_ = -threshold  # the pickle decides as the contract does (D2)
        return {"isolation_forest.pkl": pickle.dumps(forest)}

    return Fitted(
        metadata=metadata,
        graph=build,
        cross_check=lambda model: cross_check_forest(model, forest, scaler, rows),
        quick_check=lambda model: against_sklearn(model, forest, scaler, rows)[0],
        operators=OPERATORS,
        layout=LAYOUT,
        precision="float64",
        reference=ForestReference(forest, scaler, metadata),
        fitted_items=fitted_items,
        held_out_items=held_out_items,
        byproducts={**follow(metadata.threshold), "scaler.pkl": pickle.dumps(scaler)},
        metadata_file="model_metadata.json",
        graph_file="isolation_forest.onnx",
        follow=follow,
        facts=facts,
    )
