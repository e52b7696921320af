"""Fixtures and order of all tests. Nothing here skips: without the reference set the tests that need it fail."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups the tests for `--dist loadgroup`: what shares costly fixtures stays together, the rest goes by file."""
    for item in items:
        folder, *_, file = item.path.relative_to(ROOT / "tests").parts
        alone = folder in ("sidecar", "faults", "deploy", "bench", "fuzz")
        item.add_marker(pytest.mark.xdist_group(f"{folder}/{file}" if alone else folder))


@pytest.fixture(scope="session")
def reference_set() -> Path:
    """Folder of the frozen reference set with its by-products."""
    folder = ROOT / "models" / "reference" / "v1"
    assert (folder / "manifest.json").is_file(), f"{folder} is missing: these tests prove nothing without it"
    return folder
