"""One retraining of a folder at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from dwcp_training.console import RefusedError


@contextmanager
def only_one(work: Path, models: Path) -> Iterator[None]:
    """Holds the lock of a work folder while the block runs.

    The kernel lets go of it when the process ends, however it ends: that of a dead process is never in the way.

    Raises:
        RefusedError: another process retrains in this folder.
        OSError: the folder cannot be written to, or its file system has no locks.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise RefusedError(
                f"another retraining is at work in {models} ({lock.read().strip() or 'just begun'}). Let it end."
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()}, since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n")
        lock.flush()
        yield
