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


_SATURATED = 40.0
"""Beyond it a sigmoid or a hyperbolic tangent is a constant, but for less than 1e-17."""


def rounding_error(weights: LayerWeights, inputs: list[Floats]) -> float:
    """Bound of what the order of a sum can change before an activation of the layer that is not saturated.

    Usually about 1e-13. It is large where the parts of a sum are huge and cancel, as weights that are multiples of one
    number can on inputs that are all alike: then two right implementations give different scores.

    Args:
        weights: of the layer, float64.
        inputs: as of `hidden_states`.
    """
    parts = len(weights.kernel) + len(weights.recurrent) + 1
    worst = 0.0
    h = np.zeros((len(inputs[0]), weights.units))
    for x, after in zip(inputs, hidden_states(weights, inputs), strict=True):
        total = x @ weights.kernel + h @ weights.recurrent + weights.bias
        size = np.abs(x) @ np.abs(weights.kernel) + np.abs(h) @ np.abs(weights.recurrent) + np.abs(weights.bias)
        error = parts * np.finfo(np.float64).eps * size
        worst = max(worst, float(error[np.abs(total) <= _SATURATED + error].max(initial=0.0)))
        h = after
    return worst


def sigmoid(x: Floats) -> Floats:
    """`1 / (1 + exp(-x))`, without cancellation for very negative `x`."""
    with np.errstate(over="ignore"):  # exp overflows to infinity for very negative x: the answer is 0
        return 1.0 / (1.0 + np.exp(-x))
