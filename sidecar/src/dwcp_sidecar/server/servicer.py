"""ScoringService: converts messages and delegates to the model set (rules W4, E1 to E4)."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from dwcp_sidecar import detectors
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model import Model
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.server import status
from dwcp_sidecar.verdicts import Explain, Verdicts

SERVICE = scoring_pb2.DESCRIPTOR.services_by_name["ScoringService"]
"""Descriptor of the service; its full name is `dwcp.anomaly.v1.ScoringService`."""

_log = logging.getLogger(__name__)


def _answering(method: Callable[[Any, Any], Message]) -> Callable[[Any, Any, grpc.ServicerContext], Message]:
    """Wraps a method that takes a request and returns an answer, or raises ContractError, for gRPC."""

    @functools.wraps(method)
    def call(self: Any, request: Message | ContractError, context: grpc.ServicerContext) -> Message:
        # A call may have waited for a thread longer than its caller wanted to wait: nobody reads that answer.
        remaining = context.time_remaining()
        if not context.is_active() or (remaining is not None and remaining <= 0):
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before scoring began")
        try:
            if isinstance(request, ContractError):
                raise request
            return method(self, request)
        except ContractError as error:
            refusal = error
        except Exception:  # the one place where a bug becomes an answer; its trace stays in the log
            _log.exception("%s failed", method.__name__)
            refusal = ContractError("INTERNAL", "", "the server failed on this request; its log says why")
        return context.abort_with_status(status.to_grpc(refusal))  # raises: nothing is returned

    return call


class Servicer(scoring_pb2_grpc.ScoringServiceServicer):
    """Answers with the model set in `models`, which is read once per call and may be replaced by another open one."""

    def __init__(self, models: ModelSet) -> None:
        self.models = models

    @_answering
    def Score(self, request: scoring_pb2.ScoreRequest) -> scoring_pb2.ScoreResponse:  # noqa: N802
        models = self.models
        model = _model(models, request)
        explain = _explain(request.explain)
        verdicts = model.score([sample.values for sample in request.samples], explain)
        return scoring_pb2.ScoreResponse(verdict=_verdict(model, verdicts), model_set_id=models.id)

    @_answering
    def ScoreBatch(self, request: scoring_pb2.ScoreBatchRequest) -> scoring_pb2.ScoreBatchResponse:  # noqa: N802
        models = self.models
        model = _model(models, request)
        explain = _explain(request.explain)
        series = _series(request.layout)
        verdicts = model.score_batch(_rows(request.rows, len(model.feature_names)), explain, series=series)
        return _batch(model, verdicts, explain, models.id)

    @_answering
    def GetModelSet(self, request: scoring_pb2.GetModelSetRequest) -> scoring_pb2.GetModelSetResponse:  # noqa: N802
        models = self.models
        response = scoring_pb2.GetModelSetResponse(model_set_id=models.id)
        for model in models.models.values():
            metadata = response.models.add()
            metadata.CopyFrom(model.metadata)
            metadata.calibration.ClearField("scores")
            metadata.training.ClearField("history")
        return response


def add_to_server(servicer: Servicer, server: grpc.Server) -> None:
    """Registers the service.

    As the generated function does, but for decoding: bytes that are no message are INVALID_REQUEST (E4), where gRPC on
    its own would answer INTERNAL.
    """
    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, method.name),
            request_deserializer=_decoder(method.input_type),
            response_serializer=lambda response: response.SerializeToString(),
        )
        for method in SERVICE.methods
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),))
    server.add_registered_method_handlers(SERVICE.full_name, handlers)


def _decoder(descriptor: Descriptor) -> Callable[[bytes], Message | ContractError]:
    from_string = message_factory.GetMessageClass(descriptor).FromString

    def decode(data: bytes) -> Message | ContractError:
        try:
            return from_string(data)
        except DecodeError:
            return ContractError("INVALID_REQUEST", "", f"the bytes are no {descriptor.name}")

    return decode


def _model(models: ModelSet, request: scoring_pb2.ScoreRequest | scoring_pb2.ScoreBatchRequest) -> Model:
    model = models.model(detectors.NAMES.get(request.detector, f"detector {request.detector}"))
    if request.model_set_id not in ("", models.id):
        raise ContractError(
            "MODEL_SET_MISMATCH",
            "model_set_id",
            f"model set {request.model_set_id[:64]} was asked for, {models.id} is in use; ask for that one or for none",
        )
    return model


def _explain(number: int) -> Explain:
    if number == scoring_pb2.EXPLAIN_UNSPECIFIED:
        return Explain.ALARMS
    if number not in scoring_pb2.Explain.values():
        raise ContractError("INVALID_REQUEST", "explain", f"explain is {number}; the contract has no such value")
    return Explain(number)


def _series(number: int) -> bool:
    if number not in scoring_pb2.BatchLayout.values():
        raise ContractError("INVALID_REQUEST", "layout", f"layout is {number}; the contract has no such value")
    return number == scoring_pb2.BATCH_LAYOUT_SERIES


def _rows(data: bytes, width: int) -> np.ndarray:
    """float64 `[n, width]` over the bytes of the request, without a copy."""
    if len(data) % (8 * width):
        raise ContractError(
            "INVALID_REQUEST", "rows", f"{len(data)} bytes are no whole number of rows of {width} float64 values"
        )
    return np.frombuffer(data, "<f8").reshape(-1, width)


def _verdict(model: Model, verdicts: Verdicts) -> scoring_pb2.Verdict:
    verdict = scoring_pb2.Verdict(
        score=verdicts.scores[0],
        is_anomaly=bool(verdicts.is_anomaly[0]),
        threshold=model.threshold,
        p_value=verdicts.p_values[0],
        level=int(verdicts.levels[0]),
    )
    if verdicts.depth_sums is not None:
        verdict.depth_sum = verdicts.depth_sums[0]
    if verdicts.explained[0]:
        contributions = verdicts.contributions[0]
        verdict.contributions.extend(contributions.tolist())
        verdict.expected.extend(verdicts.expected[0].tolist())
        if contributions.any():
            verdict.top_feature = model.feature_names[int(contributions.argmax())]
    return verdict


def _batch(model: Model, verdicts: Verdicts, explain: Explain, id: str) -> scoring_pb2.ScoreBatchResponse:
    response = scoring_pb2.ScoreBatchResponse(threshold=model.threshold, model_set_id=id)
    response.scores.extend(verdicts.scores.tolist())
    response.is_anomaly.extend(verdicts.is_anomaly.tolist())
    response.p_values.extend(verdicts.p_values.tolist())
    response.levels.extend(verdicts.levels.tolist())
    if verdicts.depth_sums is not None:
        response.depth_sums.extend(verdicts.depth_sums.tolist())
    if explain != Explain.NEVER:
        response.contributions.extend(verdicts.contributions.ravel().tolist())
        response.expected.extend(verdicts.expected.ravel().tolist())
    return response
