"""Fixtures of all tests. Nothing here skips: without the reference set the tests that need it fail."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def reference_set() -> Path:
    """Folder of the frozen reference set with its by-products."""
    folder = ROOT / "models" / "reference" / "v1"
    assert (folder / "manifest.json").is_file(), f"{folder} is missing: these tests prove nothing without it"
    return folder
