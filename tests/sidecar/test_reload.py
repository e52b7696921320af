"""Hot reload (rules R1 to R6): another set takes the place of the live one, a bad one does not, and no call notices."""

import json
import shutil
import signal
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet, verify
from dwcp_sidecar.server import reload, status
from dwcp_sidecar.server.app import App
from dwcp_sidecar.server.live import Live
from dwcp_sidecar.server.metrics import NoMetrics
from dwcp_sidecar.server.reload import Outcome, Reloader, TryAgainError, signature
from dwcp_sidecar.server.settings import Settings
from tests.sidecar.clients import LSTM, ROW, WAIT, Caller, Load, one, resident
from tests.sidecar.conftest import REFERENCE, SetCopy
from tests.sidecar.releases import Releases

pytestmark = pytest.mark.timeout(240)


def releases(path, sets, *names):
    return Releases(path, **{name: sets[name].path for name in names})


@pytest.mark.parametrize("swaps", [40, pytest.param(100, marks=pytest.mark.slow)])
def test_many_swaps_under_load(serve, sets, tmp_path, swaps):
    """No call fails, none mixes sets, memory stays."""
    folder = releases(tmp_path / "models", sets, "forest_a", "forest_b")
    both = [sets["forest_a"], sets["forest_b"]]
    memory = []
    with (
        serve("--listen", "127.0.0.1:0", "--watch", "0", models=folder.path) as server,
        Load(server.address, both) as load,
        Caller(server.address) as caller,
    ):
        for swap in range(1, swaps + 1):
            next_one = ("forest_a", "forest_b")[swap % 2]
            folder.switch(next_one)
            answer = caller.reload()
            assert (answer.model_set_id, answer.changed) == (sets[next_one].id, True)
            memory.append(resident(server.process.pid))
        assert caller.id() == sets["forest_a"].id
    assert load.faults == []
    assert load.seen == {models.id for models in both}
    assert load.answers > 10 * swaps, "that was no load"
    early, late = np.median(memory[10:20]), np.median(memory[-10:])
    assert late <= 1.1 * early, f"{early} kB grew to {late} kB"


def test_a_switched_link_is_found(serve, sets, tmp_path):
    """Also what health says of each model follows."""
    folder = releases(tmp_path / "models", sets, "a", "forest_b")
    with serve("--listen", "127.0.0.1:0", "--watch", "0.1", models=folder.path) as server, Caller(server.address) as c:
        assert c.health("lstm_autoencoder") == "SERVING"
        pinned = one()
        pinned.model_set_id = sets["a"].id
        assert c.scoring.Score(pinned, timeout=WAIT).model_set_id == sets["a"].id
        folder.switch("forest_b")
        c.until(sets["forest_b"].id)
        assert c.health("lstm_autoencoder") == "NOT_SERVING"
        assert c.health("isolation_forest") == "SERVING"
        with pytest.raises(grpc.RpcError) as caught:
            c.scoring.Score(pinned, timeout=WAIT)
        assert status.from_grpc(caught.value).code == "MODEL_SET_MISMATCH"
        folder.switch("a")
        c.until(sets["a"].id)
        assert c.health("lstm_autoencoder") == "SERVING"
        assert c.scoring.Score(one(LSTM), timeout=WAIT).verdict.score > 0
        assert server.stop() == 0
        said = server.process.stderr.read()
    assert said.count("is in use now") == 2


def test_a_set_that_is_written_in_place_is_found(serve, sets, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(sets["a"].path, folder)
    with serve("--listen", "127.0.0.1:0", "--watch", "0.1", models=folder) as server, Caller(server.address) as caller:
        shutil.copytree(sets["b"].path, folder, dirs_exist_ok=True)
        caller.until(sets["b"].id)
        assert caller.scoring.Score(one(LSTM), timeout=WAIT).model_set_id == sets["b"].id


def test_sighup_is_a_reload(serve, sets, tmp_path):
    folder = releases(tmp_path / "models", sets, "forest_a", "forest_b")
    with serve("--listen", "127.0.0.1:0", "--watch", "0", models=folder.path) as server, Caller(server.address) as c:
        folder.switch("forest_b")
        time.sleep(0.3)
        assert c.id() == sets["forest_a"].id, "without watching nothing happens by itself"
        server.process.send_signal(signal.SIGHUP)
        c.until(sets["forest_b"].id)
        assert server.stop() == 0


def no_folder(folder):
    folder.rename(folder.with_name("away"))


def half_written(folder):
    (folder / "lstm_autoencoder.onnx").unlink()


def truncated(folder):
    graph = folder / "isolation_forest.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])


def manifest_half_written(folder):
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])


def links_in_a_circle(folder):
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").symlink_to("manifest.json")


def unreadable(folder):
    """A read that fails for a reason of the system's own: here, that it is a folder."""
    (folder / "lstm_metadata.json").unlink()
    (folder / "lstm_metadata.json").mkdir()


def other_scores(folder):
    golden = folder / "isolation_forest.golden.json"
    data = json.loads(golden.read_bytes())
    case = next(case for case in data["cases"] if "score" in case)
    case["score"]["score_bits"] ^= 1
    golden.write_text(json.dumps(data))
    copy = SetCopy.__new__(SetCopy)
    copy.path = folder
    copy.redigest()


@pytest.mark.parametrize(
    ("damage", "code", "field"),
    [
        pytest.param(no_folder, "MANIFEST_MISSING", "manifest.json", marks=pytest.mark.slow),
        pytest.param(half_written, "FILE_MISSING", "lstm_autoencoder.onnx", marks=pytest.mark.slow),
        (truncated, "DIGEST_MISMATCH", "isolation_forest.onnx"),
        (manifest_half_written, "METADATA_INVALID", "manifest.json"),
        pytest.param(links_in_a_circle, "MANIFEST_MISSING", "manifest.json", marks=pytest.mark.slow),
        (unreadable, "FILE_MISSING", "lstm_metadata.json"),
        (other_scores, "GOLDEN_MISMATCH", "isolation_forest.golden.json"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_folder(serve, sets, tmp_path, damage, code, field):
    """The live set stays, Reload says what is wrong, the watch tries once, and what was repaired is used."""
    folder = tmp_path / "models"
    shutil.copytree(sets["forest_a"].path, folder)
    with serve("--listen", "127.0.0.1:0", "--watch", "0.1", models=folder) as server, Caller(server.address) as caller:
        damage(folder)
        time.sleep(1)  # several looks
        wanted = sets["forest_a"].model("isolation_forest").score([ROW]).scores[0]
        assert caller.scoring.Score(one(), timeout=WAIT).verdict.score == wanted
        assert caller.refusal() == (code, field)
        assert caller.id() == sets["forest_a"].id
        assert caller.health("isolation_forest") == "SERVING"
        repaired = tmp_path / "repaired"
        shutil.copytree(sets["forest_b"].path, repaired)
        shutil.rmtree(folder, ignore_errors=True)
        repaired.rename(folder)  # a copy that a busy machine makes slowly would be refused while it grows
        caller.until(sets["forest_b"].id)
        assert server.stop() == 0
        said = server.process.stderr.read()
    # By itself once; for Reload once more.
    assert said.count("is refused, the one in use stays") in (1, 2), said
    assert code in said
    assert "Traceback" not in said


def test_a_damaged_folder_that_is_repaired_is_the_live_set_again(serve, sets, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(sets["forest_a"].path, folder)
    graph = folder / "isolation_forest.onnx"
    whole = graph.read_bytes()
    with serve("--listen", "127.0.0.1:0", "--watch", "0", models=folder) as server, Caller(server.address) as caller:
        graph.write_bytes(whole[:1000])
        assert caller.refusal() == ("DIGEST_MISMATCH", "isolation_forest.onnx")
        graph.write_bytes(whole)
        answer = caller.reload()
        assert (answer.model_set_id, answer.changed) == (sets["forest_a"].id, False)


def test_strangers_may_not_reload(sets):
    """R6: on an address that others reach, without mutual TLS. (Bound to loopback all the same: tests stay inside.)"""

    class Reached(Settings):
        only_trusted_peers = False

    live = Live(sets["forest_a"])
    app = App(live, Reached(models=Path("unused"), listen="127.0.0.1:0"), NoMetrics(), lambda: pytest.fail("it ran"))
    app.start()
    try:
        with Caller(app.addresses[0]) as caller, pytest.raises(grpc.RpcError) as caught:
            caller.reload()
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    finally:
        assert app.stop(0).wait(WAIT)


@pytest.mark.parametrize(
    ("listen", "unix", "trusted"),
    [
        ("127.0.0.1:0", None, True),
        ("[::1]:0", None, True),
        ("0.0.0.0:0", None, False),
        ("192.0.2.1:0", None, False),
        ("192.0.2.1:0", Path("x"), False),
        (None, Path("x"), True),
    ],
)
def test_who_is_trusted(listen, unix, trusted):
    assert Settings(models=Path("unused"), listen=listen, unix=unix).only_trusted_peers is trusted


class Recorder:
    """A change that is carried out by counting."""

    def __init__(self):
        self.count = 0
        self.error = None
        self.allowed = threading.Event()
        self.allowed.set()
        self.began = threading.Event()

    def __call__(self):
        self.count += 1
        self.began.set()
        assert self.allowed.wait(WAIT)
        if self.error is not None:
            raise self.error
        return Outcome(f"set {self.count}", True)


class Counts(NoMetrics):
    """Metrics that are remembered."""

    def __init__(self):
        self.seen = []

    def reload(self, result):
        self.seen.append(result)

    def set_refused(self, code):
        self.seen.append(code)


@pytest.fixture
def looks(monkeypatch):
    """What looks at the folder see: the last one again and again."""
    seen = [("live",)]
    monkeypatch.setattr(reload, "signature", lambda _: seen.pop(0) if len(seen) > 1 else seen[0])
    return seen


@pytest.fixture
def reloader(looks):
    made = []

    def make(change, seconds, metrics=None):
        made.append(Reloader(Path("unused"), seconds, change, metrics or NoMetrics(), ("live",)))
        made[0].start()
        return made[0]

    yield make
    for each in made:
        each.stop()


def until(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "that did not come about"
        time.sleep(0.005)


def test_a_folder_that_changes_between_looks_is_left_alone(looks, reloader):
    looks[:] = [("copied", i) for i in range(20)] + [("done",)]
    change = Recorder()
    reloader(change, 0.01)
    until(lambda: len(looks) <= 1)
    assert change.count <= 1
    until(lambda: change.count == 1)
    time.sleep(0.2)
    assert change.count == 1, "what was tried is not tried again"


def test_a_refused_folder_is_tried_again_when_it_changes(looks, reloader):
    metrics, change = Counts(), Recorder()
    change.error = ContractError("DIGEST_MISMATCH", "x.onnx", "damaged")
    looks[:] = [("bad",)]
    made = reloader(change, 0.01, metrics)
    until(lambda: change.count == 1)
    time.sleep(0.2)
    assert (change.count, metrics.seen) == (1, ["refused", "DIGEST_MISMATCH"])
    with pytest.raises(ContractError):
        made.reload()  # whoever asks gets another try, and the reason
    assert change.count == 2
    change.error = None
    looks[:] = [("live",)]  # back to what is in use: a change from what was refused
    until(lambda: change.count == 3)
    time.sleep(0.1)
    assert metrics.seen[-1] == "swapped"


def test_what_says_nothing_about_the_set_is_tried_again(looks, reloader):
    metrics, change = Counts(), Recorder()
    change.error = TryAgainError("a worker does not answer")
    looks[:] = [("new",)]
    reloader(change, 0.01, metrics)
    until(lambda: change.count >= 3)
    change.error = None
    until(lambda: metrics.seen)
    assert metrics.seen == ["swapped"]


def test_calls_that_wait_share_one_reload(looks, reloader):
    change = Recorder()
    change.allowed.clear()
    made = reloader(change, 0)
    first = made.request()
    assert change.began.wait(WAIT)
    later = [made.request() for _ in range(20)]  # came after the first one had looked
    change.allowed.set()
    assert first.result(WAIT).id == "set 1"
    assert {future.result(WAIT).id for future in later} == {"set 2"}
    assert change.count == 2


def test_requests_of_a_stopping_server_are_cancelled(looks, reloader):
    made = reloader(Recorder(), 0)
    made.stop()
    assert made.request().cancelled()


def test_signature_sees_what_matters(set_copy):
    folder = set_copy.path
    seen = {signature(folder)}

    def changed():
        before = len(seen)
        seen.add(signature(folder))
        return len(seen) == before + 1

    assert not changed()
    truncated(folder)
    assert changed()
    (folder / "isolation_forest.onnx").chmod(0o600)
    assert changed()
    (folder / "lstm_metadata.json").unlink()
    assert changed()
    (folder / "extra.txt").write_text("")
    assert changed()
    shutil.rmtree(folder)
    assert changed()
    folder.symlink_to(REFERENCE)
    assert changed()


def test_verify_finds_what_open_would(set_copy):
    assert verify(set_copy.path) == ModelSet.open(REFERENCE).id
    truncated(set_copy.path)
    with pytest.raises(ContractError, match="DIGEST_MISMATCH"):
        verify(set_copy.path)
