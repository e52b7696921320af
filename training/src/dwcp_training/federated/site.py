"""What a client does with its rows: it answers the run's questions with sums, weights or trees, never with rows."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from dwcp_training.data.errors import DataError
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.data.windows import time_split
from dwcp_training.detectors.base import HELD_OUT, Floats, clamp_scaled
from dwcp_training.federated import sketch, trees
from dwcp_training.federated.errors import FederatedError
from dwcp_training.federated.fixed_point import COUNTS, PRECISE, Form, weight_form
from dwcp_training.federated.moments import Moments
from dwcp_training.federated.networks import LocalNetwork, Weights, inputs_of, items_of, scores_of
from dwcp_training.federated.plan import Plan, check_features

Arrays = list[np.ndarray]
Clip = Callable[[Weights, Weights, float], Weights]
"""Weights, those they were trained from, the norm: the weights with a clipped change."""


class Task(StrEnum):
    """A question whose answers are added up."""

    MOMENTS = "moments"  # rows, and sums of values
    SPREAD = "spread"  # sums of squared deviations from the mean of all
    VALUES = "values"  # histograms of scaled values
    TRAIN = "train"  # weights, and losses
    LOSS = "loss"  # the held-out loss of weights
    SCORES = "scores"  # histogram of held-out scores


def form_of(task: Task, array: int, arrays: int, bits: int) -> Form:
    """How an array of an answer becomes limbs, in a secure sum."""
    if task in (Task.VALUES, Task.SCORES):
        return COUNTS
    if task is Task.TRAIN and array < arrays - 1:
        return weight_form(bits)
    return PRECISE


@dataclass(frozen=True)
class Question:
    """What the server wants to know.

    Attributes:
        task: what.
        plan: of the run.
        round: number of the round, from 1; 0 outside of training.
        share_of: rows or clients by which weights are divided before they are added: a number all clients know.
    """

    task: Task
    plan: Plan
    round: int = 0
    share_of: float = 1.0


class Site:
    """One client's rows, cut in those to fit and those held out, the end of them by time (C3)."""

    def __init__(self, telemetry: Telemetry, name: str, clip: Clip | None = None) -> None:
        self.telemetry, self.name, self._clip = telemetry, name, clip
        self._parts: dict[tuple[float, int], tuple[Telemetry, Telemetry]] = {}

    def answer(self, question: Question, given: Arrays) -> Arrays:
        """Arrays to be added to those of the other clients: how many they stand for, then sums.

        A round of training gives weights first, each times the client's share, and the losses last.

        Args:
            given: mean and scale, and the weights or the trees where the question needs them.

        Raises:
            FederatedError, DataError: this client's rows cannot answer; the reason goes to the server.
        """
        plan = question.plan
        check_features(plan.features, self.telemetry.schema, self.name)
        fitted, held_out = self._split(plan)
        match question.task:
            case Task.MOMENTS:
                moments = Moments.of(fitted.values)
                return [np.array([moments.count]), moments.mean * moments.count]
            case Task.SPREAD:
                (mean,) = given
                moments = Moments.of(fitted.values)
                return [np.array([moments.count]), moments.around(mean)]
            case Task.VALUES:
                mean, scale = given
                rows = clamp_scaled(fitted.values, mean, scale)
                counts = [sketch.SCALED.counts(rows[:, j]) for j in range(rows.shape[1])]
                return [np.array([float(len(rows))]), np.stack(counts).astype(np.float64)]
            case Task.TRAIN:
                weights, rows, losses = self.trained(question, given)
                share = (1.0 if plan.privacy else rows) / question.share_of
                return [*(array.astype(np.float64) * share for array in weights), losses]
            case Task.LOSS:
                return np.split(self._held_out_loss(plan, given), 2)
            case Task.SCORES:
                scores = self._score_counts(plan, held_out, given)
                return [scores.sum(keepdims=True), scores]
        raise FederatedError("task", f"{question.task!r} is none.", "Use one version everywhere.")

    def trained(self, question: Question, given: Arrays) -> tuple[Weights, float, Floats]:
        """Weights after a round, the number of samples they were trained on, and the losses.

        The losses are `[samples, loss times samples, held-out samples, their loss times those]`; the held-out loss is
        that of the weights before the round, those of all clients.
        """
        plan, settings = question.plan, question.plan.hyperparameters
        mean, scale, *weights = given
        fitted, _ = self._split(plan)
        inputs = inputs_of(plan.detector, items_of(plan.detector, fitted, settings), mean, scale)
        before = self._held_out_loss(plan, given)
        network = LocalNetwork.of(plan.detector, settings, len(plan.features), len(inputs))
        seed = _seed(settings.seed, self.name, question.round)
        after, loss = network.trained(list(weights), inputs, plan.local_epochs, seed)
        if plan.privacy is not None:
            if self._clip is None:
                raise FederatedError("privacy", "this client cannot clip.", "Use one version everywhere.")
            after = self._clip(after, list(weights), plan.privacy.clipping_norm)
        return after, float(len(inputs)), np.array([len(inputs), loss * len(inputs), *before])

    def trees(self, plan: Plan, number: int, given: Arrays) -> list[Floats]:
        """This client's share of a forest, grown on rows scaled by the mean and scale of all."""
        check_features(plan.features, self.telemetry.schema, self.name)
        mean, scale = given
        settings = plan.hyperparameters
        rows = clamp_scaled(self._split(plan)[0].values, mean, scale)
        seed = _seed(settings.seed, self.name, 0)
        return trees.grown(rows, number, plan.rows_in_a_tree, settings.bootstrap, seed)

    def _split(self, plan: Plan) -> tuple[Telemetry, Telemetry]:
        settings = plan.hyperparameters
        gap = settings.window_size if plan.detector == "lstm_autoencoder" else 1
        share = HELD_OUT if plan.detector == "isolation_forest" else settings.validation_split
        if (share, gap) not in self._parts:
            self._parts[share, gap] = time_split(self.telemetry, share, gap=gap)
        return self._parts[share, gap]

    def _held_out_loss(self, plan: Plan, given: Arrays) -> Floats:
        """`[held-out samples, loss times those]`."""
        mean, scale, *weights = given
        settings = plan.hyperparameters
        fitted, held_out = self._split(plan)
        inputs = inputs_of(plan.detector, items_of(plan.detector, held_out, settings), mean, scale)
        network = LocalNetwork.of(plan.detector, settings, len(plan.features), len(fitted))
        return np.array([len(inputs), network.loss(list(weights), inputs) * len(inputs)])

    def _score_counts(self, plan: Plan, held_out: Telemetry, given: Arrays) -> Floats:
        mean, scale, *model = given
        settings = plan.hyperparameters
        if plan.detector == "isolation_forest":
            forest = trees.pooled([np.asarray(tree) for tree in model], len(mean), plan.rows_in_a_tree, settings.seed)
            scores = -forest.score_samples(clamp_scaled(held_out.values, mean, scale))
            return sketch.ISOLATION.counts(scores).astype(np.float64)
        try:
            items = items_of(plan.detector, held_out, settings)
        except DataError:  # a held-out part shorter than a window has nothing to say
            return np.zeros(len(sketch.RECONSTRUCTION.edges) + 1)
        scores = scores_of(plan.detector, settings, list(model), items, mean, scale)
        return sketch.RECONSTRUCTION.counts(scores).astype(np.float64)


def _seed(seed: int, name: str, turn: int) -> int:
    """Of one client in one round: different clients draw different batches, and a rerun draws the same."""
    text = f"{seed} {name} {turn}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "little") % (2**31)
