"""What an unmodified tritonclient says of a server: JSON on standard output.

    python oip_client.py ADDRESS CALLS.json

A program of its own, because tritonclient registers the protobuf package `inference` that our messages are in, too.
Each call is `{"model", "version", "rows", "dtype", "outputs"}`; an answer has each output's datatype, shape and bytes.
"""

import json
import sys
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

assert not [name for name in sys.modules if name.partition(".")[0] in ("dwcp", "dwcp_sidecar")]
WAIT = 30


def guarded(call, *arguments, **options):
    try:
        return call(*arguments, **options, client_timeout=WAIT)
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}


def infer(client, call):
    rows = np.array(call["rows"], call.get("dtype", "float64"))
    tensor = InferInput(call.get("input", "samples"), rows.shape, np_to_triton_dtype(rows.dtype))
    tensor.set_data_from_numpy(rows)
    outputs = [InferRequestedOutput(name) for name in call.get("outputs", [])] or None
    answer = guarded(
        client.infer, call["model"], [tensor], call.get("version", ""), outputs=outputs, request_id="request 7"
    )
    if isinstance(answer, dict):
        return answer
    response = answer.get_response(as_json=True)
    return {
        "model": [response["model_name"], response["model_version"], response["id"]],
        "outputs": [
            {
                "name": output["name"],
                "datatype": output["datatype"],
                "shape": [int(size) for size in output["shape"]],
                "bytes": answer.as_numpy(output["name"]).tobytes().hex(),
            }
            for output in response["outputs"]
        ],
    }


def main(address, calls):
    with InferenceServerClient(address) as client:
        told = {
            "live": guarded(client.is_server_live),
            "ready": guarded(client.is_server_ready),
            "server": guarded(client.get_server_metadata, as_json=True),
            "models": {
                f"{name} {version}": [
                    guarded(client.is_model_ready, name, version),
                    guarded(client.get_model_metadata, name, version, as_json=True),
                ]
                for name, version in calls["models"]
            },
            "inferred": [infer(client, call) for call in calls["infer"]],
        }
    print(json.dumps(told))


main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
