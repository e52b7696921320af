"""Trains a challenger: the detectors of the champion again, on newer rows, in a folder of its own."""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar import detectors as names
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.alarm_budget import AlarmBudget
from dwcp_training.console import RefusedError
from dwcp_training.data import Telemetry
from dwcp_training.pipeline import train
from dwcp_training.profiles import Profile
from dwcp_training.publish import candidate_of, publish

FIRST = ("isolation_forest", "lstm_autoencoder")
"""What is trained where nothing was before and nothing else is asked for."""

LABELLED = "lstm_classifier"
"""Learns from labels, which collected rows do not have."""

Say = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Plan:
    """What is trained and how.

    Attributes:
        settings: detector to hyperparameters, the ensemble last.
        options: detector to further arguments of its fit.
        carried: detectors of the champion that are taken over as they are.
        notes: for people.
    """

    settings: dict[str, BaseModel]
    options: dict[str, dict[str, Any]]
    carried: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def window(self, champion: ModelSet | None) -> int:
        """Samples in the longest window, of the challenger or of the champion."""
        windows = [_window_of(settings) for settings in self.settings.values()]
        return max([1, *windows, *(model.timesteps for model in (champion.models.values() if champion else ()))])


def _window_of(settings: BaseModel) -> int:
    """Samples that a detector with these settings scores at once."""
    return int(getattr(settings, "window_size", getattr(settings, "lags", 0) + 1))


def plan(
    profile: Profile, champion: ModelSet | None, asked: Sequence[str], source: Literal["champion", "profile"]
) -> Plan:
    """Says what is trained.

    Args:
        profile: has the hyperparameters of what the champion does not have, or of all.
        champion: the set in use, if there is one.
        asked: detectors to train; empty means those of the champion.
        source: where the hyperparameters of the champion's detectors come from.

    Raises:
        RefusedError: nothing can be trained.
    """
    there = list(champion.metadata) if champion else []
    wanted = list(dict.fromkeys(asked)) or there or list(FIRST)
    notes = []
    if LABELLED in wanted:
        if LABELLED not in there:
            raise RefusedError(f"{LABELLED} learns from labels: train it with dwcp train lstm-classifier.")
        wanted.remove(LABELLED)
        notes.append(f"{LABELLED} learns from labels and is taken over as it is: train it with dwcp train")
    if "ensemble" in there and any(name != "ensemble" for name in wanted) and "ensemble" not in wanted:
        wanted.append("ensemble")  # the scales of its members were made for the models before (EN2)
    carried = tuple(name for name in there if name not in wanted)
    if not wanted:
        raise RefusedError("Nothing is left to train.")
    settings: dict[str, BaseModel] = {}
    options: dict[str, dict[str, Any]] = {}
    for name in sorted(wanted, key=lambda name: (name == "ensemble", names.BY_NAME[name])):
        settings[name], options[name] = getattr(profile.detectors, name), {}
        if champion is None or name not in there:
            continue
        metadata = champion.metadata[name]
        if name == "lstm_autoencoder" and metadata.graph.precision == "float32":
            options[name]["precision"] = "float32"
        if metadata.graph.precision == "int8":
            notes.append(f"{name} is trained with float64 weights: where int8 is wanted, run dwcp quantize afterwards")
        if source == "champion":
            settings[name] = settings_of(metadata, settings[name])
            budget = metadata.training.hyperparameters.get("alarm_budget")
            if budget:
                options[name]["alarm_budget"] = AlarmBudget.parse(budget)
    return Plan(settings, options, carried, tuple(notes))


def settings_of(metadata: model_pb2.ModelMetadata, defaults: BaseModel) -> Any:
    """The hyperparameters that a model was trained with; `defaults` for those that it does not record.

    Raises:
        RefusedError: one of them cannot be used any more.
    """
    given: dict[str, Any] = {}
    for name, text in metadata.training.hyperparameters.items():
        if name in type(defaults).model_fields:
            given[name] = text
            with suppress(ValueError, SyntaxError):
                given[name] = ast.literal_eval(text)
    if metadata.HasField("ensemble"):
        members = metadata.ensemble.members
        given["weights"] = {names.NAMES[member.detector]: member.weight for member in members}
    try:
        return type(defaults).model_validate({**defaults.model_dump(), **given})
    except ValidationError as error:
        raise RefusedError(
            f"the hyperparameters of {metadata.model_type} in the current release cannot be used: "
            f"{error.errors()[0]['msg']}. Train with those of the profile: --settings profile."
        ) from None


def train_challenger(plan: Plan, telemetry: Telemetry, champion: ModelSet | None, folder: Path, say: Say) -> ModelSet:
    """Trains and publishes into a folder that is empty.

    Returns:
        The set, opened: it has passed its golden vectors.

    Raises:
        DataError: too few rows.
        PublishError, ContractError: as of `pipeline.train`.
    """
    if champion is not None and plan.carried:
        publish(folder, [candidate_of(champion, name) for name in plan.carried])
    for name, settings in plan.settings.items():
        options = dict(plan.options[name])
        if name == "ensemble":
            options["models"] = folder
        trained = train(
            name, telemetry, settings, folder,
            lambda done, total, text, name=name: say(done, total, f"{name}: {text}"), **options,
        )  # fmt: skip
        if trained.warning:
            logging.getLogger("dwcp.training").warning("%s: %s", name, trained.warning)
    return ModelSet.open(folder)
