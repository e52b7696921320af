"""Fixtures of the tests of deploy/."""

from pathlib import Path

import pytest

from tests.conformance.go_program import build


@pytest.fixture(scope="session")
def go_sidecar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go sidecar, built once."""
    program = tmp_path_factory.mktemp("go") / "dwcp-sidecar-go"
    build("./cmd/dwcp-sidecar-go", program, CGO_ENABLED="0")
    return program
