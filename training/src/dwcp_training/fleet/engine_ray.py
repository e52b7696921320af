"""Tasks on Ray: on this machine alone, or on the cluster whose address the environment variable RAY_ADDRESS has."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterable, Iterator
from typing import Any

from dwcp_training.console import RefusedError
from dwcp_training.detectors.libraries import MissingLibraryError
from dwcp_training.fleet.engines import ATTEMPTS, Item, Lost, Task

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
"""So that Ray neither tells its makers about its start nor warns about what it may do in later versions."""

_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""A Ray of one machine. Without it, Ray takes an address of this host for 127.0.0.1 and listens on every one."""


class Ray:
    """Ray's workers.

    Without RAY_ADDRESS a Ray is started here and ended with this process; it listens on the loopback address alone.
    With it, data and output must be folders that all machines of the cluster see under the same path.

    Args:
        workers: tasks at once.

    Raises:
        MissingLibraryError: Ray is not installed.
    """

    def __init__(self, workers: int) -> None:
        wanted = _QUIET if os.environ.get("RAY_ADDRESS") else {**_QUIET, **_ALONE}
        os.environ.update({name: value for name, value in wanted.items() if name not in os.environ})
        try:
            import ray
        except ImportError:
            raise MissingLibraryError(
                "--engine ray needs Ray: pip install 'dwcp-training[fleet]'. --engine local needs nothing."
            ) from None
        self._ray, self._workers = ray, workers
        self._started = not ray.is_initialized()
        if not self._started:
            return
        if os.environ.get("RAY_ADDRESS"):
            ray.init(log_to_driver=False)
            return
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
            object_store_memory=128 << 20,  # settings and counts are all that travels
        )

    def run(self, task: Task, shared: Any, items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        ray = self._ray
        remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(task)
        settings = ray.put(shared)
        waiting = iter(items)
        running: dict[Any, Item] = {}
        more = True
        while more or running:
            while more and len(running) < 2 * self._workers:
                try:
                    item = next(waiting)
                except StopIteration:
                    more = False
                    break
                running[remote.remote(settings, item)] = item
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1)
            for reference in done:
                item = running.pop(reference)
                try:
                    result = ray.get(reference)
                except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
                    result = Lost(f"its process was killed {ATTEMPTS} times; was there too little memory?")
                yield item, result

    def stream(self, task: Task, shared: Any, items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        """As `run`, by Ray Data: it places the tasks and begins those anew whose process was killed.

        Raises:
            RefusedError: processes were killed so often that Ray Data gave up.
        """
        from ray import data

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        data.DataContext.get_current().enable_progress_bars = False
        settings = self._ray.put(shared)
        listed = list(items)
        if not listed:
            return

        def done(row: dict[str, Any]) -> dict[str, Any]:
            import ray

            number = row["item"]
            return {"item": number, "result": pickle.dumps(task(ray.get(settings), pickle.loads(row["what"])))}

        rows = [{"item": number, "what": pickle.dumps(item)} for number, item in enumerate(listed)]
        found = data.from_items(rows, override_num_blocks=len(rows)).map(
            done, num_cpus=1, compute=data.TaskPoolStrategy(size=self._workers)
        )
        try:
            for row in found.iter_rows():
                yield listed[row["item"]], pickle.loads(row["result"])
        except self._ray.exceptions.RayError as error:
            raise RefusedError(f"Ray gave up ({type(error).__name__}). What is finished stays; run it again.") from None

    def close(self) -> None:
        if self._started:
            self._ray.shutdown()
