"""Federated training on one machine: one data set, many clients, in this process or one process each."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwcp_training.console import UsageError, guarded, out, print_data, print_warning
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.federated.command import NAMES, Wanted, finish, read_rows
from dwcp_training.federated.library import require_flower
from dwcp_training.federated.plan import Plan
from dwcp_training.federated.site import Arrays, Question, Site, Task
from dwcp_training.federated.split import Split, parts
from dwcp_training.profiles import load_profile
from dwcp_training.publish import check_writable
from dwcp_training.run import SYNTHETIC

JOIN_SECONDS = 300.0
"""For processes to start: each imports Keras."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong in a simulation: clients, numbered from 1, that are lost in a round, and those that lie.

    Round 0 is that of the statistics before the first one.
    """

    lost: dict[int, int]
    liars: frozenset[int] = frozenset()

    @classmethod
    def of(cls, lost: Sequence[str], liars: Sequence[int], clients: int) -> "Faults":
        """Of `CLIENT@ROUND` and numbers. Raises UsageError."""
        found = {}
        for text in lost:
            client, _, turn = text.partition("@")
            if not (client.isdigit() and turn.isdigit()):
                raise UsageError(f"--lose {text}: write CLIENT@ROUND, such as 3@2")
            found[int(client)] = int(turn)
        for number in [*found, *liars]:
            if not 1 <= number <= clients:
                raise UsageError(f"there is no client {number} of {clients}")
        return cls(found, frozenset(liars))


class FaultySite(Site):
    """A site that goes away in the middle of a round, or that lies: its weights are turned round and far too large."""

    def __init__(self, telemetry: Telemetry, name: str, clip, lost_in: int | None, lies: bool, go) -> None:
        super().__init__(telemetry, name, clip)
        self._lost_in, self._lies, self._go = lost_in, lies, go

    def trained(self, question: Question, given: Arrays):
        weights, rows, losses = super().trained(question, given)
        self._maybe_go(question.round)
        if self._lies:
            weights = [np.float32(-50) * array - np.float32(5) for array in weights]
        return weights, rows, losses

    def trees(self, plan: Plan, number: int, given: Arrays):
        grown = super().trees(plan, number, given)
        self._maybe_go(1)
        return grown

    def answer(self, question: Question, given: Arrays) -> Arrays:
        answer = super().answer(question, given)
        self._maybe_go(question.round)
        if self._lies and question.task is not Task.TRAIN:
            answer = [answer[0] * 1000, *(array * -1e9 for array in answer[1:])]
        return answer

    def _maybe_go(self, turn: int) -> None:
        if turn == self._lost_in:
            self._go()


@contextmanager
def in_process(sites: Sequence[Telemetry], faults: Faults) -> Iterator[object]:
    """A grid to clients in this process."""
    from dwcp_training.federated.flower_app import client_app, clipped
    from dwcp_training.federated.flower_local import LocalGrid

    grid: list[LocalGrid] = []
    apps = []
    for number, telemetry in enumerate(sites, start=1):
        site = FaultySite(
            telemetry,
            f"client-{number}",
            clipped,
            faults.lost.get(number),
            number in faults.liars,
            lambda node=number + 1: grid[0].lost.add(node),  # nodes are numbered from 2
        )
        apps.append(client_app(site))
    grid.append(LocalGrid.of(apps))
    yield grid[0]


@contextmanager
def in_processes(sites: Sequence[Telemetry], faults: Faults) -> Iterator[object]:
    """A grid to clients that are processes and speak to this one over loopback, ended when the block ends."""
    from dwcp_training.federated.flower_link import serving

    spawn = multiprocessing.get_context("spawn")
    with serving("127.0.0.1", 0) as (grid, address):
        started = [
            spawn.Process(
                target=_client,
                args=(address, telemetry, f"client-{k}", faults.lost.get(k), k in faults.liars),
                daemon=True,
            )
            for k, telemetry in enumerate(sites, start=1)
        ]
        try:
            for process in started:
                process.start()
            yield grid
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.join(timeout=10)


def _client(address: str, telemetry: Telemetry, name: str, lost_in: int | None, lies: bool) -> None:
    """One client's process."""
    require_flower()
    from dwcp_training.federated.flower_app import client_app, clipped
    from dwcp_training.federated.flower_node import answer_until_done

    said: list[str] = []
    site = FaultySite(telemetry, name, clipped, lost_in, lies, lambda: os.kill(os.getpid(), signal.SIGKILL))
    answer_until_done(address, client_app(site, on_done=said.append), lambda: bool(said), insecure=True)


def run_simulate(
    wanted: Wanted,
    data: Sequence[Path],
    synthetic: bool,
    on_bad_rows: str,
    clients: int,
    split: Split,
    skew: float,
    metric: str | None,
    processes: bool,
    lost: Sequence[str],
    liars: Sequence[int],
) -> int:
    """Simulates a federated training and publishes what it gives. Returns the exit status."""

    def command() -> None:
        require_flower()
        from dwcp_training.federated.flower_fleet import Fleet

        profile = load_profile(wanted.profile)
        if synthetic == bool(data):
            raise UsageError("name training data: either --data FILE.csv (or .parquet), or --synthetic, not both")
        faults = Faults.of(lost, liars, clients)
        plan = wanted.plan(profile)
        check_writable(wanted.output)
        seed = plan.hyperparameters.seed
        telemetry = (
            SYNTHETIC[NAMES[wanted.detector]](seed=seed) if synthetic else read_rows(data, profile, on_bad_rows, ())
        )
        print_data(telemetry)
        sites = parts(telemetry, clients, split, skew=skew, metric=metric, seed=seed)
        sizes = sorted(len(site) for site in sites)
        out.print(f"clients: {clients}, split by {split}, {sizes[0]:,} to {sizes[-1]:,} rows each")
        with (in_processes if processes else in_process)(sites, faults) as grid:
            fleet = Fleet(grid, wanted.timeout, print_warning, plan.detector)
            fleet.join(clients, JOIN_SECONDS)
            finish(fleet, plan, wanted, profile)
            fleet.done("finished")

    return guarded(command, "nothing was published.")
