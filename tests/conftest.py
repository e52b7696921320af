"""Fixtures and order of all tests. Nothing here skips: without the reference set the tests that need it fail."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Splits the tests in two halves for `--dist loadgroup`; what shares fixtures stays together."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        item.add_marker(pytest.mark.xdist_group("training" if folder in ("training", "docs") else "implementations"))


@pytest.fixture(scope="session")
def reference_set() -> Path:
    """Folder of the frozen reference set with its by-products."""
    folder = ROOT / "models" / "reference" / "v1"
    assert (folder / "manifest.json").is_file(), f"{folder} is missing: these tests prove nothing without it"
    return folder
