"""Libraries that only some detectors need: without them the others still train (S2-7)."""

from typing import Any


class MissingLibraryError(RuntimeError):
    """A detector cannot be trained here; the message says what to install."""


def require_keras(detector: str) -> Any:
    """The module `keras`, with TensorFlow behind it.

    Raises:
        MissingLibraryError: when one of the two is not installed.
    """
    try:
        import keras
        import tensorflow  # noqa: F401  # Keras imports it late, and then says less
    except ImportError as error:
        raise MissingLibraryError(
            f"{detector} is trained with Keras on TensorFlow, and {error.name or 'one of them'} is not installed. "
            "Install both: pip install keras tensorflow-cpu. "
            "isolation_forest, local_outlier_factor, one_class_svm and mahalanobis are trained without them."
        ) from None
    return keras
