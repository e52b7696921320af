"""Every command and program of the documents is run as it stands there, but for folders and the length of trainings."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import labelled_series, lstm_series, write_csv
from tests.fleet.links import table, write
from tests.fleet_serving.folder import make_fleet
from tests.training import test_seed_s1

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "models/reference/v1"
BIN = Path(sys.executable).parent
DOCUMENTS = [
    path
    for pattern in ("*.md", "*/README.md", "docs/*.md")
    for path in sorted(ROOT.glob(pattern))
    if path.name != "CHANGELOG.md"
]
ADDRESS = "127.0.0.1:50051"
"""Where the documents say that a sidecar answers; here it takes a free port."""
RUN_ELSEWHERE = {" ".join(command.replace("\\", " ").split()) for command in test_seed_s1.COMMANDS}
"""The training commands that `test_seed_s1.py` runs."""
DATA_NAMES = ("normal.csv", "training_data.csv", "/path/to/normal_data.csv", "/path/to/timeseries_data.csv")


def blocks(language: str) -> list[tuple[str, str]]:
    """Fenced blocks of a language: document's path and text."""
    found = []
    for document in DOCUMENTS:
        for text in re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.S | re.M):
            found.append((str(document.relative_to(ROOT)), text))
    return found


COMMANDS = [(document, line) for document, text in blocks("sh") for line in text.splitlines() if line.strip()]


def test_the_documents_have_commands_and_programs() -> None:
    assert len(COMMANDS) >= 15
    assert {document for document, _ in blocks("python")} >= {"README.md", "sidecar/README.md", "docs/clients.md"}
    assert {document for document, _ in blocks("go")} >= {"README.md", "docs/clients.md"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the project's, with a model set and small data files under the names of the documents."""
    base = tmp_path_factory.mktemp("documents")
    (base / "training").mkdir()
    (base / "models").mkdir()
    shutil.copytree(REFERENCE, base / "models/reference/v1")
    shutil.copytree(REFERENCE, base / "models/releases/c388f885a2c4ae1d")
    (base / "models/current").symlink_to("releases/c388f885a2c4ae1d")
    for file in REFERENCE.iterdir():
        (base / "models" / file.name).symlink_to(Path("current") / file.name)
    for script in ("train_isolation_forest.py", "train_lstm_autoencoder.py", "requirements.txt"):
        (base / "training" / script).write_bytes((ROOT / "training" / script).read_bytes())
    for where in (base, base / "training"):
        for name in ("normal.csv", "training_data.csv"):
            write_csv(lstm_series(600), where / name)  # drift references need 512
        recorded = labelled_series(1000)
        write_csv(recorded, where / "recorded.csv")
        faults = [f"{time}Z,{time}Z\n" for time in recorded.timestamps[recorded.labels]]
        (where / "faults.csv").write_text("start,end\n" + "".join(faults))
    make_fleet(base / "models/fleet", 1)
    for number, name in enumerate(("ams-1", "ber-1", "new")):
        write(base / "links", name, table(lstm_series(20 if name == "new" else 600, seed=number)))
    (base / ".venv").mkdir()
    (base / ".venv/bin").symlink_to(BIN)
    return base


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Address of a sidecar that serves the reference set."""
    process = subprocess.Popen(
        [BIN / "dwcp-sidecar", "serve", "--models", REFERENCE, "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1]
    finally:
        process.terminate()
        process.wait(timeout=20)


def _command(document: str, line: str) -> Any:
    """A command to run; `make test-slow` runs those that take long, and all that go with them."""
    words = "dwcp (train|evaluate|explain|export|quantize|retrain|releases|keys|sign|package|federated|fleet) "
    if document == "README.md":
        words = "lstm-autoencoder| retrain | fleet "
    long = re.search(words, f" {line} ")
    return pytest.param(document, line, marks=(pytest.mark.slow,) if long else (), id=f"{document}: {line[:60]}")


@pytest.mark.parametrize(("document", "line"), [_command(*command) for command in COMMANDS])
def test_command(document: str, line: str, folder: Path, request: pytest.FixtureRequest) -> None:
    if line.startswith("make "):  # run by people and by CI; here: the target is there and its commands can be listed
        subprocess.run([*shlex.split(line), "--dry-run"], cwd=ROOT, check=True, capture_output=True)
        return
    if line.startswith("pip install -r "):  # already installed from the locked versions: nothing but ours must differ
        wanted = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "training/requirements.txt").read_text(), re.M))
        locked = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements/train.txt").read_text(), re.M))
        assert wanted
        assert all(locked[name] == version for name, version in wanted.items())
        return
    if line in RUN_ELSEWHERE:
        return
    for name in DATA_NAMES[2:]:
        line = line.replace(name, str(folder / "normal.csv"))
    if "train" in line and ("autoencoder" in line or "classifier" in line) and "train ensemble" not in line:
        line += " --epochs 1"
    serving = " serve " in f" {line} "
    if serving:
        line = line.replace(":50051", ":0")
    elif ADDRESS in line:
        line = line.replace(ADDRESS, request.getfixturevalue("address"))
    where = folder / "training" if document == "training/README.md" else folder
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    if serving:
        process = subprocess.Popen(shlex.split(line), cwd=where, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready ")
        finally:
            process.terminate()
        assert process.wait(timeout=20) == 0
        return
    done = subprocess.run(
        ["bash", "-ec", line], cwd=where, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_programs_of_the_readme_print_the_same_score(folder: Path, tmp_path: Path) -> None:
    (python,) = [text for document, text in blocks("python") if document == "README.md"]
    shutil.rmtree(tmp_path / "models", ignore_errors=True)
    shutil.copytree(REFERENCE, tmp_path / "models")
    printed = subprocess.run(
        [sys.executable, "-c", python], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.split()

    (go,) = [text for document, text in blocks("go") if document == "README.md"]
    answer = run_go(go.replace('"models"', f'"{REFERENCE}"')).split()
    assert answer[0] == printed[0]
    assert (answer[1] == "true") == (printed[1] == "True")
    assert answer[3] == printed[2] == "latency"


def run_go(text: str) -> str:
    """Runs a program inside the Go module and returns what it prints."""
    program = Path(tempfile.mkdtemp(prefix="document-", dir=ROOT / "go-contract/cmd"))
    try:
        (program / "main.go").write_text(text)
        return subprocess.run(
            [os.environ.get("GO", shutil.which("go") or str(BIN / "go")), "run", f"./cmd/{program.name}"],
            cwd=ROOT / "go-contract",
            env={**os.environ, "CGO_ENABLED": "0"},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=240,
        ).stdout
    finally:
        shutil.rmtree(program)


def run_python(text: str) -> str:
    """Runs a program and returns what it prints."""
    command = [sys.executable, "-c", text]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout


SCORE_OF_THE_README = [[105.2, 55.0, 0.01, 1.2, 45.3, 58.7, 0.001]]


def test_client_of_the_sidecar_readme(address: str) -> None:
    (text,) = [text for document, text in blocks("python") if document == "sidecar/README.md"]
    printed = run_python(text.replace(ADDRESS, address)).split()
    wanted = ModelSet.open(REFERENCE).model("isolation_forest").score(SCORE_OF_THE_README)
    assert float(printed[0]) == float(wanted.scores[0])


def test_programs_of_the_clients(address: str) -> None:
    """Their exit status is not enough: each must have scored what it says."""
    python = [run_python(text.replace(ADDRESS, address)) for _, text in in_clients("python")]
    # A busy machine must not fail the test: the deadlines are longer here.
    changes = {ADDRESS: address, '"models"': f'"{REFERENCE}"', "(time.Second)": "(time.Minute)"}
    go = [run_go(replaced(text, changes)) for _, text in in_clients("go")]
    forest = ModelSet.open(REFERENCE).model("isolation_forest")
    calls, refilled = python
    lines = calls.splitlines()
    assert float(lines[0].split()[0]) == float(forest.score(SCORE_OF_THE_README).scores[0])
    assert [line.split()[0] for line in lines[1:4]] == ["9", "10", "11"]
    assert lines[3].endswith("latency")
    assert lines[4] == "0"
    assert refilled.split() == ["40"]
    fallback, streams = go
    assert fallback.splitlines()[0].split()[1:] == ["WARNING", "packet_loss"]
    assert fallback.splitlines()[1] == "0 of 1 scored here"
    assert "link-2 20 lstm_autoencoder latency" in streams.splitlines()
    assert "link-1" not in streams


def replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def in_clients(language: str) -> list[tuple[str, str]]:
    return [(document, text) for document, text in blocks(language) if document == "docs/clients.md"]


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
