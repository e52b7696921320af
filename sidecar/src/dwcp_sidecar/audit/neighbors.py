"""Local outlier factor: parameters and training rows (rules LF1 to LF7)."""

import numpy as np

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit.checks import GraphAudit, Require, check_contamination


def check_parameters(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    """Checks that there are as many rows as neighbours are asked for (LF2)."""
    neighbors, rows = metadata.neighbors.n_neighbors, metadata.neighbors.rows
    require(1 <= neighbors <= rows, f"neighbors.n_neighbors is {neighbors} of {rows} rows: not 1 to neighbors.rows")
    check_contamination(metadata, require)


def audit(graph: GraphAudit) -> None:
    """Checks threshold, number of neighbours, rows and what is stored of them (LF3) in a `neighbors.v1` graph."""
    metadata = graph.metadata
    graph.same("threshold", metadata.threshold)
    graph.same("neighbors", metadata.neighbors.n_neighbors, np.int64)
    rows = metadata.neighbors.rows
    arrays = graph.arrays({"rows": (rows, metadata.n_features), "k_distance": (rows,), "density": (rows,)})
    graph.require(bool((arrays["k_distance"] >= 0).all()), "a k_distance is negative (LF3)")
    graph.require(bool((arrays["density"] > 0).all()), "a density is not above 0 (LF3)")
