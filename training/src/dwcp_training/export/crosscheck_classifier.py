"""Holds the classifier's graph against Keras in float64 and against tf2onnx's float32 graph of the same network."""

from typing import Any

import numpy as np
import onnx

from dwcp.anomaly.v1 import model_pb2
from dwcp_training.detectors import classifier_network
from dwcp_training.detectors.base import clamp_scaled
from dwcp_training.export.crosscheck_dense import P2_GAP
from dwcp_training.export.crosscheck_forest import CrossCheckError
from dwcp_training.export.run import cpu_session
from dwcp_training.golden.make import boundary_distance
from dwcp_training.profiles import LstmClassifierDefaults

FLOAT32_BOUND = 1e-4
"""Largest difference of a probability in float32 from that in float64."""

_OPSET = 17
_AT_ONCE = 250


def cross_check_classifier(
    model: onnx.ModelProto,
    network: Any,
    settings: LstmClassifierDefaults,
    metadata: model_pb2.ModelMetadata,
    items: np.ndarray,
) -> dict[str, str]:
    """Compares published scores on raw training windows `[n, timesteps, features]`, at most 2,000 of them.

    Returns:
        What was compared, to the outcome in words.

    Raises:
        CrossCheckError: when a published score differs from Keras in float64 in a bit, or from tf2onnx's by more than
            float32 explains.
    """
    items = items[:: max(1, len(items) // 2000)][:2000]
    scaled = clamp_scaled(items, np.array(metadata.scaler.mean), np.array(metadata.scaler.scale))
    unrounded = classifier_network.scores_float64(network, settings, scaled)
    scores = _run(model.SerializeToString(), "score", "samples", items)
    unequal = scores.view(np.uint32) != unrounded.astype(np.float32).view(np.uint32)
    differing = int((unequal & (boundary_distance(unrounded) > P2_GAP)).sum())
    if differing:
        raise CrossCheckError(f"{differing} of {len(items)} published scores differ from Keras in float64")

    theirs = _run(_tf2onnx_graph(network), None, "scaled", scaled.astype(np.float32))[:, 0]
    largest = float(np.abs(theirs - unrounded).max())
    if not largest <= FLOAT32_BOUND:
        raise CrossCheckError(f"probabilities of tf2onnx's graph differ by {largest:.1e}")
    return {
        "Keras float64": f"{len(items) - int(unequal.sum()):,} of {len(items):,} published scores equal in every bit",
        "tf2onnx float32": f"probabilities differ by at most {largest:.1e}",
    }


def _run(graph: bytes, output: str | None, feed: str, items: np.ndarray) -> np.ndarray:
    session = cpu_session(graph)
    wanted = None if output is None else [output]
    return np.concatenate(
        [session.run(wanted, {feed: items[i : i + _AT_ONCE]})[0] for i in range(0, len(items), _AT_ONCE)]
    )


def _tf2onnx_graph(network: Any) -> bytes:
    """tf2onnx's graph of a functional Keras network; input `scaled`, float32."""
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec([None, *network.input_shape[1:]], tf.float32, name="scaled")]
    model, _ = tf2onnx.convert.from_keras(network, input_signature=signature, opset=_OPSET)
    return model.SerializeToString()
