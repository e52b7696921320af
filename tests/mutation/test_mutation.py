"""Every mutation is refused by every implementation, with a code and a file, and by no accident."""

import contextlib
import errno
import functools
import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dwcp.anomaly.v1 import golden_pb2, model_pb2
from dwcp_sidecar import protojson
from dwcp_sidecar.ensemble import Ensemble
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model import Explain, Model
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from tests.conformance.cases import DETECTORS, ENSEMBLE
from tests.conformance.compare import compare, published
from tests.conformance.go_program import GO_FOLDER, ROOT, contract_score
from tests.conformance.golden_files import cases_of, read_golden, wanted_of
from tests.conformance.reference import REFERENCES, Reference, Wanted
from tests.conformance.server import COMMAND
from tests.conformance.sets import HOME, SETS, detectors_of
from tests.mutation.mutation import Mutation
from tests.mutation.mutations import MUTATIONS
from tests.mutation.set_copy import METADATA, SetCopy

WAIT = 60
SCORING = [mutation for mutation in MUTATIONS if mutation.scores]
ANSWERING = [mutation for mutation in MUTATIONS if mutation.answers]


def names(mutation: Mutation) -> str:
    return mutation.name


@pytest.fixture(scope="session")
def mutated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mutation], SetCopy]:
    """Damaged copies of the frozen sets, made once for all implementations."""
    made: dict[str, SetCopy] = {}

    def make(mutation: Mutation) -> SetCopy:
        if mutation.name not in made:
            copy = SetCopy(HOME[mutation.detector], tmp_path_factory.mktemp("mutated") / "set")
            mutation.apply(copy)
            made[mutation.name] = copy
        return made[mutation.name]

    return make


def python_core(models: Path) -> str:
    """The refusal of the scoring core, as it is written for people."""
    try:
        ModelSet.open(models)
    except ContractError as refusal:
        return str(refusal)
    raise AssertionError("the set was opened")


def _program(*command: str | Path, folder: Path | None = None) -> str:
    done = _ran(command, folder)
    return _checked(done.returncode, done.stdout, done.stderr)


def _ran(command: Sequence[str | Path], folder: Path | None) -> subprocess.CompletedProcess[str]:
    for again in (True, True, False):
        try:
            return subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=WAIT, stdin=subprocess.DEVNULL
            )
        except OSError as error:
            # Seen twice in many thousand starts, on a busy machine: the system could not load the program. That is no
            # answer of the program, so it is asked again.
            if error.errno != errno.EFAULT or not again:
                raise
            time.sleep(0.5)
    raise AssertionError("not reached")


def _checked(status: int, stdout: str, stderr: str) -> str:
    """What a program says that refuses as it should: status 1, no answer, no trace of a crash."""
    assert status == 1, f"exit status {status}: {stdout}{stderr}"
    assert stdout == ""
    for trace in ("Traceback", "goroutine", "panic"):
        assert trace not in stderr
    return stderr


class Server:
    """`dwcp-sidecar serve`, started on one folder after the other by `serve_each.py`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutation.serve_each"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, models: Path) -> str:
        with self._lock:
            self._process.stdin.write(f"{models}\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], WAIT)[0]:
                self.close()
                raise AssertionError(f"dwcp-sidecar serve did not refuse {models}")
            said = json.loads(self._process.stdout.readline())
        return _checked(said["status"], said["stdout"], said["stderr"])

    def close(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=WAIT)


def go_native(models: Path) -> str:
    """What the Go executor says before it ends."""
    return _program(contract_score("native"), "--models", models, "--backend", "native", folder=GO_FOLDER)


def go_onnxruntime(models: Path) -> str:
    """Likewise with ONNX Runtime."""
    return _program(contract_score("onnxruntime"), "--models", models, "--backend", "onnxruntime", folder=GO_FOLDER)


OPENERS = ("python-core", "sidecar", "go-native", "go-onnxruntime")


@pytest.fixture(scope="session")
def refusals(request: pytest.FixtureRequest, mutated) -> Iterator[dict[tuple[str, str], Future[str]]]:
    """What each implementation says to each mutation of the tests that are to run, two at a time."""
    wanted = [item.callspec.params for item in request.session.items if item.name.startswith("test_refused[")]
    for backend in ("native", "onnxruntime"):
        contract_score(backend)  # built once, before anybody waits for it
    server = Server()
    openers = dict(zip(OPENERS, (python_core, server, go_native, go_onnxruntime), strict=True))
    with contextlib.closing(server), ThreadPoolExecutor(2) as pool:

        def say(mutation: Mutation, opener: str) -> str:
            return openers[opener](mutated(mutation).path)

        for params in wanted:  # damaged here, one after the other: the two workers only read
            mutated(params["mutation"])
        yield {(p["mutation"].name, p["opener"]): pool.submit(say, p["mutation"], p["opener"]) for p in wanted}


def _asked() -> Iterator[Any]:
    """Every mutation and opener. `make test` asks Python and Go of one in six, not the same ones, and those that
    open sets by the code of another of one in sixteen; `make test-slow` asks the rest."""
    every = {"go-native": 6, "python-core": 6}
    first = {"go-native": 1}
    for opener in OPENERS:
        for number, mutation in enumerate(MUTATIONS):
            marks = () if number % every.get(opener, 16) == first.get(opener, 0) else (pytest.mark.slow,)
            yield pytest.param(mutation, opener, marks=marks, id=f"{mutation.name}-{opener}")


@pytest.mark.timeout(900)  # the first one waits for all copies
@pytest.mark.parametrize(("mutation", "opener"), _asked())
def test_refused(mutation: Mutation, opener: str, refusals):
    said = refusals[mutation.name, opener].result()
    assert any(code in said and file in said for code, file in mutation.refusals), f"{said}\nwanted {mutation.refusals}"


@pytest.mark.parametrize("code", sorted({code for mutation in MUTATIONS for code, _ in mutation.refusals[:1]}))
def test_the_server_process_ends(code: str, mutated):
    """The real command, once for each code: one line that names code and file, exit status 1."""
    mutation = next(m for m in MUTATIONS if m.refusals[0][0] == code)
    said = _program(COMMAND, "serve", "--models", mutated(mutation).path, "--listen", "127.0.0.1:0")
    assert code in said
    assert mutation.refusals[0][1] in said
    assert len(said.splitlines()) == 1


@functools.cache
def golden(detector: str) -> golden_pb2.GoldenFile:
    """The golden vectors of the frozen set, read once."""
    return read_golden(HOME[detector] / f"{detector}.golden.json")


@pytest.fixture(scope="session")
def references() -> dict[str, Reference]:
    return {detector: REFERENCES[detector](HOME[detector]) for detector in DETECTORS}


@pytest.fixture(scope="session")
def confirmed(references: dict[str, Reference]) -> dict[str, Wanted]:
    """What the references answer to the golden vectors."""
    return {detector: references[detector].answer(cases_of(golden(detector), "own")) for detector in DETECTORS}


def unaudited(models: Path, detector: str) -> Scorer:
    """The model of a detector, whatever is wrong with it."""
    metadata = protojson.parse((models / METADATA[detector]).read_bytes(), model_pb2.ModelMetadata(), "metadata")
    if detector != ENSEMBLE:
        return Model(metadata, (models / f"{detector}.onnx").read_bytes())
    members = [name for name in detectors_of(models) if name != ENSEMBLE]
    return Ensemble(metadata, {name: unaudited(models, name) for name in members})


@pytest.mark.parametrize("mutation", SCORING, ids=names)
def test_mutated_graph_disagrees_with_the_reference(mutation: Mutation, mutated, confirmed):
    """Without audits and stored answers: the graph, or the ensemble, alone, run on the inputs of the golden vectors."""
    detector = mutation.detector
    model = unaudited(mutated(mutation).path, detector)
    cases = golden(detector).cases
    wanted = confirmed[detector].evaluation
    rows = confirmed[detector].scored
    verdicts = (model.score([list(s.values) for s in cases[i].samples], Explain.ALWAYS) for i in rows)
    differs = any(
        got.scores[0] != wanted.scores[k].astype("f4")
        or bool(got.is_anomaly[0]) != bool(wanted.is_anomaly[k])
        or not (got.contributions[0] == wanted.contributions[k].astype("f4")).all()
        or not (got.expected[0] == wanted.expected[k].astype("f4")).all()
        or (wanted.depth_sums is not None and got.depth_sums[0] != wanted.depth_sums[k])
        for k, got in enumerate(verdicts)
    )  # one that differs is enough: the others are not scored
    assert differs, "this mutation changes nothing that a golden vector sees: choose another"


@pytest.mark.parametrize("mutation", ANSWERING, ids=names)
def test_mutated_answers_disagree_with_the_reference(mutation: Mutation, mutated, references, confirmed):
    detector = mutation.detector
    file = read_golden(mutated(mutation).path / f"{detector}.golden.json")
    reference, cases = references[detector], cases_of(file, "own")
    assert [c.line for c in cases] == [c.line for c in cases_of(golden(detector), "own")]  # what `confirmed` answers
    tally = compare(cases, reference, wanted_of(file), published(confirmed[detector], len(reference.names)))
    assert not tally.passed


@pytest.mark.parametrize("models", SETS, ids=lambda path: path.name)
def test_the_unmutated_copy_is_accepted(models: Path, tmp_path: Path):
    """Copying and writing digests anew refuses nothing by itself."""
    copy = SetCopy(models, tmp_path / "set")
    copy.edit_json(METADATA[detectors_of(models)[0]], lambda data: data["training"].update(data_source="another"))
    ModelSet.open(copy.path)
    for backend in ("native", "onnxruntime"):
        command = [contract_score(backend), "--models", copy.path, "--backend", backend]
        assert subprocess.run(command, cwd=GO_FOLDER, stdin=subprocess.DEVNULL, timeout=WAIT).returncode == 0
