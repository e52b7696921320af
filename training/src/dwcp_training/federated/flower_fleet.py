"""The clients of a run as the server speaks to them, through Flower: in the clear, robustly, or securely."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, MultiKrum
from flwr.supercore.differential_privacy import add_gaussian_noise_inplace, compute_stdv

from dwcp_training.detectors.base import Floats
from dwcp_training.federated import flower_app
from dwcp_training.federated.errors import SchemaError, TooFewClientsError
from dwcp_training.federated.flower_app import ANSWER, ARRAYS, CONFIG, METRICS, question_config
from dwcp_training.federated.flower_secure import secure_sum
from dwcp_training.federated.plan import Plan, Privacy
from dwcp_training.federated.robust import robust_total, trimmed, usable
from dwcp_training.federated.site import Arrays, Question, Task
from dwcp_training.federated.traffic import Traffic

ATTEMPTS = 3
"""How often clients are asked before a run ends because too few of them answer."""

WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class Total:
    """A sum over clients."""

    clients: int
    arrays: Arrays


@dataclass(frozen=True)
class Averaged:
    """A round's average of weights, and the losses: `[loss, held-out loss of the weights before]`."""

    clients: int
    weights: Arrays
    losses: tuple[float, float]


@dataclass
class Fleet:
    """Clients that answer the server's questions.

    Attributes:
        grid: Flower's grid, of `flower_link` or `flower_local`.
        timeout: seconds for an answer; for each stage of a secure sum.
        say: told of clients that are refused, late or faulty, in words.
        detector: what will be trained, so that clients can make themselves ready.
    """

    grid: object
    timeout: float
    say: Callable[[str], None]
    detector: str = ""
    names: dict[int, str] = field(default_factory=dict)
    features: dict[int, tuple[str, ...]] = field(default_factory=dict)
    cadences: dict[int, float] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    late: dict[int, float] = field(default_factory=dict)

    @property
    def traffic(self) -> Traffic:
        """Up to now."""
        return self.grid.traffic.copy()

    def join(self, wanted: int, patience: float) -> None:
        """Waits until so many clients have said who they are.

        Raises:
            TooFewClientsError: they do not come.
        """
        end = time.monotonic() + patience
        while len(self.present()) < wanted:
            self._meet()
            if time.monotonic() > end:
                raise TooFewClientsError(
                    "clients",
                    f"{len(self.present())} of {wanted} came within {patience:g} s.",
                    "Start more, or ask for fewer (--min-clients, --wait-for).",
                )
            time.sleep(WAIT_SECONDS)

    def agree(self, plan: Plan) -> tuple[str, ...]:
        """The features of the run: the plan's, or those that most clients have. Refuses the clients with others.

        Raises:
            SchemaError: no features are those of most clients.
        """
        wanted = plan.features
        if not wanted:
            found = [self.features[node] for node in self.present()]
            most = max(set(found), key=lambda names: (found.count(names), names))
            if 2 * found.count(most) <= len(found):
                raise SchemaError("clients", "no metrics are those of more than half of them.", "Give all one profile.")
            wanted = most
        for node in self.present():
            self._check(node, wanted)
        return wanted

    def present(self) -> list[int]:
        """Clients that were met, are not refused, and have been heard of since they were last late."""
        return [
            node
            for node in self.grid.get_node_ids()
            if node in self.features
            and node not in self.refused
            and (node not in self.late or self.grid.seen_since(node, self.late[node]))
        ]

    def total(self, question: Question, given: Arrays) -> Total:
        """The sum of the clients' answers, robust or secure where the plan says so.

        Raises:
            TooFewClientsError: fewer than the plan's minimum answer.
        """
        for nodes in self._attempts(question.plan):
            if question.plan.secure:
                found = secure_sum(self.grid, nodes, question, given, question.plan.minimum, self.timeout)
                if found is None or found.clients < len(nodes):
                    self._note_silent(nodes)
                if found is None or found.clients < question.plan.minimum:
                    continue
                return Total(found.clients, found.arrays)
            content = RecordDict({CONFIG: ConfigRecord(question_config(question)), ARRAYS: ArrayRecord(given)})
            replies = self._asked(nodes, content, f"{MessageType.QUERY}.{flower_app.ASK}", question.round)
            answers = [reply.content[ARRAYS].to_numpy_ndarrays() for reply in replies]
            if not answers:
                continue
            shapes = _most_common([[array.shape for array in answer] for answer in answers])
            good = self._usable(answers, shapes)
            if len(good) < question.plan.minimum:
                continue
            if question.plan.robust != "none":
                histograms = question.task in (Task.VALUES, Task.SCORES)
                return Total(len(good), robust_total(good, question.plan.liars, histograms))
            return Total(len(good), [sum(arrays) for arrays in zip(*good, strict=True)])
        raise self._too_few(question.plan)

    def train(self, question: Question, given: Arrays, weights: Arrays) -> Averaged:
        """A round: the average of the weights that the clients trained from `weights`.

        Raises:
            TooFewClientsError: as of `total`.
        """
        plan = question.plan
        if plan.secure:
            total = self.total(question, [*given, *weights])
            *sums, losses = total.arrays
            divisor = (total.clients if plan.privacy else losses[0]) / question.share_of
            averaged = Averaged(total.clients, [array / divisor for array in sums], _mean_losses(losses))
        else:
            averaged = self._train_in_the_clear(question, given, weights)
        arrays = [np.asarray(array, np.float32) for array in averaged.weights]
        if plan.privacy is not None:
            add_noise(arrays, plan.privacy, averaged.clients)
        return Averaged(averaged.clients, arrays, averaged.losses)

    def _train_in_the_clear(self, question: Question, given: Arrays, weights: Arrays) -> Averaged:
        plan = question.plan
        content = RecordDict({CONFIG: ConfigRecord(question_config(question)), ARRAYS: ArrayRecord([*given, *weights])})
        shapes = [array.shape for array in weights]
        for nodes in self._attempts(plan):
            replies = self._asked(nodes, content, f"{MessageType.TRAIN}.{flower_app.TRAIN}", question.round)
            good = [reply for reply in replies if usable([reply.content[ARRAYS].to_numpy_ndarrays()], shapes)]
            good = [reply for reply in good if _counts(reply.content[METRICS])]
            self._note_unusable(len(replies) - len(good))
            if len(good) < plan.minimum:
                continue
            losses = np.array([reply.content[METRICS]["losses"] for reply in good], np.float64)
            arrays, _ = strategy_of(plan, len(good)).aggregate_train(question.round, good)
            if plan.robust == "none":
                said = _mean_losses(losses.sum(axis=0))
            else:
                each = np.column_stack([losses[:, 1] / losses[:, 0], losses[:, 3] / losses[:, 2]])
                said = tuple(trimmed(each, plan.liars).tolist())
            return Averaged(len(good), arrays.to_numpy_ndarrays(), said)
        raise self._too_few(plan)

    def trees(self, question: Question, given: Arrays, number: int) -> list[list[Floats]]:
        """The trees of each client, of a forest of `number`; every client is asked for the same share, rounded up.

        Raises:
            TooFewClientsError: as of `total`.
        """
        for nodes in self._attempts(question.plan):
            share = -(-number // len(nodes))
            content = RecordDict(
                {
                    CONFIG: ConfigRecord(question_config(question, trees=float(share))),
                    ARRAYS: ArrayRecord(given),
                }
            )
            replies = self._asked(nodes, content, f"{MessageType.QUERY}.{flower_app.TREES}", question.round)
            if len(replies) >= question.plan.minimum:
                return [reply.content[ARRAYS].to_numpy_ndarrays()[:share] for reply in replies]
        raise self._too_few(question.plan)

    def done(self, text: str) -> None:
        """Tells all clients that the run is over."""
        content = RecordDict({CONFIG: ConfigRecord({"text": text})})
        nodes = [node for node in self.grid.get_node_ids() if node in self.names]
        self.grid.send_and_receive(
            [Message(content, node, f"{MessageType.QUERY}.{flower_app.DONE}") for node in nodes], timeout=5
        )

    def _meet(self) -> None:
        """Asks clients that are new who they are."""
        new = [node for node in self.grid.get_node_ids() if node not in self.names]
        content = RecordDict({CONFIG: ConfigRecord({"detector": self.detector})})
        messages = [Message(content, node, f"{MessageType.QUERY}.{flower_app.DESCRIBE}") for node in new]
        for reply in self.grid.send_and_receive(messages, timeout=min(self.timeout, 10)):
            if reply.has_error():
                continue
            said, node = reply.content[ANSWER], reply.metadata.src_node_id
            self.names[node] = str(said["name"])
            self.features[node] = tuple(json.loads(said["features"]))
            self.cadences[node] = float(said["cadence"])

    def _check(self, node: int, wanted: tuple[str, ...]) -> None:
        found = self.features[node]
        if found == wanted:
            return
        self.refused.add(node)
        missing = ", ".join([name for name in wanted if name not in found][:5]) or "none"
        more = ", ".join([name for name in found if name not in wanted][:5]) or "none"
        reason = (
            f"{self.names[node]} is refused: its metrics are not those of the run. "
            f"Missing: {missing}. Not asked for: {more}."
        )
        self.say(reason)
        content = RecordDict({CONFIG: ConfigRecord({"text": f"refused: {reason}"})})
        self.grid.send_and_receive([Message(content, node, f"{MessageType.QUERY}.{flower_app.DONE}")], timeout=5)

    def _attempts(self, plan: Plan):
        """The clients to ask, some times over; those who came late to the run are met first."""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(WAIT_SECONDS)
            end = time.monotonic() + self.timeout
            while True:
                self._meet()
                for node in self.present():
                    self._check(node, plan.features)
                nodes = self.present()
                if len(nodes) >= plan.minimum:
                    yield nodes
                    break
                if time.monotonic() > end:
                    return
                time.sleep(WAIT_SECONDS)

    def _asked(self, nodes: list[int], content: RecordDict, kind: str, turn: int) -> list[Message]:
        """The answers that are no errors."""
        messages = [Message(content, node, kind, group_id=str(turn)) for node in nodes]
        replies = list(self.grid.send_and_receive(messages, timeout=self.timeout))
        for reply in replies:
            if reply.has_error():
                node = reply.metadata.src_node_id
                self.say(f"{self.names.get(node, 'a client')} did not answer: {reply.error.reason}")
        came = {reply.metadata.src_node_id for reply in replies}
        self._note_silent([node for node in nodes if node not in came])
        return [reply for reply in replies if not reply.has_error()]

    def _note_silent(self, nodes: Sequence[int]) -> None:
        """Clients that said nothing are not asked again before they are heard of."""
        now = time.monotonic()
        for node in nodes:
            if not self.grid.seen_since(node, now - self.timeout):
                self.late[node] = now
                self.say(f"{self.names[node]} is late: it is left out until it is heard of again.")

    def _usable(self, answers: list[Arrays], shapes: list[tuple[int, ...]]) -> list[Arrays]:
        good = usable(answers, shapes)
        self._note_unusable(len(answers) - len(good))
        return good

    def _note_unusable(self, number: int) -> None:
        if number:
            self.say(f"{number} answers are left out: wrong shapes, or numbers that are not finite.")

    def _too_few(self, plan: Plan) -> TooFewClientsError:
        return TooFewClientsError(
            "clients",
            f"fewer than {plan.minimum} answered, asked {ATTEMPTS} times within {self.timeout:g} s.",
            "Start those that are missing and run the server again: it goes on where it was.",
        )


def strategy_of(plan: Plan, clients: int) -> FedAvg:
    """Flower's strategy for the plan's average of so many clients' weights."""
    options = {"train_metrics_aggr_fn": lambda contents, key: MetricRecord()}
    if plan.robust == "trimmed-mean":
        # A share such that Flower cuts whole clients: as many as may lie, at each end.
        return FedTrimmedAvg(beta=min(0.499, (plan.liars + 0.01) / clients), **options)
    if plan.robust == "median":
        return FedMedian(**options)
    if plan.robust == "krum":
        return MultiKrum(num_malicious_nodes=plan.liars, num_nodes_to_select=clients - plan.liars, **options)
    return FedAvg(**options)


def add_noise(arrays: Arrays, privacy: Privacy, clients: int) -> None:
    """Adds Flower's Gaussian noise to an average of clipped weights, in place."""
    np.random.seed(None)  # Flower draws from it, and Keras' seed would make the noise known
    add_gaussian_noise_inplace(arrays, compute_stdv(privacy.noise_multiplier, privacy.clipping_norm, clients))


def _counts(metrics: MetricRecord) -> bool:
    """Whether a client's numbers of samples and losses are such numbers."""
    numbers = np.array([metrics.get("num-examples", np.nan), *metrics.get("losses", [np.nan])], np.float64)
    return len(numbers) == 5 and bool(np.isfinite(numbers).all()) and numbers[0] > 0 and numbers[[1, 3]].min() > 0


def _mean_losses(sums: Floats) -> tuple[float, float]:
    return float(sums[1] / sums[0]), float(sums[3] / sums[2])


def _most_common(shapes: list[list[tuple[int, ...]]]) -> list[tuple[int, ...]]:
    return max(shapes, key=shapes.count)
