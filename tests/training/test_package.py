"""Packages: equal bytes every time, verified with the package and a public key alone, and nothing hostile gets out."""

import io
import json
import os
import pickle
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.signatures import SIGNATURE, PublicKeys
from dwcp_training.cli import app
from dwcp_training.data import forest_rows
from dwcp_training.package_file import PackageError, read_from, read_package, write_package
from dwcp_training.pipeline import export, fit
from dwcp_training.profiles import IsolationForestDefaults
from dwcp_training.publish import publish
from dwcp_training.signing import PRIVATE_KEY, PUBLIC_KEY, SigningKey, new_keys

Members = list[tuple[tarfile.TarInfo, bytes]]


def invoke(*arguments: str | Path, status: int = 0) -> str:
    """Runs `dwcp` and gives what it printed."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == status, done.output
    assert "Traceback" not in done.output
    return done.output


class Site:
    """A signed set, its keys, and a package of it."""

    def __init__(self, path: Path) -> None:
        new_keys(path / "keys")
        new_keys(path / "others")
        self.private, self.public = path / "keys" / PRIVATE_KEY, path / "keys" / PUBLIC_KEY
        self.keys = PublicKeys.read(self.public)
        self.other_public = path / "others" / PUBLIC_KEY
        self.models = path / "models"
        settings = IsolationForestDefaults(n_estimators=3)
        self.candidates = [
            export("isolation_forest", fit("isolation_forest", forest_rows(300, seed=seed), settings), 42)[0]
            for seed in (1, 2)
        ]
        self.opened = publish(self.models, self.candidates[:1], SigningKey.read(self.private))
        self.package = path / "site.dwcp.tar"
        invoke("package", "create", "--models", self.models, "--output", self.package)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


def unpack(package: Path, models: Path, *keys: Path, status: int = 0) -> str:
    flags = [argument for key in keys for argument in ("--public-key", key)]
    return invoke("package", "unpack", package, "--models", models, *flags, status=status)


def test_equal_sets_give_equal_packages(site, tmp_path):
    """Whenever, wherever and by whomever it is made, also from the set that came out of a package."""
    unpack(site.package, tmp_path / "models", site.public)
    for path in (tmp_path / "models").rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    invoke("package", "create", "--models", tmp_path / "models", "--output", tmp_path / "again.dwcp.tar")
    assert (tmp_path / "again.dwcp.tar").read_bytes() == site.package.read_bytes()


def test_any_tar_program_reads_it(site, tmp_path):
    """A site that has only a sidecar needs no more than tar and `dwcp-sidecar check`."""
    tar = ["tar", "-x", "-f", site.package, "-C", tmp_path]
    subprocess.run(tar, check=True, timeout=60)
    assert ModelSet.open(tmp_path, public_keys=site.keys).id == site.opened.id
    with tarfile.open(site.package) as read:
        members = read.getmembers()
    assert [member.name for member in members[:2]] == ["manifest.json", SIGNATURE]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


def test_no_pickle_is_carried_unasked(site, tmp_path):
    assert (site.models / "isolation_forest.pkl").exists()
    package = read_package(site.package)
    assert not any(name.endswith((".pkl", ".h5", ".keras")) for name in package.files)
    unpack(site.package, tmp_path / "models", site.public)
    assert not list((tmp_path / "models").rglob("*.pkl"))
    full = tmp_path / "full.dwcp.tar"
    assert "pickles" in invoke("package", "create", "--models", site.models, "--output", full, "--by-products")
    assert pickle.loads(read_package(full, site.keys).files["isolation_forest.pkl"])


def test_an_unpacked_package_is_the_set_in_use(site, tmp_path):
    """It takes the place of what was there, which stays as a former release."""
    models = tmp_path / "models"
    former = publish(models, site.candidates[1:])
    said = unpack(site.package, models, site.public)
    assert site.opened.id in said
    opened = ModelSet.open(models, public_keys=site.keys)
    assert opened.id == site.opened.id
    assert (models / SIGNATURE).resolve() == opened.path / SIGNATURE
    assert ModelSet.open(models / "releases" / former.path.name).id == former.id
    unpack(site.package, models, site.public)  # again: nothing changes
    assert ModelSet.open(models, public_keys=site.keys).id == site.opened.id


def test_verify_needs_no_more_than_package_and_key(site, tmp_path):
    shutil.copy(site.package, tmp_path / "p.dwcp.tar")
    shutil.copy(site.public, tmp_path / "k.pem")
    said = invoke("package", "verify", tmp_path / "p.dwcp.tar", "--public-key", tmp_path / "k.pem")
    assert site.opened.id in said
    assert "by one of the public keys" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.pem", "p.dwcp.tar"]
    assert "not checked" in invoke("package", "verify", site.package)
    both = ("--public-key", site.other_public, "--public-key", site.public)
    invoke("package", "verify", site.package, *both)


def test_an_unsigned_package_is_refused_with_a_key(site, tmp_path):
    unsigned = tmp_path / "unsigned.dwcp.tar"
    models = tmp_path / "unsigned"
    publish(models, site.candidates[:1])
    assert "not signed" in invoke("package", "create", "--models", models, "--output", unsigned)
    for command in (("verify", unsigned), ("unpack", unsigned, "--models", tmp_path / "out")):
        said = invoke("package", *command, "--public-key", site.public, status=1)
        assert "SIGNATURE_MISSING" in said
    assert not (tmp_path / "out").exists()
    invoke("package", "create", "--models", models, "--output", unsigned, "--sign-key", site.private)
    unpack(unsigned, tmp_path / "out", site.public)
    assert not (models / SIGNATURE).exists(), "the set itself was not signed"


def test_another_key_is_refused(site, tmp_path):
    said = unpack(site.package, tmp_path / "models", site.other_public, status=1)
    assert "SIGNATURE_INVALID" in said
    assert not (tmp_path / "models").exists()


def test_a_set_that_does_not_open_is_not_put_into_use(site, tmp_path):
    """Signed as it is: golden vectors that differ here are found before the switch."""
    files = dict(read_package(site.package).files)
    graph, golden = "isolation_forest.onnx", "isolation_forest.golden.json"
    changed = json.loads(files[golden])
    case = next(case for case in changed["cases"] if "score" in case)
    case["score"]["is_anomaly"] = not case["score"]["is_anomaly"]
    files[golden] = json.dumps(changed).encode()
    manifest = json.loads((site.models / "manifest.json").read_bytes())
    for entry in manifest["files"]:
        if entry["path"] == golden:
            import hashlib

            entry |= {"sha256": hashlib.sha256(files[golden]).hexdigest(), "size": len(files[golden])}
    raw = json.dumps(manifest).encode()
    package = tmp_path / "wrong.dwcp.tar"
    with package.open("wb") as file:
        write_package(file, raw, SigningKey.read(site.private).sign(raw), files)
    former = publish(tmp_path / "models", site.candidates[1:])
    assert "GOLDEN_MISMATCH" in unpack(package, tmp_path / "models", site.public, status=1)
    assert ModelSet.open(tmp_path / "models").id == former.id
    assert [path.name for path in (tmp_path / "models/releases").iterdir()] == [former.path.name]
    assert graph in files


# Hostile packages. The manifest is signed and right in all of them.


def members_of(package: Path) -> Members:
    with tarfile.open(package) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar.getmembers()]


def packed(members: Members, form: int = tarfile.USTAR_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def renamed(name: str) -> Callable[[Members], bytes]:
    def change(members: Members) -> bytes:
        members[-1][0].name = name
        return packed(members)

    return change


def added(name: str, data: bytes = b"x", **attributes: object) -> Callable[[Members], bytes]:
    def change(members: Members) -> bytes:
        member = tarfile.TarInfo(name)
        member.mode, member.mtime = 0o644, 0
        member.size = len(data)
        for attribute, value in attributes.items():
            setattr(member, attribute, value)
        if not member.isreg():
            member.size, data_there = 0, b""
        else:
            data_there = data
        return packed([*members, (member, data_there)])

    return change


def instead(kind: bytes, target: str = "/etc/passwd") -> Callable[[Members], bytes]:
    """The last file is a link, a device, a pipe or a folder of that name."""

    def change(members: Members) -> bytes:
        member, _ = members[-1]
        member.type, member.linkname, member.size = kind, target, 0
        return packed([*members[:-1], (member, b"")])

    return change


def bytes_of(change: Callable[[bytearray], object]) -> Callable[[Members], bytes]:
    def changed(members: Members) -> bytes:
        data = bytearray(packed(members))
        result = change(data)
        return bytes(data if result is None else result)

    return changed


def claims(size: int) -> Callable[[Members], bytes]:
    """The header of the last file says another size, its checksum is right."""

    def change(members: Members) -> bytes:
        last = members[-1][0]
        head = packed(members[:-1])[: sum(512 + -(-m.size // 512) * 512 for m, _ in members[:-1])]
        last.size = size
        return head + last.tobuf(tarfile.GNU_FORMAT) + members[-1][1] + bytes(10240)

    return change


def with_mode(members: Members) -> bytes:
    members[0][0].mode = 0o4755
    return packed(members)


def with_time(members: Members) -> bytes:
    members[0][0].mtime = 1
    return packed(members)


HOSTILE = {
    "parent": renamed("../model_metadata.json"),
    "absolute": renamed("/tmp/model_metadata.json"),
    "folder": renamed("sub/model_metadata.json"),
    "backslash": renamed("..\\model_metadata.json"),
    "dots": renamed(".."),
    "not_listed": added("extra.json"),
    "pickle": added("zzz.pkl", pickle.dumps([])),
    "twice": lambda members: packed([*members, members[-1]]),
    "twice_manifest": lambda members: packed([members[0], *members]),
    "twice_signature": lambda members: packed([*members[:2], members[1], *members[2:]]),
    "out_of_order": lambda members: packed([*members[:2], *reversed(members[2:])]),
    "signature_first": lambda members: packed([members[1], members[0], *members[2:]]),
    "symlink": instead(tarfile.SYMTYPE),
    "hard_link": instead(tarfile.LNKTYPE, "manifest.json"),
    "device": instead(tarfile.CHRTYPE),
    "block_device": instead(tarfile.BLKTYPE),
    "fifo": instead(tarfile.FIFOTYPE),
    "directory": instead(tarfile.DIRTYPE),
    "old_regular": lambda members: packed([*members[:-1], (_typed(members[-1][0], tarfile.AREGTYPE), members[-1][1])]),
    "sparse": lambda members: packed([*members[:-1], (_typed(members[-1][0], tarfile.GNUTYPE_SPARSE), members[-1][1])]),
    "long_name": lambda members: packed([*members, (_named("a" * 300), b"")], tarfile.GNU_FORMAT),
    "pax": lambda members: packed([*members, (_named("ä"), b"")], tarfile.PAX_FORMAT),
    "huge": claims(1 << 40),
    "huge_octal": claims(0o77777777777),
    "smaller": claims(10),
    "larger": claims(1 << 20),
    "mode": with_mode,
    "time": with_time,
    "missing": lambda members: packed(members[:-1]),
    "nothing": lambda members: packed([]),
    "empty": lambda members: b"",
    "only_zeros": lambda members: bytes(10240),
    "no_tar": lambda members: b"PK\x03\x04" + bytes(600),
    "garbage_behind": bytes_of(lambda data: data + b"\0" * 10240 + b"x"),
    "zeros_behind": bytes_of(lambda data: data + b"\0" * 10240),
    "garbage_in_the_end": bytes_of(lambda data: data.__setitem__(-1, 1)),
    "garbage_in_padding": bytes_of(lambda data: data.__setitem__(512 + 1200 + 200, 1)),
    "no_end": bytes_of(lambda data: data[:-10240]),
    "cut_off": bytes_of(lambda data: data[: len(data) // 2]),
    "cut_off_header": bytes_of(lambda data: data[:700]),
    "checksum": bytes_of(lambda data: data.__setitem__(150, data[150] ^ 1)),
    "contents": bytes_of(lambda data: data.__setitem__(20_000, data[20_000] ^ 1)),
    "signature": bytes_of(lambda data: data.__setitem__(512 + 1536 + 512 + 5, data[512 + 1536 + 512 + 5] ^ 1)),
    "manifest": bytes_of(lambda data: data.__setitem__(600, data[600] ^ 1)),
}


def _typed(member: tarfile.TarInfo, kind: bytes) -> tarfile.TarInfo:
    member.type = kind
    return member


def _named(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode, member.mtime = 0o644, 0
    return member


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_packages_are_refused(attack, site, tmp_path):
    """With a typed error, and nothing is written anywhere."""
    data = HOSTILE[attack](members_of(site.package))
    assert data != site.package.read_bytes()
    package = tmp_path / "hostile.dwcp.tar"
    package.write_bytes(data)
    for keys in (site.keys, None):
        if keys is None and attack == "signature":
            continue  # without keys nobody looks at it
        with pytest.raises((PackageError, ContractError)):
            read_package(package, keys)
    invoke("package", "verify", package, "--public-key", site.public, status=1)
    said = unpack(package, tmp_path / "models", site.public, status=1)
    assert "was not touched" in said
    assert [path.name for path in tmp_path.iterdir()] == ["hostile.dwcp.tar"]


def test_every_cut_is_refused(site):
    """A package that stopped anywhere, as a stick that was pulled out leaves it."""
    data = site.package.read_bytes()
    for length in [*range(0, len(data), 1021), len(data) - 1]:
        with pytest.raises((PackageError, ContractError)):
            read_from(io.BytesIO(data[:length]), site.keys)


def test_a_full_disk_leaves_the_set_in_use(site, tmp_path, monkeypatch):
    from dwcp_training import publish as publishing

    former = publish(tmp_path / "models", site.candidates[1:])

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publishing, "_write", full)
    assert "No space left" in unpack(site.package, tmp_path / "models", site.public, status=1)
    monkeypatch.undo()
    assert ModelSet.open(tmp_path / "models").id == former.id


def test_wrong_usage(site, tmp_path):
    invoke("package", "create", "--models", site.models, "--output", tmp_path / "models.zip", status=2)
    assert "cannot be read" in invoke("package", "verify", tmp_path / "missing.dwcp.tar", status=1)
    assert "cannot be read" in invoke("package", "verify", site.package, "--public-key", tmp_path / "no", status=1)
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_cannot_be_written_leaves_the_former_one(site, tmp_path, monkeypatch):
    package = tmp_path / "p.dwcp.tar"
    package.write_bytes(b"former")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dwcp_training.package.write_package", full)
    invoke("package", "create", "--models", site.models, "--output", package, status=1)
    assert package.read_bytes() == b"former"
    assert len(list(tmp_path.iterdir())) == 1
