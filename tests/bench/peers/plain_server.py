"""The floor: a gRPC server as one writes it in an afternoon. One process, sync grpcio, ONNX Runtime on one thread.

    python plain_server.py GRAPH HOST:PORT

It answers Score and ScoreBatch of our own protocol with score and decision; nothing is checked, calibrated or
explained.
"""

import sys
from concurrent import futures

import grpc
import numpy as np
import onnxruntime as ort

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc

OUTPUTS = ["score", "is_anomaly"]
NO_OCCLUSION = np.zeros((1, 7), bool)


class Plain(scoring_pb2_grpc.ScoringServiceServicer):
    """Scores with one graph."""

    def __init__(self, graph: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(self, rows: np.ndarray) -> list[np.ndarray]:
        return self.session.run(OUTPUTS, {"samples": rows, "occlusion": NO_OCCLUSION})

    def Score(self, request: scoring_pb2.ScoreRequest, _: grpc.ServicerContext) -> scoring_pb2.ScoreResponse:  # noqa: N802
        scores, alarms = self.run(np.array([request.samples[-1].values]))
        return scoring_pb2.ScoreResponse(verdict=scoring_pb2.Verdict(score=scores[0], is_anomaly=alarms[0]))

    def ScoreBatch(  # noqa: N802
        self, request: scoring_pb2.ScoreBatchRequest, _: grpc.ServicerContext
    ) -> scoring_pb2.ScoreBatchResponse:
        scores, alarms = self.run(np.frombuffer(request.rows, "<f8").reshape(-1, 7))
        return scoring_pb2.ScoreBatchResponse(scores=scores, is_anomaly=alarms)


if __name__ == "__main__":
    server = grpc.server(futures.ThreadPoolExecutor(8))
    scoring_pb2_grpc.add_ScoringServiceServicer_to_server(Plain(sys.argv[1]), server)
    server.add_insecure_port(sys.argv[2])
    server.start()
    server.wait_for_termination()
