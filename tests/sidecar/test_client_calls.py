"""The Python client against servers that fail as told: retries, deadlines, connections, TLS, the pinned set."""

import contextlib
import threading
import time
from concurrent import futures
from pathlib import Path

import grpc
import pytest
import trustme

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from dwcp_sidecar.client import Client, TlsFiles
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.server import status

pytestmark = pytest.mark.timeout(60)
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]
PATIENT = 20.0
"""A busy machine must not fail a test: the deadline is long unless the test is about it."""


class Scripted(scoring_pb2_grpc.ScoringServiceServicer, scoring_pb2_grpc.OperationsServiceServicer):
    """Fails as many calls as told, with a status or a refusal, then answers."""

    def __init__(self, failures=0, failure=grpc.StatusCode.UNAVAILABLE):
        self.id = "first"
        self.failures = failures
        self.failure = failure
        self.hang = threading.Event()
        self.hang.set()
        self.times = []

    @property
    def calls(self):
        return len(self.times)

    def GetModelSet(self, request, context):  # noqa: N802
        return scoring_pb2.GetModelSetResponse(model_set_id=self.id)

    def Score(self, request, context):  # noqa: N802
        self.times.append(time.monotonic())
        self.hang.wait(10)
        if self.calls <= self.failures:
            if isinstance(self.failure, ContractError):
                context.abort_with_status(status.to_grpc(self.failure))
            context.abort(self.failure, "scripted")
        return scoring_pb2.ScoreResponse(verdict=scoring_pb2.Verdict(score=42), model_set_id=self.id)

    def Reload(self, request, context):  # noqa: N802
        if self.failures:
            context.abort_with_status(status.to_grpc(self.failure))
        self.id = "reloaded"
        return scoring_pb2.ReloadResponse(model_set_id=self.id, changed=True)


@contextlib.contextmanager
def serving(servicer, address="127.0.0.1:0", credentials=None):
    server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    scoring_pb2_grpc.add_ScoringServiceServicer_to_server(servicer, server)
    scoring_pb2_grpc.add_OperationsServiceServicer_to_server(servicer, server)
    secure = credentials is not None
    port = server.add_secure_port(address, credentials) if secure else server.add_insecure_port(address)
    server.start()
    try:
        yield address if address.startswith("unix:") else address.replace(":0", f":{port}")
    finally:
        servicer.hang.set()
        server.stop(0).wait(10)


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED]
)
def test_calls_that_scored_nothing_are_sent_again(code):
    servicer = Scripted(3, code)
    with serving(servicer) as address, Client(address, timeout=PATIENT) as client:
        assert client.score("isolation_forest", [ROW]).verdict.score == 42
        assert (client.attempts, client.retried) == (4, 3)
    assert servicer.calls == 4
    pauses = [after - before for before, after in zip(servicer.times, servicer.times[1:], strict=False)]
    assert all(pause >= least for pause, least in zip(pauses, (0.005, 0.010, 0.020), strict=True)), pauses


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNAUTHENTICATED,
    ],
)
def test_other_failures_are_not_sent_again(code):
    servicer = Scripted(1, code)
    with serving(servicer) as address, Client(address, timeout=PATIENT) as client:
        with pytest.raises(grpc.RpcError) as caught:
            client.score("isolation_forest", [ROW])
        assert caught.value.code() == code
    assert servicer.calls == 1


def test_a_refusal_is_not_sent_again():
    servicer = Scripted(1, ContractError("NOT_FINITE", "samples[0].jitter", "NaN"))
    with serving(servicer) as address, Client(address, timeout=PATIENT) as client:
        with pytest.raises(ContractError) as caught:
            client.score("isolation_forest", [ROW])
        assert (caught.value.code, caught.value.field) == ("NOT_FINITE", "samples[0].jitter")
    assert servicer.calls == 1


@pytest.mark.parametrize("retries", [0, 2])
def test_retries_end(retries):
    servicer = Scripted(100)
    with serving(servicer) as address, Client(address, timeout=PATIENT, retries=retries) as client:
        with pytest.raises(grpc.RpcError) as caught:
            client.score("isolation_forest", [ROW])
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert servicer.calls == retries + 1


def test_the_deadline_holds_over_all_attempts():
    servicer = Scripted(1000)
    with serving(servicer) as address, Client(address, retries=1000) as client:
        client.model_set(timeout=PATIENT)
        started = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            client.score("isolation_forest", [ROW], timeout=0.3)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE  # the last outcome, not a pause that was not begun
        assert time.monotonic() - started < PATIENT / 2  # a thousand attempts take longer
    assert 2 <= servicer.calls <= 7


def test_a_passed_deadline_is_not_sent_again():
    servicer = Scripted()
    servicer.hang.clear()
    with serving(servicer) as address, Client(address) as client:
        client.model_set(timeout=PATIENT)
        with pytest.raises(grpc.RpcError) as caught:
            client.score("isolation_forest", [ROW], timeout=0.1)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert servicer.calls == 1


def test_an_overloaded_server_is_not_hammered():
    servicer = Scripted(10**9, grpc.StatusCode.RESOURCE_EXHAUSTED)
    with serving(servicer) as address, Client(address, timeout=PATIENT, retries=2) as client:

        def fail(calls):
            before = servicer.calls
            for _ in range(calls):
                with pytest.raises(grpc.RpcError):
                    client.score("isolation_forest", [ROW])
            return servicer.calls - before

        assert fail(40) == 40 + 10  # ten retries are at hand, none comes after
        servicer.failures = 0
        for _ in range(20):
            client.score("isolation_forest", [ROW])
        servicer.failures = 10**9
        assert fail(40) == 40 + 2  # twenty answers earned two


def test_every_address_gets_its_share(tmp_path):
    workers = [Scripted() for _ in range(3)]
    with contextlib.ExitStack() as stack:
        addresses = [stack.enter_context(serving(worker, f"unix:{tmp_path}/{i}")) for i, worker in enumerate(workers)]
        client = stack.enter_context(Client(", ".join(addresses), timeout=PATIENT))
        for _ in range(30):
            client.score("isolation_forest", [ROW])
    assert [worker.calls for worker in workers] == [10, 10, 10]


def test_the_least_loaded_connection_is_taken(tmp_path):
    stuck, quick = Scripted(), Scripted()
    stuck.hang.clear()
    with (
        serving(stuck, f"unix:{tmp_path}/0") as one,
        serving(quick, f"unix:{tmp_path}/1") as two,
        Client(f"{one},{two}", timeout=PATIENT) as client,
    ):
        threads = [threading.Thread(target=client.score, args=("isolation_forest", [ROW])) for _ in range(2)]
        for thread in threads:
            thread.start()
        while stuck.calls == 0 or quick.calls == 0:
            time.sleep(0.001)
        for _ in range(20):
            client.score("isolation_forest", [ROW])
        assert (stuck.calls, quick.calls) == (1, 21)
        stuck.hang.set()
        for thread in threads:
            thread.join(10)


def test_a_failed_call_goes_to_another_connection(tmp_path):
    down, up = Scripted(10**9), Scripted()
    with (
        serving(down, f"unix:{tmp_path}/0") as one,
        serving(up, f"unix:{tmp_path}/1") as two,
        Client(f"{one},{two}", timeout=PATIENT, retries=1) as client,
    ):
        for _ in range(10):
            client.score("isolation_forest", [ROW])
    assert up.calls == 10
    assert 1 <= down.calls <= 2  # avoided for a while after it failed


def test_connections_to_one_address_are_several(tmp_path):
    """Each has its own socket: with one for all, a connection would stay with one worker."""
    with (
        serving(Scripted(), f"unix:{tmp_path}/s") as address,
        Client(address, timeout=PATIENT, connections=3) as client,
    ):
        for _ in range(6):
            client.score("isolation_forest", [ROW])
        established = [
            line for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(f"{tmp_path}/s")
        ]
    assert len(established) == 1 + 3  # the one that listens, and what it accepted


def test_a_restarted_server_is_found_again(tmp_path):
    address = f"unix:{tmp_path}/s"
    with Client(address, timeout=PATIENT, retries=0) as client:
        with serving(Scripted(), address):
            client.score("isolation_forest", [ROW])
        with pytest.raises(grpc.RpcError) as caught:
            client.score("isolation_forest", [ROW])
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        with serving(Scripted(), address):
            started = time.monotonic()
            while True:
                try:
                    client.score("isolation_forest", [ROW])
                    break
                except grpc.RpcError:
                    assert time.monotonic() - started < PATIENT
                    time.sleep(0.01)


def test_the_pinned_set():
    servicer = Scripted()
    with serving(servicer) as address:
        with Client(address, timeout=PATIENT) as client:
            assert client.score("isolation_forest", [ROW]).model_set_id == "first"
            servicer.id = "second"
            assert client.score("isolation_forest", [ROW]).model_set_id == "second"  # followed, and named
            assert client.pin() == "second"
            client.score("isolation_forest", [ROW])
            servicer.id = "third"
            with pytest.raises(ContractError, match="MODEL_SET_MISMATCH"):
                client.score("isolation_forest", [ROW])
            client.pin()
            client.score("isolation_forest", [ROW])
        with (
            Client(address, timeout=PATIENT, model_set_id="first") as client,
            pytest.raises(ContractError, match="MODEL_SET_MISMATCH"),
        ):
            client.score("isolation_forest", [ROW])


def test_reload():
    servicer = Scripted()
    with serving(servicer) as address, Client(address, timeout=PATIENT) as client:
        answer = client.reload()
        assert (answer.model_set_id, answer.changed) == ("reloaded", True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    stranger.cert_pem.write_to_path(str(folder / "stranger.pem"))
    for name, pair in {
        "server": authority.issue_cert("127.0.0.1", "sidecar.test"),
        "client": authority.issue_cert("client@sidecar.test"),
    }.items():
        (folder / f"{name}.pem").write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
        pair.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    return folder


def outcome(address, tls):
    with Client(address, timeout=5, retries=0, tls=tls) as client:
        try:
            return client.score("isolation_forest", [ROW]).verdict.score
        except grpc.RpcError as error:
            return error.code()


def test_tls(certificates):
    pair = [((certificates / "server.key").read_bytes(), (certificates / "server.pem").read_bytes())]
    unavailable = grpc.StatusCode.UNAVAILABLE
    with serving(Scripted(), credentials=grpc.ssl_server_credentials(pair)) as address:
        assert outcome(address, TlsFiles(certificates / "ca.pem")) == 42
        assert outcome(address, TlsFiles(certificates / "ca.pem", server_name="sidecar.test")) == 42
        assert outcome(address, TlsFiles(certificates / "stranger.pem")) == unavailable
        assert outcome(address, TlsFiles(certificates / "ca.pem", server_name="other.test")) == unavailable
        assert outcome(address, None) == unavailable


def test_mutual_tls(certificates):
    pair = [((certificates / "server.key").read_bytes(), (certificates / "server.pem").read_bytes())]
    authority = (certificates / "ca.pem").read_bytes()
    credentials = grpc.ssl_server_credentials(pair, authority, require_client_auth=True)
    ca = certificates / "ca.pem"
    with serving(Scripted(), credentials=credentials) as address:
        assert outcome(address, TlsFiles(ca, certificates / "client.pem", certificates / "client.key")) == 42
        assert outcome(address, TlsFiles(ca)) == grpc.StatusCode.UNAVAILABLE


def test_unix_sockets_stay_plain(certificates, tmp_path):
    with serving(Scripted(), f"unix:{tmp_path}/s") as address:
        assert outcome(address, TlsFiles(certificates / "ca.pem")) == 42


@pytest.mark.parametrize(
    ("field", "tls"),
    [("tls.ca", TlsFiles(Path("none.pem"))), ("tls.cert", TlsFiles(cert=Path("a.pem")))],
)
def test_tls_files_that_are_none(field, tls):
    with pytest.raises(ContractError) as caught:
        Client("127.0.0.1:1", tls=tls)
    assert (caught.value.code, caught.value.field) == ("INVALID_REQUEST", field)


def test_mutual_tls_and_reload_of_the_real_server(certificates, serve, reference):
    files = ["--tls-cert", "server.pem", "--tls-key", "server.key", "--tls-client-ca", "ca.pem"]
    flags = [flag if flag.startswith("--") else certificates / flag for flag in files]
    tls = TlsFiles(certificates / "ca.pem", certificates / "client.pem", certificates / "client.key")
    with serve("--listen", "127.0.0.1:0", *flags) as server:
        with Client(server.address, timeout=PATIENT, tls=tls) as client:
            wanted = reference.model("isolation_forest").score([ROW]).scores[0]
            assert client.score("isolation_forest", [ROW]).verdict.score == wanted
            assert client.pin() == reference.id
            answer = client.reload()
            assert (answer.model_set_id, answer.changed) == (reference.id, False)
        assert outcome(server.address, TlsFiles(certificates / "ca.pem")) == grpc.StatusCode.UNAVAILABLE


def test_a_reload_that_is_refused(set_copy, serve, tmp_path):
    with (
        serve("--unix", tmp_path / "s", "--watch", "0", models=set_copy.path),
        Client(f"unix:{tmp_path}/s", timeout=PATIENT) as client,
    ):
        (set_copy.path / "isolation_forest.onnx").write_bytes(b"no graph")
        with pytest.raises(ContractError) as caught:
            client.reload()
        assert (caught.value.code, caught.value.field) == ("DIGEST_MISMATCH", "isolation_forest.onnx")
        client.score("isolation_forest", [ROW])
