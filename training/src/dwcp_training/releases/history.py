"""Which release was current when: a small file beside `current`, one JSON object a line, written whole."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dwcp_training.data.writers import whole_file

log = logging.getLogger("dwcp.training")

RELEASES = "releases"
CURRENT = "current"
HISTORY = "history.jsonl"


@dataclass(frozen=True)
class Switch:
    """One line of the history.

    Attributes:
        at: time, RFC 3339 in UTC.
        release: that became current.
        before: the one that was; empty for the first.
        by: who did it, for example `retrain`.
    """

    at: str
    release: str
    before: str
    by: str


def read_history(output: Path) -> list[Switch]:
    """All switches, oldest first. A line that says nothing is left out, with a warning: it must not stop a rollback."""
    try:
        lines = (output / HISTORY).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    switches = []
    for number, line in enumerate(lines, 1):
        try:
            switches.append(Switch(**{name: str(text) for name, text in json.loads(line).items()}))
        except (ValueError, TypeError, AttributeError):
            log.warning("%s line %d says nothing about a release and is left out", output / HISTORY, number)
    return switches


def record_switch(output: Path, release: str, before: str, by: str) -> None:
    """Adds a switch, unless nothing changed. Called by writers, under their lock.

    Raises:
        OSError: the folder cannot be written to.
    """
    if release == before:
        return
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    switches = [*read_history(output), Switch(at, release, before, by)]
    with whole_file(output / HISTORY) as file:
        file.write("".join(json.dumps(asdict(switch)) + "\n" for switch in switches).encode())


def current_release(output: Path) -> str:
    """Name of the current release; empty where there is none."""
    try:
        return (output / CURRENT).readlink().name
    except OSError:
        return ""


def releases_by_age(output: Path) -> list[str]:
    """Names of the releases, newest first."""
    try:
        found = [path for path in (output / RELEASES).iterdir() if path.is_dir() and not path.name.startswith(".")]
    except FileNotFoundError:
        return []
    return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def previous_release(output: Path) -> str:
    """Name of the release that was current before the current one; empty where there is none.

    The history says it. Where that does not know the current one, because a writer was killed between the switch and
    the history, the last one that it knows was current before. Without any history it is the newest other release.
    """
    current = current_release(output)
    there = [name for name in releases_by_age(output) if name != current]
    return next((name for name in _before(read_history(output), current) if name in there), there[0] if there else "")


def _before(switches: Sequence[Switch], current: str) -> list[str]:
    """Names that were current before, the most recent one first."""
    names: list[str] = []
    for switch in reversed(switches):
        names += [switch.release, switch.before]
    return [name for name in dict.fromkeys(names) if name and name != current]
