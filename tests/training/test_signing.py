"""Signing (rule A8): keys, `--sign-key` of the training commands, `dwcp sign`, and openssl, which is no part of us."""

import logging
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.signatures import SIGNATURE, KeyFileError, PublicKeys
from dwcp_training.cli import app
from dwcp_training.data import forest_rows
from dwcp_training.pipeline import export, fit
from dwcp_training.profiles import IsolationForestDefaults
from dwcp_training.publish import Candidate, PublishError, publish
from dwcp_training.signing import PRIVATE_KEY, PUBLIC_KEY, SigningKey, fingerprint, new_keys

FOREST = ("train", "isolation-forest", "--synthetic", "--n-estimators", "5")


def invoke(*arguments: str | Path) -> str:
    """Runs `dwcp`, which must end with status 0, and gives what it printed."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 1, done.output
    assert "Traceback" not in done.output
    return done.output


@pytest.fixture(scope="module")
def forests() -> list[Candidate]:
    """Two forests to publish."""
    settings = IsolationForestDefaults(n_estimators=3)
    return [
        export("isolation_forest", fit("isolation_forest", forest_rows(300, seed=seed), settings), 42)[0]
        for seed in (1, 2)
    ]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    new_keys(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def signer(keys: Path) -> SigningKey:
    return SigningKey.read(keys / PRIVATE_KEY)


def other_signer(tmp_path: Path) -> SigningKey:
    new_keys(tmp_path / "other")
    return SigningKey.read(tmp_path / "other" / PRIVATE_KEY)


def test_new_keys_belong_together_and_the_private_one_is_private(tmp_path):
    said = invoke("keys", "new", "--output", tmp_path / "a/b")
    private, public = tmp_path / "a/b" / PRIVATE_KEY, tmp_path / "a/b" / PUBLIC_KEY
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"BEGIN PRIVATE KEY" in private.read_bytes()
    keys = PublicKeys.read(public)
    assert keys.raw == SigningKey.read(private).public_keys.raw
    assert fingerprint(keys) in said
    before = private.read_bytes()
    assert "is there already" in refused("keys", "new", "--output", tmp_path / "a/b")
    private.unlink()
    assert "is there already" in refused("keys", "new", "--output", tmp_path / "a/b")
    assert not private.exists()
    new_keys(tmp_path / "c")
    assert (tmp_path / "c" / PRIVATE_KEY).read_bytes() != before


def test_keys_are_not_written_through_a_link(tmp_path):
    """A link that points nowhere is a file that is there: its target would not be private."""
    (tmp_path / PRIVATE_KEY).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PublishError):
        new_keys(tmp_path)
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / PUBLIC_KEY).exists()


def test_training_signs(tmp_path, keys):
    """The signature is in the release, and a link through `current` in the folder."""
    models = tmp_path / "models"
    said = invoke(*FOREST, "--output", models, "--sign-key", keys / PRIVATE_KEY)
    assert SIGNATURE in said
    public = PublicKeys.read(keys / PUBLIC_KEY)
    opened = ModelSet.open(models, public_keys=public)
    assert (models / SIGNATURE).is_symlink()
    assert (models / SIGNATURE).resolve() == opened.path / SIGNATURE
    assert (opened.path / SIGNATURE).stat().st_size == 64
    assert SIGNATURE not in (opened.path / "manifest.json").read_text()
    member = ("train", "one-class-svm", "--synthetic", "--max-rows", "100")
    invoke(*member, "--output", models, "--sign-key", keys / PRIVATE_KEY)
    ensemble = ("train", "ensemble", "--synthetic", "--models", models, "--sign-key", keys / PRIVATE_KEY)
    assert SIGNATURE in invoke(*ensemble)
    assert set(ModelSet.open(models, public_keys=public).models) == {"isolation_forest", "one_class_svm", "ensemble"}


@pytest.mark.slow
def test_the_scripts_of_the_seed_sign(tmp_path, keys):
    import sys

    script = Path(__file__).resolve().parents[2] / "training/train_isolation_forest.py"
    command = [sys.executable, script, "--synthetic", "--n-estimators", "3", "--output", tmp_path / "models"]
    subprocess.run([*command, "--sign-key", keys / PRIVATE_KEY], check=True, capture_output=True, timeout=120)
    assert ModelSet.open(tmp_path / "models", public_keys=PublicKeys.read(keys / PUBLIC_KEY))


def test_a_bad_key_is_refused_before_anything_is_trained(tmp_path, keys):
    for path in (tmp_path / "missing.pem", keys / PUBLIC_KEY):
        assert str(path) in refused(*FOREST, "--output", tmp_path / "models", "--sign-key", path)
    assert not (tmp_path / "models").exists()


def private_pem(key, encryption=None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption or serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"", "no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nanVuaw==\n-----END PRIVATE KEY-----\n", "no private key"),
        (private_pem(ec.generate_private_key(ec.SECP256R1())), "another kind"),
        (private_pem(Ed25519PrivateKey.generate(), serialization.BestAvailableEncryption(b"x")), "password"),
    ],
)
def test_other_files_are_no_signing_keys(tmp_path, contents, said):
    path = tmp_path / "key.pem"
    path.write_bytes(contents)
    with pytest.raises(KeyFileError, match=said) as error:
        SigningKey.read(path)
    assert str(path) in str(error.value)


def test_a_key_that_others_can_read_is_warned_about(tmp_path, keys, forests):
    publish(tmp_path / "models", forests[:1])
    assert "may read" not in invoke("sign", "--models", tmp_path / "models", "--key", keys / PRIVATE_KEY)
    (keys / PRIVATE_KEY).chmod(0o640)
    assert "may read" in invoke("sign", "--models", tmp_path / "models", "--key", keys / PRIVATE_KEY)


def test_a_set_that_exists_is_signed(tmp_path, keys, signer, forests):
    models = tmp_path / "models"
    opened = publish(models, forests[:1])
    with pytest.raises(ContractError, match="SIGNATURE_MISSING"):
        ModelSet.open(models, public_keys=signer.public_keys)
    said = invoke("sign", "--models", models, "--key", keys / PRIVATE_KEY)
    assert opened.id in said
    assert ModelSet.open(models, public_keys=signer.public_keys).id == opened.id
    assert (models / SIGNATURE).is_symlink()
    first = (models / SIGNATURE).read_bytes()
    invoke("sign", "--models", models, "--key", keys / PRIVATE_KEY)
    assert (models / SIGNATURE).read_bytes() == first
    # By another key: rotation.
    second = other_signer(tmp_path)
    invoke("sign", "--models", models, "--key", tmp_path / "other" / PRIVATE_KEY)
    assert ModelSet.open(models, public_keys=PublicKeys([*signer.public_keys.raw, *second.public_keys.raw]))
    with pytest.raises(ContractError, match="SIGNATURE_INVALID"):
        ModelSet.open(models, public_keys=signer.public_keys)
    assert sorted(path.name for path in (models / "current").iterdir() if path.name.startswith(".")) == []


def test_a_set_without_releases_is_signed(tmp_path, keys, signer, reference_set):
    models = Path(shutil.copytree(reference_set, tmp_path / "models"))
    invoke("sign", "--models", models, "--key", keys / PRIVATE_KEY)
    assert (models / SIGNATURE).is_file()
    assert ModelSet.open(models, public_keys=signer.public_keys)


def test_a_damaged_set_is_not_signed(tmp_path, keys, forests):
    models = tmp_path / "models"
    publish(models, forests[:1])
    graph = models / "isolation_forest.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    assert "DIGEST_MISMATCH" in refused("sign", "--models", models, "--key", keys / PRIVATE_KEY)
    assert not (models / SIGNATURE).exists()


def test_publishing_the_same_set_again_signs_it(tmp_path, signer, forests):
    """It stays the release that it is; only the signature comes to it, or is replaced."""
    models = tmp_path / "models"
    first = publish(models, forests[:1])
    inode = (first.path / "manifest.json").stat().st_ino
    again = publish(models, forests[:1], signer)
    assert (again.id, (again.path / "manifest.json").stat().st_ino) == (first.id, inode)
    assert ModelSet.open(models, public_keys=signer.public_keys)
    other = other_signer(tmp_path)
    publish(models, forests[:1], other)
    assert ModelSet.open(models, public_keys=other.public_keys)
    publish(models, forests[:1])
    assert ModelSet.open(models, public_keys=other.public_keys), "the same bytes are as signed as before"


def test_an_unsigned_set_after_a_signed_one_is_warned_about(tmp_path, signer, forests, caplog):
    models = tmp_path / "models"
    publish(models, forests[:1], signer)
    with caplog.at_level(logging.WARNING):
        publish(models, forests[1:])
    assert "readers with public keys refuse it" in caplog.text
    assert not (models / SIGNATURE).exists()
    assert not (models / SIGNATURE).is_symlink()
    with pytest.raises(ContractError, match="SIGNATURE_MISSING"):
        ModelSet.open(models, public_keys=signer.public_keys)


def test_models_of_unknown_origin_are_not_signed_in_silence(tmp_path, signer, reference_set, forests, caplog):
    """What stands in the folder is published along, so it is signed along."""
    for owner, warned in ((None, True), (other_signer(tmp_path), True), (signer, False)):
        caplog.clear()
        models = Path(shutil.copytree(reference_set, tmp_path / f"models-{warned}-{owner is None}"))
        if owner is not None:
            (models / SIGNATURE).write_bytes(owner.sign((models / "manifest.json").read_bytes()))
        with caplog.at_level(logging.WARNING):
            published = publish(models, forests[:1], signer)
        assert set(published.models) == {"isolation_forest", "lstm_autoencoder"}
        assert ("lstm_autoencoder" in caplog.text and "signed along" in caplog.text) == warned


def test_a_publish_that_fails_leaves_the_signed_set(tmp_path, signer, forests, monkeypatch):
    from dwcp_training import publish as publishing

    models = tmp_path / "models"
    old = publish(models, forests[:1], signer)

    def full(path: Path, data: bytes) -> None:
        if path.name == SIGNATURE:
            raise OSError(28, "No space left on device")
        path.write_bytes(data)

    monkeypatch.setattr(publishing, "_write", full)
    with pytest.raises(PublishError, match="No space left"):
        publish(models, forests[1:], signer)
    assert ModelSet.open(models, public_keys=signer.public_keys).id == old.id
    assert [path.name for path in (models / "releases").iterdir()] == [old.path.name]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_verifies_and_signs(tmp_path, keys, signer, forests):
    """The commands of docs/operations.md."""
    models = tmp_path / "models"
    publish(models, forests[:1], signer)
    manifest, signature = models / "manifest.json", models / SIGNATURE

    def openssl(*arguments: str | Path) -> subprocess.CompletedProcess:
        return subprocess.run(["openssl", *arguments], capture_output=True, timeout=60)

    verify = ("pkeyutl", "-verify", "-pubin", "-inkey", keys / PUBLIC_KEY, "-rawin", "-in", manifest, "-sigfile")
    assert openssl(*verify, signature).returncode == 0
    wrong = tmp_path / "wrong.sig"
    wrong.write_bytes(bytes([signature.read_bytes()[0] ^ 1]) + signature.read_bytes()[1:])
    assert openssl(*verify, wrong).returncode != 0
    # The other way round: a key of openssl signs, its public key is read here.
    assert openssl("genpkey", "-algorithm", "ed25519", "-out", tmp_path / "theirs.pem").returncode == 0
    assert openssl("pkey", "-in", tmp_path / "theirs.pem", "-pubout", "-out", tmp_path / "theirs.pub").returncode == 0
    assert SigningKey.read(tmp_path / "theirs.pem").public_keys.raw == PublicKeys.read(tmp_path / "theirs.pub").raw
    sign = ("pkeyutl", "-sign", "-inkey", tmp_path / "theirs.pem", "-rawin", "-in", manifest, "-out", wrong)
    assert openssl(*sign).returncode == 0
    PublicKeys.read(tmp_path / "theirs.pub").check_bytes(wrong.read_bytes(), manifest.read_bytes())
    assert wrong.read_bytes() == SigningKey.read(tmp_path / "theirs.pem").sign(manifest.read_bytes())
