"""All drafts for a fitted detector: the common ones and those made for it by search."""

from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np

from dwcp_training.detectors.base import Fitted, Floats
from dwcp_training.golden.case import Draft
from dwcp_training.golden.common import common_drafts
from dwcp_training.golden.forest import forest_drafts
from dwcp_training.golden.lstm import lstm_drafts, typical_window


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


_DRAFTS: dict[str, Callable[[Fitted, int], Iterator[Draft]]] = {"isolation_forest": _forest, "lstm_autoencoder": _lstm}
