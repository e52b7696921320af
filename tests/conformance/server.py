"""A real sidecar on loopback, in Python or in Go, ended by its process id."""

import contextlib
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conformance import go_program

COMMAND = Path(sys.executable).with_name("dwcp-sidecar")
START_SECONDS = 60
STOP_SECONDS = 15


class StartError(RuntimeError):
    """The server did not answer; the message is its own."""


@contextlib.contextmanager
def serving(models: Path, kind: str = "python") -> Iterator[str]:
    """The address of a server of these models, `python` or `go`; the process is gone when the block ends.

    Raises:
        StartError: when it refuses the set or says nothing in time.
        BuildError: when the Go server does not build.
    """
    command = {"python": lambda: [COMMAND, "serve"], "go": lambda: [go_program.sidecar()]}[kind]()
    process = subprocess.Popen(
        [*command, "--models", models, "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        ready = select.select([process.stdout], [], [], START_SECONDS)[0]
        line = process.stdout.readline() if ready else ""
        if not line.startswith("ready "):
            process.kill()
            why = process.communicate(timeout=STOP_SECONDS)[1].strip()
            raise StartError(f"the {kind} sidecar: {why or 'no answer'}")
        yield line.split()[1]
    finally:
        process.terminate()
        try:
            process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
