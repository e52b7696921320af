"""The Open Inference Protocol beside the own service: the same scores under the field's names (rules O1 to O4)."""

import functools
from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple, Protocol

import grpc
import numpy as np

from dwcp.oip.v2 import inference_pb2 as oip
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.fleet import Fleet
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.protojson import SCHEMA_VERSION
from dwcp_sidecar.scorer import Scorer
from dwcp_sidecar.server.calls import Method
from dwcp_sidecar.server.live import Served
from dwcp_sidecar.server.messages import check_id, count_batch
from dwcp_sidecar.server.metrics import Metrics, NoMetrics
from dwcp_sidecar.verdicts import Explain, Verdicts

SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
"""Descriptor of the service; its full name is `inference.GRPCInferenceService`."""

NAME = "dwcp-sidecar"
"""Name of the server in ServerMetadata."""

VERSION = str(SCHEMA_VERSION)
"""Version of the server in ServerMetadata: that of the contract, so that all implementations say the same."""

PLATFORM = "dwcp"
"""Platform of every model in ModelMetadata: the contract, not a library, defines the scores."""

INPUT = "samples"
"""Name of the only input."""

_NOBODY = NoMetrics()
_ANY = -1  # in shapes of metadata
_EXPLAINED = {"contributions", "expected"}


class _Output(NamedTuple):
    """Datatype of the protocol, and the values in numpy's type of the same width."""

    datatype: str
    values: Callable[[Scorer, Verdicts], np.ndarray]
    per_item: bool = True
    per_feature: bool = False

    def shape(self, count: int, width: int) -> list[int]:
        return [count if self.per_item else 1, *([width] if self.per_feature else [])]


_OUTPUTS = {
    "score": _Output("FP32", lambda _, verdicts: verdicts.scores.astype("<f4", copy=False)),
    "is_anomaly": _Output("BOOL", lambda _, verdicts: verdicts.is_anomaly.astype("?", copy=False)),
    "p_value": _Output("FP64", lambda _, verdicts: verdicts.p_values.astype("<f8", copy=False)),
    "level": _Output("INT32", lambda _, verdicts: verdicts.levels.astype("<i4", copy=False)),
    "threshold": _Output("FP64", lambda model, _: np.array([model.threshold], "<f8"), per_item=False),
    "contributions": _Output(
        "FP32", lambda _, verdicts: verdicts.contributions.astype("<f4", copy=False), per_feature=True
    ),
    "expected": _Output("FP32", lambda _, verdicts: verdicts.expected.astype("<f4", copy=False), per_feature=True),
    "depth_sum": _Output("FP64", lambda _, verdicts: np.asarray(verdicts.depth_sums, "<f8")),
}
"""The outputs by name, in the order of O2."""


_ALL = tuple(_OUTPUTS)
_WITHOUT_DEPTH_SUM = tuple(name for name in _OUTPUTS if name != "depth_sum")


class NotFoundError(ContractError):
    """A model or a version that is not here. The contract's code says which; over this protocol its status is
    NOT_FOUND whichever it is (O1)."""

    status = grpc.StatusCode.NOT_FOUND


class HasModels(Protocol):
    """Whatever holds the model set or fleet in use."""

    @property
    def models(self) -> Served: ...


class InferenceService:
    """Answers with the live model set, which every call reads once.

    Each method takes the request message of its RPC and returns the response message, or raises ContractError.

    Args:
        live: holds the set.
        draining: whether the server is stopping.
    """

    def __init__(self, live: HasModels, draining: Callable[[], bool]) -> None:
        self._live = live
        self._draining = draining

    def methods(self, metrics: Metrics) -> list[Method]:
        """The methods of GRPCInferenceService; scores and alarms are counted in `metrics`."""
        return [
            Method("ServerLive", oip.ServerLiveRequest, self.server_live, counted=False, while_stopping=True),
            Method("ServerReady", oip.ServerReadyRequest, self.server_ready, counted=False, while_stopping=True),
            Method("ModelReady", oip.ModelReadyRequest, self.model_ready, counted=False, while_stopping=True),
            Method("ServerMetadata", oip.ServerMetadataRequest, self.server_metadata, counted=False),
            Method("ModelMetadata", oip.ModelMetadataRequest, self.model_metadata, counted=False),
            Method("ModelInfer", oip.ModelInferRequest, functools.partial(self.model_infer, metrics=metrics)),
        ]

    def server_live(self, request: oip.ServerLiveRequest) -> oip.ServerLiveResponse:
        return oip.ServerLiveResponse(live=True)

    def server_ready(self, request: oip.ServerReadyRequest) -> oip.ServerReadyResponse:
        return oip.ServerReadyResponse(ready=not self._draining())

    def model_ready(self, request: oip.ModelReadyRequest) -> oip.ModelReadyResponse:
        models = _set(self._live.models)
        try:
            _model(models, request.name, request.version)
        except NotFoundError as error:
            if error.code != "DETECTOR_UNAVAILABLE":  # the contract has it, this set does not: not ready
                raise
            return oip.ModelReadyResponse(ready=False)
        return oip.ModelReadyResponse(ready=not self._draining())

    def server_metadata(self, request: oip.ServerMetadataRequest) -> oip.ServerMetadataResponse:
        return oip.ServerMetadataResponse(name=NAME, version=VERSION)

    def model_metadata(self, request: oip.ModelMetadataRequest) -> oip.ModelMetadataResponse:
        models = _set(self._live.models)
        model = _model(models, request.name, request.version)
        response = oip.ModelMetadataResponse(name=model.name, versions=[models.id], platform=PLATFORM)
        response.inputs.add(name=INPUT, datatype="FP64", shape=(_ANY, *_item_shape(model)))
        for name in _names(model):
            output = _OUTPUTS[name]
            shape = output.shape(_ANY, len(model.feature_names))
            response.outputs.add(name=name, datatype=output.datatype, shape=shape)
        return response

    def model_infer(self, request: oip.ModelInferRequest, metrics: Metrics = _NOBODY) -> oip.ModelInferResponse:
        """Scores a batch to the bits of ScoreBatch (O3)."""
        models = _set(self._live.models)
        model = _model(models, request.model_name, request.model_version)
        names = _wanted(model, request)
        explain = Explain.NEVER if _EXPLAINED.isdisjoint(names) else Explain.ALWAYS
        samples = _samples(model, request)
        verdicts = model.score_batch(samples, explain)
        count_batch(metrics, model, verdicts, samples[:, -1] if model.windowed else samples)
        response = oip.ModelInferResponse(id=request.id)
        response.MergeFrom(_head(model.name, models.id, names, len(verdicts.scores), len(model.feature_names)))
        response.raw_output_contents.extend([_OUTPUTS[name].values(model, verdicts).tobytes() for name in names])
        return response


@functools.lru_cache(64)
def _head(model: str, version: str, names: tuple[str, ...], count: int, width: int) -> oip.ModelInferResponse:
    """What all answers of one form have in common: kept, because for one row it takes as long as its score."""
    head = oip.ModelInferResponse(model_name=model, model_version=version)
    for name in names:
        output = _OUTPUTS[name]
        head.outputs.add(name=name, datatype=output.datatype, shape=output.shape(count, width))
    return head


def _model(models: ModelSet, name: str, version: str) -> Scorer:
    try:
        model = models.model(name[:64])
        check_id(models, version, "model_version")
    except ContractError as error:
        field = error.field if error.field == "model_version" else "model_name"
        raise NotFoundError(error.code, field, error.message) from None
    return model


def _set(served: Served) -> ModelSet:
    """The set in use. The protocol has no series, so a fleet has none for it (FL9)."""
    if isinstance(served, Fleet):
        what = "this server has a fleet, and the protocol names no series; use dwcp.anomaly.v1.ScoringService"
        raise ContractError("UNKNOWN_SERIES", "series", what)
    return served


def _item_shape(model: Scorer) -> tuple[int, ...]:
    width = len(model.feature_names)
    return (model.timesteps, width) if model.windowed else (width,)


def _names(model: Scorer) -> tuple[str, ...]:
    return _ALL if model.has_depth_sum else _WITHOUT_DEPTH_SUM


def _wanted(model: Scorer, request: oip.ModelInferRequest) -> tuple[str, ...]:
    """Names of the outputs that are asked for, all where none is; the form of inputs is checked before (O4)."""
    inputs = [tensor.name[:64] for tensor in request.inputs]
    if inputs != [INPUT]:
        raise _invalid("inputs", f"the inputs are {inputs[:8]}; send one, named {INPUT!r}")
    there = _names(model)
    if not request.outputs:
        return there
    wanted = tuple(tensor.name[:64] for tensor in request.outputs)
    if len(set(wanted)) < len(wanted) or not set(wanted).issubset(there):
        raise _invalid(
            "outputs", f"the outputs are {list(wanted[:16])}; name each of {list(there)} once at most, or none for all"
        )
    return wanted


def _samples(model: Scorer, request: oip.ModelInferRequest) -> np.ndarray:
    """float64 `[N, features]` or `[N, timesteps, features]`; raw bytes are not copied."""
    tensor = request.inputs[0]
    if tensor.datatype != "FP64":
        raise _invalid("inputs[0].datatype", f"the datatype is {tensor.datatype[:16]!r}; send FP64")
    shape, item = tuple(tensor.shape), _item_shape(model)
    if len(shape) != 1 + len(item) or shape[1:] != item or shape[0] < 0:
        raise _invalid("inputs[0].shape", f"the shape is {list(shape[:8])}; {model.name} takes {['N', *item]}")
    values = _raw(tensor, request.raw_input_contents) if request.raw_input_contents else _listed(tensor)
    if len(values) != prod(shape):
        raise _invalid("inputs[0].contents", f"{len(values)} values given; the shape {list(shape)} has {prod(shape)}")
    return values.reshape(shape)


def _raw(tensor: oip.ModelInferRequest.InferInputTensor, raw: Sequence[bytes]) -> np.ndarray:
    if len(raw) != 1 or tensor.contents.ListFields():
        raise _invalid("inputs[0].contents", f"{len(raw)} raw contents for one input; send one, and no other contents")
    if len(raw[0]) % 8:
        raise _invalid("inputs[0].contents", f"{len(raw[0])} bytes are no whole number of float64 values")
    return np.frombuffer(raw[0], "<f8")


def _listed(tensor: oip.ModelInferRequest.InferInputTensor) -> np.ndarray:
    others = [field.name for field, _ in tensor.contents.ListFields() if field.name != "fp64_contents"]
    if others:
        raise _invalid("inputs[0].contents", f"the contents have {', '.join(others)}; send fp64_contents or raw bytes")
    return np.array(tensor.contents.fp64_contents, np.float64)


def _invalid(field: str, message: str) -> ContractError:
    return ContractError("INVALID_REQUEST", field, message)
