"""The systemd units: accepted by systemd's own checks, and their commands start, reload and stop a real sidecar."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dwcp_sidecar.client import Client
from tests.deploy import unit_file
from tests.deploy.tools import DEPLOY, REFERENCE, ROOT, tool

UNITS = sorted((DEPLOY / "systemd").glob("dwcp-sidecar*.service"))
MOST_EXPOSED = 1.2
"""On the scale of `systemd-analyze security`: 0 is locked up, 10 is open. Most services have over 9."""
WAIT = 60
ROW = [105.2, 55.0, 0.01, 1.2, 45.3, 58.7, 0.001]
units = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=WAIT)


@units
def test_verify(unit: Path, tmp_path: Path) -> None:
    # Programs are installed later: here anything that can be executed stands for them.
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", unit.read_text(), flags=re.M)
    (tmp_path / unit.name).write_text(text)
    done = run(tool("systemd-analyze"), "verify", "--man=no", tmp_path / unit.name)
    assert done.returncode == 0, done.stderr
    assert unit.stem not in done.stderr


@units
def test_what_the_handbook_adds_verifies(unit: Path, tmp_path: Path) -> None:
    (added,) = re.findall(r"^```ini\n(.*?)^```", (ROOT / "docs/operations.md").read_text(), re.S | re.M)
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", unit.read_text(), flags=re.M)
    (tmp_path / unit.name).write_text(text + added)
    done = run(tool("systemd-analyze"), "verify", "--man=no", tmp_path / unit.name)
    assert (done.returncode, unit.stem in done.stderr) == (0, False), done.stderr


def test_verify_would_notice(tmp_path: Path) -> None:
    (tmp_path / "bad.service").write_text("[Service]\nExecStart=/bin/true\nProtectSystm=strict\n")
    assert "ProtectSystm" in run(tool("systemd-analyze"), "verify", "--man=no", tmp_path / "bad.service").stderr


@units
def test_exposure(unit: Path) -> None:
    done = run(tool("systemd-analyze"), "security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}", unit)
    assert done.returncode == 0, done.stdout[-2000:]
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert found
    assert float(found[1]) <= MOST_EXPOSED


@units
def test_settings_belong_together(unit: Path) -> None:
    service = unit_file.parse(unit)["Service"]
    start = service["ExecStart"][0]
    grace = float(re.findall(r"--grace (\S+)", start)[0])
    assert float(service["TimeoutStopSec"][0]) >= grace + 10, "systemd kills what drains for longer"
    assert service["KillMode"] == ["mixed"], "a second SIGTERM, to a worker, would cut its calls off"
    assert service["Restart"] == ["on-failure"]
    assert service["DynamicUser"] == ["yes"]
    assert service["ReadOnlyPaths"] == re.findall(r"--models (\S+)", start)
    assert service["RuntimeDirectory"] == ["dwcp"]
    assert re.findall(r"--unix (\S+)", start) == ["/run/dwcp/score.sock"]
    assert "--metrics 127.0.0.1:" in start
    assert not re.search("--listen", start), "loopback or less, unless asked"
    high, most = (int(service[name][0].removesuffix("M")) for name in ("MemoryHigh", "MemoryMax"))
    assert high < most


def test_group_and_folders() -> None:
    for program, name in (("systemd-sysusers", "sysusers"), ("systemd-tmpfiles", "tmpfiles")):
        text = (DEPLOY / f"systemd/dwcp.{name}.conf").read_text()
        assert "dwcp" in text
        if name == "sysusers":
            done = run(tool(program), "--dry-run", DEPLOY / "systemd/dwcp.sysusers.conf")
            assert done.returncode == 0, done.stderr
    folders = re.findall(r"^d (\S+) (\S+) root dwcp", (DEPLOY / "systemd/dwcp.tmpfiles.conf").read_text(), re.M)
    assert ("/var/lib/dwcp/models", "0750") in folders


@pytest.fixture
def programs(go_sidecar: Path) -> dict[str, str]:
    """Where the programs of the units are on this machine."""
    return {
        "/opt/dwcp/bin/dwcp-sidecar": tool("dwcp-sidecar"),
        "/usr/local/bin/dwcp-sidecar-go": str(go_sidecar),
    }


class Service:
    """A unit whose commands are run as systemd would."""

    def __init__(self, unit: Path, programs: dict[str, str], folder: Path) -> None:
        self.settings = unit_file.parse(unit)["Service"]
        self.socket = folder / "score.sock"
        self.replace = {**programs, "/run/dwcp": str(folder), "/var/lib/dwcp/models": str(REFERENCE)}
        self.replace |= dict.fromkeys(re.findall(r"127\.0\.0\.1:\d+", self.settings["ExecStart"][0]), "127.0.0.1:0")

    def words(self, name: str, **environment: str) -> list[str]:
        return unit_file.command(self.settings[name][0], self.replace, environment)

    def start(self, wrapper: list[str]) -> subprocess.Popen[str]:
        given = dict(entry.split("=", 1) for entry in self.settings["Environment"])
        environment = {"PATH": os.environ["PATH"], **given}
        return subprocess.Popen(
            [*wrapper, *self.words("ExecStart", DWCP_FLAGS="--watch 0 --max-series 100")],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )

    def post(self) -> None:
        """What makes `systemctl start` wait."""
        limit = float(self.settings["TimeoutStartSec"][0])
        subprocess.run(self.words("ExecStartPost"), check=True, timeout=limit)


@pytest.fixture
def service(request: pytest.FixtureRequest, programs: dict[str, str], tmp_path: Path) -> Service:
    return Service(request.param, programs, tmp_path)


def score(service: Service) -> float:
    with Client(f"unix:{service.socket}", timeout=WAIT) as client:
        return client.score("isolation_forest", [ROW]).verdict.score


@pytest.mark.parametrize("service", UNITS, ids=lambda path: path.stem, indirect=True)
def test_start_reload_stop(service: Service) -> None:
    process = service.start([])
    try:
        service.post()
        before = score(service)
        subprocess.run(service.words("ExecReload", MAINPID=str(process.pid)), check=True, timeout=WAIT)
        time.sleep(0.5)  # a signal that is not handled would have ended it
        assert process.poll() is None
        assert score(service) == before
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(float(service.settings["TimeoutStopSec"][0])) == 0
        assert time.monotonic() - begun < float(service.settings["TimeoutStopSec"][0])
        assert not (service.socket.with_name("ready")).exists()
    finally:
        if process.poll() is None:
            process.kill()
        print(process.communicate(timeout=WAIT)[1])


_LOCKED = """
import ctypes, os, sys
PR_SET_NO_NEW_PRIVS, PR_SET_MDWE = 38, 65
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
if prctl(PR_SET_MDWE, 1, 0, 0, 0) != 0:
    print("no PR_SET_MDWE before Linux 6.3: memory may be written and executed here", file=sys.stderr)
try:
    os.chown(".", -1, -1)
except PermissionError:
    os.execv(sys.argv[1], sys.argv[1:])
sys.exit("system calls are not forbidden")
"""


@pytest.mark.parametrize("service", UNITS, ids=lambda path: path.stem, indirect=True)
def test_it_scores_without_what_the_unit_forbids(service: Service) -> None:
    """System calls outside the filter fail with EPERM, memory is never writable and executable, no new privileges."""
    names = forbidden(unit_file.forbidden_calls(service.settings))
    assert {"chown", "mbind", "setuid"} <= set(names)
    inject = "inject=" + ",".join(f"?{name}" for name in names) + ":error=EPERM"
    trace = [tool("strace"), "-f", "-qq", "--seccomp-bpf", "-o", os.devnull, "-e", inject]
    process = service.start([*trace, sys.executable, "-c", _LOCKED])
    try:
        service.post()
        assert score(service) > 0
    finally:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # where it has ended, what it said is enough
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGTERM)
        print(process.communicate(timeout=WAIT)[1])
    assert process.returncode == 0


def forbidden(groups: list[str]) -> list[str]:
    """Names of the system calls of groups such as `@resources`, as this systemd knows them."""
    names: list[str] = []
    for group in groups:
        if not group.startswith("@"):
            names.append(group)
            continue
        lines = run(tool("systemd-analyze"), "syscall-filter", group).stdout.splitlines()[1:]
        names += forbidden([line.strip() for line in lines if line.strip() and not line.strip().startswith("#")])
    return sorted(set(names))


def test_the_address_is_that_of_the_documents() -> None:
    assert "/run/dwcp/score.sock" in (ROOT / "docs/operations.md").read_text()
