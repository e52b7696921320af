"""Triton's Python backend with the forest graph: all requests that Triton has gathered are scored as one batch."""

import json
import os
import site

# The interpreter that Triton embeds reads no PYTHONPATH.
site.addsitedir(os.environ["PEER_SITE_PACKAGES"])

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

OUTPUTS = ["score", "is_anomaly"]
NO_OCCLUSION = np.zeros((1, 7), bool)


class TritonPythonModel:
    """Scores with one graph on one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = json.loads(args["model_config"])["parameters"]["graph"]["string_value"]
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list) -> list:
        inputs = [pb_utils.get_input_tensor_by_name(request, "samples").as_numpy() for request in requests]
        rows = inputs[0] if len(inputs) == 1 else np.concatenate(inputs)
        scores, alarms = self.session.run(OUTPUTS, {"samples": rows, "occlusion": NO_OCCLUSION})
        scores, alarms = scores[:, np.newaxis], alarms[:, np.newaxis]  # an output without dimensions is not allowed
        responses, start = [], 0
        for values in inputs:
            end = start + len(values)
            outputs = [pb_utils.Tensor("score", scores[start:end]), pb_utils.Tensor("is_anomaly", alarms[start:end])]
            responses.append(pb_utils.InferenceResponse(outputs))
            start = end
        return responses
