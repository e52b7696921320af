"""The TCP address of a server: how it is written, why it cannot be had, how several processes share it."""

import errno
import os
import socket

from dwcp_sidecar.server.settings import StartError, one_address, split_address


def resolve(listen: str) -> tuple[int, str, int]:
    """Family, number and port of a `--listen` address.

    Raises:
        StartError: it is no address, or its host is not known.
    """
    host, port = split_address(listen)
    family, number = one_address(host, port)
    return family, number, port


def written(family: int, number: str, port: int) -> str:
    """`127.0.0.1:50051`, or `[::1]:50051`."""
    return f"[{number}]:{port}" if family == socket.AF_INET6 else f"{number}:{port}"


def cannot_listen(family: int, number: str, port: int) -> StartError:
    """Says why an address cannot be bound, which is found by asking the system once more: gRPC does not say."""
    why, in_use = "the system refuses it", False
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((number, port))
    except OSError as error:
        why, in_use = os.strerror(error.errno) if error.errno else str(error), error.errno == errno.EADDRINUSE
    remedy = f"Stop the program that uses port {port}, or choose" if in_use else "Choose"
    return StartError(
        f"cannot listen on {written(family, number, port)}: {why}. "
        f"{remedy} another with --listen HOST:PORT (0: any free one)."
    )


def hold(listen: str) -> tuple[socket.socket, str]:
    """Takes an address for processes of this user that bind it with SO_REUSEPORT, and for nobody else.

    The socket never listens, so it gets no connection. It is bound as if it were to be alone, which makes a port in use
    an error; only then others may join. SO_REUSEADDR goes again: with it, another server could slip in while nobody
    listens.

    Returns:
        The socket, to be kept open as long as the address is needed, and the address with the port it got.

    Raises:
        StartError: the address cannot be had.
    """
    family, number, port = resolve(listen)
    held = socket.socket(family, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a former server may linger
        held.bind((number, port))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        held.close()
        raise cannot_listen(family, number, port) from None
    return held, written(family, number, held.getsockname()[1])
