"""One-class SVM: parameters and support vectors (rules SV1 to SV6)."""

import math

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.audit.checks import GraphAudit, Require, check_contamination

LARGEST_ALPHA_SUM = 1e6
"""A larger sum of the weights could give a score that float32 does not hold (SV2)."""


def check_parameters(metadata: model_pb2.ModelMetadata, require: Require) -> None:
    """Checks the rate of the kernel, nu and the number of support vectors."""
    svm = metadata.svm
    require(0 < svm.gamma < math.inf, f"svm.gamma {svm.gamma!r} is not a number above 0 (SV1)")
    require(0 < svm.nu <= 1, f"svm.nu {svm.nu!r} is not above 0 and at most 1")
    require(svm.support_vectors > 0, "svm.support_vectors is not set")
    check_contamination(metadata, require)


def audit(graph: GraphAudit) -> None:
    """Checks threshold, kernel, support vectors and their weights in an `svm.v1` graph."""
    metadata = graph.metadata
    graph.same("threshold", metadata.threshold)
    graph.same("gamma", metadata.svm.gamma)
    graph.same_reference()
    count = metadata.svm.support_vectors
    alpha = graph.arrays({"rows": (count, metadata.n_features), "alpha": (count,)})["alpha"]
    graph.require(bool((alpha > 0).all()), "an alpha is not above 0 (SV1)")
    total = float(alpha.sum())
    graph.require(total <= LARGEST_ALPHA_SUM, f"alpha sums to {total:g}, above {LARGEST_ALPHA_SUM:g} (SV2)")
