"""LSTM classifier: parameters and weights (rules LC1 to LC6)."""

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit.checks import GraphAudit, Require, check_timesteps, check_units, lstm_shapes

LSTM_LAYERS = ("lstm_1", "lstm_2")
"""The LSTM layers in the order of LC1; a dense layer and the output follow."""

_LARGEST_WEIGHT = float(np.finfo(np.float32).max)


def check_parameters(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    """Checks window length and units, and that there were windows of both classes (LC3)."""
    check_timesteps(metadata, require)
    classifier = metadata.classifier
    units = list(classifier.units)
    require(len(units) == 3, f"classifier.units are {units}, not those of {', '.join(LSTM_LAYERS)} and dense_1")
    check_units("classifier.units", units, require)
    normal, anomalous = classifier.normal_windows, classifier.anomalous_windows
    both = normal > 0 and anomalous > 0
    require(both, f"classifier.normal_windows is {normal}, anomalous_windows {anomalous}: both are needed (LC3)")


def audit(graph: GraphAudit) -> None:
    """Checks threshold, reference values and weights of a `classifier.v1` graph.

    Weights are float32 numbers (LC2): with no larger ones nothing in the network overflows.
    """
    metadata = graph.metadata
    graph.same("threshold", metadata.threshold)
    graph.same_reference()
    *recurrent, dense = metadata.classifier.units
    shapes: dict[str, tuple[int, ...]] = {}
    width = metadata.n_features
    for layer, units in zip(LSTM_LAYERS, recurrent, strict=True):
        shapes |= lstm_shapes(layer, width, units)
        width = units
    shapes |= {"dense_1.kernel": (width, dense), "dense_1.bias": (dense,)}
    shapes |= {"output.kernel": (dense, 1), "output.bias": (1,)}
    for name, weights in graph.arrays(shapes).items():
        graph.require(bool((np.abs(weights) <= _LARGEST_WEIGHT).all()), f"{name} has a value that is no float32 (LC2)")
