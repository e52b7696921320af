"""The `dwcp` command, and the two commands of the seed document. Thin: `run.py` trains, `evaluate.py` measures."""

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Trains anomaly models and publishes model sets.")
train_app = typer.Typer(no_args_is_help=True, help="Trains a detector, exports it exactly and publishes it.")
app.add_typer(train_app, name="train")
profile_app = typer.Typer(no_args_is_help=True, help="Profiles: which metrics, how their files are read, defaults.")
app.add_typer(profile_app, name="profile")

Synthetic = Annotated[bool, typer.Option("--synthetic", help="Train on made-up normal data, for trying things out.")]
Data = Annotated[
    Optional[list[Path]],
    typer.Option(
        help="File of normal data (CSV, Parquet, .npy) or folder of them or of runs; may be given several times."
    ),
]
Output = Annotated[Path, typer.Option(help="Folder of the model set. Models of other detectors in it are kept.")]
Seed = Annotated[Optional[int], typer.Option(help="Seed of every random choice (default 42).")]
OnBadRows = Annotated[Literal["fail", "drop"], typer.Option(help="What to do with rows that cannot be used.")]
Exclude = Annotated[Optional[list[Path]], typer.Option(help="CSV with start,end[,kind]: times that were not normal.")]
Grace = Annotated[float, typer.Option(help="Seconds after such a time that are left out too.")]
LabelColumn = Annotated[
    Optional[str], typer.Option(help="Column whose labelled rows are left out (default: the profile's).")
]
NormalLabel = Annotated[
    Optional[list[str]],
    typer.Option(help="A label that means normal (default: the profile's); may be given several times."),
]
ProfileName = Annotated[str, typer.Option(help="Profile: name (see `dwcp profile list`) or YAML file of your own.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]


@train_app.command(
    "isolation-forest",
    epilog="Example: dwcp train isolation-forest --data normal.csv --output models --contamination 0.005\n\n"
    "Your own metrics: dwcp train isolation-forest --profile servers.yaml --data servers/ --output models",
)
def isolation_forest(
    synthetic: Synthetic = False,
    data: Data = None,
    output: Output = Path("../models"),
    contamination: Annotated[
        Optional[float], typer.Option(help="Share of normal rows that alarm; less means fewer alarms (default 0.01).")
    ] = None,
    n_estimators: Annotated[Optional[int], typer.Option(help="Number of trees (default 100).")] = None,
    seed: Seed = None,
    on_bad_rows: OnBadRows = "fail",
    exclude: Exclude = None,
    exclude_grace: Grace = 0.0,
    label_column: LabelColumn = None,
    normal_label: NormalLabel = None,
    profile: ProfileName = "dwcp",
    verbose: Verbose = False,
) -> None:
    """Trains the isolation forest: finds rows that are unusual in one or several metrics."""
    from dwcp_training.run import Source, run

    source = Source(synthetic, data or (), on_bad_rows, exclude or (), exclude_grace, label_column, normal_label or ())
    flags = {"contamination": contamination, "n_estimators": n_estimators, "seed": seed}
    raise typer.Exit(run("isolation_forest", source, output, flags, profile, verbose))


@train_app.command(
    "lstm-autoencoder",
    epilog="Example: dwcp train lstm-autoencoder --data normal.csv --output models --epochs 100 --batch-size 64\n\n"
    "Run folders: dwcp train lstm-autoencoder --profile telemetry-runs --data runs/ --output models",
)
def lstm_autoencoder(
    synthetic: Synthetic = False,
    data: Data = None,
    output: Output = Path("../models"),
    window_size: Annotated[Optional[int], typer.Option(help="Samples in a window (default 10).")] = None,
    window_stride: Annotated[
        Optional[int], typer.Option(help="Samples from the start of one training window to the next (default 1).")
    ] = None,
    epochs: Annotated[Optional[int], typer.Option(help="Most passes over the data (default 50).")] = None,
    batch_size: Annotated[Optional[int], typer.Option(help="Windows in a training step (default 32).")] = None,
    encoding_dim: Annotated[Optional[int], typer.Option(help="Width of the bottleneck (default 32).")] = None,
    threshold_percentile: Annotated[
        Optional[float],
        typer.Option(
            help="Percentile of training scores that becomes the threshold; more means fewer alarms (default 95)."
        ),
    ] = None,
    precision: Annotated[
        Literal["float64", "float32"],
        typer.Option(help="float64: the same bits everywhere. float32: faster in batches, within a stated tolerance."),
    ] = "float64",
    seed: Seed = None,
    on_bad_rows: OnBadRows = "fail",
    exclude: Exclude = None,
    exclude_grace: Grace = 0.0,
    label_column: LabelColumn = None,
    normal_label: NormalLabel = None,
    profile: ProfileName = "dwcp",
    verbose: Verbose = False,
) -> None:
    """Trains the LSTM autoencoder: finds windows that do not continue as normal ones do."""
    from dwcp_training.run import Source, run

    source = Source(synthetic, data or (), on_bad_rows, exclude or (), exclude_grace, label_column, normal_label or ())
    flags = {
        "window_size": window_size,
        "window_stride": window_stride,
        "epochs": epochs,
        "batch_size": batch_size,
        "encoding_dim": encoding_dim,
        "threshold_percentile": threshold_percentile,
        "seed": seed,
    }
    raise typer.Exit(run("lstm_autoencoder", source, output, flags, profile, verbose, precision=precision))


@app.command(epilog="Example: dwcp evaluate --models models --data test.csv --labels labels.csv --grace 7")
def evaluate(
    models: Annotated[Path, typer.Option(help="Folder of the model set.")],
    data: Annotated[list[Path], typer.Option(help="File or folder, as in training; may be given several times.")],
    labels: Annotated[
        Optional[list[Path]], typer.Option(help="CSV with start,end[,kind]: the faults in the data.")
    ] = None,
    grace: Annotated[float, typer.Option(help="Seconds after a fault that are neither normal nor faulty.")] = 0.0,
    inject: Annotated[
        bool, typer.Option("--inject", help="Put anomalies into the normal data, each kind into each metric.")
    ] = False,
    json: Annotated[Optional[Path], typer.Option(help="Write all figures to this file too.")] = None,
    on_bad_rows: OnBadRows = "fail",
    profile: ProfileName = "dwcp",
) -> None:
    """Measures a model set: false alarms on normal data, recall and delay on labelled or injected faults."""
    from dwcp_training.evaluate import run_evaluate

    raise typer.Exit(
        run_evaluate(
            models, data, labels or (), grace, injected=inject, json_file=json, on_bad_rows=on_bad_rows, profile=profile
        )
    )


@profile_app.command("list", epilog="Example: dwcp profile list")
def profile_list() -> None:
    """Lists the profiles that come with the program."""
    from dwcp_training.run import list_profiles

    raise typer.Exit(list_profiles())


@profile_app.command(
    "show", epilog="Example: dwcp profile show dwcp. For one of your own: dwcp profile show industrial > mine.yaml"
)
def profile_show(name: Annotated[str, typer.Argument(help="Name or YAML file.", metavar="NAME|FILE")]) -> None:
    """Checks a profile and prints it as YAML, with all its defaults."""
    from dwcp_training.run import show_profile

    raise typer.Exit(show_profile(name))


def main() -> None:
    """Entry point of `dwcp`."""
    app()
