"""Checks metadata and graphs of a model set before anything executes them (A5). Each detector has its file.

Nothing here needs the onnx package or ONNX Runtime.
"""

from dwcp_sidecar.audit.checks import is_midpoint
from dwcp_sidecar.audit.ensemble import audit_members
from dwcp_sidecar.audit.forest import LEAF_GRID, MAX_DEPTH_SUM
from dwcp_sidecar.audit.graph import audit_graph
from dwcp_sidecar.audit.lstm import LSTM_LAYERS
from dwcp_sidecar.audit.metadata import audit_metadata, check_version
from dwcp_sidecar.audit.registry import LAYOUTS

__all__ = [
    "LAYOUTS",
    "LEAF_GRID",
    "LSTM_LAYERS",
    "MAX_DEPTH_SUM",
    "audit_graph",
    "audit_members",
    "audit_metadata",
    "check_version",
    "is_midpoint",
]
