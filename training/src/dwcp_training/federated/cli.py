"""The commands `dwcp federated server`, `client` and `simulate`. Thin: `command.py` and `simulate.py` do the work."""

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from dwcp_training.cli_options import Exclude, OnBadRows, ProfileName, Seed, SignKey, Synthetic

federated_app = typer.Typer(
    no_args_is_help=True, help="Federated training: many sites, one model, and no row leaves its site."
)

Detector = Annotated[
    Literal["dense-autoencoder", "lstm-autoencoder", "isolation-forest"],
    typer.Option(help="What to train. Weights are averaged; a forest's trees are pooled."),
]
Output = Annotated[Path, typer.Option(help="Folder of the model set. Models of other detectors in it are kept.")]
Rounds = Annotated[int, typer.Option(help="Rounds of averaging; a forest has one.")]
LocalEpochs = Annotated[int, typer.Option(help="Passes of a client over its rows in a round.")]
MinClients = Annotated[int, typer.Option(help="Clients without whose answers nothing goes on.")]
Timeout = Annotated[
    float, typer.Option(help="Seconds for a client's answer; then the round goes on without it (stage, with --secure).")
]
Secure = Annotated[
    bool, typer.Option("--secure", help="Secure aggregation (SecAgg+): the server reads sums, no client's answer.")
]
Robust = Annotated[
    Literal["none", "trimmed-mean", "median", "krum"],
    typer.Option(help="How to average when clients may lie; not with --secure."),
]
Liars = Annotated[int, typer.Option(help="How many may lie, with --robust.")]
Noise = Annotated[
    Optional[float],
    typer.Option(help="Differential privacy of the weights: noise in clipping norms (1 or more is strong)."),
]
Clip = Annotated[float, typer.Option(help="Clipping norm: the most that a client changes the weights in a round.")]
Settings = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set", help="A hyperparameter, as in the profile; may be given several times.", metavar="NAME=VALUE"
    ),
]
StateFile = Annotated[
    Optional[Path], typer.Option(help="File of the run's state, written after each round; a rerun goes on from it.")
]


@federated_app.command(
    epilog="Example: dwcp federated server --listen 127.0.0.1:9092 --output models --min-clients 3 --secure "
    "--state run.npz\n\nAcross a network: --listen 0.0.0.0:9092 --tls-cert server.pem --tls-key server.key"
)
def server(
    output: Output,
    listen: Annotated[str, typer.Option(help="Address for clients; port 0 takes a free one.")] = "127.0.0.1:9092",
    detector: Detector = "dense-autoencoder",
    rounds: Rounds = 20,
    local_epochs: LocalEpochs = 1,
    min_clients: MinClients = 2,
    wait_for: Annotated[
        Optional[int], typer.Option(help="Clients to wait for before the first round (default --min-clients).")
    ] = None,
    join_timeout: Annotated[float, typer.Option(help="Seconds to wait for them.")] = 600.0,
    timeout: Timeout = 600.0,
    secure: Secure = False,
    robust: Robust = "none",
    liars: Liars = 0,
    dp_noise: Noise = None,
    dp_clip: Clip = 1.0,
    settings: Settings = None,
    seed: Seed = None,
    state: StateFile = None,
    tls_cert: Annotated[Optional[Path], typer.Option(help="PEM file of the server's certificate.")] = None,
    tls_key: Annotated[Optional[Path], typer.Option(help="PEM file of its key.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond this machine without TLS.")] = False,
    profile: ProfileName = "dwcp",
    sign_key: SignKey = None,
) -> None:
    """Leads a federated training, and publishes its model as a release."""
    from dwcp_training.federated.command import Wanted, run_server

    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together")
    wanted = Wanted(
        detector, output, rounds, local_epochs, min_clients, timeout, secure, robust, liars, dp_noise, dp_clip,
        settings or (), seed, state, profile, sign_key,
    )  # fmt: skip
    tls = (tls_cert, tls_key) if tls_cert and tls_key else None
    raise typer.Exit(run_server(wanted, listen, wait_for, join_timeout, tls, insecure))


@federated_app.command(
    epilog="Example: dwcp federated client --server 127.0.0.1:9092 --data normal.csv --name region-north\n\n"
    "Across a network: --server fed.example.org:9092 --root-certificates ca.pem --only-secure --min-clients 5"
)
def client(
    server: Annotated[str, typer.Option(help="Address of the server.", metavar="HOST:PORT")],
    data: Annotated[list[Path], typer.Option(help="Normal data of this site; may be given several times.")],
    name: Annotated[Optional[str], typer.Option(help="What the server calls this client (default: the files).")] = None,
    profile: ProfileName = "dwcp",
    on_bad_rows: OnBadRows = "fail",
    exclude: Exclude = None,
    root_certificates: Annotated[
        Optional[Path], typer.Option(help="PEM file of the authority of the server's certificate (default: system's).")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="No TLS; on this machine there is none anyway.")] = False,
    only_secure: Annotated[
        bool, typer.Option("--only-secure", help="Refuse a server that asks for anything but secure sums.")
    ] = False,
    min_clients: Annotated[int, typer.Option(help="Refuse secure sums over fewer clients.")] = 3,
) -> None:
    """Takes part in a federated training with this site's data, until it ends."""
    from dwcp_training.federated.command import run_client

    raise typer.Exit(
        run_client(
            server,
            data,
            name,
            profile,
            on_bad_rows,
            exclude or (),
            root_certificates,
            insecure,
            only_secure,
            min_clients,
        )
    )


@federated_app.command(
    epilog="Example: dwcp federated simulate --data normal.csv --clients 4 --rounds 5 --output models\n\n"
    "Skewed, secure, and a client lost in round 2: --split dirichlet --skew 0.3 --secure --min-clients 3 --lose 4@2"
)
def simulate(
    output: Output,
    synthetic: Synthetic = False,
    data: Annotated[
        Optional[list[Path]], typer.Option(help="Normal data, dealt to the clients; may be given several times.")
    ] = None,
    clients: Annotated[int, typer.Option(help="How many clients.")] = 10,
    split: Annotated[
        Literal["time", "metric", "dirichlet"],
        typer.Option(help="By time; by the level of a metric; or levels in shares of Dirichlet's distribution."),
    ] = "time",
    skew: Annotated[float, typer.Option(help="Its concentration: smaller makes clients more unlike.")] = 0.5,
    metric: Annotated[Optional[str], typer.Option(help="That metric (default: the one that changes most).")] = None,
    processes: Annotated[
        bool, typer.Option("--processes", help="A process for each client, over loopback (default: in this process).")
    ] = False,
    lose: Annotated[
        Optional[list[str]], typer.Option(help="A client that is lost in a round.", metavar="CLIENT@ROUND")
    ] = None,
    liar: Annotated[Optional[list[int]], typer.Option(help="A client that lies.", metavar="CLIENT")] = None,
    detector: Detector = "dense-autoencoder",
    rounds: Rounds = 20,
    local_epochs: LocalEpochs = 1,
    min_clients: MinClients = 2,
    timeout: Timeout = 600.0,
    secure: Secure = False,
    robust: Robust = "none",
    liars: Liars = 0,
    dp_noise: Noise = None,
    dp_clip: Clip = 1.0,
    settings: Settings = None,
    seed: Seed = None,
    state: StateFile = None,
    on_bad_rows: OnBadRows = "fail",
    profile: ProfileName = "dwcp",
    sign_key: SignKey = None,
) -> None:
    """Tries a federated training on one machine: splits a data set, trains, and publishes the model."""
    from dwcp_training.federated.command import Wanted
    from dwcp_training.federated.simulate import run_simulate

    wanted = Wanted(
        detector, output, rounds, local_epochs, min_clients, timeout, secure, robust, liars, dp_noise, dp_clip,
        settings or (), seed, state, profile, sign_key,
    )  # fmt: skip
    raise typer.Exit(
        run_simulate(
            wanted, data or (), synthetic, on_bad_rows, clients, split, skew, metric, processes, lose or (), liar or ()
        )
    )
