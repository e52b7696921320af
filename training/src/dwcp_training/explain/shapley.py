"""SHAP values of a score, for comparison with its contributions. The library `shap` is an extra of one's own.

Source: Lundberg, Lee: A Unified Approach to Interpreting Model Predictions, NeurIPS 2017 (Kernel SHAP).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.verdicts import Explain
from dwcp_training.detectors.libraries import MissingLibraryError

Floats = NDArray[np.float64]


def kernel_explainer() -> Any:
    """`shap.KernelExplainer`.

    Raises:
        MissingLibraryError: `shap` is not installed.
    """
    try:
        from shap import KernelExplainer
    except ImportError:
        raise MissingLibraryError(
            "--shap compares with the library shap, which is not installed: pip install shap"
        ) from None
    return KernelExplainer


def shap_values(model: Scorer, window: Floats) -> Floats:
    """How much each metric adds to the score, in units of the score, float64 ``[F]``: they sum to the score of the
    window less that of a normal one.

    A metric that is left out has the training median (IF6) in every step of the window, so a metric is one player
    whatever the length of the window.

    Args:
        model: of an open set.
        window: raw values, float64 ``[timesteps, F]``.
    """
    usual = _reference(model)

    def scores(present: Floats) -> Floats:
        """Of windows in which the metrics marked 1 in ``[n, F]`` are as they are and the others as usual."""
        items = np.where(present[:, np.newaxis, :] > 0.5, window, usual)
        batch = items if model.windowed else items[:, 0]
        return np.asarray(model.score_batch(batch, Explain.NEVER).scores, np.float64)

    width = window.shape[1]
    explainer = kernel_explainer()(scores, np.zeros((1, width)))
    return np.asarray(explainer.shap_values(np.ones((1, width)), silent=True), np.float64).reshape(width)


def _reference(model: Scorer) -> Floats:
    """The training medians; of an ensemble those of its first member that has some."""
    metadata = model.metadata
    if len(metadata.reference_values):
        return np.array(metadata.reference_values)
    for member in getattr(model, "members", ()):
        if member.model is not None:
            return np.array(member.model.metadata.reference_values)
    raise AssertionError("an ensemble that answers has a member with medians")
