"""Several workers on one address: they start, die, reload and stop as one server (rules R4, L7)."""

import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import Future
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dwcp.anomaly.v1 import scoring_pb2
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.server import supervisor as supervisors
from dwcp_sidecar.server import tcp
from dwcp_sidecar.server.control import Channel, ChannelClosedError, RemoteError
from dwcp_sidecar.server.metrics import NoMetrics
from dwcp_sidecar.server.reload import TryAgainError
from dwcp_sidecar.server.settings import Settings, StartError
from dwcp_sidecar.server.signals import Signals
from dwcp_sidecar.server.supervisor import Supervisor
from tests.sidecar.clients import ROW, WAIT, Caller, at_work, one, resident
from tests.sidecar.conftest import COMMAND
from tests.sidecar.releases import Releases

pytestmark = pytest.mark.timeout(240)
MAX_RSS_KB = 110 * 1024


def workers(server):
    """Process ids of the workers."""
    pid = server.process.pid
    for _ in range(100):
        found = []
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                found += Path(f"/proc/{pid}/task/{task}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):  # a thread ended, and its children have another parent now
            continue
        return sorted(map(int, found))
    raise AssertionError("its threads end faster than they can be listed")


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def until(condition, what, seconds=WAIT):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def ids(server):
    """The set that each worker says it uses, asked on its own unix socket."""
    found = []
    for address in server.addresses:
        if address.startswith("unix:"):
            with Caller(address) as caller:
                found.append(caller.id())
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def metric(address, name):
    """Value of a metric without labels."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=WAIT) as page:
        rows = page.read().decode().splitlines()
    return next((float(row.split()[1]) for row in rows if row.startswith(f"{name} ")), None)


@pytest.fixture
def unix(tmp_path):
    return tmp_path / "score.sock"


@pytest.fixture
def two(unix):
    """Flags of two workers with all addresses."""
    return ("--workers", "2", "--listen", "127.0.0.1:0", "--unix", unix)


def test_all_addresses_answer(serve, two, unix, reference):
    with serve(*two) as server:
        tcp_address, *others = server.addresses
        assert others == [f"unix:{unix}", f"unix:{unix}.1"]
        assert not tcp_address.endswith(":0")
        wanted = reference.model("isolation_forest").score([ROW]).scores[0]
        for address in server.addresses:
            with Caller(address) as caller:
                answer = caller.scoring.Score(one(), timeout=WAIT)
            assert (answer.verdict.score, answer.model_set_id) == (wanted, reference.id)
        assert len(workers(server)) == 2
        assert server.stop() == 0
        assert server.process.stderr.read() == ""
    assert not unix.exists()
    assert not unix.with_name("score.sock.1").exists()


def test_processes_are_small(serve, two):
    with serve(*two) as server:
        for address in server.addresses[1:]:
            with Caller(address) as caller:
                for detector in (1, 2) * 50:
                    caller.scoring.Score(one(detector), timeout=WAIT)
        for pid in workers(server):
            assert resident(pid) <= MAX_RSS_KB
        mapped = Path(f"/proc/{server.process.pid}/maps").read_text()
        for heavy in ("onnxruntime", "cygrpc", "numpy"):
            assert heavy not in mapped, f"the supervisor loads {heavy}"
            assert heavy in Path(f"/proc/{workers(server)[0]}/maps").read_text(), "the names must be right"
        assert resident(server.process.pid) <= 40 * 1024


def test_connections_are_spread(serve):
    """Each worker takes one stream and no more: of 40 on the port they share, two are open in the end."""
    hold = threading.Event()

    def requests():
        yield scoring_pb2.ScoreStreamRequest(settings=scoring_pb2.StreamSettings(detectors=[1]))
        hold.wait(WAIT)

    with serve("--workers", "2", "--listen", "127.0.0.1:0", "--max-streams", "1") as server:
        callers = [Caller(server.address) for _ in range(40)]
        streams = [caller.scoring.ScoreStream(requests(), timeout=WAIT) for caller in callers]
        ends = []
        for stream in streams:
            try:
                next(stream)
                ends.append("open")
            except grpc.RpcError as error:
                ends.append(error.code().name)
        hold.set()
        for caller in callers:
            caller.channel.close()
    assert sorted(ends) == ["RESOURCE_EXHAUSTED"] * 38 + ["open"] * 2


def test_a_killed_worker_is_replaced(serve, two, reference):
    """Under load: clients that try again on UNAVAILABLE get every answer, and each is right."""
    page = f"127.0.0.1:{free_port()}"
    wanted = reference.model("isolation_forest").score([ROW]).scores[0]
    stop, faults, answers = threading.Event(), [], [0] * 4

    def client(number, address):
        while not stop.is_set():
            with Caller(address) as caller:  # a connection each time, so that both workers get calls
                try:
                    for _ in range(20):
                        score = caller.scoring.Score(one(), timeout=WAIT).verdict.score
                        if score != wanted:
                            faults.append(f"score {score}")
                        answers[number] += 1
                except grpc.RpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        faults.append(repr(error))

    with serve(*two, "--metrics", page) as server:
        assert metric(page, "dwcp_workers") == 2
        assert metric(page, "dwcp_worker_restarts_total") == 0
        threads = [threading.Thread(target=client, args=(i, server.address)) for i in range(4)]
        for thread in threads:
            thread.start()
        try:
            for kills in (1, 2):
                before = workers(server)
                os.kill(before[kills % 2], signal.SIGKILL)
                until(lambda kills=kills: metric(page, "dwcp_worker_restarts_total") == kills, "it is not replaced")
                until(lambda: metric(page, "dwcp_workers") == 2, "the new worker does not answer")
                assert len(set(workers(server)) - set(before)) == 1
                counted = list(answers)
                until(lambda c=counted: all(b > a for a, b in zip(c, answers, strict=True)), "a client hangs")
        finally:
            stop.set()
            for thread in threads:
                thread.join(WAIT)
        assert faults == []
        assert set(ids(server)) == {reference.id}
        assert metric(page, "dwcp_requests_total") is None  # has labels
        assert server.stop() == 0
        said = server.process.stderr.read()
    assert said.count("ended by SIGKILL") == 2
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_worker_that_is_told_to_end_is_replaced(serve, two):
    with serve(*two) as server:
        before = workers(server)
        os.kill(before[0], signal.SIGTERM)
        until(lambda: gone(before[0]) and len(workers(server)) == 2, "no new worker")
        until(lambda: len(ids_or_none(server)) == 2, "the new worker does not answer")
        assert server.stop() == 0


def ids_or_none(server):
    try:
        return ids(server)
    except grpc.RpcError:
        return []


@pytest.mark.slow
def test_workers_that_die_again_and_again(serve, two, unix):
    """The supervisor does not try for ever."""
    with serve(*two) as server:
        killed = set()
        end = time.monotonic() + 2 * WAIT
        while server.process.poll() is None and time.monotonic() < end:
            try:
                for pid in set(workers(server)) - killed:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                pass
            time.sleep(0.01)
        assert server.process.wait(WAIT) == 1
        said = server.process.stderr.read()
    assert 6 <= len(killed) <= 2 * supervisors.MAX_YOUNG
    last = said.splitlines()[-1]
    assert last.startswith("dwcp-sidecar: error: worker ")
    assert "6 times in a row" in last
    assert "Traceback" not in said


def test_no_worker_outlives_its_supervisor(serve, two, unix):
    port = free_port()
    flags = ("--workers", "2", "--listen", f"127.0.0.1:{port}", "--unix", unix, "--metrics", "127.0.0.1:0")
    with serve(*flags) as server:
        left = workers(server)
        folder = next(
            row.split(b"=", 1)[1].decode()
            for row in Path(f"/proc/{left[0]}/environ").read_bytes().split(b"\0")
            if row.startswith(b"PROMETHEUS_MULTIPROC_DIR=")
        )
        assert Path(folder).is_dir()
        server.process.kill()
        server.process.wait(WAIT)
        until(lambda: all(map(gone, left)), f"of {left} some are left", 5)
    assert not unix.exists()
    assert not unix.with_name("score.sock.1").exists()
    assert not Path(folder).exists()
    with serve(*flags) as server:  # and their port is free
        assert len(ids(server)) == 2
        left = workers(server)
        assert server.stop() == 0
    assert all(map(gone, left))


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_stop_lets_calls_finish_in_all_workers(serve, two, unix, number):
    rows = np.tile(ROW, (2048 + 9, 1)).astype("<f8").tobytes()
    long = scoring_pb2.ScoreBatchRequest(detector=2, rows=rows, layout=2, explain=scoring_pb2.EXPLAIN_ALWAYS)
    with serve(*two, "--grace", "60") as server:
        left = workers(server)
        callers = [Caller(address) for address in server.addresses[1:]]
        calls = [caller.scoring.ScoreBatch.future(long, timeout=100) for caller in callers]
        at_work(*left)
        server.process.send_signal(number)
        assert [len(call.result(100).scores) for call in calls] == [2048, 2048]
        assert server.process.wait(WAIT) == 0
        assert server.process.stderr.read() == ""
        for caller in callers:
            caller.channel.close()
    assert all(map(gone, left))
    assert not unix.exists()


def test_a_second_signal_hurries(serve, two):
    with serve(*two, "--grace", "1000") as server:
        callers = [Caller(address) for address in server.addresses[1:]]
        rows = np.tile(ROW, (16384 + 9, 1)).astype("<f8").tobytes()
        long = scoring_pb2.ScoreBatchRequest(detector=2, rows=rows, layout=2, explain=scoring_pb2.EXPLAIN_ALWAYS)
        calls = [caller.scoring.ScoreBatch.future(long, timeout=100) for caller in callers]
        at_work(*workers(server))
        health = health_pb2_grpc.HealthStub(callers[0].channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=100)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.process.terminate()
        # The first one has arrived: two at once may be one.
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        server.process.terminate()
        assert server.process.wait(WAIT) == 0
        assert {call.exception(WAIT) is not None for call in calls} == {True}
        for caller in callers:
            caller.channel.close()


def test_ready_file(serve, two, tmp_path):
    path = tmp_path / "ready"
    with serve(*two, "--ready-file", path) as server:
        assert path.read_text() == server.ready
        assert server.stop() == 0
    assert not path.exists()


def test_reload_swaps_all_workers(serve, sets, two, tmp_path):
    folder = Releases(tmp_path / "models", a=sets["forest_a"].path, b=sets["forest_b"].path)
    page = f"127.0.0.1:{free_port()}"
    with serve(*two, "--watch", "0", "--metrics", page, models=folder.path) as server:
        assert ids(server) == [sets["forest_a"].id] * 2
        with Caller(server.addresses[2]) as caller:
            for name, id in (("b", sets["forest_b"].id), ("a", sets["forest_a"].id)) * 3:
                folder.switch(name)
                answer = caller.reload()
                assert (answer.model_set_id, answer.changed) == (id, True)
                assert ids(server) == [id] * 2
            assert not caller.reload().changed
            graph = folder.folder("b") / "isolation_forest.onnx"
            graph.write_bytes(graph.read_bytes()[:-1])
            folder.switch("b")
            assert caller.refusal() == ("DIGEST_MISMATCH", "isolation_forest.onnx")
            assert ids(server) == [sets["forest_a"].id] * 2
        assert metric(page, 'dwcp_reloads_total{result="swapped"}') == 6
        assert metric(page, 'dwcp_reloads_total{result="refused"}') == 1
        assert metric(page, 'dwcp_model_sets_refused_total{code="DIGEST_MISMATCH"}') == 1
        server.process.send_signal(signal.SIGHUP)
        until(lambda: metric(page, 'dwcp_reloads_total{result="refused"}') == 2, "SIGHUP does nothing")
        assert server.stop() == 0


def test_a_watched_folder_reaches_all_workers(serve, sets, two, tmp_path):
    folder = Releases(tmp_path / "models", a=sets["forest_a"].path, b=sets["forest_b"].path)
    with serve(*two, "--watch", "0.1", models=folder.path) as server:
        folder.switch("b")
        until(lambda: ids(server) == [sets["forest_b"].id] * 2, "the change is not found")
        assert server.stop() == 0


def test_a_new_worker_uses_what_the_others_use(serve, sets, two, tmp_path):
    """R4: although another set is current by now."""
    folder = Releases(tmp_path / "models", a=sets["forest_a"].path, b=sets["forest_b"].path)
    with serve(*two, "--watch", "0", models=folder.path) as server:
        folder.switch("b")
        os.kill(workers(server)[0], signal.SIGKILL)
        until(lambda: ids_or_none(server) == [sets["forest_a"].id] * 2, "no new worker, or with another set")
        # Now theirs is gone: the next worker takes what the folder has, and the others follow.
        folder.folder("a").rename(tmp_path / "away")
        os.kill(workers(server)[0], signal.SIGKILL)
        until(lambda: ids_or_none(server) == [sets["forest_b"].id] * 2, "they do not agree")
        assert server.stop() == 0


@pytest.mark.slow  # starts several processes
@pytest.mark.slow
def test_without_a_set_on_disk_the_others_go_on(serve, sets, two, tmp_path):
    folder = Releases(tmp_path / "models", a=sets["forest_a"].path)
    with serve(*two, "--watch", "0", models=folder.path) as server:
        folder.folder("a").rename(tmp_path / "away")
        os.kill(workers(server)[0], signal.SIGKILL)
        time.sleep(2)
        assert server.process.poll() is None
        with Caller(server.address) as caller:
            assert caller.scoring.Score(one(), timeout=WAIT).model_set_id == sets["forest_a"].id
        (tmp_path / "away").rename(folder.folder("a"))
        until(lambda: ids_or_none(server) == [sets["forest_a"].id] * 2, "the worker does not come back")
        assert server.stop() == 0
        said = server.process.stderr.read()
    assert "cannot start: MANIFEST_MISSING" in said
    assert "Traceback" not in said


def test_a_refused_set_is_no_start(command, two, set_copy):
    (set_copy.path / "isolation_forest.onnx").write_bytes(b"no graph")
    done = command("serve", "--models", set_copy.path, *two)
    assert (done.returncode, done.stdout) == (1, "")
    assert "DIGEST_MISMATCH" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_an_unwritable_socket_is_no_start(command, reference_path, tmp_path):
    done = command("serve", "--models", reference_path, "--workers", "2", "--unix", tmp_path / "no" / "such.sock")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "--unix" in done.stderr


@pytest.mark.slow  # starts several processes
def test_a_port_in_use_is_no_start(serve, command, reference_path, two):
    """Neither that of one process, nor that of other workers, nor that of a program of another kind."""
    with serve(*two) as many, serve("--listen", "127.0.0.1:0") as single, socket.create_server(("127.0.0.1", 0)) as s:
        other = f"127.0.0.1:{s.getsockname()[1]}"
        for address, count in ((many.address, "1"), (many.address, "2"), (single.address, "2"), (other, "2")):
            done = command("serve", "--models", reference_path, "--listen", address, "--workers", count)
            assert (done.returncode, done.stdout) == (1, "")
            assert "in use" in done.stderr
            assert len(done.stderr.splitlines()) == 1, done.stderr
        assert many.process.poll() is None


def test_a_held_port_is_taken():
    held, address = tcp.hold("127.0.0.1:0")
    with held:
        for _ in range(2):
            with pytest.raises(StartError, match="in use"):
                tcp.hold(address)
    again, same = tcp.hold(address)
    with again:
        assert same == address


@pytest.mark.slow  # starts several processes
def test_no_room_for_a_ready_file_ends_the_workers(reference_path, tmp_path, two):
    arguments = ["serve", "--models", reference_path, *two, "--ready-file", tmp_path / "no" / "ready"]
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=2 * WAIT)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--ready-file" in done.stderr


class FakeProcess:
    """A worker that answers as it is told."""

    def __init__(self, prepared):
        self.prepared = prepared
        self.asked = []

    def ask(self, name, **_):
        self.asked.append(name)
        future = Future()
        answer = self.prepared if name == "prepare" else {}
        future.set_exception(answer) if isinstance(answer, Exception) else future.set_result(answer)
        return future


class SlowStart(FakeProcess):
    """A worker that answers when it is told to, and lives until it is ended."""

    started = []

    def __init__(self, order):
        super().__init__({})
        self.name, self.answers, self.ended = order["identity"], threading.Event(), threading.Event()
        self.started.append(self)

    def run(self, handle):
        self.answers.wait(WAIT)
        handle("ready", {**A, "addresses": []})
        self.ended.wait(WAIT)
        return "as told"

    def tell(self, name, **_):
        self.answers.set()
        self.ended.set()


def test_the_first_worker_has_the_machine_to_itself_until_it_answers(monkeypatch):
    monkeypatch.setattr(supervisors, "WorkerProcess", SlowStart)
    monkeypatch.setattr(SlowStart, "started", [])
    supervisor = Supervisor(Settings(models=Path("unused"), workers=3), {}, NoMetrics(), Signals())
    supervisor.start()
    try:
        until(lambda: SlowStart.started, "the first one starts")
        time.sleep(0.1)
        assert [each.name for each in SlowStart.started] == ["worker-0"]
        SlowStart.started[0].answers.set()
        until(lambda: len(SlowStart.started) == 3, "then all others do")
        assert not supervisor.complete
    finally:
        supervisor.stop(0.0)
    assert supervisor.wait(WAIT)


A, B, C = ({"id": name, "path": f"/sets/{name}"} for name in "abc")


def change(*prepared):
    """What a supervisor with the live set `a` does with workers that answer so."""
    settings = Settings(models=Path("unused"), workers=len(prepared))
    supervisor = Supervisor(settings, {}, NoMetrics(), None)
    supervisor._live = A
    fakes = [FakeProcess(answer) for answer in prepared]
    for place, fake in zip(supervisor._places, fakes, strict=True):
        place.process, place.ready = fake, A
    try:
        return supervisor._change(), supervisor.live_id, [fake.asked for fake in fakes]
    except Exception as error:
        return error, supervisor.live_id, [fake.asked for fake in fakes]


def test_all_open_before_any_swaps():
    outcome, live, asked = change(B, B, B)
    assert (outcome.id, outcome.changed, live) == ("b", True, "b")
    assert asked == [["prepare", "commit"]] * 3


@pytest.mark.parametrize("refusing", [0, 1, 2])
def test_when_one_refuses_none_swaps(refusing):
    prepared = [B, B, B]
    prepared[refusing] = ContractError("GOLDEN_MISMATCH", "x", "differs")
    error, live, asked = change(*prepared)
    assert isinstance(error, ContractError)
    assert live == "a"
    assert all("commit" not in each for each in asked)
    assert all(each[-1] == "abort" for each in asked)
    if refusing == 0:
        assert asked[1:] == [["abort"]] * 2, "a bad set costs one worker's time"


def test_workers_that_saw_different_sets_try_again():
    error, live, asked = change(B, B, C)
    assert isinstance(error, TryAgainError)
    assert live == "a"
    assert all("commit" not in each for each in asked)


def test_a_worker_that_dies_meanwhile_is_left_out():
    outcome, live, _ = change(B, ChannelClosedError(), B)
    assert (outcome.id, live) == ("b", "b")


def test_the_live_set_again_is_no_change():
    outcome, live, _ = change(A, A)
    assert (outcome.changed, live) == (False, "a")


def test_channel_carries_answers_and_errors_both_ways():
    def handle(name, fields):
        future = Future()
        if name == "add":
            future.set_result({"sum": sum(fields["numbers"])})
        elif name == "refuse":
            future.set_exception(ContractError("NOT_FINITE", "rows[0]", "it is NaN"))
        elif name == "fail":
            future.set_exception(ValueError("broken"))
        else:
            notes.append((name, fields))
            return None
        return future

    notes = []
    left, right = map(Channel, socket.socketpair())
    threads = [threading.Thread(target=end.run, args=(handle,)) for end in (left, right)]
    for thread in threads:
        thread.start()
    for end in (left, right):
        assert end.ask("add", numbers=[1, 2]).result(WAIT) == {"sum": 3}
        with pytest.raises(ContractError, match="NOT_FINITE") as caught:
            end.ask("refuse").result(WAIT)
        assert (caught.value.field, caught.value.message) == ("rows[0]", "it is NaN")
        with pytest.raises(RemoteError, match="broken"):
            end.ask("fail").result(WAIT)
    left.tell("note", text="ü")
    unanswered = left.ask("note of another kind")
    until(lambda: len(notes) == 2, "notes get lost")
    assert notes[0] == ("note", {"text": "ü"})
    right.close()
    with pytest.raises(ChannelClosedError):
        unanswered.result(WAIT)
    for thread in threads:
        thread.join(WAIT)
    with pytest.raises(ChannelClosedError):
        left.ask("add", numbers=[]).result(WAIT)
    left.close()
