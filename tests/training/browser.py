"""A headless Chromium that opens a file of this machine, and says what it did."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

LEFT_OUT = "left out: there is no Chromium on this machine (`make extras` as root installs Debian's)"

_SECONDS = 120

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # whatever asks, nothing leaves the machine
)

ITS_OWN = ("google.com", "googleapis.com")
"""Hosts that the browser asks for by itself, with any page."""


def chromium() -> str | None:
    """Its path; None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass(frozen=True)
class Opened:
    """What came of opening a page.

    Attributes:
        dom: the document after it was loaded.
        console: what it wrote to the console.
        asked: addresses that were asked for, from the browser's own log of the network, less those of `ITS_OWN`.
        picture: PNG.
    """

    dom: str
    console: list[str]
    asked: list[str]
    picture: bytes


def opened(page: Path, folder: Path) -> Opened:
    """Opens a page twice, for the document and for a picture. `folder` is for the browser's own files."""
    log = folder / "network.json"
    dom, said = _run(page, folder, "--dump-dom", f"--log-net-log={log}", "--enable-logging=stderr")
    console = re.findall(r"CONSOLE.*", said)
    return Opened(dom, console, _asked(log), picture_of(page, folder))


def picture_of(page: Path, folder: Path, *flags: str, width: int = 1100, height: int = 3000) -> bytes:
    """A picture of a page, PNG."""
    picture = folder / "picture.png"
    _run(page, folder, f"--screenshot={picture}", f"--window-size={width},{height}", *flags)
    return picture.read_bytes()


def _run(page: Path, folder: Path, *flags: str) -> tuple[str, str]:
    command = [str(chromium()), *QUIET, f"--user-data-dir={folder / 'profile'}", *flags, page.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def _asked(log: Path) -> list[str]:
    """Addresses of all requests in a log of the network, which the browser may not have ended."""
    text = log.read_text(errors="replace").rstrip().rstrip(",")
    try:
        events = json.loads(text)["events"]
    except json.JSONDecodeError:
        events = json.loads(text + "]}")["events"]
    found = {event.get("params", {}).get("url", "") for event in events} - {""}
    return sorted(address for address in found if not str(urlsplit(address).hostname).endswith(ITS_OWN))
