"""All drafts for a fitted detector: the common ones and those made for it by search."""

from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np

from dwcp_training.detectors.base import Fitted, Floats
from dwcp_training.golden.case import Draft
from dwcp_training.golden.classifier import classifier_drafts, normal_window, some_windows
from dwcp_training.golden.common import common_drafts
from dwcp_training.golden.dense import dense_drafts
from dwcp_training.golden.ensemble import ensemble_drafts
from dwcp_training.golden.forest import forest_drafts
from dwcp_training.golden.lstm import lstm_drafts, typical_window
from dwcp_training.golden.mahalanobis import mahalanobis_drafts
from dwcp_training.golden.neighbors import neighbor_drafts
from dwcp_training.golden.svm import svm_drafts


def drafts_for(fitted: Fitted, seed: int) -> Iterator[Draft]:
    """Drafts for a detector, in the order of the golden file."""
    return _DRAFTS[fitted.metadata.model_type](fitted, seed)


def _forest(fitted: Fitted, seed: int) -> Iterator[Draft]:
    metadata = fitted.metadata
    mean, scale = np.array(metadata.scaler.mean), np.array(metadata.scaler.scale)
    splits: dict[int, Floats] = fitted.reference.splits()
    normal = np.median(fitted.fitted_items, axis=0)
    return chain(
        forest_drafts(
            fitted.reference, fitted.fitted_items[:4000], list(metadata.feature_names), mean, scale, splits, seed
        ),
        common_drafts(metadata.feature_schema, normal, 1),
    )


def _lstm(fitted: Fitted, seed: int) -> Iterator[Draft]:
    metadata = fitted.metadata
    scale = np.array(metadata.scaler.scale)
    normal = typical_window(fitted.reference, fitted.fitted_items)
    return chain(
        lstm_drafts(fitted.reference, fitted.fitted_items, normal, list(metadata.feature_names), scale, seed),
        common_drafts(metadata.feature_schema, normal, metadata.timesteps),
    )


def _dense(fitted: Fitted, seed: int) -> Iterator[Draft]:
    metadata = fitted.metadata
    normal = typical_window(fitted.reference, fitted.fitted_items)
    return chain(
        dense_drafts(
            fitted.reference,
            fitted.fitted_items,
            normal,
            list(metadata.feature_names),
            np.array(metadata.scaler.scale),
            seed,
        ),
        common_drafts(metadata.feature_schema, normal, 1),
    )


def _neighbors(fitted: Fitted, seed: int) -> Iterator[Draft]:
    metadata = fitted.metadata
    mean, scale = np.array(metadata.scaler.mean), np.array(metadata.scaler.scale)
    return chain(
        neighbor_drafts(fitted.reference, list(metadata.feature_names), mean, scale, seed),
        common_drafts(metadata.feature_schema, np.median(fitted.fitted_items, axis=0), 1),
    )


def _svm(fitted: Fitted, seed: int) -> Iterator[Draft]:
    metadata = fitted.metadata
    mean, scale = np.array(metadata.scaler.mean), np.array(metadata.scaler.scale)
    rows = fitted.fitted_items[:, -1]
    return chain(
        svm_drafts(fitted.reference, rows, list(metadata.feature_names), mean, scale, seed),
        common_drafts(metadata.feature_schema, np.median(fitted.fitted_items, axis=0), 1),
    )


def _classifier(fitted: Fitted, seed: int) -> Iterator[Draft]:
    metadata = fitted.metadata
    items = some_windows(fitted.fitted_items)
    evaluated = fitted.reference.evaluate(items)
    scale = np.array(metadata.scaler.scale)
    return chain(
        classifier_drafts(fitted.reference, evaluated, items, list(metadata.feature_names), scale, seed),
        common_drafts(metadata.feature_schema, normal_window(evaluated, items), metadata.timesteps),
    )


def _ensemble(fitted: Fitted, seed: int) -> Iterator[Draft]:
    metadata, items = fitted.metadata, fitted.fitted_items
    ascending = items[np.argsort(fitted.reference.scores(items), kind="stable")]
    return chain(
        ensemble_drafts(fitted.reference, items, ascending, metadata.ensemble.critical_threshold, seed),
        common_drafts(metadata.feature_schema, ascending[len(ascending) // 2].copy(), items.shape[1]),
    )


def _mahalanobis(fitted: Fitted, seed: int) -> Iterator[Draft]:
    metadata = fitted.metadata
    mean, scale = np.array(metadata.scaler.mean), np.array(metadata.scaler.scale)
    normal = typical_window(fitted.reference, fitted.fitted_items)
    return chain(
        mahalanobis_drafts(
            fitted.reference, fitted.fitted_items, normal, list(metadata.feature_names), mean, scale, seed
        ),
        common_drafts(metadata.feature_schema, normal, len(normal)),
    )


_DRAFTS: dict[str, Callable[[Fitted, int], Iterator[Draft]]] = {
    "isolation_forest": _forest,
    "lstm_autoencoder": _lstm,
    "dense_autoencoder": _dense,
    "local_outlier_factor": _neighbors,
    "one_class_svm": _svm,
    "lstm_classifier": _classifier,
    "ensemble": _ensemble,
    "mahalanobis": _mahalanobis,
}
