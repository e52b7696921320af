"""What is asked of the servers: unary calls, streams, batches; and the limits, which need no server."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.serving_install import HERE, LOAD, MODELS

CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Case:
    """One kind of load.

    Attributes:
        call: of the load generator; peers are asked with ModelInfer instead of Score and ScoreBatch.
        flags: of the load generator.
        rows: whether rows a second are of interest, not requests.
        one_core: the server is kept on the first core, the client on the others.
        ours: of interest for our own servers alone.
        limits: in-process commands that are measured beside it, by name.
    """

    name: str
    call: str
    flags: tuple[str, ...]
    rows: bool = False
    one_core: bool = False
    ours: bool = False
    limits: tuple[tuple[str, tuple[str | Path, ...]], ...] = ()


def _calls(concurrency: int, connections: int, rows: int = 1) -> tuple[str, ...]:
    return ("--concurrency", str(concurrency), "--connections", str(connections), "--rows", str(rows))


def _stream(samples: int) -> tuple[str, ...]:
    """8 streams with 8 messages each on their way."""
    return ("--streams", "8", "--connections", "8", "--rows", str(samples), "--outstanding", str(64 * samples))


def _limits(rows: int, cores: int) -> tuple[tuple[str, tuple[str | Path, ...]], ...]:
    python = (sys.executable, HERE.parent / "serving_inprocess.py", MODELS, str(rows), str(cores))
    go = (LOAD, "--in-process", MODELS, "--rows", str(rows), "--concurrency", str(cores))
    return ((PYTHON_LIMIT, python), (GO_LIMIT, go))


PYTHON_LIMIT, GO_LIMIT = "Python in process", "Go in process"

UNARY_1 = "unary, 1 caller"
UNARY_64, UNARY_64_1 = "unary, 64 callers", "unary, 64 callers, 1 connection"
STREAM, STREAM_16 = "stream", "stream, 16 samples a message"
STREAM_64 = "64 callers on 4 streams"
BATCH_ONE_CORE = "batches of 256, server on one core"
BATCH, BATCH_4096 = "batches of 256", "batches of 4096"

CASES = (
    Case(UNARY_1, "score", _calls(1, 1)),
    Case("unary, 8 callers, 1 connection", "score", _calls(8, 1)),
    Case("unary, 8 callers", "score", _calls(8, 8)),
    Case(UNARY_64_1, "score", _calls(64, 1)),
    Case(UNARY_64, "score", _calls(64, 8)),
    Case("Open Inference Protocol, 1 caller", "infer", _calls(1, 1), ours=True),
    Case("Open Inference Protocol, 64 callers", "infer", _calls(64, 8), ours=True),
    Case(STREAM, "stream", _stream(1)),
    Case(STREAM_64, "shared-stream", ("--streams", "4", "--concurrency", "64"), ours=True),
    Case(STREAM_16, "stream", _stream(16), rows=True),
    Case(BATCH, "batch", _calls(4, 4, 256), rows=True, limits=_limits(256, CORES)),
    Case(BATCH_4096, "batch", _calls(2, 2, 4096), rows=True, limits=_limits(4096, CORES)),
    Case(BATCH_ONE_CORE, "batch", _calls(4, 4, 256), rows=True, one_core=True, ours=True, limits=_limits(256, 1)),
)
"""Several callers have a connection each, up to 8, unless the name says 1. Streams: 8, each on a connection, with 64
messages on their way in all; or 64 callers, each with one sample on its way, who share 4 streams of the Go client,
which sends what waits together. Batches: 4 callers, or 2 with 4096 rows."""
