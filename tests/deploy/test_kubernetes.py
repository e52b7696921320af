"""The Kubernetes manifests: valid for every supported version, restricted, and their commands start a real sidecar."""

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import kubernetes_validate
import pytest
import yaml

from dwcp_sidecar.client import Client
from tests.deploy.certificates import make_certificates
from tests.deploy.dockerfile import parse
from tests.deploy.tools import DEPLOY, REFERENCE, free_port, tool

FOLDERS = [DEPLOY / "kubernetes" / name for name in ("pod", "service")]
VERSIONS = ("1.33", "1.37")
"""Oldest and newest version of Kubernetes: sidecar containers are stable since 1.33."""
SIDECARS = ("dwcp-sidecar", "dwcp-sidecar-go")
NOBODY = 65532
GRPC_ADDRESS = "0.0.0.0:50051"
WAIT = 60
ROW = [105.2, 55.0, 0.01, 1.2, 45.3, 58.7, 0.001]
folders = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)


def resources(folder: Path) -> list[dict[str, Any]]:
    """The resources that kustomization.yaml lists."""
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"} == set(names)
    return [part for name in names for part in yaml.safe_load_all((folder / name).read_text())]


def of_kind(folder: Path, kind: str) -> dict[str, Any]:
    (found,) = [resource for resource in resources(folder) if resource["kind"] == kind]
    return found


def pod(folder: Path) -> dict[str, Any]:
    return of_kind(folder, "Deployment")["spec"]["template"]["spec"]


def containers(folder: Path) -> list[dict[str, Any]]:
    return pod(folder).get("initContainers", []) + pod(folder)["containers"]


def sidecar(folder: Path) -> dict[str, Any]:
    (found,) = [entry for entry in containers(folder) if entry["image"].partition(":")[0] in SIDECARS]
    return found


@folders
@pytest.mark.parametrize("version", VERSIONS)
def test_schema(folder: Path, version: str) -> None:
    for resource in resources(folder):
        kubernetes_validate.validate(resource, version, strict=True)


def test_schema_would_notice() -> None:
    resource = of_kind(FOLDERS[1], "Deployment")
    resource["spec"]["template"]["spec"]["terminationGraceSeconds"] = 5
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(resource, VERSIONS[0], strict=True)


@folders
def test_kustomize(folder: Path) -> None:
    done = subprocess.run([tool("kubectl"), "kustomize", folder], capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    assert len(list(yaml.safe_load_all(done.stdout))) == len(resources(folder))


@folders
def test_pods_are_restricted(folder: Path) -> None:
    """What the Pod Security Standard `restricted` asks for, and a file system that cannot be written to."""
    spec = pod(folder)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["fsGroup"] == NOBODY
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    for container in containers(folder):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert re.fullmatch(r"[a-z-]+:\d+\.\d+\.\d+", container["image"]), "a version, never latest"
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
        assert "cpu" not in container["resources"]["limits"], "a limit of CPU stalls calls"
    for volume in spec["volumes"]:
        assert volume.keys() & {"emptyDir", "persistentVolumeClaim", "secret"}


@folders
def test_the_user_is_that_of_the_image(folder: Path) -> None:
    image = sidecar(folder)["image"].partition(":")[0].removeprefix("dwcp-")
    _, last = parse(DEPLOY / f"docker/{image}.Dockerfile")
    assert last.last("USER") == f"{NOBODY}:{NOBODY}"
    mounts = {mount["mountPath"]: mount for mount in sidecar(folder)["volumeMounts"]}
    assert mounts["/models"]["readOnly"] is True
    assert not any("subPath" in mount for mount in mounts.values()), "it would not follow a switched link"
    assert "/run/dwcp" in mounts


@folders
def test_grace(folder: Path) -> None:
    """Kubernetes must not kill what drains."""
    container = sidecar(folder)
    grace = float(flag(container, "grace"))
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pod(folder)["terminationGracePeriodSeconds"] >= sleep + grace + 10


def flag(container: dict[str, Any], name: str) -> str:
    """The value of a flag, written `--name=value` or `--name`, `value`."""
    words = [word for entry in container["args"] for word in entry.split("=", 1)]
    return words[words.index(f"--{name}") + 1]


@folders
def test_metrics_are_found(folder: Path) -> None:
    template = of_kind(folder, "Deployment")["spec"]["template"]
    port = template["metadata"]["annotations"]["prometheus.io/port"]
    assert flag(sidecar(folder), "metrics") == f"0.0.0.0:{port}"
    ports = {entry["name"]: entry["containerPort"] for entry in sidecar(folder)["ports"]}
    assert ports["metrics"] == int(port)
    scrape = (DEPLOY / "prometheus/prometheus-kubernetes.yml").read_text()
    assert "regex: metrics" in scrape
    assert template["metadata"]["labels"]["app.kubernetes.io/part-of"] == "dwcp-anomaly"
    assert "regex: dwcp-anomaly" in scrape


def test_the_sidecar_starts_before_its_client_and_ends_after_it() -> None:
    folder = FOLDERS[0]
    (container,) = pod(folder)["initContainers"]
    assert container["restartPolicy"] == "Always"
    assert not any(word.startswith("--listen") for word in container["args"]), "the socket is the only way in"
    (client,) = pod(folder)["containers"]
    assert "unix:/run/dwcp/score.sock" in client["args"]
    shared = {mount["name"] for mount in client["volumeMounts"]} & {
        mount["name"] for mount in container["volumeMounts"]
    }
    assert shared == {"socket"}


def test_the_service_reaches_the_pods() -> None:
    folder = FOLDERS[1]
    labels = of_kind(folder, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    assert of_kind(folder, "Deployment")["spec"]["replicas"] >= 2
    service = of_kind(folder, "Service")["spec"]
    assert service["clusterIP"] == "None", "clients balance; one address would send all calls to one pod"
    ports = {entry["name"]: entry["containerPort"] for entry in sidecar(folder)["ports"]}
    assert [ports[entry["targetPort"]] for entry in service["ports"]] == [50051]
    policy = of_kind(folder, "NetworkPolicy")["spec"]
    for selector in (
        service["selector"],
        of_kind(folder, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        policy["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels
    assert policy["egress"] == []
    assert {entry["port"] for rule in policy["ingress"] for entry in rule["ports"]} == set(ports)
    assert all(rule["from"] for rule in policy["ingress"]), "no rule for everybody"
    for name in ("tls-cert", "tls-key", "tls-client-ca"):  # beyond a pod, never without mutual TLS
        assert flag(sidecar(folder), name).startswith("/tls/")


class Pod:
    """The sidecar's container, with a folder in the place of its volumes and free ports in the place of its own."""

    def __init__(self, folder: Path, root: Path, go_sidecar: Path) -> None:
        self.container = sidecar(folder)
        image = self.container["image"].partition(":")[0]
        self.replace = {
            "/usr/local/bin/dwcp-sidecar-go": str(go_sidecar),
            "/run/dwcp": str(root),
            "/models": str(REFERENCE),
            "/tls/": f"{root}/",
        }
        for name in re.findall(r"0\.0\.0\.0:\d+", " ".join(self.container["args"])):
            self.replace[name] = f"127.0.0.1:{free_port()}"
        make_certificates(root)
        self.root = root
        _, last = parse(DEPLOY / f"docker/{image.removeprefix('dwcp-')}.Dockerfile")
        entry = yaml.safe_load(last.last("ENTRYPOINT"))
        self.process = subprocess.Popen(
            self.words([*entry, *self.container["args"]]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def words(self, words: list[str]) -> list[str]:
        """A command, with this machine's paths and ports."""
        pattern = re.compile("|".join(map(re.escape, self.replace)))
        found = [pattern.sub(lambda match: self.replace[match[0]], word) for word in words]
        return [tool(word) if word == "dwcp-sidecar" else word for word in found]

    def probe(self, name: str) -> int:
        probe = self.container[name]
        command = self.words(probe["exec"]["command"])
        return subprocess.run(command, capture_output=True, timeout=probe["timeoutSeconds"] + 10).returncode


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def started(request: pytest.FixtureRequest, tmp_path: Path, go_sidecar: Path) -> Iterator[Pod]:
    pod = Pod(request.param, tmp_path, go_sidecar)
    try:
        assert pod.process.stdout is not None
        assert pod.process.stderr is not None
        line = pod.process.stdout.readline()
        assert line.startswith("ready "), pod.process.stderr.read()
        yield pod
    finally:
        if pod.process.poll() is None:
            pod.process.send_signal(signal.SIGTERM)
            pod.process.wait(WAIT)
        pod.process.communicate(timeout=WAIT)


def test_arguments_start_it_and_probes_see_it(started: Pod) -> None:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert started.probe(name) == 0
    with Client(f"unix:{started.root}/score.sock", timeout=WAIT) as client:
        assert client.score("isolation_forest", [ROW]).verdict.score > 0
    if GRPC_ADDRESS in started.replace:
        check_mutual_tls(started.replace[GRPC_ADDRESS], started.root)
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(WAIT) == 0
    assert started.probe("livenessProbe") != 0


def check_mutual_tls(address: str, folder: Path) -> None:
    """Clients with a certificate are answered, others not."""
    ca, certificate, key = ((folder / name).read_bytes() for name in ("ca.crt", "tls.crt", "tls.key"))

    def ask(credentials: grpc.ChannelCredentials) -> bytes:
        with grpc.secure_channel(address, credentials) as channel:
            return channel.unary_unary("/dwcp.anomaly.v1.ScoringService/GetModelSet")(b"", timeout=10)

    assert ask(grpc.ssl_channel_credentials(ca, key, certificate))
    with pytest.raises(grpc.RpcError) as error:
        ask(grpc.ssl_channel_credentials(ca))
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
