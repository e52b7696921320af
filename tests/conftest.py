"""Fixtures of all tests. Nothing here skips: without the reference set the tests that need it fail."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ENVIRONMENT = dict(os.environ)
"""As the user has it: libraries write into it when they are imported, and the programs of later tests would see it."""

ROOT = Path(__file__).resolve().parents[1]

LONGEST_FIRST = (
    "conformance/test_conformance.py",
    "docs/test_documents.py",
    "mutation/test_mutation.py",
    "training/test_seed_s1.py",
    "training/test_monitor.py",
    "sidecar/test_reload.py",
    "sidecar/test_workers.py",
    "sidecar/test_ensemble.py",
    "training/test_export_command.py",
    "retrain/test_retrain.py",
    "training/test_ensemble.py",
    "training/test_export.py",
    "sidecar/test_server_process.py",
    "training/test_dense_autoencoder.py",
    "training/test_quantize.py",
    "training/test_drift.py",
    "training/test_interface.py",
    "sidecar/test_go_server.py",
    "vectors/test_vectors.py",
)
"""Files that take longest, in processor time. With them first, two processes end at about the same time: one that
begins with a file of a minute when the other has nothing left makes everybody wait for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts files, and leaves the tests of each in their order (`--no-loadscope-reorder` hands them out so)."""
    place = {ROOT / "tests" / name: k for k, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))
    _restore_environment()


def pytest_sessionstart() -> None:
    """A name that is no longer there would sort nothing."""
    gone = [name for name in LONGEST_FIRST if not (ROOT / "tests" / name).is_file()]
    if gone:
        raise pytest.UsageError(f"LONGEST_FIRST in tests/conftest.py names files that are not there: {gone}")


def _restore_environment() -> None:
    for name in os.environ.keys() - ENVIRONMENT.keys() - {"PYTEST_CURRENT_TEST"}:
        if not name.startswith("PYTEST_"):
            del os.environ[name]
    os.environ.update(ENVIRONMENT)


@pytest.fixture(autouse=True, scope="module")
def _environment() -> Iterator[None]:
    """What the tests of a file, or what they import, write into the environment ends with that file."""
    yield
    _restore_environment()


@pytest.fixture(scope="session")
def reference_set() -> Path:
    """Folder of the frozen reference set with its by-products."""
    folder = ROOT / "models" / "reference" / "v1"
    assert (folder / "manifest.json").is_file(), f"{folder} is missing: these tests prove nothing without it"
    return folder
