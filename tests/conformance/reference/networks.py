"""Keras networks in float64 on many items, for the references that run one."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dwcp_training.detectors.base import Floats

_PIECE = 4096
"""Items that a network gets at once."""


def traced(network: Any) -> Callable[[Floats], Any]:
    """The network as one function of items of its input's shape, traced once."""
    import tensorflow as tf

    items = tf.TensorSpec(network.input_shape, tf.float64)
    return tf.function(lambda scaled: network(scaled, training=False), input_signature=[items])


def in_pieces(network: Callable[[Floats], Any], scaled: Floats) -> Floats:
    """What a network gives for scaled items, in pieces that fit in memory."""
    return np.concatenate([np.asarray(network(scaled[i : i + _PIECE])) for i in range(0, len(scaled), _PIECE)])
