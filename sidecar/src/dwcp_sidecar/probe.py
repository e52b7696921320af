"""Asks a running sidecar for its health, for probes that run a command (`grpc.health.v1`)."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def health(address: str, service: str, seconds: float) -> tuple[bool, str]:
    """Whether a sidecar serves, and what it said in words.

    Args:
        address: `host:port` or `unix:PATH`; plain text, so with mutual TLS ask through the unix socket.
        service: health name; empty for the server as a whole.
        seconds: for the answer.
    """
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=seconds)
        except grpc.RpcError as error:
            return False, f"{error.code().name}: {error.details()}"
    said = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return answer.status == health_pb2.HealthCheckResponse.SERVING, said
