"""What tests of several files use and takes long to make: made once in a session, whichever process asks first."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the session that all its test processes share.

    Args:
        factory: of the process that asks.
        name: of the folder.
        make: fills the empty folder; tests that write in it afterwards copy it first.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # that of the session, above those of its processes
    folder, made = base / name, base / f"{name}.made"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():  # where making it failed, the next one tries again, in another folder's place
            if folder.exists():
                folder.rename(folder.with_name(f"{name}.failed-{os.getpid()}"))
            folder.mkdir()
            make(folder)
            made.touch()
    return folder
