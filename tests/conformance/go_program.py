"""Builds and finds the Go programs that tests run."""

import fcntl
import filecmp
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GO_FOLDER = ROOT / "go-contract"
BUILD = ROOT / "build" / "conformance"
_BUILD_SECONDS = 600


class BuildError(RuntimeError):
    """Go or the program is not there; the message is the compiler's."""


@cache
def go() -> str:
    """The Go command: the system's where it is recent enough, else the one of the lock file, as in the Makefile."""
    candidates = [shutil.which("go"), str(ROOT / ".venv" / "bin" / "go")]
    for command in filter(None, candidates):
        try:
            version = subprocess.run([command, "env", "GOVERSION"], capture_output=True, text=True, timeout=60)
        except OSError:
            continue
        major, minor = [*re.findall(r"\d+", version.stdout), "0", "0"][:2]
        if version.returncode == 0 and (int(major), int(minor)) >= (1, 25):
            return command
    raise BuildError("no Go of version 1.25 or newer: run `make setup`, which installs one in .venv")


@cache
def contract_score(backend: str) -> Path:
    """Path of the program, built on first use: with ONNX Runtime for that backend, else pure Go.

    Raises:
        BuildError: when it cannot be built.
    """
    native = backend != "onnxruntime"
    program = BUILD / ("contract-score" if native else "contract-score-onnxruntime")
    build("./cmd/contract-score", program, tags="" if native else "onnxruntime", CGO_ENABLED="0" if native else "1")
    return program


@cache
def sidecar() -> Path:
    """Path of `dwcp-sidecar-go`, built on first use. Raises BuildError."""
    program = BUILD / "dwcp-sidecar-go"
    build("./cmd/dwcp-sidecar-go", program, CGO_ENABLED="0")
    return program


def _compiler() -> dict[str, str]:
    """The C compiler of the lock file for cgo, where the system has none."""
    if shutil.which("gcc") or shutil.which("cc"):
        return {}
    return {"CC": f"{sys.executable} -m ziglang cc", "CXX": f"{sys.executable} -m ziglang c++"}


def build(package: str, program: Path, tags: str = "", **environment: str) -> None:
    """Builds a package of `go-contract`; environment variables by name, such as `GOARCH="arm64"`. Raises BuildError."""
    # Test processes build at the same time, and one may run what another would replace.
    draft = program.with_name(f"{program.name}.draft")
    program.parent.mkdir(parents=True, exist_ok=True)
    with program.with_name(f"{program.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _compile(["build", "-tags", tags, "-o", draft, package], f"{package} (tags {tags!r})", environment)
        if program.exists() and filecmp.cmp(draft, program, shallow=False):
            draft.unlink()
        else:
            draft.replace(program)


def build_tests(package: str, program: Path, **environment: str) -> None:
    """Builds the test binary of a package. Raises BuildError."""
    _compile(["test", "-c", "-o", program, package], f"tests of {package}", environment)


def _compile(arguments: list[str | Path], what: str, environment: dict[str, str]) -> None:
    BUILD.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [go(), *arguments],
        cwd=GO_FOLDER,
        env={**_compiler(), **os.environ, "GOFLAGS": "-mod=readonly", **environment},
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
    )
    if done.returncode:
        raise BuildError(f"{what}: go cannot build it:\n{done.stderr.strip()}")
