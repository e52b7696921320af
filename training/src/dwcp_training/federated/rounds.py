"""A federated training from the first question to the last, at the server: the same for every transport."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from dwcp_training.detectors.base import Floats
from dwcp_training.federated.errors import FederatedError
from dwcp_training.federated.moments import Moments
from dwcp_training.federated.networks import first_weights
from dwcp_training.federated.plan import Plan
from dwcp_training.federated.site import Arrays, Question, Task
from dwcp_training.federated.state import Round, State
from dwcp_training.federated.traffic import Traffic
from dwcp_training.federated.trees import check_tree


class Clients(Protocol):
    """What a run needs of its clients; see `flower_fleet.Fleet`."""

    cadences: dict[int, float]

    @property
    def traffic(self) -> Traffic: ...
    def agree(self, plan: Plan) -> tuple[str, ...]: ...
    def total(self, question: Question, given: Arrays): ...
    def train(self, question: Question, given: Arrays, weights: Arrays): ...
    def trees(self, question: Question, given: Arrays, number: int) -> list[list[Floats]]: ...
    def say(self, text: str) -> None: ...


@dataclass
class Run:
    """A run with its state.

    Attributes:
        clients: who answers.
        state: how far it is.
        path: where the state is kept, or None.
        on_round: told of every round that is done.
        on_step: told what comes next, in words.
    """

    clients: Clients
    state: State
    path: Path | None
    on_round: Callable[[Round], None] = lambda done: None
    on_step: Callable[[str], None] = lambda text: None

    def finish(self) -> State:
        """Does what is left to do.

        Raises:
            TooFewClientsError: too few clients answer; the state up to then is kept.
        """
        state = self.state
        if not state.plan.features:
            state.plan = replace(state.plan, features=self.clients.agree(state.plan))
            told = [seconds for seconds in self.clients.cadences.values() if seconds > 0]
            state.cadence = float(np.median(told)) if told else 0.0
            self._keep()
        else:
            self.clients.agree(state.plan)
        if not len(state.mean):
            self._fit_scaler()
        if not state.values.size:
            self.on_step("medians")
            (_, counts) = self._total(Task.VALUES, [state.mean, state.scale])
            state.values = _whole(counts)
            self._keep()
        if state.plan.detector == "isolation_forest":
            if not state.trees:
                self._grow()
            model = state.trees
        else:
            self._average()
            model = state.best
        if not len(state.scores):
            self.on_step("scores of held-out data")
            (_, counts) = self._total(Task.SCORES, [state.mean, state.scale, *model])
            state.scores = _whole(counts)
            if not state.scores.any():
                raise FederatedError("held-out data", "no client has any that is long enough.", "Use more data.")
            self._keep()
        return state

    def _fit_scaler(self) -> None:
        state = self.state
        self.on_step("scaler")
        (count, sums) = self._total(Task.MOMENTS, [])
        mean = sums / count[0]
        (number, squares) = self._total(Task.SPREAD, [mean])
        # The two sums may be over different clients, where one was lost between them.
        moments = Moments(float(count[0]), mean, squares * (count[0] / number[0]))
        state.rows, state.mean, state.scale = float(count[0]), mean, moments.scale
        if state.plan.scaling != "standard":
            state.mean = np.zeros_like(mean)
            state.scale = np.array([state.plan.divisors.get(name, 1.0) for name in state.plan.features])
        if not (np.isfinite(state.mean).all() and np.isfinite(state.scale).all()):
            raise FederatedError("scaler", "has no finite mean and scale.", "Check the clients' data.")
        self._keep()

    def _average(self) -> None:
        state, plan = self.state, self.state.plan
        if not state.weights:
            state.weights = first_weights(plan.detector, plan.hyperparameters, len(plan.features))
        given = [state.mean, state.scale]
        for number in range(len(state.rounds) + 1, plan.rounds + 1):
            self.on_step(f"round {number} of {plan.rounds}")
            before, started = self.clients.traffic, time.monotonic()
            share_of = float(plan.minimum) if plan.privacy else state.rows
            averaged = self.clients.train(Question(Task.TRAIN, plan, number, share_of), given, state.weights)
            loss, held_out = averaged.losses
            self._note_best(number - 1, held_out)
            if not all(np.isfinite(array).all() for array in averaged.weights):
                raise FederatedError("weights", f"round {number} gave numbers that are not finite.", "Train slower.")
            state.weights = averaged.weights
            used = self.clients.traffic.since(before)
            done = Round(number, loss, held_out, averaged.clients, used.up, used.down, time.monotonic() - started)
            state.rounds.append(done)
            self._keep()
            self.on_round(done)
        if not len(state.scores):
            self.on_step("held-out loss")
            (samples, loss) = self._total(Task.LOSS, [*given, *state.weights])
            self._note_best(plan.rounds, float(loss[0] / samples[0]))
            self._keep()

    def _note_best(self, number: int, held_out_loss: float) -> None:
        """Keeps the weights after a round when no others had a lower held-out loss; those before the first never."""
        state = self.state
        if number > 0 and held_out_loss < state.best_loss:
            state.best, state.best_loss, state.best_round = list(state.weights), held_out_loss, number

    def _grow(self) -> None:
        state, plan = self.state, self.state.plan
        number = plan.hyperparameters.n_estimators
        self.on_step("trees")
        before, started = self.clients.traffic, time.monotonic()
        shares = self.clients.trees(Question(Task.SCORES, plan), [state.mean, state.scale], number)
        good = []
        for share in shares:
            try:
                for tree in share:
                    check_tree(tree, len(plan.features), plan.rows_in_a_tree)
                good.append(share)
            except FederatedError as error:
                self.clients.say(str(error))
        if len(good) < plan.minimum or sum(map(len, good)) == 0:
            raise FederatedError("trees", f"{len(good)} clients sent usable ones, {plan.minimum} are needed.")
        # In turn, one of each client, so that a forest of fewer trees than were sent has as many of each.
        turns = [share[k] for k in range(max(map(len, good))) for share in good if k < len(share)]
        state.trees = turns[:number]
        used = self.clients.traffic.since(before)
        done = Round(1, float("nan"), float("nan"), len(good), used.up, used.down, time.monotonic() - started)
        state.rounds.append(done)
        self._keep()
        self.on_round(done)

    def _total(self, task: Task, given: Arrays) -> Arrays:
        return self.clients.total(Question(task, self.state.plan), given).arrays

    def _keep(self) -> None:
        if self.path is not None:
            self.state.save(self.path)


def _whole(counts: np.ndarray) -> np.ndarray:
    """Counts in bins, along the last axis, as whole numbers with the same sum: those of a robust average are none."""
    return np.diff(np.rint(np.cumsum(counts, axis=-1)), prepend=0.0, axis=-1).astype(np.int64)


def resumed(plan: Plan, path: Path | None) -> State:
    """The state of a run of this plan: what a former run kept, or a new one.

    Raises:
        FederatedError: the file is of another plan, or damaged.
    """
    if path is None or not path.exists():
        return State(plan)
    state = State.load(path)
    found = replace(state.plan, features=plan.features, rounds=plan.rounds)
    if found != plan:
        raise FederatedError(
            "--state",
            f"{path} is of a run with other settings.",
            "Give the same settings again, name another file, or remove it to begin anew.",
        )
    if plan.features and plan.features != state.plan.features:
        raise FederatedError("--state", f"{path} is of a run with other metrics.", "Name another file.")
    if plan.rounds > len(state.rounds):  # more rounds change the weights, and with them the scores
        state.scores = np.zeros(0, np.int64)
    state.plan = replace(state.plan, rounds=plan.rounds)
    return state
