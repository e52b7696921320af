"""Local outlier factor: scaler, exact neighbours and densities, exact export (S2-1; rules LF1 to LF7).

k-distances and densities are computed here and not taken from scikit-learn, which gives no rule for training rows that
are equally far, and for wide samples computes distances from products, with errors that grow where rows lie close.
"""

import pickle

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import LocalOutlierFactor

from dwcp.anomaly.v1 import model_pb2
from dwcp_training.calibrate import midpoint_threshold
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
from dwcp_training.detectors.kept_rows import kept_rows
from dwcp_training.detectors.nearest import Nearest, chunks, nearest, squared_distances
from dwcp_training.export import neighbors
from dwcp_training.export.crosscheck_neighbors import cross_check_neighbors
from dwcp_training.export.neighbors import REACH_FLOOR
from dwcp_training.profiles import LocalOutlierFactorDefaults


class Neighborhood:
    """The training rows, each with its k-distance and density (LF3).

    Args:
        scaled: the rows, float64 `[rows, features]`.
        n_neighbors: less than `rows`.

    Attributes:
        scaled, n_neighbors: as given.
        own: neighbours of the rows themselves, each without itself.
        k_distance: float64 `[rows]`.
        density: float64 `[rows]`.
        scores: of the rows, each scored without itself (LF7), float64 `[rows]`.
    """

    def __init__(self, scaled: Floats, n_neighbors: int) -> None:
        self.scaled, self.n_neighbors = scaled, n_neighbors
        self.own = _joined([self._others(part) for part in chunks(len(scaled), len(scaled))])
        self.k_distance = self.own.distance[:, -1]
        reach = self._reach(self.own)
        self.density = 1.0 / reach
        self.scores = self.density[self.own.index].mean(axis=1) * reach

    def _others(self, part: slice) -> Nearest:
        squared = squared_distances(self.scaled[part], self.scaled)
        squared[np.arange(len(squared)), np.arange(part.start, part.stop)] = np.inf
        return nearest(squared, self.n_neighbors)

    def find(self, scaled: Floats) -> Nearest:
        """Neighbours of scaled samples `[n, features]` among all rows."""
        parts = chunks(len(scaled), len(self.scaled))
        return _joined([nearest(squared_distances(scaled[part], self.scaled), self.n_neighbors) for part in parts])

    def score(self, found: Nearest) -> Floats:
        """LF4 for samples with these neighbours; float64 `[n]`."""
        return self.density[found.index].mean(axis=1) * self._reach(found)

    def depends_on_ties(self, found: Nearest) -> NDArray[np.bool_]:
        """Whether another choice among rows that tie could give these samples another score; bool `[n]`."""
        return found.tied | self.own.tied[found.index].any(axis=1)

    def _reach(self, found: Nearest) -> Floats:
        """Mean of reach over the neighbours + 1e-10 (LF3)."""
        return np.maximum(self.k_distance[found.index], found.distance).mean(axis=1) + REACH_FLOOR


def _joined(parts: list[Nearest]) -> Nearest:
    return Nearest(*(np.concatenate([getattr(part, name) for part in parts]) for name in Nearest.__dataclass_fields__))


class NeighborReference:
    """LF1 to LF7 in numpy on the rows as they were read."""

    def __init__(self, neighborhood: Neighborhood, rows: Floats, metadata: model_pb2.ModelMetadata) -> None:
        self.neighborhood, self.rows = neighborhood, rows
        self._metadata = metadata
        self._mean, self._scale = np.array(metadata.scaler.mean), np.array(metadata.scaler.scale)

    def evaluate(self, items: Floats) -> Evaluation:
        scaled = clamp_scaled(items[:, -1], self._mean, self._scale)
        found = self.neighborhood.find(scaled)
        scores = self.neighborhood.score(found)
        errors, expected = np.zeros_like(scaled), np.zeros_like(scaled)
        for column in found.index.T:  # one neighbour of every sample after the other
            errors += (scaled - self.neighborhood.scaled[column]) ** 2
            expected += self.rows[column]
        return Evaluation(
            scores, scores > self._metadata.threshold, shares(errors), expected / self.neighborhood.n_neighbors
        )


def fit_local_outlier_factor(
    telemetry: Telemetry, settings: LocalOutlierFactorDefaults, progress: Progress = silent
) -> Fitted:
    """Fits the scaler on all but the last fifth of the rows, and keeps at most `max_rows` of these as neighbours.

    Raises:
        DataError: when there are no more rows than neighbours.
    """
    progress(0, 3, "fitting the scaler")
    fit_part, held_out = time_split(telemetry, HELD_OUT, gap=1)
    kept = kept_rows(fit_part, settings.max_rows, settings.seed)
    if len(kept.values) <= settings.n_neighbors:
        raise DataError(
            "n_neighbors",
            f"{settings.n_neighbors} neighbours of a row cannot be found among {len(kept.values)} rows to fit.",
            "Use more data, fewer neighbours, or more max_rows.",
            code=DataErrorCode.TOO_SHORT,
        )
    scaler = fitted_scaler(fit_part)
    scaled = clamp_scaled(kept.values, scaler.mean_, scaler.scale_)
    progress(1, 3, f"distances of {len(scaled):,} rows")
    neighborhood = Neighborhood(scaled, settings.n_neighbors)
    scores = neighborhood.scores
    threshold = midpoint_threshold(-float(np.percentile(-scores, 100 * settings.contamination)), scores)

    metadata = common_metadata(telemetry, "local_outlier_factor", scaler.mean_, scaler.scale_, fit_part.values)
    metadata.contamination = settings.contamination
    metadata.threshold = threshold
    metadata.parity_class = model_pb2.PARITY_CLASS_EXACT
    metadata.neighbors.n_neighbors, metadata.neighbors.rows = settings.n_neighbors, len(scaled)
    metadata.training.seed = settings.seed
    metadata.training.fitted_on, metadata.training.held_out = len(scaled), len(held_out)
    metadata.training.history["score_range"].values.extend([scores.min(), scores.max()])
    if kept.warning:
        metadata.training.warnings.append(kept.warning)

    progress(2, 3, "scikit-learn's model")
    # A tree, whose distances are differences: by itself scikit-learn multiplies for samples wider than 15.
    model = LocalOutlierFactor(n_neighbors=settings.n_neighbors, novelty=True, algorithm="kd_tree").fit(scaled)

    def follow(threshold: float) -> dict[str, bytes]:
        model.offset_ = -threshold  # the pickle decides as the contract does (D2)
        return {"local_outlier_factor.pkl": pickle.dumps(model)}

    progress(3, 3, "done")
    return Fitted(
        metadata=metadata,
        graph=lambda: neighbors.export_neighbors(
            kept.values,
            neighborhood.k_distance,
            neighborhood.density,
            settings.n_neighbors,
            scaler.mean_,
            scaler.scale_,
            metadata.feature_names,
            metadata.threshold,
        ),
        cross_check=lambda graph: cross_check_neighbors(graph, model, scaler, neighborhood, kept.values),
        operators=neighbors.operators(metadata.n_features),
        layout=neighbors.LAYOUT,
        precision="float64",
        reference=NeighborReference(neighborhood, kept.values, metadata),
        fitted_items=kept.values[:, np.newaxis],
        held_out_items=held_out.values[:, np.newaxis],
        byproducts={
            **follow(threshold),
            "local_outlier_factor_scaler.pkl": pickle.dumps(scaler),
        },
        metadata_file="local_outlier_factor_metadata.json",
        graph_file="local_outlier_factor.onnx",
        follow=follow,
        facts={
            "rows": counted_rows(telemetry, len(scaled), len(held_out)),
            **({"left out": kept.warning} if kept.warning else {}),
            "scores": f"{scores.min():.4f} to {scores.max():.4f} on the fitted rows, each without itself",
            "threshold": counted_above(threshold, scores),
        },
    )
