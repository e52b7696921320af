"""The servers that are measured: how each is started, what its processes use, and how it is stopped."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.serving_install import BUILD, GO_SIDECAR, GRAPH, HERE, LOAD, MODELS, ROOT, site_packages

CORES = os.cpu_count() or 1
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Command:
    """What to start: arguments, environment beside the present one, and folder."""

    arguments: list[str | Path]
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path = ROOT


@dataclass(frozen=True)
class Server:
    """One server of the comparison.

    Attributes:
        kind: `ours`, `peer`, `floor` or `ceiling`.
        flags: how the load generator talks to it.
        command: makes the command for two free ports; a server may leave the second one alone.
        calls: calls of the load generator that it answers.
        peer: name of the virtual environment in build/peers that it needs; empty for none.
        binds_all: whether it listens on every interface; it is started only where there is none but loopback.
        says_ready: whether it writes a line `ready ...` when all of it answers, which may be after the first answer.
    """

    name: str
    kind: str
    command: Callable[[int, int], Command]
    calls: frozenset[str]
    flags: tuple[str, ...] = ()
    peer: str = ""
    binds_all: bool = False
    says_ready: bool = False


def _python_sidecar(workers: int) -> Callable[[int, int], Command]:
    def command(port: int, _: int) -> Command:
        arguments = ["serve", "--models", MODELS, "--listen", f"127.0.0.1:{port}", "--workers", str(workers)]
        return Command([Path(sys.executable).parent / "dwcp-sidecar", *arguments])

    return command


def _triton(port: int, _: int) -> Command:
    packages = site_packages("triton")
    triton = packages / "pytriton/tritonserver"
    run = _run_folder("triton")
    backend = run / "backends/python"
    shutil.copytree(triton / "backends/python", backend)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(triton / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    shutil.copytree(HERE / "triton", run / "models")
    config = run / "models/forest/config.pbtxt"
    config.write_text(config.read_text().replace('"GRAPH"', json.dumps(str(GRAPH))).replace("CORES", str(CORES)))
    return Command(
        [
            triton / "bin/tritonserver",
            f"--model-repository={run / 'models'}",
            f"--backend-directory={run / 'backends'}",
            "--allow-http=false",
            "--allow-metrics=false",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={port}",
        ],
        {"PEER_SITE_PACKAGES": str(packages), "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs")},
    )


def _kserve(port: int, other: int) -> Command:
    return Command([BUILD / "kserve/bin/python", HERE / "kserve_server.py", GRAPH, str(port), str(other)])


def _mlserver(port: int, other: int) -> Command:
    run = _run_folder("mlserver")
    shutil.copy(HERE / "mlserver/model.py", run)
    settings = {"host": "127.0.0.1", "grpc_port": port, "http_port": other, "debug": False}
    settings |= {"parallel_workers": 0, "metrics_endpoint": None}  # both were measured to slow it down
    model = {"name": "forest", "implementation": "model.Forest", "parameters": {"uri": str(GRAPH)}}
    (run / "settings.json").write_text(json.dumps(settings))
    (run / "model-settings.json").write_text(json.dumps(model))
    return Command([BUILD / "mlserver/bin/mlserver", "start", "."], folder=run)


def _run_folder(name: str) -> Path:
    folder = BUILD / "run" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


_OWN = frozenset({"score", "batch", "stream", "shared-stream", "infer"})
_INFER = {"calls": frozenset({"score", "batch"}), "flags": ("--call", "infer", "--model", "forest")}

PYTHON, GO = "Python sidecar", "Go sidecar"
PYTHON_ALL = f"Python sidecar, {CORES} workers"
FLOOR, CEILING = "plain grpcio server", "grpc-go echo server"
TRITON, KSERVE, MLSERVER = "Triton", "KServe", "MLServer"

SERVERS = (
    Server(GO, "ours", lambda p, _: Command([GO_SIDECAR, "--models", MODELS, "--listen", f"127.0.0.1:{p}"]), _OWN),
    Server(PYTHON, "ours", _python_sidecar(1), _OWN),
    Server(PYTHON_ALL, "ours", _python_sidecar(CORES), _OWN, says_ready=True),
    Server(
        FLOOR, "floor",
        lambda p, _: Command([sys.executable, HERE / "plain_server.py", GRAPH, f"127.0.0.1:{p}"]),
        frozenset({"score", "batch"}),
    ),
    Server(TRITON, "peer", _triton, peer="triton", **_INFER),
    Server(KSERVE, "peer", _kserve, peer="kserve", binds_all=True, **_INFER),
    Server(MLSERVER, "peer", _mlserver, peer="mlserver", **_INFER),
    Server(
        CEILING, "ceiling", lambda p, _: Command([LOAD, "--echo", f"127.0.0.1:{p}"]),
        frozenset({"score", "batch", "stream"}), ("--unchecked",),
    ),
)  # fmt: skip
"""Every server. The names are those of the table and of build/serving.json."""


class Running:
    """A started server.

    Attributes:
        first_answer: seconds from the start of the process to the first score.
        score: the score of the first row; None for the echo server.

    Raises:
        RuntimeError: it did not answer; the message is the last line that it wrote.
    """

    def __init__(self, server: Server, rows: Path, patience: float = 30) -> None:
        self.server = server
        port, other = free_port(), free_port()
        self.address = f"127.0.0.1:{port}"
        command = server.command(port, other)
        self._log = BUILD / f"{server.name.replace(' ', '-').replace(',', '')}.log"
        with self._log.open("wb") as log:
            start = time.perf_counter()
            self.process = subprocess.Popen(
                command.arguments,
                cwd=command.folder,
                env={**os.environ, **command.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            answer = self.load("score", "--duration", "0", "--wait", f"{patience}s", "--rows-file", str(rows))
        except BaseException:
            self.stop()
            raise
        self.first_answer = time.perf_counter() - start
        if server.says_ready:
            self._wait_for_ready(patience)
        self.score: float | None = answer.get("first_score")

    def load(self, call: str, *flags: str) -> dict:
        """Runs the load generator against this server and returns what it printed.

        Raises:
            RuntimeError: there was no answer.
        """
        own = () if "--call" in self.server.flags else ("--call", call)
        command = [LOAD, "--address", self.address, *own, *self.server.flags, *flags]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
            while client.poll() is None and self.process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    client.wait(timeout=0.05)
            if client.returncode is None:
                client.terminate()
            out, messages = client.communicate(timeout=20)
        if self.process.poll() is not None:
            raise RuntimeError(f"the server ended: {self._last_words()}")
        if client.returncode != 0:
            raise RuntimeError(messages.strip().removeprefix("dwcp-load: error: ") or self._last_words())
        return json.loads(out)

    def processes(self) -> list[int]:
        """Its process and all processes below it."""
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    parents.setdefault(int(_stat(entry)[1]), []).append(int(entry.name))
        found = [self.process.pid]
        for pid in found:
            found += parents.get(pid, [])
        return found

    def cpu_seconds(self) -> float:
        """User and system time of all its processes so far."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                fields = _stat(Path(f"/proc/{pid}"))
                total += int(fields[11]) + int(fields[12])
        return total / _TICKS

    def memory(self) -> tuple[list[float], float]:
        """Resident memory of each process, and of all together with shared pages counted once, in MB."""
        each, together = [], 0.0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                kilobytes = {line.split(":")[0]: line.split()[1] for line in rollup.splitlines()[1:]}
                each.append(int(kilobytes["Rss"]) / 1024)
                together += int(kilobytes["Pss"]) / 1024
        return sorted(each, reverse=True), together

    def pin(self, cores: set[int]) -> None:
        """Keeps all its threads on these cores."""
        for pid in self.processes():
            for task in Path(f"/proc/{pid}/task").glob("*"):
                with contextlib.suppress(OSError):  # it ended
                    os.sched_setaffinity(int(task.name), cores)

    def stop(self) -> None:
        """Asks it to stop, then ends what is left of it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=15)

    def _wait_for_ready(self, patience: float) -> None:
        until = time.monotonic() + patience
        while b"ready " not in self._log.read_bytes() and self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it wrote nothing"


def _stat(entry: Path) -> list[str]:
    """Fields of /proc/PID/stat after the name, which may hold blanks: state, parent, ..."""
    return (entry / "stat").read_text().rpartition(")")[2].split()


def free_port() -> int:
    """A free port below those that the system gives to clients: one that waits for the server might get it."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = random.randrange(10_000, max(lowest, 10_100))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no free port")
