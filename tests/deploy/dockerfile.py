"""Carries out the steps of a Dockerfile in a folder, on a machine without a container engine.

Done for real: what the build sees (`.dockerignore`), every COPY, every RUN but the downloads, what the last stage
keeps, and its entry point and health check. Not done: the base images; Python and Go are those of this machine. In the
place of a download from the package index, the very versions that are installed here are linked in, and no others.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.conformance.go_program import go
from tests.deploy.tools import ROOT

_FOLDERS = "opt|src|out|wheels|run|models|usr|tmp"
_ABSOLUTE = re.compile(rf"(?<![\w./$-])/(?=(?:{_FOLDERS})\b)")
_RUN_SECONDS = 300


@dataclass
class Stage:
    """One FROM and what follows.

    Attributes:
        base: image.
        name: after AS; empty without.
        steps: instruction in capitals and its text, in order.
    """

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str:
        """Text of the last such step; the one that is in force."""
        return [text for name, text in self.steps if name == instruction][-1]


def parse(path: Path) -> list[Stage]:
    """The stages of a Dockerfile. ARG before the first FROM is filled in with its default."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for step in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, text = step.strip().partition(" ")
        if instruction == "ARG":
            name, _, value = text.partition("=")
            arguments[name] = value
        text = re.sub(r"\$\{(\w+)\}", lambda match: arguments.get(match[1], match[0]), text)
        if instruction == "FROM":
            base, _, name = text.partition(" AS ")
            stages.append(Stage(base, name))
        elif stages:
            stages[-1].steps.append((instruction, text.strip()))
    return stages


def context() -> list[Path]:
    """The files that a build may see, relative to the root of the repository."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    rules = [(line[0] != "!", _pattern(line.lstrip("!"))) for line in patterns]
    wanted = {line[1:].partition("/")[0] for line in patterns if line[0] == "!"}
    return [file for top in sorted(wanted) for file in _files(ROOT / top) if not _excluded(file, rules)]


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield (Path(parent) / name).relative_to(ROOT)


def _pattern(glob: str) -> re.Pattern[str]:
    """A pattern of `.dockerignore`: `*` within a name, `**` over folders."""
    text = re.escape(glob).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.compile(text)


def _excluded(file: Path, rules: list[tuple[bool, re.Pattern[str]]]) -> bool:
    """The last rule that matches the file or a folder above it decides."""
    excluded = False
    for excludes, pattern in rules:
        if any(pattern.fullmatch(str(path)) for path in (file, *file.parents)):
            excluded = excludes
    return excluded


class Image:
    """What the last stage of a Dockerfile holds, below `root`.

    Args:
        path: the Dockerfile.
        root: an empty folder that stands for `/`.
    """

    def __init__(self, path: Path, root: Path) -> None:
        self.root = root
        self.environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"}
        self._context = context()
        self._folder = "/"
        first, self.last = parse(path)
        self._python = root.with_name(root.name + "-python")  # the interpreter of the base image
        self._start(first)
        for instruction, text in first.steps:
            self._step(instruction, text)
        self._keep([text for name, text in self.last.steps if name == "COPY"])
        for name, text in self.last.steps:
            if name == "ENV":
                self._environment(text)

    def below(self, text: str) -> str:
        """Absolute paths of a text, moved below the root."""
        return _ABSOLUTE.sub(f"{self.root}/", text)

    def command(self, instruction: str) -> list[str]:
        """ENTRYPOINT or the command of HEALTHCHECK, to be run here."""
        text = self.last.last(instruction)
        return [self.below(word) for word in json.loads(text[text.index("[") :])]

    def _start(self, stage: Stage) -> None:
        if stage.base.startswith("python:"):
            version = stage.base.removeprefix("python:").removesuffix("-slim")
            assert version == f"{sys.version_info.major}.{sys.version_info.minor}", "tests run another Python"
            base = getattr(sys, "_base_executable", sys.executable)
            subprocess.run([base, "-m", "venv", "--without-pip", self._python], check=True, timeout=_RUN_SECONDS)
            _link(metadata.distribution("pip"), self._python)
            self.environment["PATH"] = f"{self._python}/bin:{os.environ['PATH']}"
        else:
            assert stage.base.startswith("golang:")
            for name in ("GOCACHE", "GOMODCACHE", "GOPROXY", "GOSUMDB"):  # of this machine: nothing is fetched twice
                found = subprocess.run([go(), "env", name], capture_output=True, text=True, check=True, timeout=60)
                self.environment[name] = found.stdout.strip()
            self.environment["PATH"] = f"{Path(go()).parent}:{os.environ['PATH']}"

    def _step(self, instruction: str, text: str) -> None:
        if instruction == "WORKDIR":
            self._folder = text
            Path(self.below(text)).mkdir(parents=True)
        elif instruction == "ENV":
            self._environment(text)
        elif instruction == "COPY":
            *sources, target = text.split()
            for source in sources:
                self._copy(source, target)
        elif instruction == "RUN":
            for command in text.split(" && "):
                self._run(command.strip())
        else:
            raise AssertionError(f"a step that is not carried out: {instruction}")

    def _environment(self, text: str) -> None:
        for name, value in re.findall(r"(\w+)=(\S+)", text):
            self.environment[name] = self.below(value).replace("$PATH", self.environment["PATH"])

    def _copy(self, source: str, target: str) -> None:
        """A file or the content of a folder, of what the build may see."""
        folder = Path(self.below(self._folder)) / target
        found = [
            file for file in self._context if str(file) == source or str(file).startswith(source.rstrip("/") + "/")
        ]
        assert found, f"COPY {source}: the build cannot see it"
        for file in found:
            copy = folder / (file.name if str(file) == source else file.relative_to(source))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, copy)

    def _run(self, command: str) -> None:
        where = Path(self.below(self._folder))
        download = re.fullmatch(r"python -m pip (?:--python (\S+) )?install (.*)-r (\S+)", command)
        if download:
            assert "--require-hashes" in download[2]
            assert "--no-deps" in download[2]
            python = self.below(download[1]) if download[1] else f"{self._python}/bin/python"
            link_installed(where / download[3], Path(python).parents[1])
            return
        done = subprocess.run(
            ["bash", "-c", self.below(command)],
            cwd=where,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_RUN_SECONDS,
        )
        assert done.returncode == 0, f"RUN {command}\n{done.stdout}{done.stderr}"

    def _keep(self, copies: list[str]) -> None:
        """Forgets all that the last stage does not copy. Paths stay the same: a virtual environment knows its own."""
        build = self.root.with_name(self.root.name + "-build")
        self.root.rename(build)
        for text in copies:
            *flags, source, target = text.split()
            assert "--from=build" in flags
            kept = self.root / target.lstrip("/")
            kept.parent.mkdir(parents=True, exist_ok=True)
            (build / source.lstrip("/")).rename(kept)
        shutil.rmtree(build)


def link_installed(requirements: Path, prefix: Path) -> None:
    """Puts the distributions of a lock file into a virtual environment as links to those installed here.

    Every version must be the one installed here, and every one must have a hash.
    """
    for entry in re.split(r"\n(?=[\w-])", re.sub(r"^\s*#.*\n", "", requirements.read_text(), flags=re.M)):
        requirement = Requirement(entry.split("--hash")[0].replace("\\", " ").strip())
        assert "--hash=sha256:" in entry, f"{requirement.name} has no hash"
        if requirement.marker and not requirement.marker.evaluate():
            continue
        distribution = metadata.distribution(requirement.name)
        assert str(requirement.specifier) == f"=={distribution.version}", f"{requirement.name}: run make setup"
        _link(distribution, prefix)


def _link(distribution: metadata.Distribution, prefix: Path) -> None:
    site = next(prefix.glob("lib/python*/site-packages"))
    for file in distribution.files or []:
        if ".." in file.parts:
            continue  # scripts: nothing here calls them
        link = site / file
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(str(file.locate())).resolve())
