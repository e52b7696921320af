"""ONNX Runtime sessions for cross-checks: quiet, because the forest's optional input makes it warn at every load."""

import onnxruntime as ort


def cpu_session(graph: bytes) -> ort.InferenceSession:
    """A session on the CPU that reports errors by raising only."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
