"""Programs that the tests use and that not every machine has."""

import os
import shutil
import socket
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
REFERENCE = ROOT / "models/reference/v1"
_REMEDIES = {
    "prometheus": "make extras",
    "promtool": "make extras",
    "systemd-analyze": "install systemd",
    "systemd-sysusers": "install systemd",
    "kubectl": "install kubectl",
    "strace": "install strace",
    "openssl": "install openssl",
    "dwcp": "make setup",
    "dwcp-sidecar": "make setup",
    "hadolint": "make setup",
}
_PLACES = os.pathsep.join([str(ROOT / ".venv/bin"), os.environ.get("PATH", ""), str(ROOT / "build/extras/usr/bin")])


def tool(name: str) -> str:
    """Path of a program: of .venv, of the PATH or of `make extras`. Without it the test is left out by name."""
    found = shutil.which(name, path=_PLACES)
    if found is None:
        pytest.skip(f"{name} is not here: {_REMEDIES[name]}")
    return found


def free_port() -> int:
    """A TCP port of loopback that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
