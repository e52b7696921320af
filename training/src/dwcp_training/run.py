"""Runs a training command for a person: reads, reports, shows progress, prints the outcome, returns an exit status."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from rich.table import Table

from dwcp_training.alarm_budget import OVERRIDDEN, AlarmBudget
from dwcp_training.console import UsageError, guarded, out, print_data, print_warning, progress_bar
from dwcp_training.data import Exclusion, Telemetry, forest_rows, labelled_series, lstm_series, read_table
from dwcp_training.detectors.registry import DETECTORS
from dwcp_training.pipeline import Trained, train
from dwcp_training.profiles import Profile, load_profile
from dwcp_training.publish import check_writable
from dwcp_training.signing import read_signing_key

SYNTHETIC: dict[str, Callable[..., Telemetry]] = {
    **dict.fromkeys(DETECTORS, forest_rows),
    "lstm_autoencoder": lstm_series,
    "lstm_classifier": labelled_series,
}
"""Detector to its synthetic training data (S1-12)."""


@dataclass
class Source:
    """Where training data comes from.

    Attributes:
        synthetic: make it instead of reading it.
        data: files, or folders of files or runs, as the profile says.
        on_bad_rows: `fail` or `drop`.
        exclude: CSV files with intervals that are not normal.
        grace_seconds: rows this long after such an interval are left out too.
        label_column: a row with a label in this column is left out; None means the profile's.
        normal_labels: labels that mean normal; empty means the profile's.
        anomalies: CSV files with the intervals of anomalies, for a detector that learns from labels; None for others.
    """

    synthetic: bool = False
    data: Sequence[Path] = ()
    on_bad_rows: str = "fail"
    exclude: Sequence[Path] = ()
    grace_seconds: float = 0.0
    label_column: str | None = None
    normal_labels: Sequence[str] = field(default_factory=tuple)
    anomalies: Sequence[Path] | None = None

    def exclusion(self, profile: Profile) -> Exclusion:
        """What is left out: flags win over the profile, each by itself."""
        reader = profile.reader
        return Exclusion(
            tuple(self.exclude),
            self.grace_seconds,
            self.label_column or reader.label_column,
            tuple(self.normal_labels) or reader.normal_labels,
        )

    def check(self, profile: Profile) -> None:
        """Raises UsageError for flags that contradict each other or the profile."""
        if self.synthetic == bool(self.data):
            raise UsageError("name training data: either --data FILE.csv (or .parquet), or --synthetic, not both")
        if self.synthetic and self.anomalies:
            raise UsageError("--labels says where --data has anomalies; --synthetic has labels of its own")
        if self.synthetic and (self.exclude or self.label_column):
            flag = "--exclude" if self.exclude else "--label-column"
            raise UsageError(f"{flag} leaves rows of --data out; --synthetic has none to leave out")
        if not 0 <= self.grace_seconds < float("inf"):
            raise UsageError(f"--exclude-grace {self.grace_seconds:g}: write a number of seconds, 0 or more")
        if self.synthetic and profile.feature_schema.names != load_profile("dwcp").feature_schema.names:
            name = profile.feature_schema.name
            raise UsageError(f"--synthetic makes the metrics of the profile dwcp, not of {name}: give --data")
        if self.normal_labels and (self.label_column or profile.reader.label_column) is None:
            raise UsageError("--normal-label needs --label-column, the column that holds the labels")


def run(
    detector: str,
    source: Source,
    output: Path,
    flags: dict[str, Any],
    profile: str = "dwcp",
    verbose: bool = False,
    sign_key: Path | None = None,
    **options: Any,
) -> int:
    """Trains one detector.

    Args:
        detector: its name.
        source: where the data comes from.
        output: folder of the model set.
        flags: hyperparameters by name; None means the profile's default.
        sign_key: PEM file of the private key that signs the set (A8); None leaves it unsigned.
        options: further arguments of `pipeline.fit`, the alarm budget and those of the detector's fit.

    Returns:
        Exit status: 0 done (also when there is no ONNX graph, S1-9), 1 refused, 2 wrong usage.
    """

    def command() -> None:
        chosen = load_profile(profile)
        settings = checked_settings(getattr(chosen.detectors, detector), flags)
        source.check(chosen)
        check_budget_alone(flags, options.get("alarm_budget"))
        check_writable(output)
        signer = read_signing_key(sign_key)
        telemetry = _telemetry(detector, source, chosen, settings)
        print_data(telemetry)
        train_shown(detector, telemetry, settings, output, signer=signer, **options)

    return guarded(command, f"{detector} was not trained.", verbose)


def train_shown(detector: str, telemetry: Telemetry, settings: BaseModel, output: Path, **options: Any) -> None:
    """Trains and publishes as `pipeline.train` does, shows the progress, and prints the outcome."""
    with progress_bar() as bar:
        task = bar.add_task(detector, total=None)
        trained = train(
            detector,
            telemetry,
            settings,
            output,
            lambda done, total, text: bar.update(task, completed=done, total=total, description=f"{detector}: {text}"),
            **options,
        )
    _print_outcome(trained)


def check_budget_alone(flags: dict[str, Any], budget: AlarmBudget | None) -> None:
    """Raises UsageError when another flag says, too, where the threshold is."""
    for name in OVERRIDDEN:
        if budget is not None and flags.get(name) is not None:
            raise UsageError(f"--alarm-budget and --{name.replace('_', '-')} both set the threshold: give one")


def checked_settings(defaults: BaseModel, flags: dict[str, Any]) -> Any:
    """The defaults with those flags that are not None. Raises UsageError that names the flag at fault."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return type(defaults).model_validate({**defaults.model_dump(), **given})
    except ValidationError as error:
        faults = error.errors()
        if not faults[0]["loc"]:  # several settings contradict each other
            raise UsageError(faults[0]["msg"].removeprefix("Value error, ")) from None
        name = str(faults[0]["loc"][0])
        # A setting that may be a word or a number has a fault for either.
        said = [fault["msg"] for fault in faults if str(fault["loc"][0]) == name]
        wanted = ", or ".join([said[0], *(text.removeprefix("Input should be ") for text in said[1:])])
        raise UsageError(f"--{name.replace('_', '-')} {given.get(name)}: {wanted}") from None


def _telemetry(detector: str, source: Source, profile: Profile, settings: Any) -> Telemetry:
    if source.synthetic:
        return SYNTHETIC[detector](seed=settings.seed)
    return read_table(
        list(source.data),
        profile,
        on_bad_rows=source.on_bad_rows,  # type: ignore[arg-type]  # checked by read_table
        exclude=source.exclusion(profile),
        normal_only=True,
        anomalies=source.anomalies,
    )


def _print_outcome(trained: Trained) -> None:
    table = Table(title=trained.detector, show_header=False, title_justify="left")
    for label, text in trained.facts.items():
        table.add_row(label, text)
    out.print(table)
    if trained.no_drift:
        print_warning(trained.no_drift)
    if trained.warning:
        print_warning(trained.warning)
        out.print("The model and its metadata are written, but this detector cannot be served before it is exported.")
