"""The flags of `dwcp-sidecar serve`, and the settings that they mean."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dwcp_sidecar.limits import DEFAULT_MAX_SETS
from dwcp_sidecar.server.settings import DEFAULT_LISTEN, DEFAULT_WINDOW, Limits, Reflection, Settings, StartError, Tls
from dwcp_sidecar.signatures import KeyFileError, PublicKeys


def add(serve: argparse.ArgumentParser, models_help: str) -> None:
    """Adds the flags to a parser."""
    serve.add_argument("--models", type=Path, required=True, metavar="DIR", help=models_help)
    add_public_key(serve)

    where = serve.add_argument_group("where")
    where.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="TCP address; port 0 takes a free one (default: 127.0.0.1:50051, or no TCP when --unix is given)",
    )
    where.add_argument("--unix", type=Path, metavar="PATH", help="unix socket, mode 0660; --listen adds TCP to it")
    where.add_argument(
        "--metrics", metavar="HOST:PORT", help="page for Prometheus, http://HOST:PORT/metrics (default: none)"
    )
    where.add_argument(
        "--feedback",
        type=Path,
        metavar="FILE",
        help="summary that dwcp feedback writes: shows on --metrics how many alarms were right",
    )
    where.add_argument(
        "--drift-window",
        type=int,
        default=DEFAULT_WINDOW,
        metavar="ROWS",
        help="last rows of a detector that --metrics compares with its training rows; 0: none (default: %(default)s)",
    )
    where.add_argument("--tls-cert", type=Path, metavar="FILE", help="PEM certificate chain: TLS on the TCP address")
    where.add_argument("--tls-key", type=Path, metavar="FILE", help="its PEM private key")
    where.add_argument(
        "--tls-client-ca", type=Path, metavar="FILE", help="PEM certificates that must have signed those of clients"
    )
    where.add_argument(
        "--reflection",
        choices=[choice.value for choice in Reflection],
        default=Reflection.AUTO.value,
        help="whether the services can be listed; auto: not with --tls-client-ca (default: %(default)s)",
    )

    how = serve.add_argument_group("how much")

    def number(flag: str, default: float, unit: str, help: str) -> None:
        how.add_argument(flag, type=type(default), default=default, metavar=unit, help=f"{help} (default: %(default)s)")

    limits = Limits()
    number("--workers", 1, "N", "processes that share the port; of a unix socket each has its own: PATH, PATH.1, ...")
    number("--workers-threads", limits.threads, "N", "calls handled at a time by a worker")
    number("--max-in-flight", limits.in_flight, "N", "calls taken at a time by a worker, waiting ones included")
    number("--max-streams", limits.streams, "N", "open streams of a worker")
    number("--max-series", limits.series, "N", "series of a stream")
    number("--max-sets", DEFAULT_MAX_SETS, "N", "sets of a fleet that a worker keeps open")
    number("--stream-idle", limits.idle, "SECONDS", "a stream on which nothing moves for so long is ended")

    life = serve.add_argument_group("life")
    life.add_argument(
        "--watch",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="between looks at DIR for a new model set; 0: only when Reload is called (default: %(default)s)",
    )
    life.add_argument(
        "--grace",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="for calls in flight at the end (default: %(default)s)",
    )
    life.add_argument(
        "--ready-file", type=Path, metavar="PATH", help="written when the server answers, removed at the end"
    )
    life.add_argument("--log-format", choices=("text", "json"), default="text", help="of messages on standard error")
    life.add_argument("--traces", action="store_true", help="send OpenTelemetry spans (needs dwcp-sidecar[otel])")


def add_public_key(command: argparse.ArgumentParser) -> None:
    """Adds the flag of rule A8 to a parser."""
    command.add_argument(
        "--public-key",
        type=Path,
        action="append",
        metavar="FILE",
        help="PEM file of Ed25519 public keys; a set that none of them has signed is refused; may be given several "
        "times (default: signatures are not looked at)",
    )


def public_keys(files: Sequence[Path] | None) -> PublicKeys | None:
    """The keys that `--public-key` names; None where the flag is not given.

    Raises:
        StartError: a file cannot be used.
    """
    if not files:
        return None
    try:
        return PublicKeys.read(*files)
    except KeyFileError as error:
        raise StartError(f"--public-key: {error}") from None


def settings(flags: Mapping[str, Any]) -> Settings:
    """The settings that flags mean.

    Args:
        flags: values by name, as argparse gives them; a path may be a string.

    Raises:
        StartError: a value out of range, flags that do not go together, or a file of public keys that is none.
    """

    def path(name: str) -> Path | None:
        return None if flags[name] is None else Path(flags[name])

    return Settings(
        models=Path(flags["models"]),
        listen=flags["listen"] or (None if flags["unix"] else DEFAULT_LISTEN),
        unix=path("unix"),
        workers=flags["workers"],
        limits=Limits(
            in_flight=flags["max_in_flight"],
            threads=flags["workers_threads"],
            streams=flags["max_streams"],
            series=flags["max_series"],
            idle=flags["stream_idle"],
        ),
        grace=flags["grace"],
        ready_file=path("ready_file"),
        watch=flags["watch"],
        metrics=flags["metrics"],
        feedback=path("feedback"),
        drift_window=flags["drift_window"],
        tls=_tls(path("tls_cert"), path("tls_key"), path("tls_client_ca")),
        reflection=Reflection(flags["reflection"]),
        traces=flags["traces"],
        max_sets=flags["max_sets"],
        public_keys=public_keys(flags.get("public_key")),
    )


def portable(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The same flags as JSON can carry them to another process. Lists are left out: keys are handed on as keys."""
    plain = (str, int, float, bool, type(None))
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in flags.items()
        if isinstance(value, (Path, *plain))
    }


def _tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> Tls | None:
    if cert is None and key is None:
        if client_ca is not None:
            raise StartError("--tls-client-ca asks clients for certificates over TLS; add --tls-cert and --tls-key")
        return None
    if cert is None or key is None:
        given, missing = ("--tls-cert", "--tls-key") if key is None else ("--tls-key", "--tls-cert")
        raise StartError(f"{given} is given without {missing}; TLS needs both")
    return Tls(cert, key, client_ca)
