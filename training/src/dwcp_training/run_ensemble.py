"""Trains an ensemble for a person: joins the detectors of a set, and publishes the ensemble into the same set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dwcp_training.alarm_budget import AlarmBudget
from dwcp_training.console import UsageError, guarded, print_data
from dwcp_training.data import Exclusion, Telemetry, forest_rows, read_table
from dwcp_training.profiles import Profile, load_profile
from dwcp_training.publish import check_writable
from dwcp_training.run import checked_settings, train_shown
from dwcp_training.signing import read_signing_key


@dataclass
class EnsembleSource:
    """Which rows an ensemble is made with.

    Attributes:
        synthetic: make normal rows instead of reading them.
        data: normal rows, those that the members were trained on: files or folders.
        fit_on: labelled rows that the weights are fitted on; none leaves the weights as given.
        labels: CSV files with the intervals of anomalies in `fit_on`.
        label_column: column of `fit_on` whose labelled rows are anomalies; None means the profile's.
        normal_labels: labels that mean normal; empty means the profile's.
        exclude: CSV files with intervals of `data` that are not normal.
        on_bad_rows: `fail` or `drop`.
    """

    synthetic: bool = False
    data: Sequence[Path] = ()
    fit_on: Sequence[Path] = ()
    labels: Sequence[Path] = ()
    label_column: str | None = None
    normal_labels: Sequence[str] = ()
    exclude: Sequence[Path] = ()
    on_bad_rows: str = "fail"

    def check(self) -> None:
        """Raises UsageError for flags that contradict each other."""
        if self.synthetic == bool(self.data):
            raise UsageError("name normal data: either --data FILE.csv (or .parquet), or --synthetic, not both")
        if not self.fit_on and (self.labels or self.label_column or self.normal_labels):
            raise UsageError("--labels, --label-column and --normal-label say what is an anomaly in --fit-on: give it")

    def normal(self, profile: Profile, seed: int) -> Telemetry:
        """The normal rows, read as for the training of a member."""
        if self.synthetic:
            return forest_rows(seed=seed)
        reader = profile.reader
        return read_table(
            list(self.data),
            profile,
            on_bad_rows=self.on_bad_rows,  # type: ignore[arg-type]  # checked by read_table
            exclude=Exclusion(tuple(self.exclude), 0.0, reader.label_column, reader.normal_labels),
            normal_only=True,
        )

    def labelled(self, profile: Profile) -> Telemetry | None:
        """The labelled rows, or None without any."""
        if not self.fit_on:
            return None
        reader = profile.reader
        column = self.label_column or reader.label_column
        if self.normal_labels and column is None:
            raise UsageError("--normal-label needs --label-column, the column that holds the labels")
        normal = tuple(self.normal_labels) or (reader.normal_labels if column == reader.label_column else ())
        return read_table(
            list(self.fit_on),
            profile,
            on_bad_rows=self.on_bad_rows,  # type: ignore[arg-type]  # checked by read_table
            exclude=Exclusion(label_column=column, normal_labels=normal),
            anomalies=tuple(self.labels),
        )


def run_ensemble(
    models: Path,
    source: EnsembleSource,
    weights: dict[str, float] | None = None,
    seed: int | None = None,
    profile: str = "dwcp",
    verbose: bool = False,
    sign_key: Path | None = None,
    alarm_budget: AlarmBudget | None = None,
) -> int:
    """Joins the detectors in `models` and publishes the ensemble there; arguments and status as of `run.run`.

    Args:
        weights: detector to weight; None means the profile's.
        alarm_budget: sets the threshold in place of the profile (C5).
    """

    def command() -> None:
        chosen = load_profile(profile)
        settings = checked_settings(chosen.detectors.ensemble, {"weights": weights, "seed": seed})
        source.check()
        if weights is not None and source.fit_on:
            raise UsageError("--fit-on finds weights, and --weights gives them: give one")
        check_writable(models, "--models")
        signer = read_signing_key(sign_key)
        telemetry = source.normal(chosen, settings.seed)
        print_data(telemetry)
        labelled = source.labelled(chosen)
        if labelled is not None:
            print_data(labelled)
        train_shown(
            "ensemble", telemetry, settings, models, models=models, labelled=labelled, given=weights is not None,
            signer=signer,
            alarm_budget=alarm_budget,
        )  # fmt: skip

    return guarded(command, "the ensemble was not trained.", verbose)
