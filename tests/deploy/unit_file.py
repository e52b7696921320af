"""Reads systemd units and carries out their commands, as far as that goes without systemd as process 1."""

import shlex
from collections import defaultdict
from pathlib import Path

_FORBIDDEN = "~"


def parse(path: Path) -> dict[str, dict[str, list[str]]]:
    """Sections of a unit; each setting with all values given for it, in order."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in path.read_text().replace("\\\n", " ").splitlines():
        line = line.strip()
        if line.startswith("["):
            section = sections[line.strip("[]")] = defaultdict(list)
        elif line and line[0] not in "#;":
            name, _, value = line.partition("=")
            section[name].append(" ".join(value.split()))
    return sections


def command(line: str, replace: dict[str, str], environment: dict[str, str]) -> list[str]:
    """The words of an Exec line: paths replaced, `$NAME` split into words, or gone where it is not set."""
    for old, new in replace.items():
        line = line.replace(old, new)
    words: list[str] = []
    for word in shlex.split(line):
        words += environment.get(word[1:], "").split() if word.startswith("$") else [word]
    return words


def forbidden_calls(service: dict[str, list[str]]) -> list[str]:
    """What SystemCallFilter takes away again: groups and names after `~`."""
    return [name for value in service["SystemCallFilter"] if value[0] == _FORBIDDEN for name in value[1:].split()]
