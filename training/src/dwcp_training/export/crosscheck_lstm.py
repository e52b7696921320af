"""Holds the LSTM graph against Keras in float64 and against tf2onnx's graph of the same network."""

from typing import Any

import numpy as np
import onnx

from dwcp.anomaly.v1 import model_pb2
from dwcp_training.detectors import keras_network
from dwcp_training.detectors.base import clamp_scaled
from dwcp_training.export import lstm_float32
from dwcp_training.export.crosscheck_forest import CrossCheckError
from dwcp_training.export.run import cpu_session
from dwcp_training.profiles import LstmAutoencoderDefaults

FLOAT32_BOUND = 1e-4
"""Largest relative difference of a float32 graph's score from the float64 one."""


def cross_check_lstm(
    model: onnx.ModelProto,
    network: Any,
    settings: LstmAutoencoderDefaults,
    metadata: model_pb2.ModelMetadata,
    items: np.ndarray,
    *,
    exact: bool,
) -> dict[str, str]:
    """Compares published scores on raw training windows `[n, timesteps, features]`, at most 2,000 of them.

    Returns:
        What was compared, to the outcome in words.

    Raises:
        CrossCheckError: when a bound is exceeded, or in the exact class when a published score differs in a bit.
    """
    items = items[:2000]
    mean, scale = np.array(metadata.scaler.mean), np.array(metadata.scaler.scale)
    scaled = clamp_scaled(items, mean, scale)
    errors = (scaled - keras_network.reconstruct_float64(network, settings, scaled)) ** 2
    wanted = errors.sum(axis=1).sum(axis=1) / errors[0].size
    scores = _scores(model, items)
    apart = float((np.abs(scores - wanted) / wanted).max())
    findings = {}
    if exact:
        differing = int((scores.view(np.uint32) != wanted.astype(np.float32).view(np.uint32)).sum())
        if differing:
            raise CrossCheckError(f"{differing} of {len(items)} published scores differ from Keras in float64")
        findings["Keras float64"] = f"all {len(items):,} published scores equal in every bit"
        theirs = _scores(
            lstm_float32.export_lstm_float32(network, mean, scale, list(metadata.feature_names), metadata.threshold),
            items,
        )
        apart = float((np.abs(theirs - wanted) / wanted).max())
    if not apart <= FLOAT32_BOUND:
        raise CrossCheckError(f"scores of tf2onnx's graph differ by {apart:.1e}, relatively")
    findings["tf2onnx float32"] = f"largest relative difference {apart:.1e}"
    return findings


def _scores(model: onnx.ModelProto, items: np.ndarray) -> np.ndarray:
    session = cpu_session(model.SerializeToString())
    return np.concatenate(
        [session.run(["score"], {"samples": items[i : i + 250]})[0] for i in range(0, len(items), 250)]
    )
