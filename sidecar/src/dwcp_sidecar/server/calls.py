"""The way of every call: taken or not, deadline, decoding, answer or refusal, counted (E4, L2, L6, L7, M1)."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.server import gate as gates
from dwcp_sidecar.server import status
from dwcp_sidecar.server.event_loop import arrived
from dwcp_sidecar.server.gate import Gate
from dwcp_sidecar.server.metrics import Metrics
from dwcp_sidecar.server.tracing import Tracer

_log = logging.getLogger(__name__)


class StatusError(Exception):
    """A call ends with a status that the contract has no code for."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Method:
    """One method of a service.

    Attributes:
        name: as in its schema; the label of its metrics.
        request: class of its request message.
        run: answers a request, with a message or its bytes, or raises ContractError or StatusError. For a stream: takes
            an iterator of requests and gives an iterator of answers.
        stream: whether it is a bidirectional stream.
        counted: whether the limits hold for it (L2).
        while_stopping: whether it is answered until the end: it says that the server is stopping.
    """

    name: str
    request: type[Message]
    run: Callable[[Any], Any]
    stream: bool = False
    counted: bool = True
    while_stopping: bool = False


class Calls(grpc.GenericRpcHandler):
    """Handlers of one service.

    gRPC asks for a handler as soon as the head of a call is there. That is the moment to refuse one call too many:
    before its request is read, and before it waits for a thread.

    Args:
        service: full name.
        methods: its methods.
        gate: which calls are taken.
        metrics: counts them.
        tracer: makes spans; None for none.
    """

    def __init__(
        self, service: str, methods: list[Method], gate: Gate, metrics: Metrics, tracer: Tracer | None = None
    ) -> None:
        self._service = service
        self._gate = gate
        self._metrics = metrics
        self._tracer = tracer
        self._methods = {f"/{service}/{method.name}": (method, self._handler(method)) for method in methods}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        found = self._methods.get(handler_call_details.method)
        if found is None:
            return None
        method, handler = found
        refusal = None if method.while_stopping else self._gate.refuse(counted=method.counted, stream=method.stream)
        if refusal is None:
            return handler
        self._metrics.call(method.name, refusal.code.name, None)
        return refusal.handler

    def _handler(self, method: Method) -> grpc.RpcMethodHandler:
        pool: ThreadPoolExecutor = self._gate.other
        if method.counted:
            pool = self._gate.streams if method.stream else self._gate.unary
        if method.stream:
            behavior = gates.in_pool(self._traced_stream(self._stream(method), method), pool)
            return grpc.stream_stream_rpc_method_handler(behavior, _decoder(method.request), encode)
        behavior = gates.in_pool(self._unary(method), pool)
        return grpc.unary_unary_rpc_method_handler(behavior, _decoder(method.request), encode)

    def _unary(self, method: Method) -> Callable[[Any, grpc.ServicerContext], Message | bytes]:
        run, name, metrics = method.run, method.name, self._metrics

        def call(request: Message | ContractError, context: grpc.ServicerContext) -> Message | bytes:
            came = arrived() if method.counted else time.perf_counter()
            try:
                # A call may have waited for a thread longer than its caller wanted to wait: nobody reads that answer.
                # gRPC ends it by a clock that is never set; `time_remaining` goes by the one that may be.
                if not context.is_active():
                    raise StatusError(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before scoring began")
                if isinstance(request, ContractError):
                    raise request
                answer: Message | bytes = run(request)
            except Exception as error:
                self._refuse(method, error, came, context)
                raise  # not reached: _refuse ends the call
            metrics.call(name, "OK", time.perf_counter() - came)
            if self._gate.draining or isinstance(
                answer, bytes
            ):  # the answers of batches, which may be large, are bytes
                self._gate.sends(context)
            return answer

        return self._traced(call, method)

    def _stream(self, method: Method) -> Callable[[Any, grpc.ServicerContext], Iterator[Message]]:
        def call(requests: Iterator[Message | ContractError], context: grpc.ServicerContext) -> Iterator[Message]:
            try:
                yield from method.run(_Requests(requests, context))
            except GeneratorExit:  # the client went while an answer was on its way
                self._metrics.call(method.name, "CANCELLED", None)
                raise
            except Exception as error:
                if not context.is_active():  # the client is gone, or the stream was idle: nobody hears why
                    self._metrics.call(method.name, "CANCELLED", None)
                    return
                self._refuse(method, error, None, context)
            self._metrics.call(method.name, "OK", None)

        return call

    def _traced(self, call: Callable[..., Any], method: Method) -> Callable[..., Any]:
        if self._tracer is None:
            return call
        tracer = self._tracer

        def traced(request: Any, context: grpc.ServicerContext) -> Any:
            with tracer.call(self._service, method.name, context.invocation_metadata()) as span:
                try:
                    answer = call(request, context)
                except Exception:
                    span.failed(context.code())
                    raise
                span.answered(request, answer)
                return answer

        return traced

    def _traced_stream(self, call: Callable[..., Iterator[Message]], method: Method) -> Callable[..., Any]:
        """One span from the first to the last message: a span for each answer would cost more than the answer."""
        if self._tracer is None:
            return call
        tracer = self._tracer

        def traced(requests: Any, context: grpc.ServicerContext) -> Iterator[Message]:
            with tracer.call(self._service, method.name, context.invocation_metadata()) as span:
                try:
                    yield from call(requests, context)
                except Exception:
                    span.failed(context.code())
                    raise
                if context.is_active():
                    span.ended()
                else:
                    span.failed(grpc.StatusCode.CANCELLED)

        return traced

    def _refuse(self, method: Method, error: Exception, came: float | None, context: grpc.ServicerContext) -> None:
        """Ends a call with the status of an error. The one place where a bug becomes an answer; its trace is logged."""
        seconds = None if came is None else time.perf_counter() - came
        if isinstance(error, StatusError):
            self._metrics.call(method.name, error.code.name, seconds)
            context.abort(error.code, error.message)
        if not isinstance(error, ContractError):
            _log.error("%s failed", method.name, exc_info=error)
            error = ContractError("INTERNAL", "", "the server failed on this request; its log says why")
        refusal = status.to_grpc(error)
        self._metrics.call(method.name, refusal.code.name, seconds)
        self._metrics.refusal(error.code)
        context.abort_with_status(refusal)


class _Requests:
    """The requests of a stream, and what its handler may ask of the call."""

    def __init__(self, requests: Iterator[Message | ContractError], context: grpc.ServicerContext) -> None:
        self._requests = requests
        self.cancel = context.cancel
        self.on_end = context.add_callback

    def __iter__(self) -> Iterator[Message]:
        for request in self._requests:
            if isinstance(request, ContractError):
                raise request
            yield request


def encode(answer: Message | bytes) -> bytes:
    """The bytes of an answer."""
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


def _decoder(request: type[Message]) -> Callable[[bytes], Message | ContractError]:
    """Bytes that are no message are INVALID_REQUEST (E4), where gRPC on its own would answer INTERNAL."""
    from_string, name = request.FromString, request.DESCRIPTOR.name

    def decode(data: bytes) -> Message | ContractError:
        try:
            return from_string(data)
        except DecodeError:
            return ContractError("INVALID_REQUEST", "", f"the bytes are no {name}")

    return decode
