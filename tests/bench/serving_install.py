"""Puts what the serving benchmark needs into build/peers: Go programs, and one virtual environment per peer."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conformance import go_program

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent / "peers"
BUILD = ROOT / "build/peers"
GRAPH = BUILD / "forest.onnx"
LOAD = BUILD / "dwcp-load"
GO_SIDECAR = BUILD / "dwcp-sidecar-go"
MODELS = ROOT / "models/reference/v1"


def programs() -> None:
    """Builds the Go programs, and writes the graph that peers serve."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in (LOAD, GO_SIDECAR):
        go_program.build(f"./cmd/{name.name}", name, CGO_ENABLED="0")
    subprocess.run([sys.executable, HERE / "graph.py", MODELS, GRAPH], check=True)


def environment(name: str) -> str:
    """Makes build/peers/NAME from peers/NAME.txt, unless it is there already.

    Returns:
        Why it could not be made; empty when it is there.
    """
    wanted, target = HERE / f"{name}.txt", BUILD / name
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    marker = target / ".installed"
    if marker.exists() and marker.read_text() == digest:
        return ""
    shutil.rmtree(target, ignore_errors=True)
    print(f"installing {name} into {target.relative_to(ROOT)}", flush=True)
    pip = [target / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    try:
        subprocess.run([sys.executable, "-m", "venv", target], check=True, capture_output=True, timeout=120)
        subprocess.run([*pip, "-r", wanted], check=True, capture_output=True, text=True, timeout=900)
    except (subprocess.SubprocessError, OSError) as error:
        shutil.rmtree(target, ignore_errors=True)
        return f"does not install: {_last_line(getattr(error, 'stderr', None)) or error}"
    marker.write_text(digest)
    return ""


def site_packages(name: str) -> Path:
    """Where the packages of a peer's environment are."""
    return next((BUILD / name / "lib").glob("python3*/site-packages"))


def _last_line(text: str | bytes | None) -> str:
    text = text.decode(errors="replace") if isinstance(text, bytes) else text or ""
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")
