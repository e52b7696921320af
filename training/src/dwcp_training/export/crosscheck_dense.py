"""Holds the dense graph against Keras in float64 and against tf2onnx's float32 graph of the same network."""

from typing import Any

import numpy as np
import onnx

from dwcp.anomaly.v1 import model_pb2
from dwcp_training.detectors import dense_network
from dwcp_training.detectors.base import clamp_scaled
from dwcp_training.export.crosscheck_forest import CrossCheckError
from dwcp_training.export.crosscheck_keras import compare_with_keras
from dwcp_training.export.dense import LARGEST_SCORE
from dwcp_training.export.from_keras import from_keras
from dwcp_training.export.run import cpu_session
from dwcp_training.profiles import DenseAutoencoderDefaults

FLOAT32_BOUND = 1e-4
"""Largest difference of a reconstruction in float32 from that in float64, in units of the row's largest number."""


def cross_check_dense(
    model: onnx.ModelProto,
    network: Any,
    settings: DenseAutoencoderDefaults,
    metadata: model_pb2.ModelMetadata,
    rows: np.ndarray,
) -> dict[str, str]:
    """Compares published scores and reconstructions on raw training rows `[n, features]`, at most 5,000 of them.

    Returns:
        What was compared, to the outcome in words.

    Raises:
        CrossCheckError: when a published score differs from Keras in float64 in a bit, or a reconstruction from
            tf2onnx's by more than float32 explains.
    """
    rows = rows[:5000]
    scaled = clamp_scaled(rows, np.array(metadata.scaler.mean), np.array(metadata.scaler.scale))
    reconstructed = dense_network.reconstruct_float64(network, settings, scaled)
    unrounded = np.minimum(((scaled - reconstructed) ** 2).mean(axis=1), LARGEST_SCORE)
    (scores,) = cpu_session(model.SerializeToString()).run(["score"], {"samples": rows})
    equal = compare_with_keras(scores, unrounded)

    (theirs,) = cpu_session(from_keras(network).SerializeToString()).run(None, {"scaled": scaled.astype(np.float32)})
    size = np.maximum(np.abs(scaled).max(axis=1), np.abs(reconstructed).max(axis=1))[:, np.newaxis]
    apart = np.abs(theirs - reconstructed) / np.maximum(size, np.finfo(np.float32).tiny)
    largest = float(apart.max())
    if not largest <= FLOAT32_BOUND:
        raise CrossCheckError(f"reconstructions of tf2onnx's graph differ by {largest:.1e} of the row's largest number")
    return {
        "Keras float64": equal,
        "tf2onnx float32": f"reconstructions differ by at most {largest:.1e} of the row's largest number",
    }
