"""The file of a unix socket: who may replace it, and its mode."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from dwcp_sidecar.server.settings import StartError

MODE = 0o660
"""Owner and group may connect: a folder and a group are all the access control that a sidecar needs."""

_LONGEST = 107  # bytes in sun_path


def claim(path: Path) -> None:
    """Makes room for a socket: removes one that nobody listens on.

    gRPC on its own would take the path from a server that is still listening.

    Raises:
        StartError: a server listens there, the file is no socket, or the folder cannot be used.
    """
    if len(os.fsencode(path)) > _LONGEST:
        raise StartError(f"--unix {path}: the path is longer than {_LONGEST} bytes; choose a shorter one")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise StartError(f"--unix {path}: the folder is not there or not writable; create it or choose another")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartError(f"--unix {path}: a file that is no socket is there; remove it or choose another path")
    if _somebody_listens(path):
        raise StartError(f"--unix {path}: another server listens there; stop it or choose another path")
    path.unlink(missing_ok=True)


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # full queue, no permission: somebody does, so hands off
            return True
    return True


@contextlib.contextmanager
def socket_mode() -> Iterator[None]:
    """While it lasts, new sockets get MODE: set before the socket exists, so there is no moment with another mode."""
    before = os.umask(0o777 & ~MODE)
    try:
        yield
    finally:
        os.umask(before)
