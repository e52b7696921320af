"""LSTM cells in numpy float64, for the references of the networks that have them (rules LA2, LA3)."""

import numpy as np

from dwcp_training.detectors.base import Floats
from dwcp_training.export.lstm import LayerWeights


def widened(weights: LayerWeights) -> LayerWeights:
    """The same weights in float64 (LA2)."""
    return LayerWeights(*(part.astype(np.float64) for part in (weights.kernel, weights.recurrent, weights.bias)))


def hidden_states(weights: LayerWeights, inputs: list[Floats]) -> list[Floats]:
    """The hidden state of a layer after every step, `[n, units]` each, on inputs `[n, in]`, oldest first (LA3)."""
    h = c = np.zeros((len(inputs[0]), weights.units))
    states = []
    for x in inputs:
        i, f, o, g = np.split(x @ weights.kernel + h @ weights.recurrent + weights.bias, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        states.append(h)
    return states


def sigmoid(x: Floats) -> Floats:
    """`1 / (1 + exp(-x))`, without cancellation for very negative `x`."""
    with np.errstate(over="ignore"):  # exp overflows to infinity for very negative x: the answer is 0
        return 1.0 / (1.0 + np.exp(-x))
