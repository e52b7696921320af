"""Holds the classifier's graph against Keras in float64 and against tf2onnx's float32 graph of the same network."""

from typing import Any

import numpy as np
import onnx

from dwcp.anomaly.v1 import model_pb2
from dwcp_training.detectors import classifier_network
from dwcp_training.detectors.base import clamp_scaled
from dwcp_training.export.crosscheck_forest import CrossCheckError
from dwcp_training.export.crosscheck_keras import compare_with_keras
from dwcp_training.export.from_keras import from_keras
from dwcp_training.export.run import cpu_session
from dwcp_training.profiles import LstmClassifierDefaults

FLOAT32_BOUND = 1e-4
"""Largest difference of a probability in float32 from that in float64."""

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
    equal = compare_with_keras(_run(model, "score", "samples", items), unrounded)

    theirs = _run(from_keras(network), None, "scaled", scaled.astype(np.float32))[:, 0]
    largest = float(np.abs(theirs - unrounded).max())
    if not largest <= FLOAT32_BOUND:
        raise CrossCheckError(f"probabilities of tf2onnx's graph differ by {largest:.1e}")
    return {
        "Keras float64": equal,
        "tf2onnx float32": f"probabilities differ by at most {largest:.1e}",
    }


def _run(model: onnx.ModelProto, output: str | None, feed: str, items: np.ndarray) -> np.ndarray:
    session = cpu_session(model.SerializeToString())
    wanted = None if output is None else [output]
    return np.concatenate(
        [session.run(wanted, {feed: items[i : i + _AT_ONCE]})[0] for i in range(0, len(items), _AT_ONCE)]
    )
