"""Both sidecars under a little load, and a real Prometheus with the configuration and the rules of deploy/."""

import contextlib
import json
import os
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from dwcp_sidecar.client import Client
from dwcp_sidecar.errors import ContractError
from tests.conformance.drift_set import with_drift
from tests.deploy.certificates import make_certificates
from tests.deploy.tools import DEPLOY, REFERENCE, free_port, tool

WAIT = 15
"""Seconds that anything may take."""
SCRAPE_SECONDS = 1
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]
ALARM = [105.2, 55.0, 0.01, 1.2, 45.3, 58.7, 0.001]


@dataclass
class Sidecar:
    """A running sidecar.

    Attributes:
        name: `python` or `go`.
        folder: with its model set, its socket and its certificate.
        metrics: address of its metrics page.
    """

    name: str
    folder: Path
    metrics: str

    @property
    def socket(self) -> str:
        return f"unix:{self.folder / 's'}"

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def page(self) -> str:
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=WAIT) as answer:
            return answer.read().decode()


@contextlib.contextmanager
def sidecar(name: str, command: list[str | Path], folder: Path) -> Iterator[Sidecar]:
    """A sidecar with its own copy of the reference set and drift references, on a unix socket and on TCP with TLS."""
    folder.mkdir()
    make_certificates(folder)
    with_drift(REFERENCE, folder / "models")
    started = Sidecar(name, folder, f"127.0.0.1:{free_port()}")
    arguments = ["--models", started.models, "--unix", folder / "s", "--listen", "127.0.0.1:0", "--watch", "0.2"]
    tls = ["--tls-cert", folder / "tls.crt", "--tls-key", folder / "tls.key"]
    feedback = folder / "feedback-summary.json"
    feedback.write_text('{"schema_version": 1, "days": 30, "true_alarms": 3, "updated": "2027-01-15T08:00:00Z"}')
    page = ["--metrics", started.metrics, "--feedback", feedback]
    with process([*command, *arguments, *tls, *page], folder) as ready:
        line = ready()
        assert line.startswith("ready "), line
        yield started


@contextlib.contextmanager
def process(command: list[str | Path], folder: Path) -> Iterator[Callable[[], str]]:
    """A process, gone when the block ends. Gives a function that reads its next line, or what it complained about."""
    with (folder / "log").open("w+") as log:
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)

        def line() -> str:
            assert running.stdout is not None
            return running.stdout.readline() or (folder / "log").read_text()

        try:
            yield line
        finally:
            running.terminate()
            try:
                running.communicate(timeout=WAIT)
            except subprocess.TimeoutExpired:
                running.kill()
                running.communicate()


def load(sidecar: Sidecar) -> None:
    """Calls of every kind: scores, alarms, refusals, batches, a stream."""
    with Client(sidecar.socket, timeout=WAIT) as client:
        for _ in range(20):
            client.score("isolation_forest", [ROW])
            client.score("isolation_forest", [ALARM])
            client.score("lstm_autoencoder", [ROW] * 9 + [ALARM])
            client.score_batch("isolation_forest", [ROW] * 100)
            with contextlib.suppress(ContractError):
                client.score("isolation_forest", [[float("nan")] * len(ROW)])
    with grpc.insecure_channel(sidecar.socket) as channel:
        answers = scoring_pb2_grpc.ScoringServiceStub(channel).ScoreStream(stream(), timeout=WAIT)
        assert len(list(answers)) == 2


def change_files(sidecar: Sidecar) -> None:
    """Swaps a model set in, has another one refused, and puts a certificate in the place of the old one."""
    with grpc.insecure_channel(sidecar.socket) as channel:
        operations = scoring_pb2_grpc.OperationsServiceStub(channel)
        manifest = sidecar.models / "manifest.json"
        before = operations.Reload(scoring_pb2.ReloadRequest(), timeout=WAIT).model_set_id
        good = manifest.read_text() + "\n"  # another id for the same files
        whole_file(manifest, good)
        # The server looks at its folder by itself, too, and may have been quicker than this call.
        assert operations.Reload(scoring_pb2.ReloadRequest(), timeout=WAIT).model_set_id != before
        whole_file(manifest, good.replace('"sha256": "', '"sha256": "0'))
        with pytest.raises(grpc.RpcError) as refused:
            operations.Reload(scoring_pb2.ReloadRequest(), timeout=WAIT)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        whole_file(manifest, good)
    certificate = sidecar.folder / "tls.crt"
    certificate.with_name("draft").write_bytes(certificate.read_bytes() + b"\n")
    certificate.with_name("draft").rename(certificate)


def whole_file(path: Path, text: str) -> None:
    """Puts a file in the place of another in one step: nobody reads half of it."""
    draft = path.with_name("draft")
    draft.write_text(text)
    draft.rename(path)


def stream() -> Iterator[scoring_pb2.ScoreStreamRequest]:
    """Settings, then two samples."""
    forest = scoring_pb2.StreamSettings(detectors=[1])
    yield scoring_pb2.ScoreStreamRequest(settings=forest)
    yield scoring_pb2.ScoreStreamRequest(samples=[scoring_pb2.StreamSample(series="link", values=ROW)] * 2)


class Prometheus:
    """A running Prometheus; see its HTTP API."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{query}", timeout=WAIT) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Series of an expression, now."""
        return self.get("query", query=expression)["result"]

    def until(self, what: Callable[[], Any]) -> Any:
        """Asks again and again until something comes, for a while; gives what came last."""
        end = time.monotonic() + WAIT
        while True:
            with contextlib.suppress(OSError):
                found = what()
                if found or time.monotonic() > end:
                    return found
            assert time.monotonic() < end, "Prometheus does not answer"
            time.sleep(0.2)


@contextlib.contextmanager
def prometheus(sidecars: list[Sidecar], folder: Path) -> Iterator[Prometheus]:
    """Prometheus with the example configuration, but for the addresses and a second between scrapes."""
    folder.mkdir()
    configuration = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    configuration["global"] = dict.fromkeys(("scrape_interval", "evaluation_interval"), f"{SCRAPE_SECONDS}s")
    (job,) = configuration["scrape_configs"]
    targets = {entry["labels"]["implementation"]: entry for entry in job["static_configs"]}
    for entry in sidecars:
        targets[entry.name]["targets"] = [entry.metrics]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    (folder / "alerts.yml").write_bytes((DEPLOY / "prometheus/alerts.yml").read_bytes())
    server = Prometheus(f"127.0.0.1:{free_port()}")
    command = [
        tool("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={server.address}",
        "--log.level=warn",
    ]
    with process(command, folder):
        up = server.until(lambda: len(server.query("up == 1")) == len(sidecars))
        assert up, (folder / "log").read_text()
        yield server


def commands(go_sidecar: Path) -> dict[str, list[str | Path]]:
    """How each sidecar is started: the Python one with two workers, whose metrics must add up."""
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    return {"python": [tool("dwcp-sidecar"), "serve", "--workers", "2"], "go": [go_sidecar]}
