"""The forest graph for servers that only score: that of the model set without what explains a score.

    python graph.py MODEL_SET TARGET

The sidecar does the same when it opens a set: with the whole graph, every peer would compute explanations that nobody
asked for.
"""

import sys
from pathlib import Path

from dwcp_sidecar.onnx_file import pruned


def main(models: str, target: str) -> None:
    """Writes the graph with the outputs `score` and `is_anomaly`; its inputs are those of rule G1."""
    graph = (Path(models) / "isolation_forest.onnx").read_bytes()
    Path(target).write_bytes(pruned(graph, ["score", "is_anomaly"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
