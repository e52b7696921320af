"""What hostile bytes must not get past: each target takes bytes and raises whatever it should not have raised.

    python -m tests.fuzz.targets requests --seconds 60
    python -m tests.fuzz.targets artifacts --seconds 60

Coverage-guided, with atheris. Exit status 0 when nothing was found; else the input is printed, and saved below build/.
"""

import argparse
import base64
import hashlib
import io
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import atheris

with atheris.instrument_imports(include=["dwcp_sidecar", "dwcp_training.package_file"]):
    from dwcp_sidecar import audit, golden, protojson, signatures
    from dwcp_sidecar.errors import ContractError
    from dwcp_sidecar.model_set import ModelSet
    from dwcp_sidecar.onnx_file import OnnxFile
    from dwcp_sidecar.requests import RequestError, parse_request
    from dwcp_sidecar.server import oip, status
    from dwcp_sidecar.server.calls import StatusError, encode
    from dwcp_sidecar.server.live import Live
    from dwcp_sidecar.server.metrics import Metrics
    from dwcp_sidecar.server.servicer import Servicer
    from dwcp_sidecar.server.settings import Limits
    from dwcp_sidecar.server.streams import Streams
    from dwcp_training import package_file

import contextlib

from google.protobuf.message import DecodeError, Message

from dwcp.anomaly.v1 import golden_pb2, model_pb2, scoring_pb2
from dwcp.oip.v2 import inference_pb2
from tests.conformance.cases import DETECTORS, ENSEMBLE
from tests.conformance.sets import ENSEMBLE_SET, HOME, MORE_SET, REFERENCE_SET

ROOT = Path(__file__).resolve().parents[2]
WITH_GRAPH = [name for name in DETECTORS if name != ENSEMBLE]
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]

Target = Callable[[bytes], None]


def requests() -> tuple[Target, list[bytes]]:
    """Every RPC with the bytes as its request, of a server with windows: an answer, or a refusal that tells nothing
    about the machine."""
    return _requests(REFERENCE_SET)


def sample_requests() -> tuple[Target, list[bytes]]:
    """Likewise of a server whose detectors score single samples."""
    return _requests(MORE_SET)


def ensemble_requests() -> tuple[Target, list[bytes]]:
    """Likewise of a server with an ensemble and its members."""
    return _requests(ENSEMBLE_SET)


def _requests(models: Path) -> tuple[Target, list[bytes]]:
    live = Live(ModelSet.open(models))
    metrics = Metrics()
    streams = Streams(live, Limits(series=50), metrics)
    methods = Servicer(live, streams, metrics).methods()
    methods += oip.InferenceService(live, lambda: False).methods(metrics)

    def call(data: bytes) -> None:
        which, body = (data[0] % (len(methods) + 1), data[1:]) if data else (0, b"")
        try:
            if which == len(methods):
                parse_request(body)
                return
            method = methods[which]
            if method.stream:
                for answer in method.run(_Stream(method.request, body)):
                    answer.SerializeToString()
            else:
                encode(method.run(method.request.FromString(body)))
        except DecodeError:
            pass
        except StatusError as error:
            _tells_nothing(error.message)
        except RequestError as error:
            _tells_nothing(status.to_grpc(error.error).details)
        except ContractError as error:
            _tells_nothing(status.to_grpc(error).details)

    return call, [
        bytes([index]) + seed for index, seeds in enumerate(_request_seeds(methods, models)) for seed in seeds
    ]


class _Stream:
    """The bytes as requests of a stream, each behind its length in one byte."""

    cancel = staticmethod(lambda: None)

    def __init__(self, request: type[Message], data: bytes) -> None:
        self._request = request
        self._data = data

    def __iter__(self) -> Iterator[Message]:
        rest = self._data
        while rest:
            length, rest = rest[0], rest[1:]
            yield self._request.FromString(rest[:length])
            rest = rest[length:]


def _request_seeds(methods: list[Any], models: Path) -> Iterator[list[bytes]]:
    names = [name for name, home in HOME.items() if home == models]
    numbers = [DETECTORS.index(name) + 1 for name in names]
    single = scoring_pb2.ScoreRequest(detector=numbers[0], samples=[{"values": ROW}])
    window = scoring_pb2.ScoreRequest(detector=numbers[1], samples=[{"values": ROW}] * 10, explain=2)
    batch = scoring_pb2.ScoreBatchRequest(detector=numbers[0], rows=bytes(56 * 2), layout=2)
    first = scoring_pb2.ScoreStreamRequest(settings={"detectors": numbers}).SerializeToString()
    more = scoring_pb2.ScoreStreamRequest(samples=[{"series": "a", "values": ROW}]).SerializeToString()
    infer = inference_pb2.ModelInferRequest(
        model_name=names[0],
        inputs=[{"name": "samples", "datatype": "FP64", "shape": [1, 7]}],
        raw_input_contents=[bytes(56)],
    )
    named = {
        "Score": [single.SerializeToString(), window.SerializeToString()],
        "ScoreBatch": [batch.SerializeToString()],
        "ScoreStream": [b"".join(bytes([len(part)]) + part for part in (first, more, more))],
        "ModelInfer": [infer.SerializeToString()],
        "ModelMetadata": [inference_pb2.ModelMetadataRequest(name=names[-1]).SerializeToString()],
    }
    for method in methods:
        yield named.get(method.name, [b""])
    yield [b'{"id": 1, "detector": "isolation_forest", "samples": [[1, "NaN"]]}']


def _tells_nothing(message: str | bytes) -> None:
    text = message.decode() if isinstance(message, bytes) else message
    for secret in ("Traceback", ".py", str(ROOT)):
        if secret in text:
            raise AssertionError(f"a refusal says {secret!r}: {text!r}")


def artifacts() -> tuple[Target, list[bytes]]:
    """Every file of a model set with the bytes in its place: it is read, or refused with a code of the contract."""
    readers: list[Callable[[bytes], object]] = [
        lambda data: protojson.parse(data, model_pb2.Manifest(), "manifest.json"),
        lambda data: audit.audit_metadata(protojson.parse(data, model_pb2.ModelMetadata(), "m.json"), "m.json"),
        lambda data: golden.audit_golden(protojson.parse(data, golden_pb2.GoldenFile(), "g"), "isolation_forest", "g"),
        lambda data: OnnxFile.parse(data, "forest.onnx"),
        *map(_audited, WITH_GRAPH),
        _manifest,
    ]

    def read(data: bytes) -> None:
        if data:
            with contextlib.suppress(ContractError):
                readers[data[0] % len(readers)](data[1:])

    manifest = (REFERENCE_SET / "manifest.json").read_bytes()
    small = b'{"schema_version": 1, "models": [], "files": [{"path": "a", "size": "1", "sha256": "00"}]}'
    graphs = [(HOME[name] / f"{name}.onnx").read_bytes() for name in WITH_GRAPH]
    metadata = b'{"schema_version": 1, "model_type": "isolation_forest", "threshold": 0.5, "feature_names": ["a"]}'
    seeds = [manifest, metadata, b'{"schema_version": 1, "cases": [{"id": "a"}]}', graphs[0][:2000], *graphs, small]
    return read, [bytes([index]) + seed for index, seed in enumerate(seeds)]


def _audited(detector: str) -> Callable[[bytes], object]:
    metadata = ModelSet.open(HOME[detector], self_test=False).metadata[detector]  # no scores are asked for
    return lambda data: audit.audit_graph(metadata, OnnxFile.parse(data, metadata.graph.file))


def _manifest(data: bytes) -> object:
    """Opens a set whose manifest is the bytes: names of files in it must not lead out of the folder."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "manifest.json").write_bytes(data)
        return ModelSet.open(folder)


def carried() -> tuple[Target, list[bytes]]:
    """What is carried to a site, a package or a file of public keys, is read or refused with a typed error. What is
    read as a package can be written again, to the same bytes."""
    key = bytes(range(32))
    spki = base64.encodebytes(bytes.fromhex("302a300506032b6570032100") + key).decode()
    pem = f"-----BEGIN PUBLIC KEY-----\n{spki}-----END PUBLIC KEY-----\n".encode()

    def read(data: bytes) -> None:
        if data[:1] == b"k":
            with contextlib.suppress(signatures.KeyFileError):
                found = signatures.parse_public_keys(data[1:], "key.pem")
                assert found
                assert all(len(each) == signatures.KEY_BYTES for each in found)
            return
        with contextlib.suppress(package_file.PackageError, ContractError):
            package = package_file.read_from(io.BytesIO(data[1:]))
            again = io.BytesIO()
            package_file.write_package(again, package.manifest, package.signature, package.files)
            assert again.getvalue() == data[1:]

    files = {"a.json": b"{}", "b.onnx": bytes(600)}
    entries = [
        {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "role": "FILE_ROLE_SERVING"}
        for name, data in files.items()
    ]
    manifest = json.dumps({"schema_version": 1, "files": entries}).encode()
    seeds = [b"k" + pem, b"k" + pem + b"text\n" + pem, b"kno key"]
    for signature in (None, bytes(64)):
        package = io.BytesIO()
        package_file.write_package(package, manifest, signature, files)
        seeds.append(b"p" + package.getvalue())
    return read, seeds


TARGETS: SimpleNamespace = SimpleNamespace(
    requests=requests,
    sample_requests=sample_requests,
    ensemble_requests=ensemble_requests,
    artifacts=artifacts,
    carried=carried,
)


def main() -> None:
    """Fuzzes one target for some seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=vars(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0: another one every time")
    arguments = parser.parse_args()
    logging.disable()
    target, seeds = getattr(TARGETS, arguments.target)()
    found = ROOT / "build/fuzz"
    found.mkdir(parents=True, exist_ok=True)
    corpus = Path(tempfile.mkdtemp())
    try:
        for index, seed in enumerate(seeds):
            (corpus / f"seed{index}").write_bytes(seed)
        options = [f"-max_total_time={arguments.seconds}", f"-seed={arguments.seed}", "-max_len=300000", "-timeout=20"]
        options += ["-rss_limit_mb=2000", f"-artifact_prefix={found}/", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], target)
        atheris.Fuzz()
    finally:
        shutil.rmtree(corpus, ignore_errors=True)


if __name__ == "__main__":
    main()
