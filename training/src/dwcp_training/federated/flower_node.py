"""A client's end of Flower: one process that asks the server for questions and answers them, one after the other."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    pull_objects,
    push_object_contents_from_iterable,
)
from flwr.supernode.fleet_http_connection import http_request_response

from dwcp_training.federated.errors import FederatedError

POLL_SECONDS = 0.2
"""Between two questions to the server for work."""

CLIENT_FAULT = 1001
"""Flower's error code of an answer that could not be made; the reason says why."""


def answer_until_done(
    address: str,
    app: ClientApp,
    finished: Callable[[], bool],
    root_certificates: Path | None = None,
    insecure: bool = False,
    patience: float = 60.0,
) -> None:
    """Answers the server's questions until there are no more.

    Args:
        address: host and port of the server.
        app: answers.
        finished: whether the last answer was the last of the run.
        root_certificates: PEM file of the authority that signed the server's certificate; None: those of the system.
        insecure: no TLS.
        patience: seconds to go on asking while the server does not answer.

    Raises:
        FederatedError: the server cannot be reached.
    """
    try:
        with http_request_response(
            address,
            insecure,
            str(root_certificates) if root_certificates else None,
            max_retries=None,
            max_wait_time=patience,
        ) as connection:
            _answer(connection, app, finished)
    except (httpx.HTTPError, SystemExit) as error:
        raise FederatedError(
            "--server", f"{address} does not answer any more ({type(error).__name__}).", "Does the server run?"
        ) from None


def _answer(connection, app: ClientApp, finished: Callable[[], bool]) -> None:
    node_id, receive, send, _, _, pull_object, push_object, confirm = connection
    context: Context | None = None
    while not finished():
        received = receive()
        if received is None:
            time.sleep(POLL_SECONDS)
            continue
        outline, tree = received
        run_id = outline.metadata.run_id
        if context is None or context.run_id != run_id:
            context = Context(run_id=run_id, node_id=node_id, node_config={}, state=RecordDict(), run_config={})
        contents = pull_objects(
            [node.object_id for node in iterate_object_tree(tree)],
            pull_object_fn=partial(pull_object, run_id),
        )
        confirm(run_id, outline.metadata.message_id)
        question = inflate_object_from_contents(outline.metadata.message_id, contents)
        question.metadata.__dict__["_message_id"] = outline.metadata.message_id
        started = time.monotonic()
        answer = answered(app, question, context)
        with no_object_id_recompute():
            answer.metadata.__dict__["_message_id"] = answer.object_id
            objects = get_all_nested_objects(answer)
            wanted, session = send(answer, get_object_tree(answer), time.monotonic() - started)
            push_object_contents_from_iterable(
                ((object_id, objects[object_id].deflate()) for object_id in wanted),
                push_object_fn=partial(push_object, run_id, session),
            )


def answered(app: ClientApp, question: Message, context: Context) -> Message:
    """The app's answer; what it refuses becomes an error with the reason, which the server shows."""
    try:
        return app(question, context)
    except Exception as error:  # whatever a data file or Keras raises: the run goes on without this answer
        return Message(Error(CLIENT_FAULT, f"{type(error).__name__}: {error}"), reply_to=question)
