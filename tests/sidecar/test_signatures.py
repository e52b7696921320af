"""Signed model sets (rule A8): what both languages accept, what they refuse, and with which code and field."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet, identify, verify
from dwcp_sidecar.server import status
from dwcp_sidecar.signatures import MAX_KEY_FILE_BYTES, SIGNATURE, KeyFileError, PublicKeys, parse_public_keys
from tests.conformance.go_program import GO_FOLDER, contract_score
from tests.sidecar.clients import Caller
from tests.sidecar.releases import Releases
from tests.sidecar.signed_set import Keys

pytestmark = pytest.mark.timeout(120)
WAIT = 60


@pytest.fixture(scope="module")
def keys() -> Keys:
    return Keys()


@pytest.fixture(scope="module")
def other() -> Keys:
    return Keys()


@pytest.fixture
def signed(sets: dict[str, ModelSet], keys: Keys, tmp_path: Path) -> Path:
    """A copy of a small set, signed."""
    return keys.sign(Path(shutil.copytree(sets["forest_a"].path, tmp_path / "set")))


def go_says(models: Path, *files: Path) -> str:
    """What the Go package says to a set with files of public keys; empty when it is accepted."""
    flags = [argument for file in files for argument in ("--public-key", file)]
    done = subprocess.run(
        [contract_score("native"), "--models", models, "--backend", "native", *flags],
        cwd=GO_FOLDER, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    assert done.returncode == (1 if done.stderr else 0)
    return done.stderr


def assert_refused(models: Path, keys: PublicKeys, file: Path, code: str) -> None:
    """Python and Go refuse with one code and field; so do the ways that only look at the digests."""
    for look in (lambda: ModelSet.open(models, public_keys=keys), lambda: verify(models, keys)):
        with pytest.raises(ContractError) as refused:
            look()
        assert (refused.value.code, refused.value.field) == (code, SIGNATURE), refused.value.message
    assert f"{code} {SIGNATURE}" in go_says(models, file)


def test_a_signed_set_is_opened(signed, keys, other, tmp_path):
    """With its key, with several of which one is its own, and without any."""
    both = tmp_path / "both.pem"
    both.write_bytes(other.pem + b"the key of this year\n" + keys.pem)
    for given in ([keys.write(tmp_path / "a.pem")], [both], [other.write(tmp_path / "b.pem"), tmp_path / "a.pem"]):
        public = PublicKeys.read(*given)
        assert ModelSet.open(signed, public_keys=public).id == verify(signed, public) == identify(signed, public)
        assert go_says(signed, *given) == ""
    assert ModelSet.open(signed).id == ModelSet.open(signed, public_keys=keys.public).id
    assert go_says(signed) == ""


def flipped(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("manifest.json", lambda data: flipped(data, 800)),
        ("manifest.json", lambda data: data + b"\n"),
        ("manifest.json", lambda data: b"{"),  # what nobody signed is not even parsed
        *((SIGNATURE, lambda data, bit=bit: flipped(data, bit)) for bit in (0, 300, 511)),
        (SIGNATURE, lambda data: data[:63]),
        (SIGNATURE, lambda data: data + b"\n"),
        (SIGNATURE, lambda data: b""),
        (SIGNATURE, lambda data: bytes(64)),
        (SIGNATURE, lambda data: data.hex().encode()),
    ],
)
def test_changed_bytes_are_refused(signed, keys, tmp_path, file, change):
    before = (signed / file).read_bytes()
    (signed / file).write_bytes(change(before))
    assert (signed / file).read_bytes() != before
    assert_refused(signed, keys.public, keys.write(tmp_path / "key.pem"), "SIGNATURE_INVALID")


def test_every_bit_of_a_signature_counts(signed, keys):
    manifest, signature = (signed / "manifest.json").read_bytes(), (signed / SIGNATURE).read_bytes()
    assert keys.public.signed(signature, manifest)
    assert not any(keys.public.signed(flipped(signature, bit), manifest) for bit in range(512))


def test_another_key_is_refused(signed, keys, other, tmp_path):
    assert_refused(signed, other.public, other.write(tmp_path / "key.pem"), "SIGNATURE_INVALID")
    other.sign(signed)
    assert_refused(signed, keys.public, keys.write(tmp_path / "key.pem"), "SIGNATURE_INVALID")


def test_the_signature_of_another_release_is_refused(signed, sets, keys, tmp_path):
    """Both sets are signed by the right key; their signatures change places."""
    second = keys.sign(Path(shutil.copytree(sets["forest_b"].path, tmp_path / "second")))
    shutil.copy(second / SIGNATURE, signed / SIGNATURE)
    assert_refused(signed, keys.public, keys.write(tmp_path / "key.pem"), "SIGNATURE_INVALID")


def remove(path: Path) -> None:
    path.unlink()


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize("change", [remove, folder_instead, link_to_nowhere])
def test_a_missing_signature_is_refused(signed, keys, tmp_path, change):
    change(signed / SIGNATURE)
    assert_refused(signed, keys.public, keys.write(tmp_path / "key.pem"), "SIGNATURE_MISSING")
    assert ModelSet.open(signed).id, "who asks for no signature does not look at it"
    assert go_says(signed) == ""


def test_links_lead_to_the_signature(sets, keys, tmp_path):
    """It is the one beside the manifest that counts (A6), not what stands in the folder of the links."""
    file = keys.write(tmp_path / "key.pem")
    folder = Releases(tmp_path / "models", a=sets["forest_a"].path, b=sets["forest_b"].path)
    keys.sign(folder.folder("a"))
    for path in (folder.path, folder.path / "current", folder.folder("a")):
        assert ModelSet.open(path, public_keys=keys.public).id == sets["forest_a"].id
        assert go_says(path, file) == ""
    (folder.path / SIGNATURE).write_bytes(b"not looked at")
    assert ModelSet.open(folder.path, public_keys=keys.public)
    assert go_says(folder.path, file) == ""
    assert ModelSet.open(folder.path), "nor without keys"
    folder.switch("b")
    shutil.copy(folder.folder("a") / SIGNATURE, folder.path / SIGNATURE)
    assert_refused(folder.path, keys.public, file, "SIGNATURE_MISSING")


def test_what_is_signed_includes_every_file(signed, keys):
    graph = signed / "isolation_forest.onnx"
    graph.write_bytes(flipped(graph.read_bytes(), 8000))
    with pytest.raises(ContractError) as refused:
        ModelSet.open(signed, public_keys=keys.public)
    assert (refused.value.code, refused.value.field) == ("DIGEST_MISMATCH", graph.name)


# Files of keys.


def private_key() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def elliptic_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


BAD_KEYS = {
    "empty": lambda pem: b"",
    "text": lambda pem: b"no key here\n",
    "private": lambda pem: private_key(),
    "private_behind": lambda pem: pem + private_key(),
    "certificate": lambda pem: pem.replace(b"PUBLIC KEY", b"CERTIFICATE"),
    "another_kind": lambda pem: elliptic_key(),
    "damaged": lambda pem: pem[:60] + b"\n" + pem[70:],
    "cut_off": lambda pem: pem + pem[:60],
    "no_key_inside": lambda pem: b"-----BEGIN PUBLIC KEY-----\nanVuaw==\n-----END PUBLIC KEY-----\n",
    "too_large": lambda pem: pem + bytes(MAX_KEY_FILE_BYTES),
}


@pytest.mark.parametrize("damage", BAD_KEYS)
def test_bad_key_files_are_refused(damage, signed, keys, tmp_path, command):
    """The same files in both languages, before a model set is looked at."""
    file = tmp_path / "key.pem"
    file.write_bytes(BAD_KEYS[damage](keys.pem))
    with pytest.raises(KeyFileError, match=re.escape(str(file))):
        PublicKeys.read(file)
    assert str(file) in go_says(signed, file)
    if "private" in damage:
        done = command("check", "--models", signed, "--public-key", file)
        assert (done.returncode, done.stdout) == (1, "")
        assert str(file) in done.stderr
        assert "private key" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_server_with_a_bad_key_file_does_not_start(command, reference_path, tmp_path):
    missing = tmp_path / "missing.pem"
    for workers in ("1", "2"):
        done = command(
            "serve", "--models", reference_path, "--listen", "127.0.0.1:0", "--public-key", missing,
            "--workers", workers,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, "")
        assert f"--public-key: {missing} cannot be read: No such file" in done.stderr


def test_no_key_is_no_set_of_keys():
    with pytest.raises(ValueError, match="no public key"):
        PublicKeys([])
    with pytest.raises(KeyFileError):
        PublicKeys.read()


def test_comments_and_line_ends_are_no_fault(keys):
    for text in (keys.pem, keys.pem.replace(b"\n", b"\r\n"), keys.pem.rstrip(), b"\xff caf\xe9\n" + keys.pem):
        assert parse_public_keys(text, "key.pem") == [keys.raw]


# The commands.


def test_check_says_whether_a_set_is_signed(command, signed, keys, other, tmp_path):
    right, wrong = keys.write(tmp_path / "right.pem"), other.write(tmp_path / "wrong.pem")
    done = command("check", "--models", signed, "--public-key", wrong, "--public-key", right)
    assert done.returncode == 0, done.stderr
    assert "signed" in done.stdout
    done = command("check", "--models", signed, "--public-key", wrong)
    assert (done.returncode, done.stdout) == (1, "")
    assert "SIGNATURE_INVALID" in done.stderr
    assert command("check", "--models", signed).returncode == 0


def test_score_asks_for_a_signature(command, signed, keys, other, tmp_path):
    line = '{"id": 1, "detector": "isolation_forest", "samples": [[105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]]}\n'
    right, wrong = keys.write(tmp_path / "right.pem"), other.write(tmp_path / "wrong.pem")
    assert command("score", "--models", signed, "--public-key", right, input=line).returncode == 0
    done = command("score", "--models", signed, "--public-key", wrong, input=line)
    assert (done.returncode, done.stdout) == (1, "")


def refusal_of(caller: Caller) -> tuple[str, str]:
    """Code and field with which a reload is refused."""
    with pytest.raises(grpc.RpcError) as refused:
        caller.reload()
    error = status.from_grpc(refused.value)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    return error.code, error.field


@pytest.mark.parametrize("program", ["serve", "serve_workers", "serve_go"])
def test_a_server_swaps_to_signed_sets_alone(program, request, sets, keys, other, tmp_path):
    """An unsigned set and one of another key are refused and counted, and the one in use stays."""
    start = request.getfixturevalue(program.removesuffix("_workers"))
    flags = ["--workers", "2"] if program == "serve_workers" else []
    folder = Releases(tmp_path / "models", a=sets["forest_a"].path, b=sets["forest_b"].path, c=sets["a"].path)
    keys.sign(folder.folder("a"))
    other.sign(folder.folder("c"))
    file = keys.write(tmp_path / "key.pem")
    with (
        start("--listen", "127.0.0.1:0", "--watch", "0.1", "--public-key", file, *flags, models=folder.path) as server,
        Caller(server.address) as caller,
    ):
        file.unlink()  # keys are read once
        for name, code in (("b", "SIGNATURE_MISSING"), ("c", "SIGNATURE_INVALID")):
            folder.switch(name)
            assert refusal_of(caller) == (code, SIGNATURE)
            assert caller.id() == sets["forest_a"].id
        keys.sign(folder.folder("b"))
        folder.switch("b")
        caller.until(sets["forest_b"].id)
        (folder.folder("b") / SIGNATURE).unlink()
        assert refusal_of(caller) == ("SIGNATURE_MISSING", SIGNATURE)
        assert caller.id() == sets["forest_b"].id, "the set in use stays in use"


def test_a_server_does_not_start_on_an_unsigned_set(command, reference_path, keys, tmp_path):
    file = keys.write(tmp_path / "key.pem")
    for workers in ("1", "2"):
        done = command(
            "serve", "--models", reference_path, "--listen", "127.0.0.1:0", "--public-key", file, "--workers", workers
        )
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert "SIGNATURE_MISSING" in done.stderr


def test_cryptography_is_loaded_only_with_keys(signed, keys, tmp_path):
    code = (
        "import sys, dwcp_sidecar.cli, dwcp_sidecar.server.single\n"
        "from dwcp_sidecar.server import flags\n"
        "from dwcp_sidecar.model_set import ModelSet\n"
        "keys = flags.public_keys(sys.argv[2:])\n"
        "ModelSet.open(sys.argv[1], public_keys=keys)\n"
        "print('cryptography' in sys.modules)\n"
    )
    for files, loaded in (([], "False"), ([keys.write(tmp_path / "key.pem")], "True")):
        done = subprocess.run(
            [sys.executable, "-c", code, signed, *files], capture_output=True, text=True, timeout=WAIT
        )
        assert done.stdout.strip() == loaded, done.stderr
