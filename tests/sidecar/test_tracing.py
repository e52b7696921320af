"""Spans of calls, as the SDK's own in-memory exporter sees them; and a server without OpenTelemetry."""

import subprocess
import sys
import time
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from dwcp_sidecar.server.settings import StartError
from dwcp_sidecar.server.tracing import Tracer

SERVICE = "dwcp.anomaly.v1.ScoringService"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = ("traceparent", f"00-{TRACE}-{PARENT}-01")


@pytest.fixture
def exporter(monkeypatch):
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter):
    made = Tracer(exporter)
    yield made
    made.close()


def only_span(tracer, exporter):
    assert tracer._provider.force_flush(10_000)
    (span,) = exporter.get_finished_spans()
    return span


def test_a_call(tracer, exporter):
    with tracer.call(SERVICE, "Score", (TRACEPARENT, ("user-agent", "x"))) as span:
        span.answered(scoring_pb2.ScoreRequest(detector=1), scoring_pb2.ScoreResponse(model_set_id="ab12"))
    seen = only_span(tracer, exporter)
    assert (seen.name, seen.kind) == (f"{SERVICE}/Score", SpanKind.SERVER)
    assert dict(seen.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "Score",
        "rpc.grpc.status_code": 0,
        "dwcp.detector": "isolation_forest",
        "dwcp.model_set_id": "ab12",
    }
    assert f"{seen.context.trace_id:032x}" == TRACE
    assert f"{seen.parent.span_id:016x}" == PARENT
    assert seen.status.status_code == StatusCode.UNSET
    assert seen.resource.attributes["service.name"] == "dwcp-sidecar"


@pytest.mark.parametrize("metadata", [None, (), (("traceparent", "rubbish"),), (("traceparent", b"\xff"),)], ids=repr)
def test_without_a_parent_a_call_starts_a_trace(tracer, exporter, metadata):
    with tracer.call(SERVICE, "GetModelSet", metadata) as span:
        span.answered(scoring_pb2.GetModelSetRequest(), scoring_pb2.GetModelSetResponse(model_set_id="cd34"))
    seen = only_span(tracer, exporter)
    assert seen.parent is None
    assert seen.attributes["dwcp.model_set_id"] == "cd34"
    assert "dwcp.detector" not in seen.attributes


def test_a_parent_that_is_not_sampled_is_respected(tracer, exporter):
    with tracer.call(SERVICE, "Score", [("traceparent", f"00-{TRACE}-{PARENT}-00")]) as span:
        span.answered(scoring_pb2.ScoreRequest(detector=1), scoring_pb2.ScoreResponse())
    assert tracer._provider.force_flush(10_000)
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("code", "number", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 3, StatusCode.UNSET),
        (grpc.StatusCode.INTERNAL, 13, StatusCode.ERROR),
        (None, 2, StatusCode.ERROR),
    ],
)
def test_a_failed_call(tracer, exporter, code, number, status):
    with pytest.raises(RuntimeError), tracer.call(SERVICE, "Score", ()) as span:  # noqa: PT012
        span.failed(code)
        raise RuntimeError("a secret")
    seen = only_span(tracer, exporter)
    assert (seen.attributes["rpc.grpc.status_code"], seen.status.status_code) == (number, status)
    assert "secret" not in seen.to_json()


def test_a_collector_that_is_not_there_does_not_hold_up_calls(tracer, exporter, monkeypatch):
    monkeypatch.setattr(exporter, "export", lambda spans: SpanExportResult.FAILURE)
    for _ in range(5000):
        with tracer.call(SERVICE, "Score", ()) as span:
            span.failed(grpc.StatusCode.INTERNAL)


def test_the_service_can_be_named(exporter, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge-7")
    tracer = Tracer(exporter)
    with tracer.call(SERVICE, "Score", ()):
        pass
    tracer.close()
    assert exporter.get_finished_spans()[0].resource.attributes["service.name"] == "edge-7"


def test_without_opentelemetry_the_remedy_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(StartError, match=r"install dwcp-sidecar\[otel\]"):
        Tracer()


def test_it_is_not_imported_before_it_is_wanted():
    code = "import sys, dwcp_sidecar.server.tracing; print(*[m for m in sys.modules if 'opentelemetry' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Receives spans as an OpenTelemetry collector does."""

    def __init__(self):
        self.spans = []

    def Export(self, request, context):  # noqa: N802
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()


def test_a_server_process_sends_its_spans(serve, monkeypatch):
    collector, receiver = Collector(), grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, receiver)
    port = receiver.add_insecure_port("127.0.0.1:0")
    receiver.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    row = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]
    good = scoring_pb2.ScoreRequest(detector=1, samples=[{"values": row}])
    bad = scoring_pb2.ScoreRequest(detector=1)
    try:
        with serve("--listen", "127.0.0.1:0", "--traces") as server, grpc.insecure_channel(server.address) as channel:
            service = scoring_pb2_grpc.ScoringServiceStub(channel)
            service.Score(good, timeout=20, metadata=[TRACEPARENT])
            with pytest.raises(grpc.RpcError):
                service.Score(bad, timeout=20)
            end = time.monotonic() + 20
            settings = scoring_pb2.StreamSettings(detectors=[1])
            first = scoring_pb2.ScoreStreamRequest(settings=settings, samples=[{"series": "a", "values": row}])
            assert len(list(service.ScoreStream(iter([first]), timeout=20))) == 1
            with pytest.raises(grpc.RpcError):
                list(service.ScoreStream(iter([scoring_pb2.ScoreStreamRequest()]), timeout=20))
            while len(collector.spans) < 4 and time.monotonic() < end:
                time.sleep(0.05)
            model_set_id = server.model_set_id
            assert server.stop() == 0
    finally:
        receiver.stop(0).wait(20)
    assert len(collector.spans) == 4
    streams = [span for span in collector.spans if span.name.endswith("/ScoreStream")]
    codes = [{pair.key: pair.value.int_value for pair in span.attributes}["rpc.grpc.status_code"] for span in streams]
    assert sorted(codes) == [0, 3]
    spans = {span.trace_id.hex() == TRACE: span for span in collector.spans if span not in streams}
    said = {pair.key: pair.value for pair in spans[True].attributes}
    assert spans[True].parent_span_id.hex() == PARENT
    assert said["dwcp.model_set_id"].string_value == model_set_id
    assert said["dwcp.detector"].string_value == "isolation_forest"
    assert said["rpc.grpc.status_code"].int_value == 0
    assert {pair.key: pair.value.int_value for pair in spans[False].attributes}["rpc.grpc.status_code"] == 3
