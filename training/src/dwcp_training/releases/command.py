"""Runs the commands of `dwcp releases` for a person."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from dwcp.anomaly.v1 import model_pb2
from dwcp_sidecar.detectors import BY_NAME
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet
from dwcp_training.console import RefusedError, UsageError, guarded, out, print_data, print_warning
from dwcp_training.data import Telemetry, read_table
from dwcp_training.profiles import load_profile
from dwcp_training.publish import promote, prune, publish_set
from dwcp_training.releases.compare import ScoreChange, changes, data_score_change, golden_score_change
from dwcp_training.releases.history import read_history
from dwcp_training.releases.store import (
    CANDIDATE,
    Release,
    find_release,
    releases_of,
    rollback_target,
    since_when,
)

UNTOUCHED = "The current release stays."


def run_list(models: Path, as_json: bool = False) -> int:
    """Lists the releases of a folder, newest first, and returns the exit status."""

    def command() -> None:
        found = releases_of(models)
        if as_json:
            _print_json([_as_json(models, release) for release in found])
            return
        # Names stay whole in a terminal of 80 columns: a part of one is of no use.
        detectors = Column("detectors, thresholds", min_width=max(map(len, BY_NAME)))
        table = Table(Column("release", no_wrap=True), "age", "size", detectors, "data to")
        for release in found:
            thresholds = "\n".join(f"{name} {data.threshold:.6g}" for name, data in release.metadata.items())
            last = next((data.training.last_timestamp for data in release.metadata.values()), "")
            table.add_row(
                f"{release.name}\n{release.state}", _age(release.published), _bytes(release.size),
                thresholds or f"damaged: {release.fault}", last[:10],
            )  # fmt: skip
        out.print(table)

    return guarded(command, "There is nothing to list.")


def run_show(models: Path, name: str, as_json: bool = False) -> int:
    """Opens a release, runs its golden vectors, prints what it is, and returns the exit status."""

    def command() -> None:
        release = find_release(models, name)
        opened, fault = None, ""
        try:
            opened = ModelSet.open(release.folder)
        except ContractError as error:
            fault = str(error)
        if as_json:
            cases = {} if opened is None else {name: len(golden.cases) for name, golden in opened.golden.items()}
            _print_json({**_as_json(models, release), "opens": opened is not None, "golden_cases": cases})
        else:
            _print_release(models, release, opened)
        if opened is None:
            raise RefusedError(f"It does not open: {fault}")

    return guarded(command, f"{name} cannot be used.")


def run_promote(models: Path, name: str, keep: int | None = None, as_json: bool = False) -> int:
    """Makes a release, or the candidate, the current one, and returns the exit status."""

    def command() -> None:
        _check_keep(keep)
        release = find_release(models, name)
        if release.name == CANDIDATE:
            publish_set(models, release.folder, "promote", flag="--models")
        else:
            promote(models, release.name, "promote", "--models")
        _say_switched(models, keep, as_json)

    return guarded(command, UNTOUCHED)


def run_rollback(models: Path, keep: int | None = None, as_json: bool = False) -> int:
    """Makes the release current that was so before the current one, and returns the exit status."""

    def command() -> None:
        _check_keep(keep)
        promote(models, rollback_target(models).name, "rollback", "--models")
        _say_switched(models, keep, as_json)

    return guarded(command, UNTOUCHED)


def run_prune(models: Path, keep: int) -> int:
    """Removes old releases, and returns the exit status."""

    def command() -> None:
        _check_keep(keep)
        releases_of(models)  # says so where there are none
        removed = prune(models, keep, "--models")
        for name in removed:
            out.print(f"removed {name}")
        out.print(f"{len(removed)} removed, {len(releases_of(models))} kept")

    return guarded(command, "Nothing was removed.")


def run_diff(
    models: Path, first: str, second: str, data: Sequence[Path] = (), profile: str = "dwcp", as_json: bool = False
) -> int:
    """Prints what changed from one release to another, and returns the exit status.

    Args:
        models: folder of the model set.
        first, second: see `find_release`.
        data: rows to score with both, besides the golden samples.
        profile: how they are read.
    """

    def command() -> None:
        before, after = find_release(models, first), find_release(models, second)
        opened = ModelSet.open(before.folder), ModelSet.open(after.folder)
        telemetry = read_table(list(data), load_profile(profile)) if data else None
        content = diff(*opened, telemetry)
        if as_json:
            _print_json({"from": before.name, "to": after.name, "detectors": content})
            return
        if telemetry is not None:
            print_data(telemetry)
        out.print(f"from {before.name} {before.state} to {after.name} {after.state}".replace("  ", " ").rstrip())
        for name, found in content.items():
            _print_diff(name, found)

    return guarded(command, "They were not compared.")


def diff(before: ModelSet, after: ModelSet, telemetry: Telemetry | None = None) -> dict[str, dict[str, Any]]:
    """What changed, by detector: `only` in one of them, or `changes` and how the scores of the same samples differ."""
    content: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys([*before.metadata, *after.metadata]):
        if name not in after.metadata or name not in before.metadata:
            content[name] = {"only": "before" if name in before.metadata else "after"}
            continue
        found: dict[str, Any] = {
            "changes": [asdict(change) for change in changes(before.metadata[name], after.metadata[name])]
        }
        if name in before.models and name in after.models:
            scores: dict[str, ScoreChange | None] = {"golden samples": golden_score_change(before, after, name)}
            if telemetry is not None:
                scores["data"] = data_score_change(before, after, name, telemetry)
            found["scores"] = {where: asdict(change) if change else None for where, change in scores.items()}
        content[name] = found
    return content


def _print_diff(name: str, found: dict[str, Any]) -> None:
    if "only" in found:
        out.print(f"\n{name}: {'removed' if found['only'] == 'before' else 'new'}")
        return
    table = Table("", "before", "after", title=name, title_justify="left")
    for change in found["changes"]:
        table.add_row(change["what"], change["before"] or "-", change["after"] or "-")
    if not found["changes"]:
        table.add_row("nothing differs", "", "")
    out.print(table)
    for where, change in found.get("scores", {}).items():
        if change is None:
            print_warning(f"scores on the {where} cannot be compared: other features or windows, or no whole window")
            continue
        ranks = change["rank_correlation"]
        out.print(
            f"scores on {change['samples']:,} {'rows of the data' if where == 'data' else where}: "
            f"alarms {change['alarms_before']:,} before, {change['alarms_after']:,} after, "
            f"{change['decisions']:,} decided differently; differences {100 * change['median']:.2g} % of the threshold "
            f"in the median, {100 * change['largest']:.2g} % at most"
            + (f"; rank correlation {ranks:.3f}" if ranks is not None else "")
        )


def _print_release(models: Path, release: Release, opened: ModelSet | None) -> None:
    table = Table(title=f"{release.name} {release.state}".rstrip(), show_header=False, title_justify="left")
    out.print(
        f"id {release.id}" if release.id else f"damaged: {release.fault}"
    )  # whole, however narrow the terminal is
    table.add_row("folder", str(release.folder))
    table.add_row("published", f"{release.published:%Y-%m-%dT%H:%M:%SZ}, {_age(release.published)} ago")
    table.add_row("last became current", since_when(models, release.name) or "not known")
    table.add_row("size", _bytes(release.size))
    out.print(table)
    for name, metadata in release.metadata.items():
        record = metadata.training
        table = Table(title=name, show_header=False, title_justify="left")
        table.add_row("threshold", f"{metadata.threshold:.6g}")
        table.add_row("class", model_pb2.ParityClass.Name(metadata.parity_class).removeprefix("PARITY_CLASS_"))
        table.add_row("features", ", ".join(metadata.feature_names))
        table.add_row("trained on", f"{record.data_source}, {record.rows_read:,} rows read")
        if record.first_timestamp:
            table.add_row("times", f"{record.first_timestamp} to {record.last_timestamp}")
        table.add_row("hyperparameters", ", ".join(f"{k}={v}" for k, v in sorted(record.hyperparameters.items())))
        for warning in record.warnings:
            table.add_row("warning", warning)
        if opened is not None and name in opened.golden:
            table.add_row("golden vectors", f"{len(opened.golden[name].cases)} cases, all passed")
        elif metadata.graph.unavailable_reason:
            table.add_row("cannot be scored", metadata.graph.unavailable_reason)
        out.print(table)


def _say_switched(models: Path, keep: int | None, as_json: bool) -> None:
    removed = prune(models, keep, "--models") if keep is not None else []
    found = {release.state: release.name for release in releases_of(models) if release.state}
    if as_json:
        _print_json({**found, "removed": removed})
        return
    out.print(f"current: {found['current']}")
    if "previous" in found:
        out.print(f"before:  {found['previous']} (dwcp releases rollback goes back to it)")
    for name in removed:
        out.print(f"removed: {name}")
    out.print("Sidecars that watch the folder serve it within seconds.")


def _as_json(models: Path, release: Release) -> dict[str, Any]:
    return {
        "release": release.name,
        "state": release.state,
        "model_set_id": release.id,
        "published": f"{release.published:%Y-%m-%dT%H:%M:%SZ}",
        "last_current": since_when(models, release.name),
        "size": release.size,
        "fault": release.fault,
        "history": [asdict(switch) for switch in read_history(models) if switch.release == release.name],
        "detectors": {
            name: {
                "threshold": metadata.threshold,
                "features": list(metadata.feature_names),
                "first_timestamp": metadata.training.first_timestamp,
                "last_timestamp": metadata.training.last_timestamp,
                "rows_read": metadata.training.rows_read,
                "hyperparameters": dict(sorted(metadata.training.hyperparameters.items())),
            }
            for name, metadata in release.metadata.items()
        },
    }


def _check_keep(keep: int | None) -> None:
    if keep is not None and keep < 1:
        raise UsageError(f"--keep {keep}: write 1 or more")


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2))


def _age(when: datetime) -> str:
    seconds = (datetime.now(UTC) - when).total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
