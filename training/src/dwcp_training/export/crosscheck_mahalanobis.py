"""Holds the graph of the Mahalanobis distance against scipy's, with covariances that numpy inverts as they are."""

from typing import TYPE_CHECKING

import numpy as np
import onnx
from scipy.spatial.distance import cdist
from sklearn.preprocessing import StandardScaler

from dwcp_training.export.crosscheck_forest import CrossCheckError
from dwcp_training.export.run import inner_values

if TYPE_CHECKING:
    from dwcp_training.detectors.mahalanobis import Covariances

BOUND = 1e-9
"""Largest relative difference of a distance: an inverse that is written out loses more digits than a factor."""

ITEMS = 500
"""Windows that are compared."""


def cross_check_mahalanobis(
    model: onnx.ModelProto, estimated: "Covariances", ridge: float, scaler: StandardScaler, items: np.ndarray
) -> dict[str, str]:
    """Compares distances (MD2) of raw windows `[n, T, F]`, and of as many moved away from the mean.

    Returns:
        What was compared, to the largest difference in words.

    Raises:
        CrossCheckError: when the bound is exceeded.
    """
    items = items[:ITEMS]
    away = np.linspace(1, 100, len(items))[:, np.newaxis, np.newaxis]
    items = np.vstack([items, scaler.mean_ + (items - scaler.mean_) * away])
    wanted = _distances((items - scaler.mean_) / scaler.scale_, estimated, ridge)
    found = inner_values(model, "distance", items if estimated.window is not None else items[:, -1]).ravel()
    largest = float((np.abs(found - wanted) / np.maximum(wanted, np.finfo(np.float64).tiny)).max())
    if not largest <= BOUND:
        raise CrossCheckError(f"distances differ from scipy's by {largest:.2e}, relatively")
    return {"scipy": f"distances of {len(items):,} windows: largest relative difference {largest:.1e}"}


def _distances(scaled: np.ndarray, estimated: "Covariances", ridge: float) -> np.ndarray:
    row = _mahalanobis(scaled[:, -1], estimated.row, ridge)
    if estimated.window is None:
        return row
    return np.sqrt((row**2 + _mahalanobis(scaled.reshape(len(scaled), -1), estimated.window, ridge) ** 2) / 2)


def _mahalanobis(rows: np.ndarray, covariance: np.ndarray, ridge: float) -> np.ndarray:
    """scipy's distance from 0, by the square root of the number of columns."""
    width = rows.shape[1]
    inverse = np.linalg.inv(covariance + ridge * np.eye(width))
    return cdist(rows, np.zeros((1, width)), "mahalanobis", VI=inverse).ravel() / np.sqrt(width)
