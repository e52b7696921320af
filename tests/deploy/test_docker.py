"""The Dockerfiles: linted, and their steps carried out in a folder until the entry point answers."""

import os
import re
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dwcp_sidecar.client import Client
from dwcp_sidecar.model_set import ModelSet
from tests.deploy.dockerfile import Image, context, parse
from tests.deploy.tools import DEPLOY, REFERENCE, ROOT, tool

FILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
SIDECARS = [path for path in FILES if path.stem.startswith("sidecar")]
WAIT = 60
ROW = [105.2, 55.0, 0.01, 1.2, 45.3, 58.7, 0.001]
HEAVY = ("tensorflow", "keras", "sklearn", "pandas", "onnx/", "setuptools", "pip/", "dwcp_training")
PT_INTERP = 3
"""Type of an ELF program header that names a dynamic linker."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_lint(path: Path) -> None:
    done = subprocess.run([tool("hadolint"), path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert done.stdout == ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_bases_are_pinned_and_plain(path: Path) -> None:
    for stage in parse(path):
        assert stage.base == "scratch" or re.fullmatch(r"[a-z-]+:[\w.-]+", stage.base), "a plain name with a version"
        assert not stage.base.endswith(":latest")


@pytest.mark.parametrize("path", SIDECARS, ids=lambda path: path.stem)
def test_last_stage_is_not_root(path: Path) -> None:
    _, last = parse(path)
    user, group = map(int, last.last("USER").split(":"))
    assert user > 0
    assert group > 0
    assert last.last("STOPSIGNAL") == "SIGTERM"
    assert {name for name, _ in last.steps} & {"RUN", "ADD"} == set(), "what runs belongs in the build stage"


def test_the_build_sees_what_it_needs_and_nothing_else() -> None:
    seen = {str(path) for path in context()}
    assert {"requirements/serve.txt", "go-contract/go.sum", "models/reference/v1/manifest.json"} <= seen
    for path in seen:
        assert not re.search(r"(^|/)(\.git|\.venv|build|tests|training|__pycache__)/|\.(pkl|h5|keras|pyc)$", path), path


def test_what_builds_the_wheel_is_what_builds_it_elsewhere() -> None:
    lines = (DEPLOY / "docker/build.txt").read_text().splitlines()[1:]
    assert lines
    assert "\n".join(lines) in (ROOT / "requirements/dev.txt").read_text()


@pytest.fixture(scope="module", params=SIDECARS, ids=lambda path: path.stem)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image, built once, with the reference set in the place of the mounted one."""
    root = tmp_path_factory.mktemp("i") / "r"  # short: a unix socket's path has 107 bytes
    root.mkdir()
    built = Image(request.param, root)
    (root / "models").symlink_to(REFERENCE)
    return built


@pytest.fixture
def served(image: Image) -> Iterator[subprocess.Popen[str]]:
    """The entry point, answering."""
    process = subprocess.Popen(
        image.command("ENTRYPOINT"), env=image.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith("ready unix:"), line + process.stderr.read()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=WAIT)


def files(root: Path) -> set[Path]:
    return {Path(parent) / name for parent, _, names in os.walk(root) for name in names}


def test_the_entry_point_scores_and_writes_nothing(image: Image, served: subprocess.Popen[str]) -> None:
    before = files(image.root)
    socket = image.root / "run/dwcp/score.sock"
    with Client(f"unix:{socket}", timeout=WAIT) as client:
        answer = client.score("isolation_forest", [ROW])
    expected = ModelSet.open(REFERENCE).model("isolation_forest").score([ROW])
    assert answer.verdict.score == expected.scores[0]
    # Else it could not run on a read-only file system.
    assert files(image.root) == before
    served.send_signal(signal.SIGTERM)
    assert served.wait(WAIT) == 0
    assert before - files(image.root) == {socket}


def test_the_health_check_tells_life_from_death(image: Image, served: subprocess.Popen[str]) -> None:
    def check() -> int:
        command = image.command("HEALTHCHECK")
        return subprocess.run(command, env=image.environment, capture_output=True, timeout=WAIT).returncode

    assert check() == 0
    served.send_signal(signal.SIGTERM)
    served.wait(WAIT)
    assert check() == 1  # Docker knows no other failure


def test_the_image_holds_what_serving_needs_alone(image: Image) -> None:
    held = {str(path.relative_to(image.root)) for path in files(image.root)} - {"models", "run/dwcp/score.sock"}
    if "scratch" in image.last.base:
        assert held == {"usr/local/bin/dwcp-sidecar-go"}
        assert not needs_a_linker(image.root / "usr/local/bin/dwcp-sidecar-go")
        return
    packages = {path.partition("site-packages/")[2] for path in held}
    assert not [path for path in packages if path.startswith(HEAVY)]
    assert "dwcp_sidecar/cli.py" in packages


def needs_a_linker(program: Path) -> bool:
    """Whether a 64-bit ELF file names a dynamic linker: then it would not start on `scratch`."""
    data = program.read_bytes()
    start, size, count = struct.unpack_from("<Q", data, 32)[0], *struct.unpack_from("<HH", data, 54)
    return PT_INTERP in {struct.unpack_from("<I", data, start + number * size)[0] for number in range(count)}


def test_a_set_can_be_copied_in(tmp_path: Path) -> None:
    (stage,) = parse(DEPLOY / "docker/with-models.Dockerfile")
    assert stage.base == "dwcp-sidecar-go:0.1.0"
    source, target = stage.last("COPY").split()
    assert target == "/models/"
    for file in context():
        if str(file).startswith(source):
            (tmp_path / file.name).write_bytes((ROOT / file).read_bytes())
    assert ModelSet.open(tmp_path).models.keys() == {"isolation_forest", "lstm_autoencoder"}
