"""The command `dwcp retrain`. Thin: `command.py` does the work."""

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from dwcp_training.cli_options import Exclude, Grace, OnBadRows, ProfileName, SignKey, Verbose

EXAMPLES = (
    "Example: dwcp retrain --models models --data telemetry/ --days 30 --exclude incidents.csv --dry-run\n\n"
    "dwcp retrain --models models --prometheus http://127.0.0.1:9090 --query latency='avg(link_latency_ms)' ...\n\n"
    "Exit status: 0 promoted, or a dry run that would have; 1 refused; 2 wrong usage; 3 not promoted."
)


def retrain(
    models: Annotated[Path, typer.Option(help="Folder of the model set; its current release is the champion.")],
    data: Annotated[
        Optional[list[Path]], typer.Option(help="File or folder, as in training; may be given several times.")
    ] = None,
    prometheus: Annotated[Optional[str], typer.Option(help="Address of a Prometheus.", metavar="URL")] = None,
    query: Annotated[
        Optional[list[str]], typer.Option(help="What is asked of it, one for each feature.", metavar="FEATURE=PROMQL")
    ] = None,
    step: Annotated[
        Optional[float],
        typer.Option(help="Seconds between samples of a Prometheus (default: the champion's cadence, or 60)."),
    ] = None,
    days: Annotated[float, typer.Option(help="How far back.")] = 30.0,
    exclude: Exclude = None,
    exclude_grace: Grace = 0.0,
    on_bad_rows: OnBadRows = "fail",
    profile: ProfileName = "dwcp",
    detector: Annotated[
        Optional[list[str]],
        typer.Option(help="Detector to train; may be given several times (default: those of the champion)."),
    ] = None,
    settings: Annotated[
        Literal["champion", "profile"], typer.Option(help="Where hyperparameters come from.")
    ] = "champion",
    keep_alarms: Annotated[
        bool, typer.Option("--keep-alarms", help="Train also on rows that the champion alarms on: they are normal now.")
    ] = False,
    keep: Annotated[int, typer.Option(help="Releases to keep; the current one and the one before it always stay.")] = 5,
    executor: Annotated[
        Optional[Path], typer.Option(help="contract-score of the Go package: must pass the golden vectors too.")
    ] = None,
    mlflow: Annotated[
        Optional[str], typer.Option(help="Record the run in this MLflow (pip install mlflow).", metavar="URI")
    ] = None,
    feedback: Annotated[
        Optional[Path],
        typer.Option(help="Marks of dwcp feedback (default: feedback.db in --models, where there is one)."),
    ] = None,
    sign_key: SignKey = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and say why; publish nothing.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the decision as JSON, and everything else on standard error.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Trains on the last days, compares with the current release, and takes its place only when the gate passes."""
    from dwcp_training.retrain.command import Options, run_retrain

    raise typer.Exit(
        run_retrain(
            Options(
                models, data or (), prometheus, query or (), step, days, exclude or (), exclude_grace, on_bad_rows,
                profile, detector or (), settings, keep_alarms, keep, executor, mlflow, sign_key, dry_run, json,
                verbose, feedback,
            )
        )
    )  # fmt: skip
