"""Flower's Grid to clients in this process: for simulations, and for tests without a network.

Messages are written as bytes and read again, as on a wire, so that the traffic can be counted and nobody shares arrays.
"""

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp.grid import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from dwcp_training.federated.flower_node import answered
from dwcp_training.federated.traffic import Traffic

RUN, SERVER = 1, 1
"""Numbers of the run and of the server's node; clients are numbered from 2."""


class LocalGrid(Grid):
    """Clients that are called one after the other.

    Attributes:
        lost: numbers of clients that do not answer any more, for tests and for showing what is done then.
    """

    def __init__(self, apps: Mapping[int, ClientApp], traffic: Traffic) -> None:
        self._apps, self.traffic, self.lost = dict(apps), traffic, set[int]()
        self._contexts = {
            node: Context(run_id=RUN, node_id=node, node_config={}, state=RecordDict(), run_config={}) for node in apps
        }
        self._numbers = count(1)
        self._answers: dict[str, Message] = {}
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, SERVER, 1

    @classmethod
    def of(cls, apps: Iterable[ClientApp]) -> "LocalGrid":
        return cls(dict(enumerate(apps, start=2)), Traffic())

    def set_run(self, run: Run) -> None:
        raise NotImplementedError("there is one run")

    @property
    def run(self) -> Any:
        """What the workflows read of it: its number."""
        return _LocalRun()

    def create_message(self, *arguments: Any, **options: Any) -> Message:
        raise NotImplementedError("deprecated in Flower; use Message(...)")

    def get_node_ids(self) -> Iterable[int]:
        return sorted(self._apps.keys() - self.lost)

    def seen_since(self, node_id: int, moment: float) -> bool:
        return node_id not in self.lost

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(next(self._numbers))
            node = message.metadata.dst_node_id
            question = self._carried(message, "down")
            if node in self.lost:
                continue
            answer = answered(self._apps[node], question, self._contexts[node])
            if node in self.lost:  # it went while it worked
                continue
            answer.metadata.__dict__["_message_id"] = str(next(self._numbers))
            self._answers[message.metadata.message_id] = self._carried(answer, "up")
            sent.append(message.metadata.message_id)
        return sent

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._answers.pop(message_id) for message_id in message_ids if message_id in self._answers]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return list(self.pull_messages(list(self.push_messages(messages))))

    def _carried(self, message: Message, way: str) -> Message:
        data = message_to_proto(message).SerializeToString()
        setattr(self.traffic, way, getattr(self.traffic, way) + len(data))
        return message_from_proto(ProtoMessage.FromString(data))


class _LocalRun:
    run_id = RUN
