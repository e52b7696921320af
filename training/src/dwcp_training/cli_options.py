"""Options that every training command has, written once, and the decorator that adds them to a detector's own."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer
from typer.core import TyperCommand

from dwcp_training.exit_status import USAGE

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
SignKey = Annotated[
    Optional[Path],
    typer.Option(help="PEM file of an Ed25519 private key, which signs the model set (see `dwcp keys new`)."),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]

Contamination = Annotated[
    Optional[float], typer.Option(help="Share of normal rows that alarm; less means fewer alarms (default 0.01).")
]
ThresholdPercentile = Annotated[
    Optional[float],
    typer.Option(
        help="Percentile of training scores that becomes the threshold; more means fewer alarms (default 95)."
    ),
]


def budget_of(text: str) -> Any:
    """A budget of false alarms, such as `0.1/week`."""
    from dwcp_training.alarm_budget import AlarmBudget

    try:
        return AlarmBudget.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Budget = Annotated[
    Optional[object],
    typer.Option(
        "--alarm-budget",
        parser=budget_of,
        metavar="<float/hour|day|week>",
        help="False alarms that are accepted, in each series, for example 0.1/week: sets the threshold on held-out "
        "normal data, in place of a contamination or percentile.",
    ),
]
MaxRows = Annotated[
    Optional[int],
    typer.Option(help="Most training rows; of more, as many are drawn at random (default 5000). More is slower."),
]
Epochs = Annotated[Optional[int], typer.Option(help="Most passes over the data (default 50).")]


class UsageApart(TyperCommand):
    """A command whose status 2 has a meaning of its own: wrong usage ends it with USAGE."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if getattr(error, "exit_code", None) == 2:  # --help ends with an exception, too
                error.exit_code = USAGE  # type: ignore[attr-defined]
            raise


def units_of(text: str) -> tuple[int, ...]:
    """Widths of layers, such as `64,32,16`."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a list of whole numbers: write 64,32,16") from None


def weights_of(text: str) -> dict[str, float]:
    """Weights of an ensemble's members, such as `isolation_forest=0.4,dense_autoencoder=0.6`."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            raise typer.BadParameter(
                f"{part!r} is no weight: write isolation_forest=0.4,dense_autoencoder=0.6"
            ) from None
        name = name.replace("-", "_")
        if name in found:
            raise typer.BadParameter(f"{name} has two weights")
        found[name] = weight
    return found


def gamma_of(text: str) -> str | float:
    """A number, or the text: the settings know which ones there are."""
    try:
        return float(text)
    except ValueError:
        return text


def _where_from(synthetic: Synthetic = False, data: Data = None, output: Output = Path("../models")) -> None: ...


def _how_read(
    alarm_budget: Budget = None,
    seed: Seed = None,
    on_bad_rows: OnBadRows = "fail",
    exclude: Exclude = None,
    exclude_grace: Grace = 0.0,
    label_column: LabelColumn = None,
    normal_label: NormalLabel = None,
    profile: ProfileName = "dwcp",
    sign_key: SignKey = None,
    verbose: Verbose = False,
) -> None: ...


def trains(detector: str) -> Callable[[Callable[..., dict[str, Any] | None]], Callable[..., None]]:
    """Makes a training command of a function whose parameters are a detector's own flags.

    The command has those and the shared ones. Flags are hyperparameters by name; the function returns further arguments
    of the detector's fit, or None. What it returns as `labels` goes to the reader (see `Source`).
    """

    def decorate(own: Callable[..., dict[str, Any] | None]) -> Callable[..., None]:
        names = list(inspect.signature(own).parameters)

        @wraps(own)
        def command(**given: Any) -> None:
            from dwcp_training.run import Source, run

            flags = {name: given[name] for name in names}
            options = own(**flags) or {}
            hyperparameters = {name: flags[name] for name in names if name not in options}
            source = Source(
                given["synthetic"],
                given["data"] or (),
                given["on_bad_rows"],
                given["exclude"] or (),
                given["exclude_grace"],
                given["label_column"],
                given["normal_label"] or (),
                options.pop("labels", None),
            )
            hyperparameters["seed"] = given["seed"]
            options["alarm_budget"] = given["alarm_budget"]
            raise typer.Exit(
                run(
                    detector, source, given["output"], hyperparameters, given["profile"], given["verbose"],
                    given["sign_key"], **options,
                )
            )  # fmt: skip

        # Typer reads the parameters from here; those of the detector stand between where from and how.
        parts = [inspect.signature(part).parameters.values() for part in (_where_from, own, _how_read)]
        parameters = [parameter for part in parts for parameter in part]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return command

    return decorate
