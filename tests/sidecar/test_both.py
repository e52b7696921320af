"""Streams, the Open Inference Protocol and Reload: both sidecars answer the same, also when they refuse."""

import contextlib
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from dwcp.oip.v2 import inference_pb2, inference_pb2_grpc
from dwcp_sidecar.server.settings import Settings, Tls
from tests.faults.endpoint import REFERENCE, Endpoint, serving

pytestmark = pytest.mark.timeout(300)
FOREST, LSTM = "isolation_forest", "lstm_autoencoder"
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]
ALARM = [1.0, 900.0, 40.0, 300.0, 99.0, 99.0, 60.0]
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def both() -> Iterator[list[grpc.Channel]]:
    """Connections to one sidecar of each language."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(stack.enter_context(serving(kind, REFERENCE)).channel()) for kind in ("python", "go")
        ]


def refusal(error: grpc.RpcError) -> tuple:
    """What a program can tell of a refusal: not its text, which is for people and may differ."""
    parts: list[object] = [error.code().name]
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            parts.append((info.domain, info.reason))
        elif detail.Unpack(bad):
            parts.append([violation.field for violation in bad.field_violations])
    return tuple(parts)


def told(call) -> object:
    """The answer of a call, or its refusal."""
    try:
        return call()
    except grpc.RpcError as error:
        return refusal(error)


def agreed(both, ask) -> object:
    """The one answer of both."""
    python, go = (told(lambda channel=channel: ask(channel)) for channel in both)
    assert python == go
    return python


def stream(*requests):
    """What a stream tells: one list of outcomes a response, then how it ended."""

    def ask(channel):
        outcomes: list[object] = []
        call = scoring_pb2_grpc.ScoringServiceStub(channel).ScoreStream(iter(requests), timeout=30)
        try:
            for response in call:
                for result in response.results:
                    for verdict in result.verdicts:
                        verdict.error.ClearField("message") if verdict.HasField("error") else None
                outcomes.append(response.SerializeToString(deterministic=True))
        except grpc.RpcError as error:
            outcomes.append(refusal(error))
        return outcomes

    return ask


def first(*detectors, samples=(), **settings):
    return scoring_pb2.ScoreStreamRequest(settings={"detectors": detectors, **settings}, samples=samples)


def more(*samples):
    return scoring_pb2.ScoreStreamRequest(samples=samples)


def one(values, series="a", restart=False):
    return {"series": series, "values": values, "restart": restart}


@pytest.mark.parametrize(
    ("requests", "end"),
    [
        ([], None),
        ([more(one(ROW))], "INVALID_REQUEST"),
        ([first()], "INVALID_REQUEST"),
        ([first(1, 1)], "INVALID_REQUEST"),
        ([first(1, 9)], "UNKNOWN_DETECTOR"),
        ([first(1, explain=7)], "INVALID_REQUEST"),
        ([first(9, explain=7, model_set_id="x")], "UNKNOWN_DETECTOR"),
        ([first(1, explain=7, model_set_id="x")], "MODEL_SET_MISMATCH"),
        ([first(1), first(1)], "INVALID_REQUEST"),
        ([first(1, samples=[one(ROW, "x" * 256)])], None),
        ([first(1, samples=[one(ROW, "x" * 257)])], "INVALID_REQUEST"),
        ([first(1, samples=[one(ROW), one(ROW, "ü" * 129)])], "INVALID_REQUEST"),
        ([first(1, samples=[one(ROW)] * 4096)], None),
        ([first(1), more(*[one(ROW)] * 4097)], "BATCH_TOO_LARGE"),
        ([first(2, 1, samples=[one(ROW)] * 12, explain=2), more(), more(one(ALARM))], None),
        ([first(1, 2, explain=3), more(*[one(ROW)] * 9), more(one([NAN] * 7), one(ROW)), more(*[one(ROW)] * 9)], None),
        ([first(2), more(*[one(ROW)] * 11), more(one(ROW, restart=True)), more(*[one(ROW)] * 9)], None),
        ([first(2), more(one([1.0] * 6), one([1.0, INF, 1, 1, 1, 1, 1]), one([]))], None),
    ],
)
def test_streams(both, requests, end):
    outcomes = agreed(both, stream(*requests))
    last = outcomes[-1] if outcomes else b""
    assert (last[1][1] if isinstance(last, tuple) else None) == end


def test_random_streams(both):
    random_ = random.Random(5)
    for _ in range(30):
        requests = [first(*random_.choice([(1,), (2,), (1, 2), (2, 1)]), explain=random_.randrange(4))]
        for _ in range(random_.randrange(1, 12)):
            rows = [
                one(
                    random_.choice([ROW, ALARM, [NAN] * 7, ROW[:3], [random_.gauss(50, 30) for _ in range(7)]]),
                    random_.choice("ab"),
                    random_.random() < 0.05,
                )
                for _ in range(random_.randrange(0, 15))
            ]
            requests.append(more(*rows))
        agreed(both, stream(*requests))


def infer(**changes):
    """A good ModelInferRequest with changes."""
    request = {
        "model_name": FOREST,
        "id": "7",
        "inputs": [{"name": "samples", "datatype": "FP64", "shape": [1, 7], "contents": {"fp64_contents": ROW}}],
    }
    message = inference_pb2.ModelInferRequest(**{**request, **changes})

    def ask(channel):
        answer = inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=20)
        return answer.SerializeToString(deterministic=True)

    return ask


def samples(shape, datatype="FP64", name="samples", **contents):
    return [{"name": name, "datatype": datatype, "shape": shape, **({"contents": contents} if contents else {})}]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"outputs": [{"name": "score"}]}, None),
        ({"outputs": [{"name": "expected"}, {"name": "score"}]}, None),
        ({"outputs": [{"name": "loss"}]}, "INVALID_REQUEST"),
        ({"model_name": "resnet"}, "UNKNOWN_DETECTOR"),
        ({"model_name": ""}, "UNKNOWN_DETECTOR"),
        ({"model_version": "1"}, "MODEL_SET_MISMATCH"),
        ({"model_name": "resnet", "model_version": "1"}, "UNKNOWN_DETECTOR"),
        ({"inputs": []}, "INVALID_REQUEST"),
        ({"inputs": samples([1, 7], name="x", fp64_contents=ROW)}, "INVALID_REQUEST"),
        ({"inputs": samples([1, 7], "FP32", fp32_contents=ROW)}, "INVALID_REQUEST"),
        ({"inputs": samples([1, 6], fp64_contents=ROW[:6])}, "INVALID_REQUEST"),
        ({"inputs": samples([-1, 7], fp64_contents=ROW)}, "INVALID_REQUEST"),
        ({"inputs": samples([7], fp64_contents=ROW)}, "INVALID_REQUEST"),
        ({"inputs": samples([2, 7], fp64_contents=ROW)}, "INVALID_REQUEST"),
        ({"inputs": samples([0, 7])}, "NO_SAMPLES"),
        ({"inputs": samples([1, 7]), "raw_input_contents": [bytes(56)]}, None),
        ({"inputs": samples([1, 7]), "raw_input_contents": [bytes(55)]}, "INVALID_REQUEST"),
        ({"inputs": samples([1, 7]), "raw_input_contents": [bytes(56), b""]}, "INVALID_REQUEST"),
        ({"inputs": samples([1, 7], fp64_contents=ROW), "raw_input_contents": [bytes(56)]}, "INVALID_REQUEST"),
        ({"inputs": samples([1, 7], fp64_contents=[NAN] * 7)}, "NOT_FINITE"),
        ({"model_name": LSTM}, "INVALID_REQUEST"),
        ({"model_name": LSTM, "inputs": samples([2, 10, 7], fp64_contents=ROW * 20)}, None),
        ({"model_name": LSTM, "inputs": samples([1, 9, 7], fp64_contents=ROW * 9)}, "INVALID_REQUEST"),
        ({"inputs": samples([16385, 7]), "raw_input_contents": [bytes(56 * 16385)]}, "BATCH_TOO_LARGE"),
    ],
)
def test_inference(both, changes, code):
    outcome = agreed(both, infer(**changes))
    assert (outcome[1][1] if isinstance(outcome, tuple) else None) == code
    if code in ("UNKNOWN_DETECTOR", "MODEL_SET_MISMATCH"):
        assert outcome[0] == "NOT_FOUND"  # O1


@pytest.mark.parametrize("name", [FOREST, LSTM, "resnet"])
@pytest.mark.parametrize("version", ["", "1"])
def test_models_of_the_protocol(both, name, version):
    def metadata(channel):
        request = inference_pb2.ModelMetadataRequest(name=name, version=version)
        answer = inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelMetadata(request, timeout=20)
        return answer.SerializeToString(deterministic=True)

    def ready(channel):
        request = inference_pb2.ModelReadyRequest(name=name, version=version)
        return inference_pb2_grpc.GRPCInferenceServiceStub(channel).ModelReady(request, timeout=20).ready

    good = name != "resnet" and not version
    assert isinstance(agreed(both, metadata), bytes) == good
    assert (agreed(both, ready) is True) == good


def reload(channel) -> scoring_pb2.ReloadResponse:
    return scoring_pb2_grpc.OperationsServiceStub(channel).Reload(scoring_pb2.ReloadRequest(), timeout=60)


def test_reload_of_what_is_in_use(both):
    answer = agreed(both, reload)
    assert answer.model_set_id
    assert not answer.changed


@pytest.mark.parametrize(
    ("damage", "code", "field"),
    [
        (lambda models: (models / "manifest.json").unlink(), "MANIFEST_MISSING", "manifest.json"),
        pytest.param(
            lambda models: (models / "lstm_metadata.json").unlink(),
            "FILE_MISSING",
            "lstm_metadata.json",
            marks=pytest.mark.slow,
        ),
        (
            lambda models: (models / "lstm_autoencoder.onnx").write_bytes(b""),
            "DIGEST_MISMATCH",
            "lstm_autoencoder.onnx",
        ),
    ],
)
def test_reload_of_a_damaged_set(tmp_path: Path, damage, code, field):
    models = Path(shutil.copytree(REFERENCE, tmp_path / "models"))
    with contextlib.ExitStack() as stack:
        sidecars: list[Endpoint] = [
            stack.enter_context(serving(kind, models, "--watch", "0")) for kind in ("python", "go", "workers")
        ]
        damage(models)
        channels = [stack.enter_context(sidecar.channel()) for sidecar in sidecars]
        outcomes = [told(lambda channel=channel: reload(channel)) for channel in channels]
        assert all(sidecar.serving() for sidecar in sidecars)
    assert outcomes == [("FAILED_PRECONDITION", ("dwcp.anomaly", code), [field])] * 3


@pytest.mark.parametrize(
    ("listen", "mutual", "trusted"),
    [
        ("127.0.0.1:0", False, True),
        ("localhost:0", False, True),
        ("0.0.0.0:0", False, False),
        ("0.0.0.0:0", True, True),
        ("192.0.2.1:0", False, False),
        (None, False, True),
    ],
)
def test_reload_is_not_for_strangers(listen, mutual, trusted, tmp_path):
    """R6; that the call is refused then, the Go tests and test_reload.py show."""
    tls = Tls(tmp_path, tmp_path, tmp_path) if mutual else None
    settings = Settings(models=tmp_path, listen=listen, unix=tmp_path / "s", tls=tls)
    assert settings.only_trusted_peers == trusted
