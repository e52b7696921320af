"""KServe's server with the forest graph: its own gRPC port, ONNX Runtime on one thread, access and latency logs off.

    python kserve_server.py GRAPH GRPC_PORT HTTP_PORT

KServe binds every interface; the benchmark starts it where there is only the loopback interface.
"""

import logging
import sys

import numpy as np
import onnxruntime as ort
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer

OUTPUTS = {"score": "FP32", "is_anomaly": "BOOL"}
NO_OCCLUSION = np.zeros((1, 7), bool)


class Forest(Model):
    """Scores with one graph, on the event loop: handing 15 us of work to a thread costs more."""

    def __init__(self, graph: str) -> None:
        super().__init__("forest")
        self.enable_latency_logging = False
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.ready = True

    async def predict(self, payload: InferRequest, *_: object, **__: object) -> InferResponse:
        found = self.session.run(list(OUTPUTS), {"samples": payload.inputs[0].as_numpy(), "occlusion": NO_OCCLUSION})
        outputs = []
        for (name, datatype), values in zip(OUTPUTS.items(), found, strict=True):
            output = InferOutput(name=name, shape=list(values.shape), datatype=datatype)
            output.set_data_from_numpy(values)
            outputs.append(output)
        return InferResponse(response_id=payload.id, model_name=self.name, infer_outputs=outputs)


if __name__ == "__main__":
    server = ModelServer(grpc_port=int(sys.argv[2]), http_port=int(sys.argv[3]), workers=1)
    for name in ("kserve", "kserve.trace", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.ERROR)
    server.start([Forest(sys.argv[1])])
