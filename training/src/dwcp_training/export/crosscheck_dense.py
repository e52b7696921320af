"""Holds the dense graph against Keras in float64 and against tf2onnx's float32 graph of the same network."""

from typing import Any

import numpy as np
import onnx

from dwcp.anomaly.v1 import model_pb2
from dwcp_training.detectors import dense_network
from dwcp_training.detectors.base import clamp_scaled
from dwcp_training.export.crosscheck_forest import CrossCheckError
from dwcp_training.export.dense import LARGEST_SCORE
from dwcp_training.export.run import cpu_session
from dwcp_training.golden.make import boundary_distance
from dwcp_training.profiles import DenseAutoencoderDefaults

FLOAT32_BOUND = 1e-4
"""Largest difference of a reconstruction in float32 from that in float64, in units of the row's largest number."""

P2_GAP = 1e-12
"""Only scores nearer to the midpoint of two float32 numbers may be published as neighbours (P2)."""

_OPSET = 17


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
    unequal = scores.view(np.uint32) != unrounded.astype(np.float32).view(np.uint32)
    differing = int((unequal & (boundary_distance(unrounded) > P2_GAP)).sum())
    if differing:
        raise CrossCheckError(f"{differing} of {len(rows)} published scores differ from Keras in float64")

    (theirs,) = cpu_session(_tf2onnx_graph(network)).run(None, {"scaled": scaled.astype(np.float32)})
    size = np.maximum(np.abs(scaled).max(axis=1), np.abs(reconstructed).max(axis=1))[:, np.newaxis]
    apart = np.abs(theirs - reconstructed) / np.maximum(size, np.finfo(np.float32).tiny)
    largest = float(apart.max())
    if not largest <= FLOAT32_BOUND:
        raise CrossCheckError(f"reconstructions of tf2onnx's graph differ by {largest:.1e} of the row's largest number")
    return {
        "Keras float64": f"{len(rows) - int(unequal.sum()):,} of {len(rows):,} published scores equal in every bit",
        "tf2onnx float32": f"reconstructions differ by at most {largest:.1e} of the row's largest number",
    }


def _tf2onnx_graph(network: Any) -> bytes:
    """tf2onnx's graph of a functional Keras network; input `scaled`, float32."""
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec([None, *network.input_shape[1:]], tf.float32, name="scaled")]
    model, _ = tf2onnx.convert.from_keras(network, input_signature=signature, opset=_OPSET)
    return model.SerializeToString()
