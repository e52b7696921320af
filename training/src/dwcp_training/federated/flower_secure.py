"""Secure sums: Flower's SecAgg+ workflow, driven for anything that clients can add up.

Clients mask what they send so that the masks cancel in the sum; of a client that is lost meanwhile the others hold
shares of its keys. Source: Bell, Bonawitz, Gascon, Lepoint, Raykova: Secure single-server aggregation with
(poly)logarithmic overhead, 2020.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from flwr.app import ConfigRecord, Context, RecordDict
from flwr.common import FitIns, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.compat.common import recorddict_compat as compat
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow
from flwr.serverapp.grid import Grid

from dwcp_training.federated.fixed_point import limb_bits
from dwcp_training.federated.flower_app import from_limbs, question_config
from dwcp_training.federated.site import Arrays, Question


@dataclass(frozen=True)
class SecureSum:
    """What the server reads of a secure sum: the sum, and over how many clients."""

    clients: int
    arrays: Arrays


class _OneSum:
    """In the place of a Flower strategy: says what is asked of whom, and takes the sum."""

    def __init__(self, nodes: list[int], config: dict, given: Arrays) -> None:
        self._nodes, self._config, self._given = nodes, config, given
        self.result: SecureSum | None = None

    def configure_fit(self, server_round: int, parameters, client_manager):
        instructions = FitIns(ndarrays_to_parameters(self._given), self._config)
        return [(SimpleNamespace(node_id=node), instructions) for node in self._nodes]

    def aggregate_fit(self, server_round: int, results, failures):
        if results:
            averages = parameters_to_ndarrays(results[0][1].parameters)
            self.result = SecureSum(len(results), [average * len(results) for average in averages])
        return None, {}


def secure_sum(
    grid: Grid, nodes: list[int], question: Question, given: Arrays, minimum: int, timeout: float
) -> SecureSum | None:
    """The sum of the clients' answers, or None when fewer than `minimum` stayed to the end.

    Args:
        grid: to the clients.
        nodes: the clients, at least 2.
        question, given: what they are asked.
        minimum: as many must be left at every stage, and are needed to open the sum.
        timeout: seconds for each of the four stages.
    """
    bits = limb_bits(len(nodes))
    strategy = _OneSum(nodes, question_config(question, clients=float(len(nodes))), given)
    context = LegacyContext(
        Context(run_id=grid.run.run_id, node_id=0, node_config={}, state=RecordDict(), run_config={}),
        strategy=strategy,  # type: ignore[arg-type]  # the two methods that the workflow calls
    )
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: question.round})
    context.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(
        ndarrays_to_parameters([np.zeros(1)]), keep_input=False
    )
    span = 2 ** (bits + 1)
    # A range of `span` in `span` steps: whole numbers are quantized to themselves. One example of one: not weighed.
    SecAggPlusWorkflow(
        num_shares=1.0,
        reconstruction_threshold=min(1.0, minimum / len(nodes)),
        max_weight=1.0,
        clipping_range=span / 2,
        quantization_range=span,
        timeout=timeout,
    )(grid, context)
    if strategy.result is None:
        return None
    return SecureSum(strategy.result.clients, from_limbs(question.task, strategy.result.arrays, bits))
