"""`dwcp-sidecar serve` as a process: addresses, health, reflection, stop."""

import argparse
import json
import os
import signal
import socket
import stat
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from dwcp_sidecar import detectors
from dwcp_sidecar.client import Client
from dwcp_sidecar.server import flags
from dwcp_sidecar.server.app import health_name
from dwcp_sidecar.server.settings import Limits, Reflection, Settings, StartError, Tls
from tests.conformance.sets import REFERENCE_SET, detectors_of
from tests.sidecar.clients import WAIT, Caller, at_work, one

pytestmark = pytest.mark.timeout(120)
SERVICE = "dwcp.anomaly.v1.ScoringService"
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def health(address, name):
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=name)
        return health_pb2_grpc.HealthStub(channel).Check(request, timeout=30).status


def test_ready_line_names_addresses_and_set(served, reference):
    tcp, unix = served.addresses
    host, port = tcp.rsplit(":", 1)
    assert host == "127.0.0.1"
    assert int(port) > 0
    assert unix.startswith("unix:/")
    assert served.model_set_id == reference.id


@pytest.mark.parametrize("name", ["", SERVICE, *map(health_name, detectors.BY_NAME)])
def test_health(served, name):
    absent = {health_name(detector) for detector in detectors.BY_NAME} - set(
        map(health_name, detectors_of(REFERENCE_SET))
    )
    for address in served.addresses:
        assert health(address, name) == (NOT_SERVING if name in absent else SERVING)


def test_health_names_are_as_documented(served):
    assert health_name("isolation_forest") == f"{SERVICE}/isolation_forest"
    with pytest.raises(grpc.RpcError) as caught:
        health(served.address, f"{SERVICE}/no_such")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_health_of_a_detector_that_the_set_cannot_score(serve, set_copy):
    def forest_alone(manifest):
        manifest["models"] = manifest["models"][:1]

    set_copy.edit("manifest.json", forest_alone)
    with serve("--listen", "127.0.0.1:0", models=set_copy.path) as server:
        assert health(server.address, "") == SERVING
        assert health(server.address, health_name("isolation_forest")) == SERVING
        assert health(server.address, health_name("lstm_autoencoder")) == NOT_SERVING


def test_reflection_lists_the_services(served):
    with grpc.insecure_channel(served.address) as channel:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]), timeout=30)
        listed = {service.name for service in next(answers).list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= listed


def listening_tcp(pid):
    """Local addresses on which a process listens, from /proc (hexadecimal, as the kernel writes them)."""
    inodes = set()
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{entry}")
        except FileNotFoundError:
            continue
        inodes.add(target.removeprefix("socket:[").removesuffix("]"))
    found = []
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}") as rows:
            found += [row.split()[1] for row in rows if row.split()[3] == "0A" and row.split()[9] in inodes]
    return found


def test_loopback_only(served):
    addresses = listening_tcp(served.process.pid)
    assert len(addresses) == 1
    # ::ffff:127.0.0.1 or 127.0.0.1, in the byte order of the kernel's tables.
    assert addresses[0].rsplit(":", 1)[0].endswith("0100007F")


def test_unix_socket_alone_opens_no_port(serve, tmp_path):
    path = tmp_path / "score.sock"
    with serve("--unix", path) as server:
        assert server.addresses == [f"unix:{path}"]
        assert listening_tcp(server.process.pid) == []
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with Client(server.address, timeout=30) as client:
            assert client.score("isolation_forest", [ROW]).verdict.score > 0
        assert server.stop() == 0
    assert not path.exists()


def test_stale_unix_socket_is_replaced(serve, tmp_path):
    path = tmp_path / "score.sock"
    with serve("--unix", path) as server:
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(30)
    assert path.exists(), "a killed server leaves its socket behind: that is what this test is about"
    with serve("--unix", path) as server:
        assert health(server.address, "") == SERVING


def test_unix_socket_in_use_is_left_alone(command, served, reference_path):
    path = served.addresses[1].removeprefix("unix:")
    done = command("serve", "--models", reference_path, "--unix", path)
    assert done.returncode == 1
    assert "another server listens there" in done.stderr
    assert health(served.addresses[1], "") == SERVING


def test_a_file_that_is_no_socket_is_left_alone(command, tmp_path, reference_path):
    path = tmp_path / "notes.txt"
    path.write_text("keep me")
    done = command("serve", "--models", reference_path, "--unix", path)
    assert done.returncode == 1
    assert "no socket" in done.stderr
    assert path.read_text() == "keep me"


def test_unix_path_too_long_or_without_folder(command, tmp_path, reference_path):
    for path in (tmp_path / ("x" * 120), tmp_path / "no" / "such.sock"):
        done = command("serve", "--models", reference_path, "--unix", path)
        assert done.returncode == 1
        assert done.stdout == ""
        assert "Traceback" not in done.stderr


def test_port_in_use(command, served, reference_path, tmp_path):
    port = served.address.rsplit(":", 1)[1]
    for host in ("127.0.0.1", "localhost"):
        done = command("serve", "--models", reference_path, "--listen", f"{host}:{port}", "--unix", tmp_path / "x.sock")
        assert (done.returncode, done.stdout) == (1, "")
        assert port in done.stderr
        assert "in use" in done.stderr
        assert "--listen" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "x.sock").exists()


@pytest.mark.parametrize("address", [":50051", "50051", "localhost", "127.0.0.1:http", "127.0.0.1:70000", "127.0.0.1:"])
def test_addresses_that_are_refused(address, tmp_path):
    with pytest.raises(StartError):
        Settings(models=tmp_path, listen=address)


def test_ready_file(serve, tmp_path):
    path = tmp_path / "ready"
    with serve("--listen", "127.0.0.1:0", "--ready-file", path) as server:
        assert path.read_text() == server.ready
        assert server.stop() == 0
    assert not path.exists()


def test_ready_file_that_cannot_be_written(command, reference_path, tmp_path):
    path = tmp_path / "no" / "ready"
    done = command("serve", "--models", reference_path, "--listen", "127.0.0.1:0", "--ready-file", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--ready-file" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def until_refused(address):
    """Status of the first new call that fails. The listener closes a moment after health says NOT_SERVING."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            with Client(address, timeout=5) as late:
                late.model_set()
        except grpc.RpcError as error:
            return error.code()
    raise AssertionError("new calls are still answered")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_graceful_stop(serve, number):
    """A call in flight gets its answer, new ones are refused, the exit status is 0."""
    rows = np.tile(ROW, (8192 + 9, 1)).astype("<f8").tobytes()
    long = scoring_pb2.ScoreBatchRequest(detector=2, rows=rows, layout=2, explain=scoring_pb2.EXPLAIN_ALWAYS)
    with serve("--listen", "127.0.0.1:0", "--grace", "60") as server, grpc.insecure_channel(server.address) as channel:
        service = scoring_pb2_grpc.ScoringServiceStub(channel)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=100)
        assert next(watch).status == SERVING
        call = service.ScoreBatch.future(long, timeout=100)
        at_work(server.process.pid)
        assert not call.done()
        server.process.send_signal(number)
        assert next(watch).status == NOT_SERVING
        watch.cancel()
        assert until_refused(server.address) == grpc.StatusCode.UNAVAILABLE
        assert not call.done(), "the new call has to be refused while the old one is still in flight"
        assert len(call.result(100).scores) == 8192
        assert server.process.wait(30) == 0
        assert server.process.stderr.read() == ""


@pytest.mark.parametrize("stops", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_calls_that_go_on_through_a_stop(serve, stops):
    """Whoever calls without a pause gets answers, then UNAVAILABLE: nothing else, and no answer is lost.

    gRPC by itself gives CANCELLED to some of them, and cuts off large answers that are on their way.
    """
    rows = np.tile(ROW, (16_384, 1)).astype("<f8").tobytes()
    batch = scoring_pb2.ScoreBatchRequest(detector=1, rows=rows, explain=scoring_pb2.EXPLAIN_ALWAYS)
    ends, answered = [], []

    def client(number):
        with Caller(server.address) as caller:
            call = caller.scoring.Score if number % 2 else caller.scoring.ScoreBatch
            try:
                while len(answered) < 1_000_000:
                    call(one() if number % 2 else batch, timeout=30)
                    answered.append(number)
            except grpc.RpcError as error:
                ends.append((error.code(), error.details()))

    for _ in range(stops):
        ends.clear()
        answered.clear()
        with serve("--listen", "127.0.0.1:0", "--grace", "30") as server, ThreadPoolExecutor(6) as pool:
            for number in range(6):
                pool.submit(client, number)
            end = time.monotonic() + WAIT
            while set(answered) != set(range(6)):  # whoever is not connected yet would be told that nobody listens
                assert time.monotonic() < end, answered
                time.sleep(0.05)
            assert server.stop() == 0
        assert ends == [(grpc.StatusCode.UNAVAILABLE, "the server is stopping")] * 6


def test_a_second_signal_ends_calls_in_flight(serve):
    with (
        serve("--listen", "127.0.0.1:0", "--grace", "1000") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        request = health_pb2.HealthCheckRequest(service="")
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=100)
        assert next(watch).status == SERVING
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0


def test_models_must_be_named(command):
    done = command("serve")
    assert done.returncode == 2
    assert "--models" in done.stderr


@pytest.mark.parametrize("name", ["serve", "score", "check", "health"])
def test_help_has_examples(command, name):
    done = command(name, "--help")
    assert done.returncode == 0
    assert "examples:" in done.stdout
    assert f"dwcp-sidecar {name}" in done.stdout


def test_check_prints_what_was_verified(command, reference, reference_path):
    done = command("check", "--models", reference_path)
    assert done.returncode == 0, done.stderr
    for name, golden in reference.golden.items():
        row = next(line for line in done.stdout.splitlines() if line.startswith(name))
        assert f"{len(golden.cases)} of {len(golden.cases)} passed" in row
        assert "EXACT" in row
        assert repr(reference.model(name).threshold) in row
    assert reference.id in done.stdout


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"grace": -1.0},
        {"grace": float("nan")},
        {"watch": -1.0},
        {"watch": float("inf")},
        {"metrics": "9464"},
        {"listen": None},
        {"listen": None, "unix": Path("x"), "tls": Tls(Path("c"), Path("k"))},
    ],
    ids=str,
)
def test_settings_out_of_range(tmp_path, wrong):
    with pytest.raises(StartError):
        Settings(models=tmp_path, **wrong)


@pytest.mark.parametrize("name", ["in_flight", "threads", "streams", "series", "idle"])
def test_limits_out_of_range(name):
    with pytest.raises(StartError, match="--"):
        Limits(**{name: 0})


def serve_flags(*arguments):
    parser = argparse.ArgumentParser()
    flags.add(parser, "")
    return vars(parser.parse_args(["--models", "m", *arguments]))


def test_flags_without_a_value_are_the_defaults():
    assert flags.settings(serve_flags()) == Settings(models=Path("m"))


def test_flags_survive_the_way_to_a_worker():
    given = serve_flags(
        *("--listen", "127.0.0.1:0", "--unix", "s", "--workers", "3", "--workers-threads", "4", "--max-in-flight", "5"),
        *(
            "--max-streams",
            "6",
            "--max-series",
            "7",
            "--stream-idle",
            "8.5",
            "--max-sets",
            "9",
            "--watch",
            "0",
            "--grace",
            "9",
        ),
        *("--ready-file", "r", "--metrics", "127.0.0.1:1", "--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "a"),
        *("--reflection", "on", "--traces", "--log-format", "json"),
    )
    wanted = Settings(
        models=Path("m"),
        listen="127.0.0.1:0",
        unix=Path("s"),
        workers=3,
        limits=Limits(in_flight=5, threads=4, streams=6, series=7, idle=8.5),
        max_sets=9,
        grace=9.0,
        ready_file=Path("r"),
        watch=0.0,
        metrics="127.0.0.1:1",
        tls=Tls(Path("c"), Path("k"), Path("a")),
        reflection=Reflection.ON,
        traces=True,
    )
    assert flags.settings(given) == wanted
    arrived = json.loads(json.dumps(flags.portable(given | {"run": print})))
    assert flags.settings(arrived) == wanted
    assert arrived["log_format"] == "json"
    assert "run" not in arrived


@pytest.mark.parametrize("given", [("--tls-cert", "c"), ("--tls-key", "k"), ("--tls-client-ca", "a")], ids=str)
def test_half_of_tls_is_refused(given):
    with pytest.raises(StartError, match="--tls"):
        flags.settings(serve_flags(*given))


def test_metrics_page(serve, reference):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        page = f"127.0.0.1:{probe.getsockname()[1]}"
    with serve("--listen", "127.0.0.1:0", "--metrics", page) as server, Client(server.address, timeout=30) as client:
        client.score("isolation_forest", [ROW])
        with urllib.request.urlopen(f"http://{page}/metrics", timeout=30) as answer:
            rows = answer.read().decode().splitlines()
        assert 'dwcp_requests_total{code="OK",method="Score"} 1.0' in rows
        assert f'dwcp_model_set_info{{model_set_id="{reference.id}"}} 1.0' in rows
        created = next(row for row in rows if row.startswith("dwcp_model_set_created_timestamp_seconds"))
        assert float(created.split()[1]) == (reference.path / "manifest.json").stat().st_mtime
        assert "dwcp_workers 1.0" in rows
        assert server.stop() == 0


def test_a_freed_port_can_be_had_again_at_once(serve):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for _ in range(2):
        with serve("--listen", f"127.0.0.1:{port}") as server:
            with Client(server.address, timeout=30) as client:
                assert client.model_set().models
            assert server.stop() == 0


def test_health_command(command, served):
    for address in served.addresses:
        done = command("health", "--address", address)
        assert (done.returncode, done.stdout) == (0, "SERVING\n"), done.stderr
    done = command("health", "--address", served.address, "--service", f"{SERVICE}/lstm_autoencoder")
    assert done.returncode == 0
    done = command("health", "--address", served.address, "--service", "nothing")
    assert done.returncode == 1
    assert "NOT_FOUND" in done.stderr


def test_health_of_nobody(command, tmp_path):
    done = command("health", "--address", f"unix:{tmp_path}/nobody", "--timeout", "1")
    assert done.returncode == 1
    assert "UNAVAILABLE" in done.stderr
    assert "Traceback" not in done.stderr
