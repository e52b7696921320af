"""Runs `dwcp federated server` and `client` for a person, and what a simulation has in common with them."""

import ipaddress
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from dwcp_training.console import RefusedError, UsageError, guarded, out, print_data, print_warning, progress_bar
from dwcp_training.data import Exclusion, Telemetry, read_table
from dwcp_training.federated.errors import FederatedError
from dwcp_training.federated.library import require_flower
from dwcp_training.federated.plan import Plan, Privacy, Robust
from dwcp_training.federated.show import Shown, size
from dwcp_training.profiles import Profile, load_profile
from dwcp_training.publish import check_writable, publish
from dwcp_training.run import checked_settings
from dwcp_training.signing import read_signing_key

NAMES = {
    "dense-autoencoder": "dense_autoencoder",
    "lstm-autoencoder": "lstm_autoencoder",
    "isolation-forest": "isolation_forest",
}
"""Detectors as the command line calls them."""


@dataclass(frozen=True)
class Wanted:
    """What a server, or a simulation, is asked for; see `cli.py` for the words."""

    detector: str
    output: Path
    rounds: int
    local_epochs: int
    minimum: int
    timeout: float
    secure: bool
    robust: Robust
    liars: int
    dp_noise: float | None
    dp_clip: float
    hyperparameters: Sequence[str]
    seed: int | None
    state: Path | None
    profile: str
    sign_key: Path | None

    def plan(self, profile: Profile) -> Plan:
        """The plan. Raises FederatedError or UsageError for what does not go together."""
        detector = NAMES[self.detector]
        settings = checked_settings(
            getattr(profile.detectors, detector), {**_pairs(self.hyperparameters), "seed": self.seed}
        )
        listed = profile.feature_schema.names if profile.reader.features == "listed" else ()
        if self.timeout <= 0:
            raise UsageError(f"--timeout {self.timeout:g}: write a number of seconds above 0")
        return Plan(
            detector,
            settings.model_dump(mode="json"),
            rounds=self.rounds,
            local_epochs=self.local_epochs,
            minimum=self.minimum,
            features=tuple(listed),
            secure=self.secure,
            robust=self.robust,
            liars=self.liars,
            privacy=None if self.dp_noise is None else Privacy(self.dp_clip, self.dp_noise),
            scaling=profile.scaling.method,
            divisors=dict(profile.scaling.divisors) if profile.scaling.method == "divisors" else {},
        )


def run_server(
    wanted: Wanted,
    listen: str,
    wait_for: int | None,
    join_timeout: float,
    tls: tuple[Path, Path] | None,
    insecure: bool,
) -> int:
    """Serves a federated training and publishes what it gives. Returns the exit status."""

    def command() -> None:
        require_flower()
        from dwcp_training.federated.flower_fleet import Fleet
        from dwcp_training.federated.flower_link import Tls, serving

        host, port = _address("--listen", listen)
        if tls is None and not (insecure or _is_loopback(host)):
            raise UsageError(
                f"--listen {listen}: give --tls-cert and --tls-key, or --insecure where the network is safe"
            )
        profile = load_profile(wanted.profile)
        plan = wanted.plan(profile)
        check_writable(wanted.output)
        with serving(host, port, Tls(*tls) if tls else None) as (grid, address):
            out.print(f"ready {address}")
            fleet = Fleet(grid, wanted.timeout, print_warning, plan.detector)
            try:
                fleet.join(wait_for or wanted.minimum, join_timeout)
                finish(fleet, plan, wanted, profile)
            except (RefusedError, OSError) as error:
                fleet.done(f"ended: {error}")
                raise
            fleet.done("finished")
            time.sleep(1)  # so that the clients have their last answer

    return guarded(command, "nothing was published.")


def finish(fleet: Any, plan: Plan, wanted: Wanted, profile: Profile) -> Any:
    """Runs the plan with clients that are there, and publishes the model; gives the state of the run."""
    from dwcp_training.federated.assemble import assembled
    from dwcp_training.federated.rounds import Run, resumed
    from dwcp_training.pipeline import export

    signer = read_signing_key(wanted.sign_key)
    state = resumed(plan, wanted.state)
    if state.rounds:
        out.print(f"going on after round {state.rounds[-1].number}: {wanted.state}")
    if plan.secure and plan.detector == "isolation_forest":
        print_warning("sums are secure, but trees are no sums: the server reads each client's trees")
    with progress_bar() as bar:
        shown = Shown(bar, 1 if plan.detector == "isolation_forest" else plan.rounds)
        state = Run(fleet, state, wanted.state, shown.round, shown.step).finish()
        shown.step("export")
        fitted = assembled(state, profile)
        candidate, warning = export(plan.detector, fitted, plan.hyperparameters.seed)
        models = publish(wanted.output, [candidate], signer)
    facts = {**fitted.facts}
    if plan.privacy is not None:
        from dwcp_training.federated.privacy import epsilon

        spent = epsilon(plan.privacy, len(state.rounds))
        facts["privacy"] = f"epsilon {spent:.3g} at delta {plan.privacy.delta:g}, of the weights alone, for each client"
    facts["traffic"] = f"{size(fleet.traffic.up)} up, {size(fleet.traffic.down)} down, all clients together"
    facts["model set"] = f"{models.id[:16]} in {wanted.output}"
    table = Table(title=plan.detector, show_header=False, title_justify="left")
    for label, text in facts.items():
        table.add_row(label, text)
    out.print(table)
    print_warning(fitted.no_drift)
    if warning:
        print_warning(warning)
    return state


def run_client(
    server: str,
    data: Sequence[Path],
    name: str | None,
    profile: str,
    on_bad_rows: str,
    exclude: Sequence[Path],
    root_certificates: Path | None,
    insecure: bool,
    only_secure: bool,
    least_clients: int,
) -> int:
    """Answers a federated server's questions until it is done. Returns the exit status."""

    def command() -> None:
        require_flower()
        from dwcp_training.federated.flower_app import client_app, clipped
        from dwcp_training.federated.flower_node import answer_until_done
        from dwcp_training.federated.site import Site

        host, _ = _address("--server", server)
        if root_certificates is not None and insecure:
            raise UsageError("--insecure and --root-certificates contradict each other: give one")
        plain = insecure or (root_certificates is None and _is_loopback(host))
        telemetry = read_rows(data, load_profile(profile), on_bad_rows, exclude)
        print_data(telemetry)
        said: list[str] = []
        site = Site(telemetry, name or telemetry.source, clipped)
        app = client_app(site, only_secure=only_secure, least_clients=least_clients, on_done=said.append)
        answer_until_done(server, app, lambda: bool(said), root_certificates, plain)
        if not said:
            raise FederatedError("--server", f"{server} ended the connection.", "Does it run still? Start both again.")
        if said[-1] != "finished":
            raise FederatedError("server", said[-1])
        out.print("finished")

    return guarded(command, "this client took no further part.")


def read_rows(data: Sequence[Path], profile: Profile, on_bad_rows: str, exclude: Sequence[Path]) -> Telemetry:
    """Normal rows of files, as a training reads them."""
    reader = profile.reader
    return read_table(
        list(data),
        profile,
        on_bad_rows=on_bad_rows,  # type: ignore[arg-type]  # checked by read_table
        exclude=Exclusion(tuple(exclude), 0.0, reader.label_column, reader.normal_labels),
        normal_only=True,
    )


def _pairs(texts: Sequence[str]) -> Mapping[str, Any]:
    """Hyperparameters of `name=value`, values as in a profile."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: write NAME=VALUE, such as encoder_units=[32,16]")
        try:
            found[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--set {text}: {value!r} cannot be read") from None
    return found


def _address(flag: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{flag} {text}: write HOST:PORT, such as 127.0.0.1:9092")
    return host, int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
