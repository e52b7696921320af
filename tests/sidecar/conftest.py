"""Fixtures of the sidecar's tests. Nothing here skips: without the reference set every test fails."""

import contextlib
import functools
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dwcp_sidecar.model_set import ModelSet
from tests.conformance import go_program

REFERENCE = Path(__file__).resolve().parents[2] / "models" / "reference" / "v1"
COMMAND = Path(sys.executable).with_name("dwcp-sidecar")
WAIT = 30
"""Seconds that anything may take before a test fails."""


@dataclass
class Served:
    """A running sidecar."""

    process: subprocess.Popen[str]
    ready: str
    addresses: list[str] = field(init=False)
    model_set_id: str = field(init=False)

    def __post_init__(self) -> None:
        word, *self.addresses, last = self.ready.split()
        key, self.model_set_id = last.split("=")
        assert (word, key) == ("ready", "model_set"), self.ready

    @property
    def address(self) -> str:
        return self.addresses[0]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(WAIT)


@contextlib.contextmanager
def serving(
    *arguments: str | Path, models: Path = REFERENCE, command: Sequence[str | Path] = (COMMAND, "serve")
) -> Iterator[Served]:
    """A server process with further arguments; gone when the block ends."""
    process = subprocess.Popen(
        [*command, "--models", models, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield Served(process, line)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=WAIT)


@pytest.fixture(scope="session")
def reference_path() -> Path:
    assert (REFERENCE / "manifest.json").is_file(), f"{REFERENCE} is missing: these tests prove nothing without it"
    return REFERENCE


@pytest.fixture(scope="session")
def reference(reference_path: Path) -> ModelSet:
    return ModelSet.open(reference_path)


@pytest.fixture(scope="session")
def serve() -> Callable[..., contextlib.AbstractContextManager[Served]]:
    return serving


@pytest.fixture(scope="session")
def serve_go() -> Callable[..., contextlib.AbstractContextManager[Served]]:
    """As `serve`, the Go sidecar."""
    return functools.partial(serving, command=(go_program.sidecar(),))


@pytest.fixture(scope="session")
def served(reference_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests that do not stop it, on TCP and on a unix socket."""
    with serving("--listen", "127.0.0.1:0", "--unix", tmp_path_factory.mktemp("socket") / "score.sock") as server:
        yield server


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `dwcp-sidecar` to its end."""

    def run(*arguments: str | Path, input: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([COMMAND, *arguments], input=input, capture_output=True, text=True, timeout=2 * WAIT)

    return run


class SetCopy:
    """A copy of the reference set that a test may damage."""

    def __init__(self, path: Path) -> None:
        self.path = path
        shutil.copytree(REFERENCE, path)

    def edit(self, name: str, change: Callable[[dict], None]) -> None:
        """Changes a JSON file in place."""
        data = json.loads((self.path / name).read_bytes())
        change(data)
        (self.path / name).write_text(json.dumps(data))

    def redigest(self) -> None:
        """Makes the manifest right again, so that a damage gets past the digests."""

        def change(manifest: dict) -> None:
            for entry in manifest["files"]:
                file = self.path / entry["path"]
                if file.exists():
                    data = file.read_bytes()
                    entry |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}

        self.edit("manifest.json", change)


@pytest.fixture
def set_copy(reference_path: Path, tmp_path: Path) -> SetCopy:
    return SetCopy(tmp_path / "set")


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSet]:
    """Sets to reload, by name: two with both models, two small ones."""
    from tests.sidecar.other_set import make_other, small

    root = tmp_path_factory.mktemp("sets")
    made = {name: SetCopy(root / name) for name in ("a", "b", "forest_a", "forest_b")}
    make_other(made["b"])
    make_other(made["forest_b"], 2)
    small(made["forest_a"])
    small(made["forest_b"])
    opened = {name: ModelSet.open(copy.path) for name, copy in made.items()}
    assert len({models.id for models in opened.values()}) == 4
    return opened
