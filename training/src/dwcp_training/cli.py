"""The `dwcp` command, and the two commands of the seed document. Thin: `run.py` trains, `evaluate.py` measures."""

from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from dwcp_training.cli_options import (
    Budget,
    Contamination,
    Epochs,
    Exclude,
    MaxRows,
    NormalLabel,
    OnBadRows,
    ProfileName,
    Seed,
    SignKey,
    Synthetic,
    ThresholdPercentile,
    UsageApart,
    Verbose,
    gamma_of,
    trains,
    units_of,
    weights_of,
)
from dwcp_training.federated.cli import federated_app
from dwcp_training.feedback.cli import feedback_app
from dwcp_training.fleet.cli import fleet_app
from dwcp_training.releases.cli import releases_app
from dwcp_training.retrain.cli import EXAMPLES as RETRAIN_EXAMPLES
from dwcp_training.retrain.cli import retrain

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Trains anomaly models and publishes model sets.")
train_app = typer.Typer(no_args_is_help=True, help="Trains a detector, exports it exactly and publishes it.")
app.add_typer(train_app, name="train")
profile_app = typer.Typer(no_args_is_help=True, help="Profiles: which metrics, how their files are read, defaults.")
app.add_typer(profile_app, name="profile")
app.add_typer(releases_app, name="releases")
app.add_typer(feedback_app, name="feedback")
app.add_typer(fleet_app, name="fleet")
app.add_typer(federated_app, name="federated")
app.command(epilog=RETRAIN_EXAMPLES)(retrain)


Detectors = Annotated[
    Optional[list[str]],
    typer.Option("--detector", help="Detector of the set; may be given several times (default all)."),
]
Cadence = Annotated[
    Optional[float], typer.Option(help="Seconds between samples (default: as the data, or else the model, says).")
]


@train_app.command(
    "isolation-forest",
    epilog="Example: dwcp train isolation-forest --data normal.csv --output models --contamination 0.005\n\n"
    "Your own metrics: dwcp train isolation-forest --profile servers.yaml --data servers/ --output models",
)
@trains("isolation_forest")
def isolation_forest(
    contamination: Contamination = None,
    n_estimators: Annotated[Optional[int], typer.Option(help="Number of trees (default 100).")] = None,
) -> None:
    """Trains the isolation forest: finds rows that are unusual in one or several metrics."""


@train_app.command(
    "lstm-autoencoder",
    epilog="Example: dwcp train lstm-autoencoder --data normal.csv --output models --epochs 100 --batch-size 64\n\n"
    "Run folders: dwcp train lstm-autoencoder --profile telemetry-runs --data runs/ --output models",
)
@trains("lstm_autoencoder")
def lstm_autoencoder(
    window_size: Annotated[Optional[int], typer.Option(help="Samples in a window (default 10).")] = None,
    window_stride: Annotated[
        Optional[int], typer.Option(help="Samples from the start of one training window to the next (default 1).")
    ] = None,
    epochs: Epochs = None,
    batch_size: Annotated[Optional[int], typer.Option(help="Windows in a training step (default 32).")] = None,
    encoding_dim: Annotated[Optional[int], typer.Option(help="Width of the bottleneck (default 32).")] = None,
    threshold_percentile: ThresholdPercentile = None,
    precision: Annotated[
        Literal["float64", "float32"],
        typer.Option(help="float64: the same bits everywhere. float32: faster in batches, within a stated tolerance."),
    ] = "float64",
) -> dict[str, Any]:
    """Trains the LSTM autoencoder: finds windows that do not continue as normal ones do."""
    return {"precision": precision}


@train_app.command(
    "dense-autoencoder",
    epilog="Example: dwcp train dense-autoencoder --data normal.csv --output models --threshold-percentile 99\n\n"
    "Wide rows: dwcp train dense-autoencoder --profile industrial --data plant/ --encoder-units 128,64,32 "
    "--bottleneck 16 --output models",
)
@trains("dense_autoencoder")
def dense_autoencoder(
    encoder_units: Annotated[
        Optional[tuple],
        typer.Option(
            parser=units_of,
            metavar="<int,int,...>",
            help="Widths of the encoder's layers, mirrored by the decoder (default 64,32,16).",
        ),
    ] = None,
    bottleneck: Annotated[Optional[int], typer.Option(help="Width of the layer between them (default 8).")] = None,
    activation: Annotated[
        Optional[Literal["relu", "tanh"]], typer.Option(help="Activation of the hidden layers (default relu).")
    ] = None,
    epochs: Epochs = None,
    batch_size: Annotated[Optional[int], typer.Option(help="Rows in a training step (default 32).")] = None,
    dropout: Annotated[
        Optional[float], typer.Option(help="Share of units left out in a training step (default 0.2).")
    ] = None,
    threshold_percentile: ThresholdPercentile = None,
) -> None:
    """Trains the dense autoencoder: finds rows whose metrics do not go together as in normal ones."""


@train_app.command(
    "local-outlier-factor",
    epilog="Example: dwcp train local-outlier-factor --data normal.csv --output models --n-neighbors 35\n\n"
    "More rows to compare with: dwcp train local-outlier-factor --data normal.csv --max-rows 20000 --output models",
)
@trains("local_outlier_factor")
def local_outlier_factor(
    contamination: Contamination = None,
    n_neighbors: Annotated[
        Optional[int], typer.Option(help="Training rows that a row is compared with (default 20).")
    ] = None,
    max_rows: MaxRows = None,
) -> None:
    """Trains the local outlier factor: finds rows that lie apart from the normal rows most like them."""


@train_app.command(
    "one-class-svm",
    epilog="Example: dwcp train one-class-svm --data normal.csv --output models --nu 0.01\n\n"
    "A threshold of its own: dwcp train one-class-svm --data normal.csv --contamination 0.001 --output models",
)
@trains("one_class_svm")
def one_class_svm(
    contamination: Annotated[
        Optional[float],
        typer.Option(help="Share of normal rows that alarm; less means fewer alarms (default: at most --nu)."),
    ] = None,
    nu: Annotated[
        Optional[float],
        typer.Option(help="Share of normal rows that the boundary may leave outside; more is slower (default 0.05)."),
    ] = None,
    gamma: Annotated[
        Optional[object],
        typer.Option(
            parser=gamma_of,
            metavar="<scale|auto|float>",
            help="Rate of the kernel in scaled units; more follows the data more closely (default scale).",
        ),
    ] = None,
    max_rows: MaxRows = None,
) -> None:
    """Trains the one-class SVM: finds rows outside the boundary around the normal ones."""


@train_app.command(
    "lstm-classifier",
    epilog="Example: dwcp train lstm-classifier --data recorded.csv --labels faults.csv --output models\n\n"
    "Labels in the data: dwcp train lstm-classifier --profile industrial --data plant/ --label-column anomaly",
)
@trains("lstm_classifier")
def lstm_classifier(
    labels: Annotated[
        Optional[list[Path]],
        typer.Option(help="CSV with start,end[,kind]: times of anomalies in the data, besides those labelled in it."),
    ] = None,
    window_size: Annotated[
        Optional[int], typer.Option(help="Samples in a window (default 100; 10 for the profile dwcp).")
    ] = None,
    window_stride: Annotated[
        Optional[int], typer.Option(help="Samples from the start of one training window to the next (default 1).")
    ] = None,
    units: Annotated[
        Optional[tuple],
        typer.Option(
            parser=units_of,
            metavar="<int,int,int>",
            help="Widths of the two LSTM layers and the dense one (default 64,32,16).",
        ),
    ] = None,
    epochs: Epochs = None,
    batch_size: Annotated[Optional[int], typer.Option(help="Windows in a training step (default 32).")] = None,
    dropout: Annotated[
        Optional[float], typer.Option(help="Share of units left out in a training step (default 0).")
    ] = None,
    class_weights: Annotated[
        Optional[Literal["balanced", "none"]],
        typer.Option(help="balanced: rare anomalies count for as much as all normal windows (default). none: not so."),
    ] = None,
    validation_split: Annotated[
        Optional[float], typer.Option(help="Share of the time, its end, that is held out (default 0.2).")
    ] = None,
    threshold_percentile: Annotated[
        Optional[float],
        typer.Option(help="Percentile of held-out normal windows' scores for a threshold (default: score one half)."),
    ] = None,
) -> dict[str, Any]:
    """Trains the LSTM classifier: finds windows like those that labels in the training data call anomalies."""
    return {"labels": labels or ()}


@train_app.command(
    "mahalanobis",
    epilog="Example: dwcp train mahalanobis --data normal.csv --output models --alarm-budget 0.1/week\n\n"
    "Rows that are no series: dwcp train mahalanobis --profile bearing --data ims/ --lags 0 --output models",
)
@trains("mahalanobis")
def mahalanobis(
    contamination: Annotated[
        Optional[float],
        typer.Option(help="Share of held-out windows that alarm; less means fewer alarms (default 0.01)."),
    ] = None,
    lags: Annotated[
        Optional[int], typer.Option(help="Rows before the last one that are scored with it; 0 for none (default 4).")
    ] = None,
    ridge: Annotated[
        Optional[float],
        typer.Option(help="Added to each variance; more trusts less that metrics go together (default 0.01)."),
    ] = None,
    limits: Annotated[
        Optional[bool],
        typer.Option("--limits/--no-limits", help="A metric alone at its critical value is an alarm (default yes)."),
    ] = None,
) -> None:
    """Trains the Mahalanobis distance: finds rows and short windows whose metrics do not go together."""


@train_app.command(
    "ensemble",
    epilog="Example: dwcp train ensemble --models models --data normal.csv\n\n"
    "Weights: --weights isolation_forest=0.4,dense_autoencoder=0.3,one_class_svm=0.3, or fitted on labelled data: "
    "--fit-on recorded.csv --labels faults.csv",
)
def ensemble(
    models: Annotated[Path, typer.Option(help="Folder of the model set that has the members; the ensemble joins it.")],
    synthetic: Synthetic = False,
    data: Annotated[
        Optional[list[Path]],
        typer.Option(help="Normal data that the members were trained on; may be given several times."),
    ] = None,
    weights: Annotated[
        Optional[dict],
        typer.Option(
            parser=weights_of,
            metavar="<detector=float,...>",
            help="Members and weights, which sum to 1 (default: the profile's, or all detectors equally).",
        ),
    ] = None,
    fit_on: Annotated[
        Optional[list[Path]],
        typer.Option(help="Labelled data: the weights become those with the highest average precision on it."),
    ] = None,
    labels: Annotated[
        Optional[list[Path]], typer.Option(help="CSV with start,end[,kind]: times of anomalies in --fit-on.")
    ] = None,
    label_column: Annotated[
        Optional[str],
        typer.Option(help="Column of --fit-on whose labelled rows are anomalies (default: the profile's)."),
    ] = None,
    normal_label: NormalLabel = None,
    alarm_budget: Budget = None,
    seed: Seed = None,
    on_bad_rows: OnBadRows = "fail",
    exclude: Exclude = None,
    profile: ProfileName = "dwcp",
    sign_key: SignKey = None,
    verbose: Verbose = False,
) -> None:
    """Joins the detectors of a model set: one score on a common scale, with the levels warning and critical."""
    from dwcp_training.run_ensemble import EnsembleSource, run_ensemble

    source = EnsembleSource(
        synthetic, data or (), fit_on or (), labels or (), label_column, normal_label or (), exclude or (), on_bad_rows
    )
    raise typer.Exit(run_ensemble(models, source, weights, seed, profile, verbose, sign_key, alarm_budget))


@app.command(
    epilog="Example: dwcp evaluate --models models --data test.csv --labels labels.csv --grace 7\n\n"
    "Faults put into normal data: dwcp evaluate --models models --data normal.csv --inject --html report.html"
)
def evaluate(
    models: Annotated[Path, typer.Option(help="Folder of the model set.")],
    data: Annotated[list[Path], typer.Option(help="File or folder, as in training; may be given several times.")],
    labels: Annotated[
        Optional[list[Path]], typer.Option(help="CSV with start,end[,kind]: the faults in the data.")
    ] = None,
    grace: Annotated[float, typer.Option(help="Seconds after a fault that are neither normal nor faulty.")] = 0.0,
    label_column: Annotated[
        Optional[str], typer.Option(help="Column of the data that says which rows are faulty.")
    ] = None,
    normal_label: NormalLabel = None,
    inject: Annotated[bool, typer.Option("--inject", help="Put anomalies of every kind into the normal data.")] = False,
    strength: Annotated[
        Optional[list[float]],
        typer.Option(help="Size of these in standard deviations; several take turns (default 3, 5, 8)."),
    ] = None,
    together: Annotated[
        Optional[list[int]], typer.Option(help="Metrics that change at once; several take turns (default 1, 3).")
    ] = None,
    deletion: Annotated[
        bool, typer.Option("--deletion", help="Test explanations: does replacing the top metric lower the score most?")
    ] = False,
    detector: Detectors = None,
    normal: Annotated[
        Optional[list[Path]],
        typer.Option(help="Normal data whose held-out end sets the baselines' thresholds (default: --data itself)."),
    ] = None,
    json: Annotated[Optional[Path], typer.Option(help="Write all figures to this file too.")] = None,
    html: Annotated[Optional[Path], typer.Option(help="Write a report with plots to this file: one page.")] = None,
    resamples: Annotated[int, typer.Option(help="Resamples for each confidence interval; more is slower.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of injected faults and resamples.")] = 42,
    on_bad_rows: OnBadRows = "fail",
    profile: ProfileName = "dwcp",
) -> None:
    """Measures a model set on faults, recorded or injected, beside trivial baselines, with confidence intervals."""
    from dwcp_training.evaluate import Wanted, run_evaluate

    wanted = Wanted(
        deletion, strength or (), together or (), detector or (), normal or (), label_column, normal_label or (), html,
        resamples, seed,
    )  # fmt: skip
    raise typer.Exit(
        run_evaluate(
            models, data, labels or (), grace, injected=inject, json_file=json, on_bad_rows=on_bad_rows,
            profile=profile, wanted=wanted,
        )
    )  # fmt: skip


@profile_app.command("list", epilog="Example: dwcp profile list")
def profile_list() -> None:
    """Lists the profiles that come with the program."""
    from dwcp_training.profiles.command import list_profiles

    raise typer.Exit(list_profiles())


@profile_app.command(
    "show", epilog="Example: dwcp profile show dwcp. For one of your own: dwcp profile show industrial > mine.yaml"
)
def profile_show(name: Annotated[str, typer.Argument(help="Name or YAML file.", metavar="NAME|FILE")]) -> None:
    """Checks a profile and prints it as YAML, with all its defaults."""
    from dwcp_training.profiles.command import show_profile

    raise typer.Exit(show_profile(name))


@app.command(
    epilog="Example: dwcp score --models models --data telemetry/ --output scores.parquet\n\n"
    "Alarms alone, printed: dwcp score --models models --data today.csv --only-alarms"
)
def score(
    models: Annotated[Path, typer.Option(help="Folder of the model set.")],
    data: Annotated[
        list[Path], typer.Option(help="File (CSV, Parquet, .npy) or folder of any size; may be given several times.")
    ],
    detector: Detectors = None,
    profile: ProfileName = "dwcp",
    output: Annotated[str, typer.Option(help="File that ends in .csv or .parquet; - is standard output.")] = "-",
    only_alarms: Annotated[bool, typer.Option("--only-alarms", help="Write nothing about normal rows.")] = False,
    on_bad_rows: OnBadRows = "fail",
    cadence: Cadence = None,
    chunk_rows: Annotated[int, typer.Option(help="Most rows in memory at once; scores do not depend on it.")] = 65_536,
) -> None:
    """Scores data of any size: a line for each row and detector."""
    from dwcp_training.score import run_score

    raise typer.Exit(
        run_score(
            models, data, detector or (), profile=profile, output=output, only_alarms=only_alarms,
            on_bad_rows=on_bad_rows, cadence=cadence, chunk_rows=chunk_rows,
        )
    )  # fmt: skip


@app.command(
    epilog="Examples: dwcp monitor --models models --follow telemetry.csv\n\n"
    "collector | dwcp monitor --models models --json -\n\n"
    "dwcp monitor --models models --prometheus http://127.0.0.1:9090 --query latency='avg(link_latency_ms)' ... "
    "--forward http://127.0.0.1:9093"
)
def monitor(
    models: Annotated[Path, typer.Option(help="Folder of the model set.")],
    standard_input: Annotated[
        Optional[str], typer.Argument(metavar="[-]", help="-: read CSV or JSON lines from standard input.")
    ] = None,
    follow: Annotated[Optional[Path], typer.Option(help="CSV file that grows, or folder of a run or of runs.")] = None,
    prometheus: Annotated[Optional[str], typer.Option(help="Address of a Prometheus.", metavar="URL")] = None,
    query: Annotated[
        Optional[list[str]], typer.Option(help="What is asked of it, one for each feature.", metavar="FEATURE=PROMQL")
    ] = None,
    detector: Detectors = None,
    profile: ProfileName = "dwcp",
    forward: Annotated[
        Optional[str], typer.Option(help="Address of an Alertmanager, which gets each alarm.", metavar="URL")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print alarms as JSON lines.")] = False,
    interval: Annotated[
        Optional[float],
        typer.Option(help="Seconds between looks (default 1; for Prometheus the cadence of the training data)."),
    ] = None,
    cadence: Cadence = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Score what a file that is followed holds already.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Score what is there now, and end.")] = False,
) -> None:
    """Scores samples as they come and prints alarms; stops on SIGINT and SIGTERM."""
    from dwcp_training.monitor.command import run_monitor

    raise typer.Exit(
        run_monitor(
            models, detector or (), standard_input=standard_input, follow=follow, prometheus=prometheus,
            queries=query or (), profile=profile, forward=forward, as_json=json, interval=interval, cadence=cadence,
            from_start=from_start, once=once,
        )
    )  # fmt: skip


@app.command(
    epilog="Example: dwcp explain --models models --data today.csv --alarms\n\n"
    "One row: dwcp explain --models models --data today.csv --at 2024-01-01T03:57:00Z --detector lstm_autoencoder\n\n"
    "tail -n 50 today.csv | cat <(head -n 1 today.csv) - | dwcp explain --models models --json -"
)
def explain(
    models: Annotated[Path, typer.Option(help="Folder of the model set.")],
    standard_input: Annotated[
        Optional[str], typer.Argument(metavar="[-]", help="-: read CSV or JSON lines from standard input.")
    ] = None,
    data: Annotated[
        Optional[list[Path]], typer.Option(help="File or folder, as for scoring; may be given several times.")
    ] = None,
    detector: Detectors = None,
    row: Annotated[
        Optional[list[int]], typer.Option(help="Line of a CSV file, or number of a row; may be given several times.")
    ] = None,
    at: Annotated[
        Optional[list[str]], typer.Option(help="Time of a row; may be given several times.", metavar="TIME")
    ] = None,
    alarms: Annotated[bool, typer.Option("--alarms", help="The alarms, the worst 20 of them unless --worst.")] = False,
    worst: Annotated[
        Optional[int], typer.Option(help="Rows with the highest scores, so many for each detector (default 3).")
    ] = None,
    top: Annotated[Optional[int], typer.Option(help="Metrics to show, the first ones (default all).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print an object a line.")] = False,
    shap: Annotated[bool, typer.Option("--shap", help="Compare with SHAP values (needs the library shap).")] = False,
    profile: ProfileName = "dwcp",
    on_bad_rows: OnBadRows = "fail",
    cadence: Cadence = None,
) -> None:
    """Explains scores: which metrics make them what they are, and what was expected of each."""
    from dwcp_training.explain.command import run_explain

    raise typer.Exit(
        run_explain(
            models, data or (), detector or (), standard_input=standard_input, rows=row or (), times=at or (),
            alarms=alarms, worst=worst, top=top, as_json=json, shap=shap, profile=profile, on_bad_rows=on_bad_rows,
            cadence=cadence,
        )
    )  # fmt: skip


@app.command(
    cls=UsageApart,
    epilog="Example: dwcp drift --models models --data today.csv\n\n"
    "Every metric, with figures for a program: dwcp drift --models models --data today/ --per-feature --json drift.json"
    "\n\nExit status: 0 no drift, 2 drift, 1 the data or the model set cannot be used, 64 wrong usage.",
)
def drift(
    models: Annotated[Path, typer.Option(help="Folder of the model set.")],
    data: Annotated[
        list[Path], typer.Option(help="Recent rows: file or folder, as in training; may be given several times.")
    ],
    detector: Detectors = None,
    profile: ProfileName = "dwcp",
    psi: Annotated[
        Optional[float], typer.Option(help="A PSI up to this is no drift (default: the model's, as a rule 0.25).")
    ] = None,
    wasserstein: Annotated[
        Optional[float],
        typer.Option(help="Nor is a distance up to so many training standard deviations (default: the model's, 0.15)."),
    ] = None,
    per_feature: Annotated[
        bool, typer.Option("--per-feature", help="Show every metric, not only those that drifted.")
    ] = False,
    json: Annotated[Optional[Path], typer.Option(help="Write all figures to this file too.")] = None,
    window: Annotated[Optional[int], typer.Option(help="Compare the last rows alone, so many (default: all).")] = None,
    on_bad_rows: OnBadRows = "fail",
) -> None:
    """Says whether recent rows are still distributed as the training rows were: PSI and Wasserstein distance."""
    from dwcp_training.drift import run_drift

    raise typer.Exit(
        run_drift(
            models, data, detector or (), profile=profile, psi=psi, wasserstein=wasserstein, per_feature=per_feature,
            json_file=json, window=window, on_bad_rows=on_bad_rows,
        )
    )  # fmt: skip


@app.command(epilog="Example: dwcp export --models models --detector lstm_autoencoder --batch 8 --output lstm.onnx")
def export(
    models: Annotated[Path, typer.Option(help="Folder of the model set.")],
    detector: Annotated[str, typer.Option(help="Detector of the set.")],
    output: Annotated[Path, typer.Option(help="File that ends in .onnx.")],
    batch: Annotated[
        Optional[int], typer.Option(help="Items that are always scored together: no dimension stays open.")
    ] = None,
    precision: Annotated[
        Literal["float64", "float32"],
        typer.Option(help="float64: the published graph. float32: networks, also their input, within a tolerance."),
    ] = "float64",
) -> None:
    """Writes the ONNX graph of a detector as one file, checked against the set."""
    from dwcp_training.export_graph import run_export

    raise typer.Exit(run_export(models, detector, output, batch, precision))


keys_app = typer.Typer(no_args_is_help=True, help="Keys that sign model sets.")
app.add_typer(keys_app, name="keys")


@keys_app.command("new", epilog="Example: dwcp keys new --output keys")
def keys_new(output: Annotated[Path, typer.Option(help="Folder for the two files; neither may be there.")]) -> None:
    """Makes a pair of Ed25519 keys: a private one that signs, a public one that sites check with."""
    from dwcp_training.signing import run_new_keys

    raise typer.Exit(run_new_keys(output))


@app.command(epilog="Example: dwcp sign --models models --key keys/signing-key.pem")
def sign(
    models: Annotated[Path, typer.Option(help="Folder of the model set.")],
    key: Annotated[Path, typer.Option(help="PEM file of the private key.")],
) -> None:
    """Signs the model set in a folder, after it has passed its golden vectors."""
    from dwcp_training.signing import run_sign

    raise typer.Exit(run_sign(models, key))


package_app = typer.Typer(no_args_is_help=True, help="Model sets in one file, for sites without a network.")
app.add_typer(package_app, name="package")
PublicKey = Annotated[
    Optional[list[Path]],
    typer.Option(help="PEM file of public keys, one of which must have signed it; may be given several times."),
]
PackageFile = Annotated[Path, typer.Argument(help="The package.", metavar="FILE")]


@package_app.command(
    "create", epilog="Example: dwcp package create --models models --sign-key signing-key.pem --output site.dwcp.tar"
)
def package_create(
    models: Annotated[Path, typer.Option(help="Folder of the model set.")],
    output: Annotated[Path, typer.Option(help="File that ends in .dwcp.tar.")],
    sign_key: SignKey = None,
    by_products: Annotated[
        bool, typer.Option("--by-products", help="Take the files along that serving does not need.")
    ] = False,
) -> None:
    """Writes a model set as one file, the same bytes every time."""
    from dwcp_training.package import run_create

    raise typer.Exit(run_create(models, output, by_products, sign_key))


@package_app.command("verify", epilog="Example: dwcp package verify site.dwcp.tar --public-key signing-key.pub.pem")
def package_verify(file: PackageFile, public_key: PublicKey = None) -> None:
    """Checks signature and digests of a package; needs nothing but the package and the public key."""
    from dwcp_training.package import run_verify

    raise typer.Exit(run_verify(file, public_key or []))


@package_app.command(
    "unpack",
    epilog="Example: dwcp package unpack site.dwcp.tar --models models --public-key signing-key.pub.pem",
)
def package_unpack(
    file: PackageFile,
    models: Annotated[Path, typer.Option(help="Folder where it becomes the set in use; made if it is not there.")],
    public_key: PublicKey = None,
) -> None:
    """Verifies a package, runs its golden vectors, and switches a models folder to it."""
    from dwcp_training.package import run_unpack

    raise typer.Exit(run_unpack(file, models, public_key or []))


@app.command(
    epilog="Example: dwcp quantize --models models --output models-int8\n\n"
    "Measured on your data: dwcp quantize --models models --output models-int8 --data normal.csv --json change.json"
)
def quantize(
    models: Annotated[Path, typer.Option(help="Folder of the model set, in float64.")],
    output: Annotated[Path, typer.Option(help="Folder of the set with weights in int8; another one.")],
    detector: Annotated[
        Optional[list[str]],
        typer.Option(help="dense_autoencoder or lstm_autoencoder; may be given several times (default all there are)."),
    ] = None,
    data: Annotated[
        Optional[list[Path]], typer.Option(help="Normal data to measure on; may be given several times.")
    ] = None,
    profile: ProfileName = "dwcp",
    json: Annotated[Optional[Path], typer.Option(help="Write all figures to this file too.")] = None,
    sign_key: SignKey = None,
) -> None:
    """Stores the weights of the autoencoders in int8: smaller files, and scores within a tolerance that is measured."""
    from dwcp_training.quantize import run_quantize

    raise typer.Exit(run_quantize(models, output, detector or (), data or (), profile, json, sign_key))


def main() -> None:
    """Entry point of `dwcp`."""
    app()
