"""Every code of the contract over the wire: status, ErrorInfo, BadRequest (rule E4), and nothing private in it."""

import contextlib
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from dwcp.anomaly.v1 import errors_pb2, scoring_pb2, scoring_pb2_grpc
from dwcp_sidecar.client import Client
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.server import status
from dwcp_sidecar.server.app import App
from dwcp_sidecar.server.live import Live
from dwcp_sidecar.server.metrics import NoMetrics
from dwcp_sidecar.server.settings import MAX_MESSAGE_BYTES, Limits, Settings

pytestmark = pytest.mark.timeout(120)
FOREST, LSTM = 1, 2
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]
NAN_ROW = [*ROW[:2], float("nan"), *ROW[3:]]


def score(rows, detector=FOREST, **fields):
    return scoring_pb2.ScoreRequest(detector=detector, samples=[{"values": row} for row in rows], **fields)


def batch(rows, detector=FOREST, **fields):
    return scoring_pb2.ScoreBatchRequest(detector=detector, rows=np.array(rows, "<f8").tobytes(), **fields)


REFUSALS = [
    ("INVALID_REQUEST", "explain", score([ROW], explain=9)),
    ("INVALID_REQUEST", "explain", batch([ROW], explain=9)),
    ("INVALID_REQUEST", "layout", batch([ROW], layout=9)),
    ("INVALID_REQUEST", "rows", scoring_pb2.ScoreBatchRequest(detector=FOREST, rows=b"1234567")),
    ("INVALID_REQUEST", "rows", batch([*ROW, 1.0])),
    ("UNKNOWN_DETECTOR", "detector", score([ROW], detector=0)),
    ("UNKNOWN_DETECTOR", "detector", score([], detector=99)),
    ("UNKNOWN_DETECTOR", "detector", batch([], detector=99)),
    ("NO_SAMPLES", "samples", score([])),
    ("NO_SAMPLES", "rows", batch([])),
    ("TOO_MANY_SAMPLES", "samples", score([ROW] * 257)),
    ("WRONG_WIDTH", "samples[1]", score([ROW, ROW[:6]])),
    ("WRONG_WIDTH", "samples[0]", score([[*ROW, 0.0]])),
    ("NOT_FINITE", "samples[0].packet_loss", score([NAN_ROW, ROW])),
    ("NOT_FINITE", "samples[0].packet_loss", score([NAN_ROW, ROW[:6]])),
    ("NOT_FINITE", "rows[2].packet_loss", batch([ROW, ROW, NAN_ROW])),
    ("NOT_FINITE", "rows[0].error_rate", batch([[*ROW[:6], -np.inf]])),
    ("WINDOW_TOO_SHORT", "samples", score([ROW] * 9, detector=LSTM)),
    ("WINDOW_TOO_SHORT", "rows", batch([ROW] * 11, detector=LSTM)),
    ("WINDOW_TOO_SHORT", "rows", batch([ROW] * 9, detector=LSTM, layout=2)),
    ("BATCH_TOO_LARGE", "rows", batch([ROW] * 16_385)),
    ("BATCH_TOO_LARGE", "rows", batch([ROW] * (64 * 1024 * 1024 // 56 + 1), detector=LSTM)),
    ("MODEL_SET_MISMATCH", "model_set_id", score([ROW], model_set_id="0" * 64)),
    ("MODEL_SET_MISMATCH", "model_set_id", batch([ROW], model_set_id="0" * 64)),
    # The order of E2: detector, set, form, number, samples, window.
    ("UNKNOWN_DETECTOR", "detector", score([], detector=99, model_set_id="0" * 64)),
    ("MODEL_SET_MISMATCH", "model_set_id", score([], explain=9, model_set_id="0" * 64)),
]
ELSEWHERE = {"DETECTOR_UNAVAILABLE", "INTERNAL", "UNKNOWN_SERIES"}


@contextlib.contextmanager
def running(models, **limits):
    """A server in this process."""
    settings = Settings(models=Path("unused"), listen="127.0.0.1:0", limits=Limits(**limits))
    app = App(Live(models), settings, NoMetrics(), lambda: (models.id, False))
    app.start()
    try:
        yield app.addresses[0]
    finally:
        assert app.stop(0).wait(10)


@contextlib.contextmanager
def stub(address):
    with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield scoring_pb2_grpc.ScoringServiceStub(channel)


def refusal(address, request):
    """The failed call of a request, of either method."""
    with stub(address) as service:
        method = service.Score if isinstance(request, scoring_pb2.ScoreRequest) else service.ScoreBatch
        with pytest.raises(grpc.RpcError) as caught:
            method(request, timeout=30)
    return caught.value


def assert_refused(error, code, field):
    assert error.code() == status.STATUS[code]
    rich = rpc_status.from_call(error)
    assert rich is not None
    assert rich.message == error.details() != ""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert rich.details[0].Unpack(info)
    assert (info.reason, info.domain) == (code, "dwcp.anomaly")
    if field:
        assert rich.details[1].Unpack(bad)
        assert [violation.field for violation in bad.field_violations] == [field]
    assert len(rich.details) == (2 if field else 1)
    for private in ("Traceback", "/work", "/tmp", ".py", "\n"):
        assert private not in error.details()
    rebuilt = status.from_grpc(error)
    assert rebuilt is not None
    assert (rebuilt.code, rebuilt.field) == (code, field)


@pytest.mark.parametrize(
    ("code", "field", "request_"), REFUSALS, ids=[f"{c}-{f}-{i}" for i, (c, f, _) in enumerate(REFUSALS)]
)
def test_refusals(served, code, field, request_):
    assert_refused(refusal(served.address, request_), code, field)


def test_every_code_is_in_the_table_and_those_of_requests_are_tested():
    names = {name.removeprefix("ERROR_CODE_"): number for name, number in errors_pb2.ErrorCode.items() if number}
    assert set(names) == set(status.STATUS)
    requests = {name for name, number in names.items() if number < 20 or number == 40}
    assert {code for code, _, _ in REFUSALS} | ELSEWHERE == requests
    of_sets = {status.STATUS[name] for name in names if name not in requests}
    assert of_sets == {grpc.StatusCode.FAILED_PRECONDITION}, "test_reload.py has Reload answer them"


def test_detector_unavailable(set_copy):
    def leave_out(metadata):
        metadata["graph"] |= {
            "available": False,
            "file": "",
            "unavailable_reason": "failed in /home/zoe/x.py\nTraceback",
        }

    def no_graph(manifest):
        for model in manifest["models"]:
            if model["detector"] == "DETECTOR_LSTM_AUTOENCODER":
                model |= {"graph": "", "golden": ""}

    set_copy.edit("lstm_metadata.json", leave_out)
    set_copy.edit("manifest.json", no_graph)
    set_copy.redigest()
    with running(ModelSet.open(set_copy.path)) as address:
        error = refusal(address, score([ROW], detector=LSTM))
        assert_refused(error, "DETECTOR_UNAVAILABLE", "detector")
        assert "/home" not in error.details()
        assert "zoe" not in error.details()
        with Client(address, timeout=30) as client:
            assert [model.model_type for model in client.model_set().models] == ["isolation_forest"]


class Broken:
    """A model set whose model fails, as a bug would."""

    id, models = "0" * 64, {}

    def model(self, name):
        raise RuntimeError("a secret of /etc/secret.conf")


def test_a_bug_is_internal_and_its_trace_stays_in_the_log(caplog):
    with running(Broken()) as address:
        error = refusal(address, score([ROW]))
    assert_refused(error, "INTERNAL", "")
    assert "secret" not in error.details()
    assert "a secret of" in caplog.text


def test_bytes_that_are_no_message(served):
    with grpc.insecure_channel(served.address) as channel:
        for method in ("Score", "ScoreBatch"):
            call = channel.unary_unary(f"/dwcp.anomaly.v1.ScoringService/{method}")
            with pytest.raises(grpc.RpcError) as caught:
                call(b"\xff\xff\xff", timeout=30)
            assert_refused(caught.value, "INVALID_REQUEST", "")


def test_a_message_over_the_limit_is_refused_and_the_server_lives(served):
    too_large = scoring_pb2.ScoreBatchRequest(detector=FOREST, rows=bytes(MAX_MESSAGE_BYTES + 1))
    assert refusal(served.address, too_large).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with Client(served.address, timeout=30) as client:
        assert client.model_set().models


def test_client_raises_contract_errors(served):
    with Client(served.address, timeout=30) as client:
        with pytest.raises(ContractError) as caught:
            client.score("isolation_forest", [ROW[:3]])
        assert (caught.value.code, caught.value.field) == ("WRONG_WIDTH", "samples[0]")
        with pytest.raises(ContractError, match="UNKNOWN_DETECTOR"):
            client.score("no_such", [ROW])


def test_client_does_not_hide_other_failures():
    with Client("127.0.0.1:1") as client, pytest.raises(grpc.RpcError) as caught:
        client.model_set()
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Waiting:
    """A model set that answers when told to, and counts how often it was asked."""

    def __init__(self, models):
        self._real, self.id, self.models = models, models.id, models.models
        self.asked, self.go = 0, threading.Event()

    def model(self, name):
        self.asked += 1
        assert self.go.wait(30)
        return self._real.model(name)


def test_a_request_whose_deadline_passed_in_the_queue_is_not_scored(reference):
    waiting = Waiting(reference)
    with running(waiting, threads=1) as address, stub(address) as service:
        first = service.Score.future(score([ROW]), timeout=30)
        until = time.monotonic() + 30
        while waiting.asked == 0 and time.monotonic() < until:
            time.sleep(0.01)
        with pytest.raises(grpc.RpcError) as caught:
            service.Score(score([ROW]), timeout=0.2)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        third = service.Score.future(score([ROW]), timeout=30)
        waiting.go.set()
        assert first.result(30) == third.result(30)
    assert waiting.asked == 2


@pytest.mark.parametrize(
    ("message", "public"),
    [
        ("open /etc/passwd failed", "open (path) failed"),
        ("first line\nTraceback (most recent call last):", "first line"),
        ("at '~/models/x/y.onnx'", "at '(path)'"),
        ("12 Mbps/ms and/or 1/2/3", "12 Mbps/ms and/or 1/2/3"),
    ],
)
def test_messages_for_strangers(message, public):
    assert status.to_grpc(ContractError("INTERNAL", "", message)).details == public


def test_a_long_message_fits_into_the_trailers():
    assert len(status.to_grpc(ContractError("INTERNAL", "samples", "x" * 100_000)).trailing_metadata[0][1]) < 4096
