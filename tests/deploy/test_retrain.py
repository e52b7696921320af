"""The monthly retraining by cron, systemd and Kubernetes: linted, and the command of each is run for real."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import numpy as np
import pytest
import yaml

from dwcp_sidecar.model_set import ModelSet
from dwcp_training.data import write_csv
from tests.deploy import unit_file
from tests.deploy.dockerfile import parse
from tests.deploy.test_kubernetes import NOBODY, VERSIONS
from tests.deploy.tools import DEPLOY, ROOT, tool
from tests.retrain.conftest import series, write_profile
from tests.retrain.metrics_history import openmetrics, real_prometheus

CRON = DEPLOY / "cron/dwcp-retrain"
SERVICE, TIMER = (DEPLOY / f"systemd/dwcp-retrain.{kind}" for kind in ("service", "timer"))
FOLDER = DEPLOY / "kubernetes/retrain"
METRICS = (
    "link_bandwidth_mbps", "link_latency_ms", "link_loss_percent", "link_jitter_ms", "node_cpu_percent",
    "node_memory_percent", "link_errors_percent",
)  # fmt: skip
MOST_EXPOSED = 2.0
"""On the scale of `systemd-analyze security`; a sidecar, which writes nothing, is below 1.2."""
WAIT = 120
ROWS = 1200


def cron_entry() -> tuple[list[str], str, list[str]]:
    """Times, user and words of the one entry."""
    (line,) = [line for line in CRON.read_text().splitlines() if re.match(r"[\d*]", line)]
    *times, user, command = line.split(maxsplit=6)
    return times, user, shlex.split(command)


def unit_words() -> list[str]:
    settings = unit_file.parse(SERVICE)["Service"]
    return unit_file.command(settings["ExecStart"][0], {}, {})


def resources() -> list[dict[str, Any]]:
    names = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"} == set(names)
    return [part for name in names for part in yaml.safe_load_all((FOLDER / name).read_text())]


def cron_job() -> dict[str, Any]:
    (found,) = [resource for resource in resources() if resource["kind"] == "CronJob"]
    return found["spec"]


def pod() -> dict[str, Any]:
    return cron_job()["jobTemplate"]["spec"]["template"]["spec"]


def test_cron_runs_it_once_a_month() -> None:
    times, user, words = cron_entry()
    assert times == ["30", "3", "1", "*", "*"]
    assert user == "root"
    assert words[:3] == ["nice", "/opt/dwcp/bin/dwcp", "retrain"]
    assert "%" not in CRON.read_text().split("\n\n", 1)[1], "cron takes it for the end of the line"
    assert CRON.read_text().endswith("\n"), "cron leaves out a line without an end"


def test_systemd_verifies(tmp_path: Path) -> None:
    for unit in (SERVICE, TIMER):
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.M)
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        [tool("systemd-analyze"), "verify", "--man=no", tmp_path / TIMER.name, tmp_path / SERVICE.name],
        capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    assert (done.returncode, "dwcp-retrain" in done.stderr) == (0, False), done.stderr


def test_the_timer_is_monthly_and_forgets_nothing() -> None:
    timer = unit_file.parse(TIMER)["Timer"]
    done = subprocess.run(
        [tool("systemd-analyze"), "calendar", "--iterations=2", timer["OnCalendar"][0]],
        capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = (line for line in done.stdout.splitlines() if re.search(r"(Next elapse|Iteration #2|Iter)", line))
    assert re.search(r"-01 03:30:00", first)
    assert re.search(r"-01 03:30:00", second)
    assert timer["Persistent"] == ["yes"]
    assert unit_file.parse(TIMER)["Install"]["WantedBy"] == ["timers.target"]


def test_the_service_is_shut_in() -> None:
    done = subprocess.run(
        [tool("systemd-analyze"), "security", "--offline=true", f"--threshold={MOST_EXPOSED * 10:.0f}", SERVICE],
        capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:]
    settings = unit_file.parse(SERVICE)["Service"]
    words = unit_words()
    assert settings["ReadWritePaths"] == [words[words.index("--models") + 1]]
    assert settings["Group"] == ["dwcp"], "sidecars are of that group and must read what is written"
    assert settings["UMask"] == ["0027"]
    assert settings["RestartPreventExitStatus"] == ["2 3"]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_schema(version: str) -> None:
    for resource in resources():
        kubernetes_validate.validate(resource, version, strict=True)


def test_kustomize() -> None:
    done = subprocess.run([tool("kubectl"), "kustomize", FOLDER], capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    assert len(list(yaml.safe_load_all(done.stdout))) == len(resources())


def test_the_pod_is_restricted_and_never_runs_twice() -> None:
    spec = cron_job()
    assert spec["schedule"] == "30 3 1 * *"
    assert spec["concurrencyPolicy"] == "Forbid"
    (container,) = pod()["containers"]
    (rule, _) = spec["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [2, 3]}
    assert pod()["restartPolicy"] == "Never"
    assert pod()["automountServiceAccountToken"] is False
    security = pod()["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["fsGroup"] == NOBODY
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert re.fullmatch(r"[a-z-]+:\d+\.\d+\.\d+", container["image"])
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/models", "/tmp"}
    assert not any("subPath" in mount for mount in container["volumeMounts"])
    (claim,) = [v["persistentVolumeClaim"]["claimName"] for v in pod()["volumes"] if "persistentVolumeClaim" in v]
    served = yaml.safe_load((DEPLOY / "kubernetes/service/deployment.yaml").read_text())["spec"]["template"]["spec"]
    assert claim in [v["persistentVolumeClaim"]["claimName"] for v in served["volumes"] if "persistentVolumeClaim" in v]


def test_the_policy_lets_it_reach_prometheus_alone() -> None:
    (policy,) = [resource["spec"] for resource in resources() if resource["kind"] == "NetworkPolicy"]
    labels = cron_job()["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["ingress"] == []
    (address,) = [word for word in pod()["containers"][0]["args"] if word.startswith("--prometheus=")]
    assert address == "--prometheus=http://prometheus.monitoring.svc:9090"
    assert policy["egress"][0]["ports"] == [{"port": 9090}]


def test_the_image_is_the_command() -> None:
    _, last = parse(DEPLOY / "docker/training.Dockerfile")
    assert last.last("USER") == f"{NOBODY}:{NOBODY}"
    assert yaml.safe_load(last.last("ENTRYPOINT")) == ["dwcp"]
    assert pod()["containers"][0]["image"].startswith("dwcp-training:")
    (build, _) = parse(DEPLOY / "docker/training.Dockerfile")
    seen = (DEPLOY / "docker/training.Dockerfile.dockerignore").read_text().splitlines()
    sources = [word for name, text in build.steps if name == "COPY" for word in text.split()[:-1]]
    assert "training/" in sources
    for source in sources:
        assert (ROOT / source).exists()
        assert any(line.startswith(f"!{source}") for line in seen), source


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the commands are given here in the place of what they name: a Prometheus, folders, files."""
    root = tmp_path_factory.mktemp("site")
    begin = (time.time() - 600) // 60 * 60 - 60 * (ROWS - 1)
    (root / "telemetry").mkdir()
    write_csv(series(1, ROWS), root / "telemetry/january.csv")
    (root / "incidents.csv").write_text("start,end,kind\n")
    write_profile(root / "small.yaml")
    with real_prometheus(root, openmetrics(series(1, ROWS), begin, np.ones(ROWS, bool), METRICS)) as address:
        yield {
            "/opt/dwcp/bin/dwcp": tool("dwcp"),
            "http://127.0.0.1:9090": address,
            "http://prometheus.monitoring.svc:9090": address,
            "/var/lib/dwcp/telemetry": str(root / "telemetry"),
            "/etc/dwcp/incidents.csv": str(root / "incidents.csv"),
            "profile": str(root / "small.yaml"),
        }


SLOW = [pytest.param(where, marks=pytest.mark.slow) for where in ("systemd", "cron", "kubernetes")]


@pytest.mark.parametrize("where", SLOW)
def test_the_command_makes_a_release(where: str, site: dict[str, str], tmp_path: Path) -> None:
    words = {
        "cron": lambda: cron_entry()[2][1:],  # without nice: the tests have a limit of time
        "systemd": unit_words,
        "kubernetes": lambda: [tool("dwcp"), *pod()["containers"][0]["args"]],
    }[where]()
    models = tmp_path / "m"
    replace = {**site, "/var/lib/dwcp/models": str(models), "/models": str(models)}
    pattern = re.compile("|".join(map(re.escape, sorted(replace, key=len, reverse=True))))
    command = [pattern.sub(lambda match: replace[match[0]], word) for word in words]
    command += ["--profile", site["profile"], "--detector", "isolation_forest"]
    environment = {**os.environ, "HOME": "/nonexistent"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(ModelSet.open(models).models) == ["isolation_forest"]
