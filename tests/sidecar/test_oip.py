"""The Open Inference Protocol: rules O1 to O4 in process, then an unmodified tritonclient against both servers."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest

from dwcp.oip.v2 import inference_pb2 as oip
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.server.metrics import Metrics
from dwcp_sidecar.server.oip import SERVICE, InferenceService, NotFoundError
from dwcp_sidecar.verdicts import Explain

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "models" / "reference" / "v1"
"""Environment of the client: it wants an older protobuf, so `make setup` installs both apart from everything else."""
WAIT = 60
FOREST, LSTM = "isolation_forest", "lstm_autoencoder"
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]
ALARM = [20.0, 90.0, 4.0, 25.0, 97.0, 96.0, 3.0]
COMMON = ["score", "is_anomaly", "p_value", "level", "threshold", "contributions", "expected"]
OUTPUTS = {FOREST: [*COMMON, "depth_sum"], LSTM: COMMON}
DATATYPES = {
    "score": ("FP32", "<f4"),
    "is_anomaly": ("BOOL", "?"),
    "p_value": ("FP64", "<f8"),
    "level": ("INT32", "<i4"),
    "threshold": ("FP64", "<f8"),
    "contributions": ("FP32", "<f4"),
    "expected": ("FP32", "<f4"),
    "depth_sum": ("FP64", "<f8"),
}


@dataclass
class Holder:
    models: ModelSet


@pytest.fixture(scope="module")
def service(reference):
    return InferenceService(Holder(reference), lambda: False)


def some_rows(name, count):
    """float64 `[count, ...]`: normal rows and alarms, in the shape of the model."""
    generator = np.random.default_rng(7)
    base = np.where(generator.random((count, 1)) < 0.2, ALARM, ROW)
    rows = base * generator.uniform(0.9, 1.1, (count, 7))
    if name == FOREST:
        return rows
    return rows[:, np.newaxis] * generator.uniform(0.95, 1.05, (count, 10, 7))


def infer_request(rows, name=FOREST, outputs=(), datatype="FP64", listed=False, **fields):
    rows = np.asarray(rows, "<f8")
    request = oip.ModelInferRequest(model_name=name, outputs=[{"name": output} for output in outputs], **fields)
    tensor = request.inputs.add(name="samples", datatype=datatype, shape=rows.shape)
    if listed:
        tensor.contents.fp64_contents.extend(rows.ravel().tolist())
    else:
        request.raw_input_contents.append(rows.tobytes())
    return request


def expected_outputs(model, rows, names):
    """Name to bytes, from the scores of ScoreBatch (O3)."""
    verdicts = model.score_batch(rows, Explain.ALWAYS)
    values = {
        "score": verdicts.scores,
        "is_anomaly": verdicts.is_anomaly,
        "p_value": verdicts.p_values,
        "level": verdicts.levels,
        "threshold": np.array([model.threshold]),
        "contributions": verdicts.contributions,
        "expected": verdicts.expected,
        "depth_sum": verdicts.depth_sums,
    }
    return {name: (values[name].shape, values[name].astype(DATATYPES[name][1]).tobytes()) for name in names}


def outputs_of(response):
    assert [output.name for output in response.outputs if output.datatype != DATATYPES[output.name][0]] == []
    assert len(response.outputs) == len(response.raw_output_contents)
    return {
        output.name: (tuple(output.shape), raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 300])
@pytest.mark.parametrize("name", [FOREST, LSTM])
def test_values_are_those_of_a_batch(service, reference, name, count, listed):
    rows = some_rows(name, count)
    response = service.model_infer(infer_request(rows, name, listed=listed, id="x"))
    assert (response.model_name, response.model_version, response.id) == (name, reference.id, "x")
    assert [output.name for output in response.outputs] == OUTPUTS[name]
    wanted = expected_outputs(reference.model(name), rows, OUTPUTS[name])
    assert outputs_of(response) == wanted
    assert count < 300 or 0 < np.frombuffer(wanted["is_anomaly"][1], bool).sum() < count, (
        "rows of one kind prove little"
    )


@pytest.mark.parametrize("name", [FOREST, LSTM])
def test_outputs_come_where_asked_for_in_that_order(service, reference, name):
    rows = some_rows(name, 20)
    asked = ["level", "score", "expected"]
    response = service.model_infer(infer_request(rows, name, asked, model_version=reference.id))
    assert [output.name for output in response.outputs] == asked
    assert outputs_of(response) == expected_outputs(reference.model(name), rows, asked)


def test_explanations_are_not_computed_unasked(reference, monkeypatch):
    explains = []

    class Model:
        def __init__(self, real):
            self._real = real

        def __getattr__(self, name):
            return getattr(self._real, name)

        def score_batch(self, rows, explain):
            explains.append(explain)
            return self._real.score_batch(rows, explain)

    class Models:
        id = reference.id

        def model(self, name):
            return Model(reference.model(name))

    service = InferenceService(Holder(Models()), lambda: False)
    for outputs in (["score", "p_value"], ["expected"], ["contributions"], []):
        service.model_infer(infer_request([ROW], outputs=outputs))
    assert explains == [Explain.NEVER, Explain.ALWAYS, Explain.ALWAYS, Explain.ALWAYS]


def changed(change, **options):
    request = infer_request([ROW], **options)
    change(request)
    return request


def lists_float32(request):
    request.ClearField("raw_input_contents")
    request.inputs[0].contents.fp32_contents.extend(ROW)


NAN = [*ROW[:2], float("nan"), *ROW[3:]]
REFUSALS = [
    ("UNKNOWN_DETECTOR", "model_name", infer_request([ROW], "no_such")),
    ("UNKNOWN_DETECTOR", "model_name", infer_request([ROW], "", model_version="other")),
    ("MODEL_SET_MISMATCH", "model_version", infer_request([ROW], model_version="1")),
    ("MODEL_SET_MISMATCH", "model_version", infer_request([ROW], datatype="FP32", model_version="0" * 64)),
    ("INVALID_REQUEST", "inputs", oip.ModelInferRequest(model_name=FOREST)),
    ("INVALID_REQUEST", "inputs", changed(lambda request: setattr(request.inputs[0], "name", "rows"))),
    ("INVALID_REQUEST", "inputs", changed(lambda request: request.inputs.add(name="samples"))),
    ("INVALID_REQUEST", "outputs", infer_request([ROW], outputs=["score", "no_such"])),
    ("INVALID_REQUEST", "outputs", infer_request([ROW], outputs=["score", "score"])),
    ("INVALID_REQUEST", "outputs", infer_request([ROW], LSTM, outputs=["depth_sum"])),
    ("INVALID_REQUEST", "inputs[0].datatype", infer_request([ROW], datatype="FP32")),
    ("INVALID_REQUEST", "inputs[0].datatype", infer_request([ROW], datatype="")),
    ("INVALID_REQUEST", "inputs[0].shape", infer_request(ROW)),
    ("INVALID_REQUEST", "inputs[0].shape", infer_request([ROW[:6]])),
    ("INVALID_REQUEST", "inputs[0].shape", infer_request([[ROW]])),
    ("INVALID_REQUEST", "inputs[0].shape", infer_request([ROW] * 10, LSTM)),
    ("INVALID_REQUEST", "inputs[0].shape", infer_request([[ROW] * 9], LSTM)),
    ("INVALID_REQUEST", "inputs[0].shape", changed(lambda request: request.inputs[0].shape.__setitem__(0, -1))),
    ("INVALID_REQUEST", "inputs[0].contents", changed(lambda request: request.inputs[0].shape.__setitem__(0, 2**62))),
    ("INVALID_REQUEST", "inputs[0].contents", changed(lambda request: request.ClearField("raw_input_contents"))),
    ("INVALID_REQUEST", "inputs[0].contents", changed(lambda request: request.raw_input_contents.append(b""))),
    (
        "INVALID_REQUEST",
        "inputs[0].contents",
        changed(lambda request: request.inputs[0].contents.fp64_contents.extend(ROW)),
    ),
    (
        "INVALID_REQUEST",
        "inputs[0].contents",
        changed(lambda request: request.raw_input_contents.__setitem__(0, bytes(57))),
    ),
    ("INVALID_REQUEST", "inputs[0].contents", changed(lists_float32)),
    ("NO_SAMPLES", "rows", infer_request(np.zeros((0, 7)))),
    ("NO_SAMPLES", "rows", infer_request(np.zeros((0, 10, 7)), LSTM, listed=True)),
    ("BATCH_TOO_LARGE", "rows", infer_request([NAN] * 16_385)),
    ("NOT_FINITE", "rows[1].packet_loss", infer_request([ROW, NAN, NAN])),
    ("NOT_FINITE", "rows[12].packet_loss", infer_request([[ROW] * 10, [ROW, ROW, NAN, *[ROW] * 7]], LSTM)),
    # One fault of each kind at a time: the first of the list is the answer.
    ("INVALID_REQUEST", "inputs", oip.ModelInferRequest(model_name=FOREST, outputs=[{"name": "no_such"}])),
    ("INVALID_REQUEST", "outputs", infer_request([ROW], outputs=["no_such"], datatype="FP32")),
    ("INVALID_REQUEST", "inputs[0].datatype", infer_request([ROW[:6]], datatype="FP32")),
]


@pytest.mark.parametrize(
    ("code", "field", "request_"), REFUSALS, ids=[f"{c}-{f}-{i}" for i, (c, f, _) in enumerate(REFUSALS)]
)
def test_refusals(service, code, field, request_):
    with pytest.raises(ContractError) as caught:
        service.model_infer(request_)
    assert (caught.value.code, caught.value.field) == (code, field)
    assert isinstance(caught.value, NotFoundError) == (field in ("model_name", "model_version"))
    assert len(caught.value.message) < 1000


def test_not_found_has_its_status():
    assert NotFoundError("UNKNOWN_DETECTOR", "model_name", "x").status == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("name", ["no_such", "x" * 1_000_000])
def test_models_that_are_not_there(service, name):
    for call, request in (
        (service.model_ready, oip.ModelReadyRequest(name=name)),
        (service.model_metadata, oip.ModelMetadataRequest(name=name)),
    ):
        with pytest.raises(NotFoundError) as caught:
            call(request)
        assert (caught.value.code, caught.value.field) == ("UNKNOWN_DETECTOR", "model_name")
        assert len(caught.value.message) < 1000
        with pytest.raises(NotFoundError) as caught:
            call(type(request)(name=FOREST, version=name))
        assert (caught.value.code, caught.value.field) == ("MODEL_SET_MISMATCH", "model_version")


def test_a_detector_that_the_set_lacks(reference):
    models = ModelSet(reference.id, reference.path, {FOREST: reference.model(FOREST)}, {}, {})
    service = InferenceService(Holder(models), lambda: False)
    with pytest.raises(NotFoundError) as caught:
        service.model_infer(infer_request([[ROW] * 10], LSTM))
    assert (caught.value.code, caught.value.field) == ("DETECTOR_UNAVAILABLE", "model_name")
    assert service.model_ready(oip.ModelReadyRequest(name=FOREST)).ready
    assert not service.model_ready(oip.ModelReadyRequest(name=LSTM)).ready


def test_not_ready_while_stopping(reference):
    stopping = False
    service = InferenceService(Holder(reference), lambda: stopping)
    asked = oip.ModelReadyRequest(name=LSTM, version=reference.id)
    assert (service.server_ready(oip.ServerReadyRequest()).ready, service.model_ready(asked).ready) == (True, True)
    stopping = True
    assert (service.server_ready(oip.ServerReadyRequest()).ready, service.model_ready(asked).ready) == (False, False)
    assert service.server_live(oip.ServerLiveRequest()).live


def test_a_call_follows_a_swap(reference):
    holder = Holder(reference)
    service = InferenceService(holder, lambda: False)
    holder.models = ModelSet("1" * 64, reference.path, dict(reference.models), dict(reference.metadata), {})
    assert service.model_infer(infer_request([ROW])).model_version == "1" * 64
    with pytest.raises(NotFoundError):
        service.model_infer(infer_request([ROW], model_version=reference.id))


def test_every_method_is_there_and_scores_are_counted(service):
    metrics = Metrics()
    methods = {method.name: method for method in service.methods(metrics)}
    assert list(methods) == [method.name for method in SERVICE.methods]
    assert {name for name, method in methods.items() if method.counted} == {"ModelInfer"}
    rows = some_rows(FOREST, 100)
    answer = methods["ModelInfer"].run(infer_request(rows))
    alarms = np.frombuffer(outputs_of(answer)["is_anomaly"][1], bool).sum()
    page = metrics.text().decode()
    assert f'dwcp_scores_total{{detector="{FOREST}"}} 100.0\n' in page
    counted = [float(line.split()[-1]) for line in page.splitlines() if line.startswith("dwcp_alarms_total{")]
    assert sum(counted) == alarms > 0


CALLS = {
    "models": [[FOREST, ""], [LSTM, ""], ["no_such", ""], [FOREST, "2"]],
    "infer": [
        {"model": FOREST, "rows": some_rows(FOREST, 200).tolist()},
        {"model": LSTM, "rows": some_rows(LSTM, 40).tolist()},
        {"model": FOREST, "rows": some_rows(FOREST, 3).tolist(), "outputs": ["level", "score"]},
        {"model": "no_such", "rows": [ROW]},
        {"model": FOREST, "rows": [ROW], "version": "2"},
        {"model": FOREST, "rows": [ROW], "dtype": "float32"},
        {"model": FOREST, "rows": [NAN]},
    ],
}


@pytest.fixture(scope="module", params=["python", "go"])
def told(request, serve, serve_go, tmp_path_factory):
    """What tritonclient says of a server."""
    folder = tmp_path_factory.mktemp("oip")
    (folder / "calls.json").write_text(json.dumps(CALLS))
    with {"python": serve, "go": serve_go}[request.param]("--listen", "127.0.0.1:0") as server:
        script = Path(__file__).with_name("oip_client.py")
        client = [sys.executable, script, server.address, folder / "calls.json"]
        done = subprocess.run(client, capture_output=True, text=True, timeout=2 * WAIT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_client_finds_server_and_models(told, reference):
    assert (told["live"], told["ready"]) == (True, True)
    assert told["server"] == {"name": "dwcp-sidecar", "version": "1"}
    for name, shape in ((FOREST, ["-1", "7"]), (LSTM, ["-1", "10", "7"])):
        ready, metadata = told["models"][f"{name} "]
        assert ready is True
        assert metadata["platform"] == "dwcp"
        assert metadata["versions"] == [reference.id]
        assert metadata["inputs"] == [{"name": "samples", "datatype": "FP64", "shape": shape}]
        assert {output["name"]: output["datatype"] for output in metadata["outputs"]} == {
            name: DATATYPES[name][0] for name in OUTPUTS[name]
        }


def test_client_gets_the_scores_of_a_batch(told, reference):
    for call, answer in zip(CALLS["infer"][:3], told["inferred"], strict=False):
        name = call["model"]
        assert answer["model"] == [name, reference.id, "request 7"]
        names = call.get("outputs") or OUTPUTS[name]
        assert [output["name"] for output in answer["outputs"]] == names
        wanted = expected_outputs(reference.model(name), np.array(call["rows"]), names)
        for output in answer["outputs"]:
            assert output["datatype"] == DATATYPES[output["name"]][0]
            assert (tuple(output["shape"]), bytes.fromhex(output["bytes"])) == wanted[output["name"]]


def test_client_is_refused(told):
    for missing in ("no_such ", f"{FOREST} 2"):
        assert [answer["status"] for answer in told["models"][missing]] == ["StatusCode.NOT_FOUND"] * 2
    statuses = [answer["status"] for answer in told["inferred"][3:]]
    assert statuses == ["StatusCode.NOT_FOUND"] * 2 + ["StatusCode.INVALID_ARGUMENT"] * 2
    assert all(answer["message"] for answer in told["inferred"][3:])
