"""ONNX Runtime sessions for cross-checks: quiet, because the forest's optional input makes it warn at every load."""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper


def cpu_session(graph: bytes) -> ort.InferenceSession:
    """A session on the CPU that reports errors by raising only."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def inner_values(model: onnx.ModelProto, name: str, samples: np.ndarray, at_once: int = 64) -> np.ndarray:
    """A float64 value inside a graph, such as the score before it is rounded, for raw samples `[n, features]`."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    opened.graph.output.append(helper.make_tensor_value_info(name, TensorProto.DOUBLE, None))
    session = cpu_session(opened.SerializeToString())
    return np.concatenate(
        [session.run([name], {"samples": samples[i : i + at_once]})[0] for i in range(0, len(samples), at_once)]
    )
