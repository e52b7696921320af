"""LSTM autoencoder: parameters and weights (rules LA1 to LA8)."""

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit.checks import GraphAudit, Require, check_timesteps, check_units, lstm_shapes
from dwcp_sidecar.audit.int8 import of_precision

LSTM_LAYERS = ("encoder_1", "encoder_2", "decoder_1", "decoder_2")
"""Layers of the LSTM autoencoder in the order of LA1."""


def check_parameters(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    """Checks window length and units."""
    units = list(metadata.lstm.units)
    right = len(units) == len(LSTM_LAYERS) and units[1] == metadata.lstm.encoding_dim
    require(right, f"lstm.units are {units} with encoding_dim {metadata.lstm.encoding_dim}")
    check_units("lstm.units", units, require)
    check_timesteps(metadata, require)


def audit(graph: GraphAudit) -> None:
    """Checks threshold and shapes of a graph of layout `lstm.v1`, `lstm.int8.v1` or `lstm.float32.v1`."""
    metadata = graph.metadata
    graph.same("threshold", metadata.threshold)
    narrow = metadata.graph.precision == "float32"
    shapes: dict[str, tuple[int, ...]] = {}
    width = metadata.n_features
    for layer, units in zip(LSTM_LAYERS, metadata.lstm.units, strict=True):
        if narrow:
            shapes |= {
                f"{layer}.W": (1, 4 * units, width),
                f"{layer}.R": (1, 4 * units, units),
                f"{layer}.B": (1, 8 * units),
            }
        else:
            shapes |= lstm_shapes(layer, width, units)
        width = units
    shapes |= {"dense.kernel": (width, metadata.n_features), "dense.bias": (metadata.n_features,)}
    if narrow:
        graph.arrays(shapes, np.float32)
    else:
        of_precision(graph, shapes)
