"""The server's end of Flower: its SuperLink's Fleet API on an address, and a grid over the same state.

`flower-superlink` would start a process for every question to the server's program, and `flower-supernode` one for
every question to a client: with Keras in them that is ten seconds each. Here the server is one process and so is each
client; what goes between them is Flower's own protocol, with its messages, its signed requests and its TLS.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.constant import NOOP_FLWR_AID
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.serverapp.grid import Grid
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.error import http_error_translator
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import NoObjectInStoreError, ObjectStoreFactory
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router as fleet_router
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from dwcp_training.federated.errors import FederatedError
from dwcp_training.federated.traffic import Traffic

POLL_SECONDS = 0.05
"""Between two looks for answers."""

UPLOAD_SECONDS = 60.0
"""For the parts of an answer to come after it was announced."""

BEAT_SECONDS = 5.0
"""Between two signs of life of the run: Flower ends one that gives none."""


class SeenState(InMemoryLinkState):
    """Flower's state of a run, that remembers when a client last asked for messages."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: dict[int, float] = {}

    def get_message_ins(self, node_id: int, limit: int | None, **options: Any) -> list[Message]:
        self.seen[node_id] = time.monotonic()
        return super().get_message_ins(node_id, limit, **options)


class CountedBytes:
    """ASGI middleware that counts the bytes of bodies."""

    def __init__(self, app: Any, traffic: Traffic) -> None:
        self._app, self._traffic = app, traffic

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def counted_receive() -> Any:
            message = await receive()
            self._traffic.up += len(message.get("body", b""))
            return message

        async def counted_send(message: Any) -> None:
            self._traffic.down += len(message.get("body", b""))
            await send(message)

        await self._app(scope, counted_receive, counted_send)


class _OneState:
    """What Flower's routes ask for a state."""

    def __init__(self, state: SeenState) -> None:
        self._state = state

    def state(self) -> SeenState:
        return self._state


class LinkGrid(Grid):
    """Flower's Grid over the state that the Fleet API of this process serves."""

    def __init__(self, state: SeenState, traffic: Traffic) -> None:
        self._state, self.traffic = state, traffic
        run_id = state.create_run(None, None, None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP)
        (self._run,) = state.get_run_info(run_ids=[run_id])
        self.task_id = int(self._run.primary_task_id or 0)
        if not (state.claim_task(self.task_id) and state.activate_task(self.task_id)):
            raise FederatedError("flower", "the run could not be started in Flower's state.")
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, state.get_node_id(), self.task_id

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(self, *arguments: Any, **options: Any) -> Message:
        raise NotImplementedError("deprecated in Flower; use Message(...)")

    def get_node_ids(self) -> Iterable[int]:
        """Clients that are there."""
        return sorted(self._state.get_nodes(self._run.run_id))

    def seen_since(self, node_id: int, moment: float) -> bool:
        """Whether a client has asked for messages since a moment of `time.monotonic`."""
        return self._state.seen.get(node_id, float("-inf")) > moment

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        state, store = self._state, self._state.object_store
        sent = []
        with no_object_id_recompute():
            for message in messages:
                message.metadata.__dict__["_message_id"] = message.object_id
                objects = get_all_nested_objects(message)
                session = state.start_session(self._run.run_id)
                stored, missing = state.store_message_and_object_tree(
                    remove_content_from_message(message), get_object_tree(message), session
                )
                if not stored:  # the client left meanwhile
                    continue
                for object_id in missing:
                    store.put(object_id, objects[object_id].deflate())
                sent.append(message.metadata.message_id)
        return sent

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        state, store = self._state, self._state.object_store
        answers = []
        for found in state.get_message_res(message_ids=set(message_ids), run_id=self._run.run_id):
            if found.has_error():
                answers.append(found)
                continue
            message_id = found.metadata.message_id
            contents = self._uploaded(message_id)
            if contents is None:
                continue
            answer = inflate_object_from_contents(message_id, contents)
            answer.metadata.__dict__["_message_id"] = message_id
            answers.append(answer)
            store.delete(message_id)
        state.delete_messages({answer.metadata.reply_to_message_id for answer in answers})
        return answers

    def _uploaded(self, message_id: str) -> dict[str, bytes] | None:
        """The parts of an answer that was announced, when the client has sent them; None when it does not."""
        store = self._state.object_store
        end = time.monotonic() + UPLOAD_SECONDS
        try:
            ids = [tree.object_id for tree in iterate_object_tree(store.get_object_tree(message_id))]
        except NoObjectInStoreError:
            return None
        while True:
            contents = {object_id: store.get(object_id) for object_id in ids}
            if all(contents.values()):
                return contents
            if time.monotonic() > end:
                return None
            time.sleep(POLL_SECONDS)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The answers that come in time; whoever is late need not answer any more."""
        waiting = set(self.push_messages(messages))
        end = float("inf") if timeout is None else time.monotonic() + timeout
        answers: list[Message] = []
        while waiting and time.monotonic() < end:
            found = list(self.pull_messages(waiting))
            answers += found
            waiting -= {answer.metadata.reply_to_message_id for answer in found}
            if waiting:
                time.sleep(POLL_SECONDS)
        self._state.delete_messages(waiting)
        return answers


@dataclass(frozen=True)
class Tls:
    """PEM files of the server's certificate and its key."""

    certificate: Path
    key: Path


@contextmanager
def serving(host: str, port: int, tls: Tls | None = None) -> Iterator[tuple[LinkGrid, str]]:
    """Serves Flower's Fleet API while it lasts.

    Yields:
        The grid, and the address that clients connect to.

    Raises:
        FederatedError: when the address cannot be listened on.
    """
    state = SeenState(NoOpFederationManager(), ObjectStoreFactory().store())
    traffic = Traffic()
    grid = LinkGrid(state, traffic)
    server = uvicorn.Server(
        uvicorn.Config(
            CountedBytes(_app(state), traffic),
            host=host,
            port=port,
            log_level=logging.CRITICAL,
            ssl_certfile=tls.certificate if tls else None,
            ssl_keyfile=tls.key if tls else None,
        )
    )
    stopped = threading.Event()
    threads = [
        threading.Thread(target=_listen, args=(server,), daemon=True),
        threading.Thread(target=_beat, args=(state, grid.task_id, stopped), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        end = time.monotonic() + 20
        while not server.started:
            if not threads[0].is_alive() or time.monotonic() > end:
                raise FederatedError("--listen", f"{host}:{port} cannot be listened on.", "Is something there already?")
            time.sleep(0.02)
        bound = server.servers[0].sockets[0].getsockname()[1]
        yield grid, f"{host}:{bound}"
    finally:
        stopped.set()
        server.should_exit = True
        for thread in threads:
            thread.join(timeout=10)


def _app(state: SeenState) -> FastAPI:
    app = FastAPI(
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
            Middleware(ProtobufTranslationMiddleware),
            Middleware(NodeAuthMiddleware),
        ]
    )
    app.state.linkstate_factory = _OneState(state)
    app.state.enable_supernode_auth = False
    app.include_router(fleet_router)
    return app


def _listen(server: uvicorn.Server) -> None:
    try:
        server.run()
    except SystemExit:  # uvicorn's way to say that the address is taken; `serving` sees that the thread has ended
        return


def _beat(state: SeenState, task_id: int, stopped: threading.Event) -> None:
    while not stopped.wait(BEAT_SECONDS):
        state.acknowledge_task_heartbeat(task_id)
