"""Tasks that a test gives to engines; processes find them by the name of this module."""

import os
import signal
import time
from pathlib import Path


def double(shared: int, item: int) -> int:
    return shared * item


def fail(shared: int, item: int) -> int:
    raise ValueError(f"item {item}")


def killed(folder: str, item: tuple[int, int]) -> tuple[int, int]:
    """Is killed as often as the second number of the item says, then answers with the item."""
    number, times = item
    before = len(list(Path(folder).glob(f"{number}-*")))
    if before < times:
        Path(folder, f"{number}-{before}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def sleeps(folder: str, item: int) -> int:
    """Says its process id and stays."""
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)
    return item
