"""A client's answers as a Flower ClientApp: in the clear, or masked by Flower's SecAgg+ mod."""

import json
from collections.abc import Callable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common import recorddict_compat as compat
from flwr.supercore.differential_privacy import compute_clip_model_update

from dwcp_training.federated.errors import FederatedError
from dwcp_training.federated.fixed_point import limb_bits
from dwcp_training.federated.networks import Weights, warm_up
from dwcp_training.federated.plan import Plan
from dwcp_training.federated.site import Arrays, Question, Site, Task, form_of

ANSWER, CONFIG, ARRAYS, METRICS = "answer", "config", "arrays", "metrics"
DESCRIBE, ASK, TREES, TRAIN, DONE = "describe", "ask", "trees", "round", "done"
"""Actions; a secure sum has the message type of Flower's own training."""


def question_config(question: Question, **more: str | float) -> dict[str, str | float]:
    """A question as scalars that Flower carries."""
    return {
        "task": str(question.task),
        "plan": question.plan.to_json(),
        "round": float(question.round),
        "share_of": float(question.share_of),
        **more,
    }


def read_question(config: dict) -> Question:
    """Raises FederatedError for a question of another version."""
    try:
        return Question(
            Task(str(config["task"])),
            Plan.from_json(str(config["plan"])),
            int(config["round"]),
            float(config["share_of"]),
        )
    except (KeyError, ValueError) as error:
        raise FederatedError("question", f"is none of this version: {error}.", "Use one version everywhere.") from None


def clipped(weights: Weights, before: Weights, norm: float) -> Weights:
    """Weights whose change has at most an L2 norm, by Flower's clipping."""
    after = [array.copy() for array in weights]
    if any((a != b).any() for a, b in zip(after, before, strict=True)):
        compute_clip_model_update(after, before, norm)
    return after


def client_app(
    site: Site, *, only_secure: bool = False, least_clients: int = 2, on_done: Callable[[str], None] = lambda text: None
) -> ClientApp:
    """The app of one client.

    Args:
        site: answers.
        only_secure: refuse everything but secure sums, and what says nothing of the rows.
        least_clients: refuse secure sums of fewer.
        on_done: called with the server's last word.
    """
    app = ClientApp()

    def clear(what: str) -> None:
        if only_secure:
            raise FederatedError("--only-secure", f"the server asks for {what} in the clear.", "Ask with --secure.")

    @app.query(DESCRIBE)
    def describe(message: Message, context: Context) -> Message:
        if message.content[CONFIG].get("detector") in ("dense_autoencoder", "lstm_autoencoder"):
            warm_up()
        said = {
            "name": site.name,
            "features": json.dumps(list(site.telemetry.schema.names)),
            "cadence": float(site.telemetry.cadence_seconds or 0.0),
        }
        return Message(RecordDict({ANSWER: ConfigRecord(said)}), reply_to=message)

    @app.query(ASK)
    def ask(message: Message, context: Context) -> Message:
        clear("sums")
        question = read_question(dict(message.content[CONFIG]))
        answer = site.answer(question, message.content[ARRAYS].to_numpy_ndarrays())
        return Message(RecordDict({ARRAYS: ArrayRecord(answer)}), reply_to=message)

    @app.query(TREES)
    def grow(message: Message, context: Context) -> Message:
        if only_secure:
            raise FederatedError(
                "--only-secure", "trees cannot be added up: the server would read each.", "Train an autoencoder."
            )
        config = dict(message.content[CONFIG])
        plan = read_question(config).plan
        grown = site.trees(plan, int(config["trees"]), message.content[ARRAYS].to_numpy_ndarrays())
        return Message(RecordDict({ARRAYS: ArrayRecord(grown)}), reply_to=message)

    @app.train(TRAIN)
    def train(message: Message, context: Context) -> Message:
        clear("weights")
        question = read_question(dict(message.content[CONFIG]))
        weights, rows, losses = site.trained(question, message.content[ARRAYS].to_numpy_ndarrays())
        metrics = MetricRecord({"num-examples": 1.0 if question.plan.privacy else rows, "losses": losses.tolist()})
        return Message(RecordDict({ARRAYS: ArrayRecord(weights), METRICS: metrics}), reply_to=message)

    @app.query(DONE)
    def done(message: Message, context: Context) -> Message:
        on_done(str(message.content[CONFIG]["text"]))
        return Message(RecordDict(), reply_to=message)

    def enough(message: Message, context: Context, call_next) -> Message:
        """Refuses a secure sum of so few that it would tell what one of them says."""
        config = message.content.config_records.get(RECORD_KEY_CONFIGS, ConfigRecord())
        if (
            config.get(Key.STAGE) == Stage.SETUP
            and min(config[Key.SAMPLE_NUMBER], config[Key.THRESHOLD]) < least_clients
        ):
            raise FederatedError("--min-clients", f"the server would add up fewer than {least_clients} clients.")
        return call_next(message, context)

    @app.train(mods=[enough, secaggplus_mod])
    def secure(message: Message, context: Context) -> Message:
        instructions = compat.recorddict_to_fitins(message.content, keep_input=True)
        question = read_question(instructions.config)
        answer = site.answer(question, parameters_to_ndarrays(instructions.parameters))
        limbs = as_limbs(question.task, answer, limb_bits(int(instructions.config["clients"])))
        # One example each: SecAgg+ then adds what it is given, and does not weigh it.
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters(limbs), 1, {})
        return Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=message)

    return app


def as_limbs(task: Task, answer: Arrays, bits: int) -> Arrays:
    """An answer as small whole numbers, float64 arrays `[limbs, ...]`.

    Raises:
        FederatedError: a number is too large or not finite.
    """
    try:
        return [
            form_of(task, k, len(answer), bits).encode(array, bits).astype(np.float64) for k, array in enumerate(answer)
        ]
    except ValueError as error:
        raise FederatedError(
            "answer", f"{error} for a secure sum.", "Check the data for values out of range."
        ) from None


def from_limbs(task: Task, sums: Arrays, bits: int) -> Arrays:
    """The sums of answers from the sums of their limbs."""
    return [
        form_of(task, k, len(sums), bits).decode(np.rint(limbs).astype(np.int64), bits) for k, limbs in enumerate(sums)
    ]
