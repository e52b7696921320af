"""Checks that a graph is what its metadata says (rules S2, G1 to G3)."""

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit.checks import GraphAudit, requirement
from dwcp_sidecar.audit.registry import LAYOUTS
from dwcp_sidecar.onnx_file import OnnxFile


def audit_graph(metadata: model_pb2.ModelMetadata, graph: OnnxFile) -> None:
    """Checks a graph against metadata that `audit_metadata` accepts.

    Raises:
        ContractError: GRAPH_INVALID naming the file and what differs.
    """
    require = requirement("GRAPH_INVALID", metadata.graph.file)
    counts = dict(metadata.graph.operator_counts)
    require(graph.operators == counts, f"operators are {graph.operators}, the metadata says {counts}")
    require(graph.properties.get("dwcp.layout") == metadata.graph.layout, "its layout is not that of the metadata")
    require(graph.properties.get("dwcp.features") == ",".join(metadata.feature_names), "its features are others")
    require(graph.properties.get("dwcp.threshold") == repr(metadata.threshold), "its threshold is another")
    audit = GraphAudit(metadata, graph, require)
    audit.same("scaler_mean", metadata.scaler.mean)
    audit.same("scaler_scale", metadata.scaler.scale)
    LAYOUTS[metadata.graph.layout].audit(audit)
