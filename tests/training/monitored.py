"""A running `dwcp monitor`, and loopback servers that stand for what it speaks to."""

from __future__ import annotations

import contextlib
import http.server
import json
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dwcp_training.data import lstm_series, write_csv
from tests.training.conftest import COMMAND, REPOSITORY
from tests.training.test_cli import invoke

REFERENCE = REPOSITORY / "models/reference/v1"
WAIT = 30
"""Seconds that anything may take."""


class Monitor:
    """The process. What it prints is read in threads, so that it never waits for the test."""

    def __init__(self, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [COMMAND, "monitor", "--models", REFERENCE, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.alarms: list[str] = []
        self.notices: list[str] = []
        self._news: queue.Queue[None] = queue.Queue()
        self._threads = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.alarms), (self.process.stderr, self.notices))
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            lines.append(line.rstrip("\n"))
            self._news.put(None)

    def until(self, condition: Callable[[], Any]) -> None:
        """Waits until what was printed fulfils a condition."""
        end = time.monotonic() + WAIT
        while not condition():
            left = end - time.monotonic()
            assert left > 0, (self.alarms, self.notices)
            with contextlib.suppress(queue.Empty):
                self._news.get(timeout=min(left, 0.2))

    def noticed(self, words: str) -> None:
        """Waits for a notice."""
        self.until(lambda: any(words in line for line in self.notices))

    def end(self, number: signal.Signals | None = None) -> int:
        """Sends a signal, if one is given, and waits for the exit status."""
        if number is not None:
            self.process.send_signal(number)
        status = self.process.wait(WAIT)
        for thread in self._threads:
            thread.join(WAIT)
        return status

    @property
    def said(self) -> str:
        """All notices."""
        return "\n".join(self.notices)


@contextlib.contextmanager
def monitor(*arguments: str | Path) -> Iterator[Monitor]:
    """A monitor that watches, and is gone when the block ends."""
    started = Monitor(*arguments)
    try:
        started.noticed("watching ")
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.end()


@dataclass(frozen=True)
class Ended:
    """A monitor that ran in this process and ended by itself: exit status, and what it printed."""

    status: int
    alarms: list[str]
    notices: list[str]

    @property
    def said(self) -> str:
        """All notices."""
        return "\n".join(self.notices)


def ended(*arguments: str | Path) -> Ended:
    """Runs a monitor that ends by itself, in this process: starting one takes seconds."""
    result = invoke("monitor", "--models", REFERENCE, *arguments)
    assert "Traceback" not in result.output
    return Ended(result.exit_code, result.stdout.splitlines(), result.stderr.splitlines())


@contextlib.contextmanager
def http_server(answer: Callable[[str, str, bytes], tuple[int, Any]]) -> Iterator[str]:
    """A loopback server. `answer` gets method, path and body, and gives a status and a body (text, or JSON)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the server calls it by this name
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content = answer(self.command, self.path, body)
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            with contextlib.suppress(OSError):  # the monitor may be gone
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        do_POST = do_GET  # noqa: N815  # the server calls it by this name

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(WAIT)


def lines_of(folder: Path, rows: int = 120, alarms_at: tuple[int, ...] = (), seed: int = 42) -> list[str]:
    """A header and rows of normal data, a minute apart; those at `alarms_at` are such that both detectors alarm."""
    write_csv(lstm_series(rows, seed=seed), folder / "made.csv")
    lines = (folder / "made.csv").read_text().splitlines()
    (folder / "made.csv").unlink()
    for at in alarms_at:
        cells = lines[1 + at].split(",")
        lines[1 + at] = ",".join([cells[0], "20", "140", "5", "30", *cells[5:]])
    return lines


def append(path: Path, *lines: str, end: str = "\n") -> None:
    """Adds lines to a file at once."""
    with path.open("a") as file:
        file.write("\n".join(lines) + end)
