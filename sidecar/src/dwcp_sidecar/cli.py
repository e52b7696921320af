"""The command `dwcp-sidecar`: serve, score, check, health."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.server import flags, grpc_environment
from dwcp_sidecar.signatures import SIGNATURE, KeyFileError, PublicKeys

# ONNX Runtime and gRPC are imported by the command that needs them: `--help` answers at once, `check` loads no gRPC.

_SERVE = """examples:
  dwcp-sidecar serve --models models/reference/v1
  dwcp-sidecar serve --models models --unix /run/dwcp/score.sock
  dwcp-sidecar serve --models models --listen 127.0.0.1:0 --unix /run/dwcp/score.sock --ready-file /run/dwcp/ready
  dwcp-sidecar serve --models models --listen 127.0.0.1:50051 --workers 4 --metrics 127.0.0.1:9464
  dwcp-sidecar serve --models models --listen 0.0.0.0:50051 --tls-cert tls.crt --tls-key tls.key --tls-client-ca ca.crt
  dwcp-sidecar serve --models models --public-key signing-key.pub.pem
  dwcp-sidecar serve --models models/fleet --max-sets 500

It prints one line when it answers: `ready ADDRESS... model_set=ID`. At SIGTERM or SIGINT health becomes NOT_SERVING,
calls in flight finish, the exit status is 0; a second signal ends them. At SIGHUP it looks for a new model set at once.
"""

_SCORE = """examples:
  dwcp-sidecar score --models models/reference/v1 < requests.jsonl > answers.jsonl
  echo '{"id": 1, "detector": "isolation_forest", "samples": [[105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]]}' |
      dwcp-sidecar score --models models/reference/v1
  dwcp-sidecar score --address 127.0.0.1:50051 --batch 1 < requests.jsonl

One answer line per line, in order; an error of a line is its answer, and the exit status stays 0.
"""

_CHECK = """examples:
  dwcp-sidecar check --models models/reference/v1
  dwcp-sidecar check --models models && echo "fit to serve"
  dwcp-sidecar check --models models --public-key signing-key.pub.pem && echo "signed, and fit to serve"
  dwcp-sidecar check --models models/fleet

Of a fleet every set is opened; all that are refused are listed, and the exit status is 1 then.
"""

_HEALTH = """examples:
  dwcp-sidecar health --address unix:/run/dwcp/score.sock
  dwcp-sidecar health --address 127.0.0.1:50051 --service dwcp.anomaly.v1.ScoringService/lstm_autoencoder

Prints what grpc.health.v1 says. The exit status is 0 for SERVING, else 1. It speaks plain text: where the TCP address
has TLS, ask through the unix socket.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status: 0, 1 for a refusal, 2 for wrong usage."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.run is _score and arguments.models is None and arguments.address is None:
        parser.error("score: give --models DIR, --address ADDRESS or both")
    try:
        return int(arguments.run(arguments))
    except (ContractError, KeyFileError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130


def _fail(message: str) -> int:
    print(f"dwcp-sidecar: error: {message}", file=sys.stderr)
    return 1


def _public_keys(arguments: argparse.Namespace) -> PublicKeys | None:
    return PublicKeys.read(*arguments.public_key) if arguments.public_key else None


def _serve(arguments: argparse.Namespace) -> int:
    grpc_environment.prepare()
    from dwcp_sidecar.server import logs
    from dwcp_sidecar.server.settings import StartError

    logs.setup(arguments.log_format)
    try:
        settings = flags.settings(vars(arguments))
        if settings.workers > 1:
            from dwcp_sidecar.server.supervisor import supervise

            return supervise(settings, flags.portable(vars(arguments)))
        from dwcp_sidecar.server.single import serve

        return serve(settings)
    except StartError as error:
        return _fail(str(error))


def _score(arguments: argparse.Namespace) -> int:
    from dwcp_sidecar.executor import InProcess, execute, read_lines
    from dwcp_sidecar.model_set import ModelSet

    keys = _public_keys(arguments)

    def run(backend: Any) -> int:
        try:
            execute(read_lines(sys.stdin.fileno()), sys.stdout.buffer, backend, arguments.batch)
        except BrokenPipeError:  # the reader has enough, as `head` has
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0

    if arguments.address is None:
        return run(InProcess(ModelSet.open(arguments.models, threads=arguments.threads, public_keys=keys)))

    grpc_environment.prepare()
    import grpc

    from dwcp_sidecar.client import Client
    from dwcp_sidecar.model_set import identify
    from dwcp_sidecar.remote import connect

    # The server has checked the signature of what it serves; here it is checked which set that must be.
    wanted = "" if arguments.models is None else identify(arguments.models, keys)
    try:
        with Client(arguments.address) as client:
            return run(connect(client, arguments.batch, wanted))
    except grpc.RpcError as error:
        return _fail(f"{arguments.address}: {error.code().name}: {error.details()}. Is a server running there?")


def _check(arguments: argparse.Namespace) -> int:
    from dwcp_sidecar.fleet_index import is_fleet
    from dwcp_sidecar.model_set import ModelSet

    keys = _public_keys(arguments)
    if is_fleet(arguments.models):
        from dwcp_sidecar.fleet_check import check

        return check(arguments.models, keys)
    models = ModelSet.open(
        arguments.models, public_keys=keys
    )  # runs every golden case: a set that opens has passed all of them
    rows = [("detector", "parity", "golden cases", "threshold", "made of")]
    for name, metadata in models.metadata.items():
        if name not in models.models:
            rows.append((name, "-", "-", repr(metadata.threshold), f"cannot be scored: {models.why_not(name)}"))
            continue
        count = len(models.golden[name].cases)
        parity = "EXACT" if models.models[name].exact else "TOLERANCE"
        made_of = _members(models.models[name]) or _file(models.path / metadata.graph.file)
        rows.append((name, parity, f"{count} of {count} passed", repr(metadata.threshold), made_of))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\nmodel set {models.id}\nin {models.path}")
    if keys is not None:
        print(f"signed: {SIGNATURE} is by one of the public keys")
    return 0


def _file(path: Path) -> str:
    return f"{path.name} {path.stat().st_size:,} bytes"


def _members(model: Any) -> str:
    """The members of an ensemble with their weights, and why some are missing (EN6); empty for other models."""
    return ", ".join(
        f"{member.name} {member.weight:.4g}" + (f" (missing: {member.missing})" if member.missing else "")
        for member in getattr(model, "members", [])
    )


def _health(arguments: argparse.Namespace) -> int:
    grpc_environment.prepare()
    from dwcp_sidecar.probe import health

    serves, said = health(arguments.address, arguments.service, arguments.timeout)
    if not serves:
        return _fail(f"{arguments.address}: {said}")
    print(said)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dwcp-sidecar", description="Scores network metrics with exported anomaly models.", allow_abbrev=False
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Any, help: str, examples: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(run=run)
        return added

    models_help = "folder with manifest.json, for example models/reference/v1"
    or_fleet = f"{models_help}, or fleet of such folders, with fleet.json"

    serve = command("serve", _serve, "answer gRPC calls with one model set, or a fleet", _SERVE)
    flags.add(serve, or_fleet)

    score = command("score", _score, "answer JSON lines from standard input", _SCORE)
    source = "needed unless --address is given; with it, the server must have this very set in use"
    score.add_argument("--models", type=Path, metavar="DIR", help=f"{models_help}; {source}")
    flags.add_public_key(score)
    score.add_argument("--address", metavar="ADDRESS", help="score on a server: HOST:PORT or unix:PATH")
    score.add_argument(
        "--batch",
        type=_between(1, 16_384),
        default=64,
        metavar="N",
        help="most lines scored at once; no answer depends on it (default: %(default)s)",
    )
    score.add_argument(
        "--threads",
        type=_between(1, 1024),
        default=1,
        metavar="N",
        help="ONNX Runtime threads; no answer depends on it (default: %(default)s)",
    )

    probe = command("health", _health, "ask a running sidecar for its health", _HEALTH)
    probe.add_argument("--address", required=True, metavar="ADDRESS", help="HOST:PORT or unix:PATH")
    probe.add_argument("--service", default="", metavar="NAME", help="health name (default: the server as a whole)")
    probe.add_argument(
        "--timeout", type=float, default=2.0, metavar="SECONDS", help="for the answer (default: %(default)s)"
    )

    check = command("check", _check, "open a model set or a fleet, audit it and run its golden vectors", _CHECK)
    check.add_argument("--models", type=Path, required=True, metavar="DIR", help=or_fleet)
    flags.add_public_key(check)
    return parser


def _between(least: int, most: int) -> Any:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} to {most}")
        return int(text)

    return number
