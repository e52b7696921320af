"""The one table from the contract's codes to gRPC (rule E4), and the way back for clients."""

import re

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from dwcp_sidecar.errors import ContractError

DOMAIN = "dwcp.anomaly"
"""`domain` of every google.rpc.ErrorInfo."""

STATUS: dict[str, grpc.StatusCode] = {
    "INVALID_REQUEST": grpc.StatusCode.INVALID_ARGUMENT,
    "UNKNOWN_DETECTOR": grpc.StatusCode.INVALID_ARGUMENT,
    "DETECTOR_UNAVAILABLE": grpc.StatusCode.NOT_FOUND,
    "UNKNOWN_SERIES": grpc.StatusCode.NOT_FOUND,
    "NO_SAMPLES": grpc.StatusCode.INVALID_ARGUMENT,
    "TOO_MANY_SAMPLES": grpc.StatusCode.INVALID_ARGUMENT,
    "WRONG_WIDTH": grpc.StatusCode.INVALID_ARGUMENT,
    "NOT_FINITE": grpc.StatusCode.INVALID_ARGUMENT,
    "WINDOW_TOO_SHORT": grpc.StatusCode.INVALID_ARGUMENT,
    "BATCH_TOO_LARGE": grpc.StatusCode.INVALID_ARGUMENT,
    "MODEL_SET_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    # Of model sets: only Reload answers them.
    "MANIFEST_MISSING": grpc.StatusCode.FAILED_PRECONDITION,
    "METADATA_INVALID": grpc.StatusCode.FAILED_PRECONDITION,
    "SCHEMA_FROM_FUTURE": grpc.StatusCode.FAILED_PRECONDITION,
    "FILE_MISSING": grpc.StatusCode.FAILED_PRECONDITION,
    "DIGEST_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    "GRAPH_INVALID": grpc.StatusCode.FAILED_PRECONDITION,
    "GOLDEN_MISMATCH": grpc.StatusCode.FAILED_PRECONDITION,
    "SIGNATURE_MISSING": grpc.StatusCode.FAILED_PRECONDITION,
    "SIGNATURE_INVALID": grpc.StatusCode.FAILED_PRECONDITION,
    "INTERNAL": grpc.StatusCode.INTERNAL,
}
"""Code to status (E4)."""

_PATH = re.compile(r"(?<![\w.])~?(?:/[\w.+@-]+){2,}/?")
_LONGEST = 1000  # the text travels three times in the trailers, which gRPC limits to 8 KiB


def to_grpc(error: ContractError) -> grpc.Status:
    """The status of a call that is refused: ErrorInfo always, BadRequest when a field is at fault."""
    code = getattr(error, "status", None) or STATUS.get(error.code, grpc.StatusCode.INTERNAL)  # the former: O1
    message = _public(error.message)
    details = [error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN)]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return rpc_status.to_status(status)


def from_grpc(error: grpc.RpcError) -> ContractError | None:
    """The refusal that a failed call carries; None when the call failed for another reason, such as its deadline."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # details that contradict the status: not from our server
        return None
    reason, field = "", ""
    for detail in status.details if status else []:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info) and info.domain == DOMAIN:
            reason = info.reason
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
    try:
        return ContractError(reason, field, status.message) if reason else None
    except ValueError:  # a code that this client does not know
        return None


def _public(message: str) -> str:
    """A message fit for strangers: its first line, without paths (a reason from metadata may quote either)."""
    return _PATH.sub("(path)", message.partition("\n")[0])[:_LONGEST]
