"""MLServer's runtime for the forest graph. `model-settings.json` beside it names it; see serving_servers.py."""

import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

OUTPUTS = ["score", "is_anomaly"]
NO_OCCLUSION = np.zeros((1, 7), bool)


class Forest(MLModel):
    """Scores with one graph on one thread."""

    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        graph = self.settings.parameters.uri
        self.session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        found = self.session.run(OUTPUTS, {"samples": rows, "occlusion": NO_OCCLUSION})
        outputs = [NumpyCodec.encode_output(name, values) for name, values in zip(OUTPUTS, found, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
