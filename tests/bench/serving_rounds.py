"""Measures servers in turn and writes every single measurement as JSON.

    unshare -rn python -m tests.bench.serving_rounds --loopback-only --rounds 5 --seconds 0.8 --out build/rounds.json

With `--loopback-only` it runs in a network namespace of its own and brings up the loopback interface there: no server,
whatever it binds, can be reached from elsewhere. Servers and load generator share the namespace.
"""

import argparse
import fcntl
import json
import os
import socket
import struct
import subprocess
import time
from pathlib import Path

import numpy as np

from tests.bench.serving_cases import CASES, Case
from tests.bench.serving_install import BUILD, MODELS, ROOT
from tests.bench.serving_servers import SERVERS, Running, Server

_SIOCSIFFLAGS, _IFF_UP_RUNNING = 0x8914, 0x1 | 0x40


def loopback_up() -> None:
    """`ip link set lo up`, without needing that program."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP_RUNNING))


def write_rows(target: Path) -> None:
    """4,096 rows that a forest finds normal, around the reference values: nobody's time goes into explaining alarms."""
    from dwcp_sidecar.model import Explain
    from dwcp_sidecar.model_set import ModelSet

    forest = ModelSet.open(MODELS).model("isolation_forest")
    reference = np.array(forest.metadata.reference_values)
    scale = np.array(forest.metadata.scaler.scale)
    rows = reference + 0.5 * scale * np.random.default_rng(0).standard_normal((16_384, len(reference)))
    normal = rows[~forest.score_batch(rows, Explain.NEVER).is_anomaly]
    normal[:4096].astype("<f8").tofile(target)


class Rounds:
    """Everything that is measured, and the notes of what could not be."""

    def __init__(self, servers: list[Server], cases: list[Case], rows: Path, seconds: float) -> None:
        self.servers = servers
        self.cases = cases
        self.rows = rows
        self.flags = ("--rows-file", str(rows), "--duration", f"{seconds}s", "--warm-up", f"{min(0.25, seconds)}s")
        self.seconds = seconds
        self.measurements: list[dict] = []
        self.starts: list[dict] = []
        self.memory: list[dict] = []
        self.failed: list[dict] = []
        self.skipped: dict[str, str] = {}

    def run(self, number: int) -> None:
        """One round: starts every server, measures every case on every server, looks at their memory, stops them."""
        running: list[Running] = []
        try:
            for server in self.servers:
                if server.name in self.skipped:
                    continue
                try:
                    one = Running(server, self.rows)
                except RuntimeError as error:
                    self.skip(server.name, f"does not start: {error}")
                    continue
                running.append(one)
                self.starts.append({"server": server.name, "seconds": one.first_answer, "first_score": one.score})
            for case in self.cases:
                # Each round begins with another server, so that nobody always follows the same one.
                turned = running[number % len(running) :] + running[: number % len(running)]
                for one in turned:
                    self.measure(number, case, one)
                for name, command in case.limits:
                    self.limit(number, case, name, command)
            for one in running:
                each, together = one.memory()
                if each:  # it still runs
                    self.memory.append({"server": one.server.name, "each_mb": each, "together_mb": together})
        finally:
            for one in running:
                one.stop()

    def measure(self, number: int, case: Case, one: Running) -> None:
        """One case on one server."""
        server = one.server
        name = f"{server.name}: {case.name}"
        if case.call not in server.calls or (case.ours and server.kind != "ours") or name in self.skipped:
            return
        cores = os.sched_getaffinity(0)
        apart = case.one_core and len(cores) > 1
        if apart:
            first = min(cores)
            one.pin({first})
            os.sched_setaffinity(0, cores - {first})  # the load generator inherits it
        try:
            cpu = one.cpu_seconds()
            found = one.load(case.call, *self.flags, *case.flags)
            # The server's time includes the warm-up and is only known for both together.
            busy = one.cpu_seconds() - cpu
        except RuntimeError as error:
            self.fail(number, name, str(error))
            return
        finally:
            if apart:
                os.sched_setaffinity(0, cores)
                one.pin(cores)
        span = found["seconds"] + float(self.flags[-1][:-1])
        self.measurements.append(
            {"round": number, "case": case.name, "server": server.name, "server_cpu_share": busy / span, **found}
        )

    def limit(self, number: int, case: Case, name: str, command: tuple[str | Path, ...]) -> None:
        """One in-process measurement."""
        what = f"{name}: {case.name}"
        if what in self.skipped:
            return
        cores = os.sched_getaffinity(0)
        if case.one_core:
            os.sched_setaffinity(0, {min(cores)})
        try:
            done = subprocess.run([*command, *self.flags], capture_output=True, text=True, timeout=180, cwd=ROOT)
        finally:
            os.sched_setaffinity(0, cores)
        if done.returncode != 0:
            self.fail(number, what, done.stderr.strip())
            return
        self.measurements.append({"round": number, "case": case.name, "server": name, **json.loads(done.stdout)})

    def fail(self, number: int, what: str, why: str) -> None:
        """Notes and prints a failure. Once may be the machine's fault; what fails twice is left out."""
        self.failed.append({"round": number, "what": what, "why": why})
        print(f"  failed: {what}: {why}", flush=True)
        if sum(failure["what"] == what for failure in self.failed) == 2:
            self.skip(what, why)

    def skip(self, name: str, why: str) -> None:
        """Notes and prints what is left out from now on."""
        self.skipped[name] = why
        print(f"  left out: {name}: {why}", flush=True)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--loopback-only", action="store_true")
    parser.add_argument("--server", action="append", help="measure this one only; may be given several times")
    parser.add_argument("--case", action="append", help="this case only; may be given several times")
    arguments = parser.parse_args()
    if arguments.loopback_only:
        loopback_up()
    rows = BUILD / "rows.f64"
    write_rows(rows)
    chosen = [s for s in SERVERS if not arguments.server or s.name in arguments.server]
    wanted = [c for c in CASES if not arguments.case or c.name in arguments.case]
    rounds = Rounds(chosen, wanted, rows, arguments.seconds)
    for server in chosen:
        if server.binds_all and not arguments.loopback_only:
            rounds.skip(server.name, "it listens on every interface, and there is no network namespace to keep it in")
        elif server.peer and not (BUILD / server.peer / ".installed").exists():
            rounds.skip(server.name, "it is not installed")
    for number in range(arguments.rounds):
        start = time.perf_counter()
        rounds.run(number)
        print(f"  round {number + 1} of {arguments.rounds}: {time.perf_counter() - start:.0f} s", flush=True)
    document = {
        "cores": os.cpu_count(),
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "skipped": rounds.skipped,
        "failed": rounds.failed,
        "starts": rounds.starts,
        "memory": rounds.memory,
        "measurements": rounds.measurements,
    }
    arguments.out.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
