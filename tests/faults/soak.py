"""Soak: every sidecar under everything at once for minutes; no wrong score, no failed call, no growing memory.

    python -m tests.faults.soak                  # ten minutes
    python -m tests.faults.soak --seconds 20

Each kind of sidecar (Python as one process, Python with workers, Go) gets single calls, batches, streams and malformed
requests without a pause, while its model set is switched, damaged and repaired, and its workers are killed. Prints a
line every few seconds; exit status 1 when anything was wrong.
"""

import argparse
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from dwcp_sidecar.model_set import ModelSet
from tests.faults.endpoint import COMMANDS, MAY_GROW, REFERENCE, Endpoint, Known, Load, known_cases, serving, variant

TRIES = 40
WARM_RELOADS = 4
WORTH_WEIGHING = 60
"""Seconds below which a run says nothing about memory."""
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]
MAY_BE_TOLD = ("UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED")
"""Statuses that say that nothing was scored; a client tries again."""


class Workload:
    """Batches, streams and malformed requests beside the single calls of Load, checked against the core in here."""

    def __init__(self, endpoint: Endpoint, models: ModelSet) -> None:
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._endpoint = endpoint
        self._rows = np.random.default_rng(3).normal(40, 15, (64, 7))
        self._batch = models.model("isolation_forest").score_batch(self._rows)
        self._series = models.model("lstm_autoencoder").score_batch(self._rows, series=True)
        self._stop = threading.Event()
        kinds: list[Callable[[grpc.Channel], None]] = [self.batch, self.stream, self.malformed]
        self._threads = [threading.Thread(target=self._repeat, args=(kind,), daemon=True) for kind in kinds]

    def __enter__(self) -> "Workload":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            if thread.is_alive():
                self.wrong.append("a client hangs")

    def _repeat(self, kind: Callable[[grpc.Channel], None]) -> None:
        while not self._stop.is_set():
            with self._endpoint.channel() as channel:
                try:
                    for _ in range(50):
                        if self._stop.is_set():
                            return
                        kind(channel)
                        self.done[kind.__name__] += 1
                except grpc.RpcError as error:
                    if error.code().name not in MAY_BE_TOLD:
                        self.wrong.append(f"{kind.__name__}: {error.code().name} {error.details()}")
                    time.sleep(0.05)

    def batch(self, channel: grpc.Channel) -> None:
        request = scoring_pb2.ScoreBatchRequest(detector=1, rows=self._rows.astype("<f8").tobytes())
        answer = scoring_pb2_grpc.ScoringServiceStub(channel).ScoreBatch(request, timeout=20)
        if not np.array_equal(np.array(answer.scores, np.float32), self._batch.scores):
            self.wrong.append("batch: other scores")

    def stream(self, channel: grpc.Channel) -> None:
        settings = scoring_pb2.StreamSettings(detectors=[1, 2])
        requests = [scoring_pb2.ScoreStreamRequest(settings=settings)]
        requests += [
            scoring_pb2.ScoreStreamRequest(samples=[{"series": "a", "values": row} for row in rows])
            for rows in np.split(self._rows, 16)
        ]
        answers = scoring_pb2_grpc.ScoringServiceStub(channel).ScoreStream(iter(requests), timeout=20)
        results = [result for answer in answers for result in answer.results]
        forest = [result.verdicts[0].verdict.score for result in results]
        lstm = [result.verdicts[1].verdict.score for result in results if result.verdicts[1].HasField("verdict")]
        if forest != self._batch.scores.tolist() or lstm != self._series.scores.tolist():
            self.wrong.append("stream: other scores")

    def malformed(self, channel: grpc.Channel) -> None:
        data = random.randbytes(random.randrange(1, 200))
        try:
            channel.unary_unary("/dwcp.anomaly.v1.ScoringService/Score")(data, timeout=20)
        except grpc.RpcError as error:
            if error.code().name not in ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", *MAY_BE_TOLD):
                self.wrong.append(f"malformed: {error.code().name} {error.details()}")
        time.sleep(0.01)


def disturb(endpoint: Endpoint, link: Path, sets: list[Path], turn: int) -> None:
    """Switches the set, or damages what is served, or kills a worker."""
    draft = link.with_name("next")
    draft.symlink_to(sets[turn % len(sets)])
    draft.replace(link)
    workers = endpoint.processes()[1:]
    # Not more often: a supervisor gives up on workers that die again and again within seconds.
    if endpoint.kind == "workers" and turn % 16 == 3 and workers:
        os.kill(random.choice(workers), signal.SIGKILL)


def soak(kind: str, seconds: float, every: float = 1.0, say: Callable[[str], None] = print) -> list[str]:
    """Runs one kind of sidecar for some seconds; what went wrong, one line each."""
    folder = Path(tempfile.mkdtemp())
    other, broken, link = folder / "other", folder / "broken", folder / "models"
    variant(REFERENCE, other)
    shutil.copytree(REFERENCE, broken)
    (broken / "isolation_forest.onnx").write_bytes(b"no graph")
    link.symlink_to(REFERENCE)
    cases: list[Known] = known_cases(REFERENCE, other)
    sets = [other, REFERENCE, broken, other, REFERENCE]
    # The memory of a worker that was started anew is that of a new process: it is compared where none is killed.
    memory: list[int] = []
    try:
        with serving(kind, link, "--watch", "0.2", metrics=True) as endpoint:
            begin = time.monotonic()
            # The time that counts begins when opening a set has once taken the memory that it needs.
            start = None if seconds >= WORTH_WEIGHING else begin
            with Load(endpoint, cases, retries=TRIES) as load, Workload(endpoint, ModelSet.open(REFERENCE)) as work:
                for turn in itertools.count():
                    time.sleep(every)
                    disturb(endpoint, link, sets, turn)
                    if start is None:
                        if endpoint.count("dwcp_reloads_total") >= WARM_RELOADS or time.monotonic() - begin > 60:
                            start = time.monotonic()
                        continue
                    elapsed = time.monotonic() - start
                    memory.append(endpoint.memory())
                    if turn % 5 == 4:
                        calls = f"{load.answers:9,} calls  {load.wrong} wrong  {memory[-1] / 1e6:4.0f} MB"
                        reloads = f"{endpoint.count('dwcp_reloads_total'):.0f} reloads"
                        say(f"{kind:8} {elapsed:5.0f} s  {calls}  {reloads}  {dict(work.done)}")
                    if elapsed > seconds:
                        break
            problems = [f"{kind}: {problem}" for problem in work.wrong[:10]]
            if load.wrong or load.errors:
                problems.append(f"{kind}: {load.wrong} wrong answers, errors {dict(load.errors)}")
            if len(load.ids) < 2 and seconds > 10:
                problems.append(f"{kind}: only {len(load.ids)} model set answered")
            if min(work.done[name] for name in ("batch", "stream", "malformed")) < seconds / 4:
                problems.append(f"{kind}: too little was done: {dict(work.done)}")
            if not endpoint.serving():
                problems.append(f"{kind}: does not serve at the end")
            third = max(1, len(memory) // 3)
            early, late = max(memory[:third]), max(memory[-third:])
            if kind != "workers" and seconds >= WORTH_WEIGHING and late > MAY_GROW * early:
                problems.append(f"{kind}: memory grew from {early / 1e6:.0f} to {late / 1e6:.0f} MB")
            say(f"{kind:8} memory {early / 1e6:.0f} MB in the first third, {late / 1e6:.0f} MB in the last")
    finally:
        shutil.rmtree(folder)
    return problems


def main() -> int:
    """Soaks all kinds in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="in all (default: %(default)s)")
    parser.add_argument("--kind", choices=COMMANDS, action="append", help="this one only; may be given several times")
    arguments = parser.parse_args()
    kinds = arguments.kind or list(COMMANDS)
    problems = [line for kind in kinds for line in soak(kind, arguments.seconds / len(kinds))]
    print("\n".join(problems) or "nothing went wrong")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
