"""Fixtures of the tests of deploy/."""

from pathlib import Path

import pytest

from tests.conformance import go_program


@pytest.fixture(scope="session")
def go_sidecar() -> Path:
    """The Go sidecar, built once."""
    return go_program.sidecar()
