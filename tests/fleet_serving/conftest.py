"""One fleet with sound and unsound sets, and servers of it in both languages."""

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import go_program
from tests.fleet_serving.folder import FOREST_AND_DENSE, add_set, id_of, numbered, schema_of, write_index
from tests.sidecar.conftest import COMMAND, Served, serving

KINDS = ("python", "go")
SOUND = ("link-a", "link-b", "link-c", "Vinh-Ha Noi ä")
REFUSED = {
    "bad-corrupt": "DIGEST_MISMATCH",
    "bad-id": "DIGEST_MISMATCH",
    "bad-missing": "MANIFEST_MISSING",
    "bad-schema": "METADATA_INVALID",
}
"""Series to why their set is refused."""

Serve = Callable[..., AbstractContextManager[Served]]


def make(folder: Path) -> dict[str, str]:
    """The fleet; gives the id of each series."""
    ids = {name: add_set(folder, FOREST_AND_DENSE, numbered(number)) for number, name in enumerate(SOUND)}
    other = add_set(folder, FOREST_AND_DENSE, numbered(10))
    ids["bad-corrupt"] = other
    with (folder / "sets" / other[:16] / "isolation_forest.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff\x00\xff")
    ids["bad-id"] = "0123456789abcdef" * 4
    shutil.copytree(folder / "sets" / ids["link-a"][:16], folder / "sets/0123456789abcdef")
    ids["bad-missing"] = "fedcba9876543210" * 4
    ids["bad-schema"] = add_set(folder, FOREST_AND_DENSE, other_unit)
    write_index(folder, ids, schema_of(FOREST_AND_DENSE))
    return ids


def other_unit(metadata: dict[str, Any]) -> None:
    """Another unit of one feature."""
    metadata["feature_schema"]["features"][1]["unit"] = "s"


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("fleet")
    ids = make(folder)
    assert id_of(folder / "sets" / ids["link-a"][:16]) == ids["link-a"]
    return folder, ids


@pytest.fixture(scope="session")
def command() -> Callable[[str], list[Path | str]]:
    """What starts a server of a kind."""
    return lambda kind: [COMMAND, "serve"] if kind == "python" else [go_program.sidecar()]


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def served(kind, command, fleet, tmp_path_factory) -> Iterator[Served]:
    """A server of the fleet that has fewer places than the fleet has sets."""
    sock, port = tmp_path_factory.mktemp("socket") / "s", free_port()
    with serving(
        "--unix", sock, "--max-sets", "2", "--metrics", f"127.0.0.1:{port}", models=fleet[0], command=command(kind)
    ) as server:
        server.metrics_port = port  # type: ignore[attr-defined]
        yield server


def free_port() -> int:
    """A port that nobody uses at this moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def index_of(folder: Path) -> dict[str, Any]:
    """What `fleet.json` says."""
    return dict(json.loads((folder / "fleet.json").read_bytes()))
