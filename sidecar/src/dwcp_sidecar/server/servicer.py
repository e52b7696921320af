"""The methods of ScoringService and OperationsService: messages in, messages out (rules W4, E1 to E4, R5)."""

from collections.abc import Callable

import grpc
import numpy as np

from dwcp.anomaly.v1 import scoring_pb2
from dwcp_sidecar import detectors
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.features import check_samples
from dwcp_sidecar.fleet import Fleet
from dwcp_sidecar.model_set import ModelSet, published
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.server import wire
from dwcp_sidecar.server.calls import Method, StatusError
from dwcp_sidecar.server.live import Live, chosen
from dwcp_sidecar.server.messages import check_id, count_batch, count_one, explain_of, to_message
from dwcp_sidecar.server.metrics import Metrics
from dwcp_sidecar.server.streams import Streams
from dwcp_sidecar.verdicts import Explain

SERVICE = scoring_pb2.DESCRIPTOR.services_by_name["ScoringService"]
"""Descriptor of the service; its full name is `dwcp.anomaly.v1.ScoringService`."""

OPERATIONS = scoring_pb2.DESCRIPTOR.services_by_name["OperationsService"]
"""Descriptor of the operator's service."""


class Servicer:
    """Answers with the live model set or fleet, which every call reads once.

    Args:
        live: holds it.
        streams: handles ScoreStream.
        metrics: counts scores and alarms.
    """

    def __init__(self, live: Live, streams: Streams, metrics: Metrics) -> None:
        self._live = live
        self._streams = streams
        self._metrics = metrics

    def methods(self) -> list[Method]:
        """The methods of ScoringService."""
        return [
            Method("Score", scoring_pb2.ScoreRequest, self.score),
            Method("ScoreBatch", scoring_pb2.ScoreBatchRequest, self.score_batch),
            Method("ScoreStream", scoring_pb2.ScoreStreamRequest, self._streams.run, stream=True),
            Method("GetModelSet", scoring_pb2.GetModelSetRequest, self.get_model_set, counted=False),
        ]

    def score(self, request: scoring_pb2.ScoreRequest) -> scoring_pb2.ScoreResponse:
        models = chosen(self._live.models, request.series)
        model = _model(models, request)
        explain = explain_of(request.explain)
        window = check_samples([sample.values for sample in request.samples], model.feature_names, model.timesteps)
        verdict = model.verdict_of(window, explain)
        count_one(self._metrics, model, verdict, window[-1])
        return scoring_pb2.ScoreResponse(verdict=to_message(model, verdict), model_set_id=models.id)

    def score_batch(self, request: scoring_pb2.ScoreBatchRequest) -> bytes:
        models = chosen(self._live.models, request.series)
        model = _model(models, request)
        explain = explain_of(request.explain)
        series = _series(request.layout)
        rows = _rows(request.rows, len(model.feature_names))
        verdicts = model.score_batch(rows, explain, series=series)
        count_batch(self._metrics, model, verdicts, rows[model.timesteps - 1 :: 1 if series else model.timesteps])
        asked = explain != Explain.NEVER
        return wire.batch_response(verdicts, explained=asked, threshold=model.threshold, id=models.id)

    def get_model_set(self, request: scoring_pb2.GetModelSetRequest) -> scoring_pb2.GetModelSetResponse:
        served = self._live.models
        response = scoring_pb2.GetModelSetResponse()
        if isinstance(served, Fleet):
            response.fleet_id = served.id
            if not request.series:
                return response
        models = chosen(served, request.series)
        response.model_set_id = models.id
        for model in models.models.values():
            response.models.append(published(model.metadata))
        return response


def operations(reload: Callable[[], tuple[str, bool]], *, allowed: bool) -> list[Method]:
    """The methods of OperationsService.

    Args:
        reload: opens what the folder holds; gives the id in use then and whether it changed, or raises ContractError.
        allowed: whether whoever can call is to be trusted with it (R6); else it is PERMISSION_DENIED.
    """

    def answer(request: scoring_pb2.ReloadRequest) -> scoring_pb2.ReloadResponse:
        if not allowed:
            why = "Reload is answered on loopback addresses, unix sockets and over mutual TLS alone"
            raise StatusError(grpc.StatusCode.PERMISSION_DENIED, why)
        id, changed = reload()
        return scoring_pb2.ReloadResponse(model_set_id=id, changed=changed)

    return [Method("Reload", scoring_pb2.ReloadRequest, answer, counted=False)]


def _model(models: ModelSet, request: scoring_pb2.ScoreRequest | scoring_pb2.ScoreBatchRequest) -> Scorer:
    model = models.model(detectors.NAMES.get(request.detector, f"detector {request.detector}"))
    check_id(models, request.model_set_id, "model_set_id")
    return model


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
