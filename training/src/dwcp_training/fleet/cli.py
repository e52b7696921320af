"""The commands `dwcp fleet ...`. Thin: `train.py` and `score.py` do the work."""

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from dwcp_training.cli_options import Budget, Exclude, Grace, OnBadRows, ProfileName, Seed, SignKey, Verbose

fleet_app = typer.Typer(
    no_args_is_help=True, help="Fleets: a model set for each of many links; histories of many links scored."
)

Engine = Annotated[
    Literal["local", "ray"], typer.Option(help="local: processes of this machine. ray: Ray (extra `fleet`).")
]
Workers = Annotated[Optional[int], typer.Option(help="Processes (default: one a core); 1 is a plain loop.")]
By = Annotated[str, typer.Option(help="Key of the folders, as in link=a/, or column, that names the series.")]


@fleet_app.command(
    epilog="Example: dwcp fleet train --data telemetry/ --output fleet --by link --min-rows 2000\n\n"
    "Clusters of links, on Ray: dwcp fleet train --data telemetry/ --output fleet --clusters 20 --engine ray\n\n"
    "Exit status: 0 done; 1 refused; 2 wrong usage; 3 done, but for links that failed."
)
def train(
    data: Annotated[Path, typer.Option(help="Folder of Parquet files, partitioned as link=<name>/, or with a column.")],
    output: Annotated[Path, typer.Option(help="Folder of the fleet. What is finished in it is not done again.")],
    by: By = "link",
    engine: Engine = "local",
    workers: Workers = None,
    clusters: Annotated[
        Optional[int], typer.Option(help="One set for each of so many clusters of similar links, not for each link.")
    ] = None,
    min_rows: Annotated[
        int, typer.Option(help="Links with fewer rows are scored by the global set, trained on a sample of all links.")
    ] = 1_000,
    profile: ProfileName = "dwcp",
    detector: Annotated[
        Optional[list[str]],
        typer.Option(help="Detector of each set; may be given several times (default isolation_forest)."),
    ] = None,
    alarm_budget: Budget = None,
    seed: Seed = None,
    on_bad_rows: OnBadRows = "fail",
    exclude: Exclude = None,
    exclude_grace: Grace = 0.0,
    drift: Annotated[
        bool, typer.Option("--drift", help="Keep a drift reference in each set, for `dwcp drift` (larger, slower).")
    ] = False,
    sign_key: SignKey = None,
    verbose: Verbose = False,
) -> None:
    """Trains a model set for each link, proves each, and writes the index that says which set scores which link."""
    from dwcp_training.fleet.train import Options, run_train

    raise typer.Exit(
        run_train(
            Options(
                data, output, by, engine, workers, clusters, min_rows, profile, detector or (), seed,
                alarm_budget,  # type: ignore[arg-type]  # parsed by `budget_of`
                on_bad_rows, exclude or (), exclude_grace, drift, sign_key, verbose,
            )
        )
    )  # fmt: skip


@fleet_app.command(
    epilog="Example: dwcp fleet score --fleet fleet --data telemetry/ --output scores\n\n"
    "Alarms alone, on Ray: dwcp fleet score --fleet fleet --data telemetry/ --output alarms --only-alarms --engine ray"
    "\n\nExit status: 0 done; 1 refused; 2 wrong usage; 3 done, but for files that failed."
)
def score(
    fleet: Annotated[Path, typer.Option(help="Folder of the fleet.")],
    data: Annotated[Path, typer.Option(help="Folder of Parquet files, partitioned as link=<name>/, or with a column.")],
    output: Annotated[Path, typer.Option(help="Folder of the scores: a file for each file of the data.")],
    by: By = "link",
    engine: Engine = "local",
    workers: Workers = None,
    detector: Annotated[
        Optional[list[str]], typer.Option(help="Detector; may be given several times (default: all of each set).")
    ] = None,
    profile: ProfileName = "dwcp",
    on_bad_rows: OnBadRows = "fail",
    only_alarms: Annotated[bool, typer.Option("--only-alarms", help="Write nothing about normal rows.")] = False,
    verbose: Verbose = False,
) -> None:
    """Scores the history of many links, each with its set, to the bits that a sidecar gives. Goes on where it ended."""
    from dwcp_training.fleet.score import Options, run_score

    raise typer.Exit(
        run_score(
            Options(
                fleet, data, output, by, engine, workers, detector or (), profile, on_bad_rows, only_alarms, verbose
            )
        )
    )
