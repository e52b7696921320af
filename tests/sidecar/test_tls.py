"""TLS and mutual TLS: bad files are refused with their flag, and files that change are followed without a restart."""

import contextlib
import datetime
import os
import shutil
import ssl
import time
from concurrent import futures

import grpc
import pytest
import trustme

from dwcp_sidecar.server import tls
from dwcp_sidecar.server.settings import StartError, Tls
from dwcp_sidecar.server.tls import Certificates, server_credentials

pytestmark = pytest.mark.timeout(120)
WAIT = 20
HOST = "127.0.0.1"


class Recorder:
    """Stands for the metrics: keeps what it is told."""

    def __init__(self):
        self.expiry, self.reloads = [], []

    def certificate(self, expiry):
        self.expiry.append(expiry)

    def certificate_reload(self, result):
        self.reloads.append(result)


@pytest.fixture(scope="module")
def ca():
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture(scope="module")
def other_ca():
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


def when(days):
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0) + datetime.timedelta(days=days)


def issue(ca, days=10, names=(HOST,)):
    return ca.issue_cert(*names, not_before=when(-30), not_after=when(days), key_type=trustme.KeyType.ECDSA)


def write(folder, cert, client_ca=None):
    """Writes the files as a careful operator does: each in one rename."""
    files = Tls(folder / "cert.pem", folder / "key.pem", folder / "ca.pem" if client_ca else None)
    contents = {
        files.cert: b"".join(blob.bytes() for blob in cert.cert_chain_pems),
        files.key: cert.private_key_pem.bytes(),
    }
    if client_ca:
        contents[files.client_ca] = client_ca.cert_pem.bytes()
    for path, data in contents.items():
        draft = path.with_suffix(".new")
        draft.write_bytes(data)
        draft.replace(path)
    return files


@pytest.fixture
def files(ca, tmp_path):
    return write(tmp_path, issue(ca))


@contextlib.contextmanager
def echo_server(credentials):
    """A gRPC server that answers `/e/cho` with its request."""
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("e", {"cho": handler})])
    port = server.add_secure_port(f"{HOST}:0", credentials)
    server.start()
    try:
        yield f"{HOST}:{port}"
    finally:
        server.stop(0).wait(WAIT)


def echo(address, ca, client=None):
    """Calls over a connection of its own."""
    pair = (client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes()) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.cert_pem.bytes(), *pair)
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address, credentials, options) as channel:
        return channel.unary_unary("/e/cho")(b"hello", timeout=WAIT)


def refused(address, ca, client=None):
    with pytest.raises(grpc.RpcError) as caught:
        echo(address, ca, client)
    return caught.value.code() == grpc.StatusCode.UNAVAILABLE


def shown(address):
    """The server's certificate, as a client sees it."""
    host, port = address.rsplit(":", 1)
    return ssl.get_server_certificate((host, int(port)), timeout=WAIT)


def pem(cert):
    return ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(cert.cert_chain_pems[0].bytes().decode()))


def until(check):
    end = time.monotonic() + WAIT
    while not check():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_tls(files, ca, other_ca):
    with echo_server(server_credentials(files, Recorder())) as address:
        assert echo(address, ca) == b"hello"
        assert refused(address, other_ca)
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary("/e/cho")(b"hello", timeout=5)


def test_mutual_tls(ca, other_ca, tmp_path):
    files = write(tmp_path, issue(ca), client_ca=other_ca)
    client, stranger = issue(other_ca, names=("client@example",)), issue(ca, names=("client@example",))
    with echo_server(server_credentials(files, Recorder())) as address:
        assert echo(address, ca, client) == b"hello"
        assert refused(address, ca)
        assert refused(address, ca, stranger)


def test_expiry_is_that_of_the_certificate(ca, tmp_path):
    metrics, cert = Recorder(), issue(ca, days=42)
    Certificates(write(tmp_path, cert), metrics)
    assert metrics.expiry == [pytest.approx(when(42).timestamp(), abs=60)]


def test_a_chain_and_an_rsa_key(ca, tmp_path):
    child = ca.create_child_ca(key_type=trustme.KeyType.RSA)
    cert = child.issue_cert(HOST, key_type=trustme.KeyType.RSA)
    assert len(cert.cert_chain_pems) == 2
    with echo_server(server_credentials(write(tmp_path, cert), Recorder())) as address:
        assert echo(address, ca) == b"hello"


def wrong_cert(files, ca):
    files.cert.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def wrong_key(files, ca):
    files.key.write_bytes(issue(ca).private_key_pem.bytes())


def broken_key(files, ca):
    files.key.write_bytes(files.key.read_bytes()[:60] + b"\n-----END PRIVATE KEY-----\n")


ENCRYPTED = b"""-----BEGIN RSA PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,0123456789ABCDEF0123456789ABCDEF

AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
-----END RSA PRIVATE KEY-----
"""

BAD = [
    ("--tls-cert", r"cannot be read: No such file.*may read", lambda files, ca: files.cert.unlink()),
    ("--tls-key", r"cannot be read: No such file", lambda files, ca: files.key.unlink()),
    ("--tls-key", r"cannot be read: Is a directory", lambda files, ca: (files.key.unlink(), files.key.mkdir())),
    ("--tls-cert", r"no PEM file", lambda files, ca: files.cert.write_bytes(os.urandom(500))),
    ("--tls-key", r"no PEM file", lambda files, ca: files.key.write_bytes(b"")),
    ("--tls-cert", r"no certificate that can be read", wrong_cert),
    ("--tls-cert", r"no certificate that can be read", lambda files, ca: shutil.copy(files.key, files.cert)),
    ("--tls-key", r"does not belong to --tls-cert .*cert\.pem", wrong_key),
    ("--tls-key", r"no private key that can be read", broken_key),
    ("--tls-key", r"no private key that can be read", lambda files, ca: shutil.copy(files.cert, files.key)),
    ("--tls-key", r"is encrypted; give a key without a password", lambda files, ca: files.key.write_bytes(ENCRYPTED)),
    ("--tls-client-ca", r"no PEM file", lambda files, ca: files.client_ca.write_bytes(b"hello")),
    ("--tls-client-ca", r"no certificate", lambda files, ca: shutil.copy(files.key, files.client_ca)),
    ("--tls-client-ca", r"cannot be read", lambda files, ca: files.client_ca.unlink()),
]


@pytest.mark.parametrize(("flag", "message", "damage"), BAD, ids=[f"{flag}-{i}" for i, (flag, _, _) in enumerate(BAD)])
def test_bad_files_at_start(ca, tmp_path, flag, message, damage):
    files = write(tmp_path, issue(ca), client_ca=ca)
    damage(files, ca)
    with pytest.raises(StartError, match=message) as caught:
        server_credentials(files, Recorder())
    at_fault = {"--tls-cert": files.cert, "--tls-key": files.key, "--tls-client-ca": files.client_ca}[flag]
    assert str(caught.value).startswith(f"{flag} {at_fault}: ")


def test_a_clients_certificate_is_none_for_a_server(ca, tmp_path):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, when(-1), when(1))
    usage = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH])
    cert = builder.add_extension(usage, critical=True).sign(key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    files = Tls(tmp_path / "cert.pem", tmp_path / "key.pem")
    files.cert.write_bytes(cert.public_bytes(encoding))
    private = serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(encoding, private, serialization.NoEncryption()))
    with pytest.raises(StartError, match="no server can use it: unsuitable certificate purpose"):
        Certificates(files, Recorder())


def test_a_new_certificate_is_used_without_a_restart(ca, files, monkeypatch):
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.2)
    metrics, renewed = Recorder(), issue(ca, days=99)
    with echo_server(server_credentials(files, metrics)) as address:
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.cert_pem.bytes())) as channel:
            old = channel.unary_unary("/e/cho")
            assert old(b"before", timeout=WAIT) == b"before"
            write(files.cert.parent, renewed)
            until(lambda: shown(address) == pem(renewed))
            assert old(b"after", timeout=WAIT) == b"after", "a connection that is open stays open"
        assert echo(address, ca) == b"hello"
    assert metrics.reloads[-1] == "swapped"
    assert metrics.expiry[-1] == pytest.approx(when(99).timestamp(), abs=60)


def test_an_expired_certificate_is_replaced(ca, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.2)
    files = write(tmp_path, issue(ca, days=-1))
    with echo_server(server_credentials(files, Recorder())) as address:
        assert "has expired" in caplog.text
        assert refused(address, ca)
        renewed = issue(ca)
        write(tmp_path, renewed)
        until(lambda: shown(address) == pem(renewed))
        assert echo(address, ca) == b"hello"


def test_a_new_client_ca_is_used(ca, other_ca, tmp_path, monkeypatch):
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.2)
    cert, metrics = issue(ca), Recorder()
    files = write(tmp_path, cert, client_ca=ca)
    old, new = issue(ca, names=("client@example",)), issue(other_ca, names=("client@example",))
    with echo_server(server_credentials(files, metrics)) as address:
        assert echo(address, ca, old) == b"hello"
        write(tmp_path, cert, client_ca=other_ca)
        time.sleep(0.3)
        assert echo(address, ca, new) == b"hello"
        assert refused(address, ca, old)
    assert metrics.reloads == ["swapped"]


@pytest.mark.parametrize(
    "damage",
    [
        wrong_cert,
        wrong_key,
        lambda files, ca: files.cert.unlink(),
        lambda files, ca: write(files.cert.parent, issue(ca, days=-1)),
    ],
)
def test_a_bad_replacement_is_refused_and_the_old_one_stays(ca, files, monkeypatch, caplog, damage):
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.0)
    metrics = Recorder()
    with echo_server(server_credentials(files, metrics)) as address:
        before = shown(address)
        damage(files, ca)
        for _ in range(3):
            assert echo(address, ca) == b"hello"
        assert shown(address) == before
        assert metrics.reloads == ["refused"], "it is counted once, not with every connection"
        assert caplog.text.count("certificate in use stays") == 1
        assert "--tls-" in caplog.text
        renewed = issue(ca)
        write(files.cert.parent, renewed)
        until(lambda: shown(address) == pem(renewed))
    assert metrics.reloads[-1] == "swapped"
    assert len(metrics.expiry) == 2


def test_files_are_looked_at_once_a_second(ca, files, monkeypatch):
    looks, real = [], tls._signature
    certificates = Certificates(files, Recorder())
    monkeypatch.setattr(tls, "_signature", lambda files: looks.append(1) or real(files))
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        assert certificates.fetch() is None
    assert len(looks) <= 1


def test_a_refused_replacement_is_tried_again_after_a_while(ca, files, monkeypatch):
    """The clock was wrong, and now it is right: the files did not change."""
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(tls, "AGAIN_SECONDS", 0.0)
    metrics = Recorder()
    certificates = Certificates(files, metrics)
    monkeypatch.setattr(tls.Certificate, "expired", property(lambda self: self.expiry > when(50).timestamp()))
    write(files.cert.parent, issue(ca, days=99))
    certificates.look()
    assert metrics.reloads == ["refused"]
    monkeypatch.undo()
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(tls, "AGAIN_SECONDS", 0.0)
    assert certificates.fetch() is not None
    assert metrics.reloads == ["refused", "swapped"]
    assert certificates.fetch() is None


def test_a_link_that_is_switched_is_followed(ca, tmp_path, monkeypatch):
    """As Kubernetes replaces a secret: the names are links through `..data`."""
    monkeypatch.setattr(tls, "LOOK_SECONDS", 0.0)
    for name, days in (("one", 5), ("two", 6)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, issue(ca, days=days))
    (tmp_path / "data").symlink_to("one")
    metrics = Recorder()
    certificates = Certificates(Tls(tmp_path / "data" / "cert.pem", tmp_path / "data" / "key.pem"), metrics)
    (tmp_path / "draft").symlink_to("two")
    (tmp_path / "draft").replace(tmp_path / "data")
    assert certificates.fetch() is not None
    assert metrics.expiry[1] - metrics.expiry[0] == pytest.approx(86400, abs=60)


def test_a_bug_does_not_end_connections(ca, files, monkeypatch, caplog):
    with echo_server(server_credentials(files, Recorder())) as address:
        monkeypatch.setattr(Certificates, "look", lambda self: 1 / 0)
        assert echo(address, ca) == b"hello"
    assert "ZeroDivisionError" in caplog.text


# The server as a whole.


def test_a_server_process(serve, ca, other_ca, tmp_path):
    files = write(tmp_path, issue(ca), client_ca=other_ca)
    flags = ("--tls-cert", files.cert, "--tls-key", files.key, "--tls-client-ca", files.client_ca)
    client = issue(other_ca, names=("client@example",))
    pair = (client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes())
    with serve("--listen", f"{HOST}:0", *flags, "--unix", tmp_path / "plain.sock") as server:
        address, unix = server.addresses
        credentials = grpc.ssl_channel_credentials(ca.cert_pem.bytes(), *pair)
        with grpc.secure_channel(address, credentials) as channel:
            call = channel.unary_unary("/dwcp.anomaly.v1.ScoringService/GetModelSet")
            assert server.model_set_id.encode() in call(b"", timeout=WAIT)
        with grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.cert_pem.bytes())) as channel:
            call = channel.unary_unary("/dwcp.anomaly.v1.ScoringService/GetModelSet")
            with pytest.raises(grpc.RpcError):
                call(b"", timeout=5)
        with grpc.insecure_channel(unix) as channel:
            call = channel.unary_unary("/dwcp.anomaly.v1.ScoringService/GetModelSet")
            assert server.model_set_id.encode() in call(b"", timeout=WAIT)
        assert server.stop() == 0


@pytest.mark.parametrize("damage", [wrong_key, lambda files, ca: files.cert.unlink()])
def test_a_server_process_does_not_start_with_bad_files(command, ca, files, reference_path, damage):
    damage(files, ca)
    flags = ("--listen", f"{HOST}:0", "--tls-cert", files.cert, "--tls-key", files.key)
    done = command("serve", "--models", reference_path, *flags)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("dwcp-sidecar: error: --tls-")
    assert done.stderr.count("\n") == 1
