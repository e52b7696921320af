"""tf2onnx's graph of a Keras network: what the float32 export is made of, and what the exact ones are held against."""

import os
from typing import Any

import onnx

_OPSET = 17


def from_keras(network: Any) -> onnx.ModelProto:
    """The graph of a functional Keras network; input `scaled`, float32."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec([None, *network.input_shape[1:]], tf.float32, name="scaled")]
    model, _ = tf2onnx.convert.from_keras(network, input_signature=signature, opset=_OPSET)
    return model
