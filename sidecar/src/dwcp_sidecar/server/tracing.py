"""OpenTelemetry spans, one per call: the extra `dwcp-sidecar[otel]`.

Nothing of OpenTelemetry is imported before a `Tracer` is made. Where spans go, how many are kept and what the service
is called is set by OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER and
OTEL_SERVICE_NAME.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import grpc

from dwcp_sidecar import detectors
from dwcp_sidecar.server.settings import StartError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

DETECTOR = "dwcp.detector"
MODEL_SET = "dwcp.model_set_id"

_PROPAGATED = ("traceparent", "tracestate")
# Those that a server is at fault for; the rest are the caller's (OpenTelemetry's conventions for gRPC servers).
_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)


class Tracer:
    """Makes a span per call.

    Args:
        exporter: where spans go; None for OTLP over gRPC, as OpenTelemetry's variables say.

    Raises:
        StartError: OpenTelemetry is not installed, or its variables are of no use.
    """

    def __init__(self, exporter: "SpanExporter | None" = None) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.context import Context
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            if exporter is None:
                exporter = _otlp()
        except ImportError as error:
            raise StartError(
                f"--traces needs OpenTelemetry, and {error.name} is not installed; "
                "install dwcp-sidecar[otel], or leave --traces out"
            ) from None
        resource = Resource.create({} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "dwcp-sidecar"})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("dwcp_sidecar")
        self._propagator = TraceContextTextMapPropagator()
        self._no_parent = Context()
        self._server = trace.SpanKind.SERVER
        self._error = trace.StatusCode.ERROR

    @contextlib.contextmanager
    def call(self, service: str, method: str, metadata: Iterable[tuple[str, str | bytes]] | None) -> "Iterator[Span]":
        """A span that lasts as long as the block.

        Args:
            service: full name, for example `dwcp.anomaly.v1.ScoringService`.
            method: for example `Score`.
            metadata: of the call; a W3C `traceparent` in it names the parent.
        """
        carrier = {key: value for key, value in metadata or () if key in _PROPAGATED and isinstance(value, str)}
        span = self._tracer.start_span(
            f"{service}/{method}",
            self._propagator.extract(carrier) if carrier else self._no_parent,
            self._server,
            {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method},
        )
        try:
            yield Span(span, self._error)
        finally:
            span.end()

    def close(self) -> None:
        """Sends what is left, and stops. Takes some seconds where nobody receives it."""
        self._provider.shutdown()


class Span:
    """The span of one call. It has no text of errors: their messages may quote what the caller sent."""

    def __init__(self, span: Any, error: Any) -> None:
        self._span = span
        self._error = error

    def answered(self, request: Any, answer: Any) -> None:
        """The call ended well. Detector and model set are read from its messages, where they have them."""
        self._status(grpc.StatusCode.OK)
        if not self._span.is_recording():
            return
        detector = detectors.NAMES.get(getattr(request, "detector", 0)) or getattr(answer, "model_name", "")
        model_set = getattr(answer, "model_set_id", "") or getattr(answer, "model_version", "")
        if detector:
            self._span.set_attribute(DETECTOR, detector)
        if model_set:
            self._span.set_attribute(MODEL_SET, model_set)

    def ended(self) -> None:
        """A stream ended well."""
        self._status(grpc.StatusCode.OK)

    def failed(self, code: grpc.StatusCode | None) -> None:
        """The call ended with a status other than OK; None stands for UNKNOWN."""
        code = code or grpc.StatusCode.UNKNOWN
        self._status(code)
        if code in _FAULTS:
            self._span.set_status(self._error)

    def _status(self, code: grpc.StatusCode) -> None:
        self._span.set_attribute("rpc.grpc.status_code", code.value[0])


def _otlp() -> "SpanExporter":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    try:
        exporter: SpanExporter = OTLPSpanExporter()
    except Exception as error:  # whatever a variable makes it raise
        raise StartError(
            f"--traces: OpenTelemetry refuses its settings ({error}); check OTEL_EXPORTER_OTLP_*"
        ) from None
    return exporter
