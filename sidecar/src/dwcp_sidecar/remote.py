"""A server as backend of the JSON lines executor (rule E5)."""

from typing import Any

import numpy as np

from dwcp_sidecar.client import Client, verdicts_of_batch, verdicts_of_score
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.executor import Backend
from dwcp_sidecar.features import check_samples
from dwcp_sidecar.requests import Request
from dwcp_sidecar.verdicts import Explain, Verdicts

TIMEOUT = 60.0
"""Seconds for one call: whole files are scored here, nobody waits for a single line."""


def connect(client: Client, batch: int, model_set_id: str = "") -> Backend:
    """The backend for a server: Score for single lines, ScoreBatch for batches.

    Args:
        client: connected to the server.
        batch: most lines scored at once.
        model_set_id: the set to insist on; empty for the one in use now, from the first line to the last.

    Raises:
        ContractError: the server refuses.
        grpc.RpcError: it cannot be reached.
    """
    in_use = client.model_set(timeout=TIMEOUT)
    pinned = model_set_id or in_use.model_set_id
    if batch == 1:
        return _Single(client, pinned)
    shapes = {model.model_type: (list(model.feature_names), model.timesteps or 1) for model in in_use.models}
    return _Batched(client, pinned, shapes)


class _Single:
    """Sends every line as it is: the server checks it."""

    def __init__(self, client: Client, model_set_id: str) -> None:
        self._client = client
        self._id = model_set_id

    def check(self, request: Request) -> list[list[float]]:
        return request.samples

    def score(self, detector: str, items: list[Any]) -> Verdicts:
        response = self._client.score(
            detector, items[0], explain=Explain.ALWAYS, model_set_id=self._id, timeout=TIMEOUT
        )
        return verdicts_of_score(response)


class _Batched:
    """Checks lines here, by the rules of the server, so that one bad line does not refuse its whole batch."""

    def __init__(self, client: Client, model_set_id: str, shapes: dict[str, tuple[list[str], int]]) -> None:
        self._client = client
        self._id = model_set_id
        self._shapes = shapes

    def check(self, request: Request) -> np.ndarray:
        if request.detector not in self._shapes:
            # Unknown or unavailable: the server says which (E2 checks the detector before anything else).
            self._client.score(request.detector, [], model_set_id=self._id, timeout=TIMEOUT)
            raise ContractError("INTERNAL", "", "the server accepted a request without samples")
        names, timesteps = self._shapes[request.detector]
        return check_samples(request.samples, names, timesteps)

    def score(self, detector: str, items: list[Any]) -> Verdicts:
        response = self._client.score_batch(
            detector, np.stack(items), explain=Explain.ALWAYS, model_set_id=self._id, timeout=TIMEOUT
        )
        return verdicts_of_batch(response)
