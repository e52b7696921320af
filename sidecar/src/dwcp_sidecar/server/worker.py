"""A worker process: serves as its supervisor says, and ends with it.

    python -m dwcp_sidecar.server.worker FD

FD is its end of the control channel. First comes the note `serve` with flags, addresses and model set; the worker
tells `ready`, or `failed` and ends. Then it is asked to `prepare` a folder, and to `commit` or `abort` that (R4). At
`stop` it drains (L7). When the channel closes its supervisor is gone, and so is it.
"""

import contextlib
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.server import flags, grpc_environment, logs, memory
from dwcp_sidecar.server.control import Channel
from dwcp_sidecar.server.live import Served, open_served
from dwcp_sidecar.server.metrics import FOLDER
from dwcp_sidecar.server.settings import Settings, StartError
from dwcp_sidecar.server.signals import WOKEN, Signals
from dwcp_sidecar.signatures import PublicKeys


class Worker:
    """Serves one process of several.

    Args:
        channel: to the supervisor.
        signals: of this process; woken when the supervisor says stop.
    """

    def __init__(self, channel: Channel, signals: Signals) -> None:
        self._channel = channel
        self._signals = signals
        self._orders = ThreadPoolExecutor(1)  # opening a set takes long: a stop must not wait for it
        self._told: Future[dict[str, Any]] = Future()  # the note `serve`
        self._graces: list[float] = []
        self._serving: Any = None
        threading.Thread(target=self._listen, name="control", daemon=True).start()

    def run(self) -> int:
        """Serves until told to stop, then ends the process; returns the exit status of a failure."""
        told = self._told.result()
        logs.setup(told["flags"]["log_format"])
        settings = replace(
            flags.settings(told["flags"]),
            listen=told["listen"],
            unix=None if told["unix"] is None else Path(told["unix"]),
            reuse_port=True,
            public_keys=None if told["public_keys"] is None else PublicKeys(map(bytes.fromhex, told["public_keys"])),
        )
        try:
            self._serve(settings, told["identity"], [Path(folder) for folder in told["folders"]])
        except (StartError, ContractError) as error:
            self._channel.tell("failed", why=str(error))
            return 1

    def _serve(self, settings: Settings, identity: str, folders: list[Path]) -> NoReturn:
        with ThreadPoolExecutor(1) as pool:
            opening = pool.submit(_open_first, folders, settings)
            from dwcp_sidecar.server.serving import Serving, leave  # meanwhile, as `single` does
        serving = self._serving = Serving(settings, opening.result(), self._reload, identity=identity)
        del opening  # the live set is the one to hold the models, and to let go of them
        app, served = serving.app, serving.live.models
        app.start()
        self._channel.tell("ready", addresses=app.addresses, id=served.id, path=str(served.path))
        del served
        grace = settings.grace
        while not self._graces:
            if self._signals.wait() != WOKEN:
                break
        drained = app.drain(min([grace, *self._graces]))
        while not drained.wait(0.05):
            app.drain(min([grace, *self._graces]))
        serving.metrics.close()
        leave()

    def _listen(self) -> None:
        self._channel.run(self._handle)
        # The supervisor is gone. Its successor needs the port at once, so nothing is waited for.
        if self._serving is not None:
            self._serving.app.remove_socket()
        folder = os.environ.get(FOLDER)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    def _handle(self, name: str, fields: dict[str, Any]) -> "Future[dict[str, Any]] | None":
        if name == "serve":
            self._told.set_result(fields)
        elif name == "stop":
            self._graces.append(fields["grace"])
            self._signals.wake()
        else:
            return self._orders.submit(self._order, name, fields)
        return None

    def _order(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        if name == "prepare":
            id, path = self._serving.candidate.prepare(Path(fields["folder"]))
            return {"id": id, "path": str(path)}
        if name == "commit":
            return {"changed": self._serving.candidate.commit().changed}
        self._serving.candidate.abort()
        return {}

    def _reload(self) -> tuple[str, bool]:
        answer = self._channel.ask("reload").result()
        return answer["id"], answer["changed"]


def _open_first(folders: list[Path], settings: Settings) -> Served:
    """Opens the first folder that holds a sound set or fleet (R4); the error is that of the last."""
    for folder in folders[:-1]:
        with contextlib.suppress(ContractError):
            return open_served(folder, settings)
    return open_served(folders[-1], settings)


def main() -> int:
    """Runs a worker on the channel that the command line names."""
    grpc_environment.prepare()
    memory.limit_arenas()
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all; the supervisor says what follows
        signal.signal(number, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    return Worker(channel, Signals(signal.SIGTERM)).run()


if __name__ == "__main__":
    sys.exit(main())
