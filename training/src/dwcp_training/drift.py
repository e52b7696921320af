"""`dwcp drift`: compares recent rows with the training rows of a published set (rules DR1 to DR5)."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from dwcp_sidecar import detectors as known
from dwcp_sidecar.drift import FeatureDrift, Reference, Sketch, references
from dwcp_sidecar.model_set import ModelSet
from dwcp_training import exit_status
from dwcp_training.console import RefusedError, UsageError, guarded, out, print_left_out, print_warning, progress_bar
from dwcp_training.data.chunks import ChunkReader
from dwcp_training.data.writers import whole_file
from dwcp_training.profiles import load_profile
from dwcp_training.publish import check_writable
from dwcp_training.series_scores import check_listed


@dataclass(frozen=True)
class Compared:
    """Detectors with one and the same reference, and what was found.

    Attributes:
        detectors: their names.
        reference: what the rows were compared with.
        features: one for each feature, in schema order.
    """

    detectors: list[str]
    reference: Reference
    features: list[FeatureDrift]

    @property
    def drifted(self) -> list[FeatureDrift]:
        """The features that drifted."""
        return [feature for feature in self.features if feature.drifted]


def alike(found: dict[str, Reference]) -> list[tuple[list[str], Reference]]:
    """Detectors that were trained on the same rows are compared once."""
    groups: dict[tuple[tuple[str, ...], bytes], tuple[list[str], Reference]] = {}
    for name, reference in found.items():
        key = reference.names, reference.message().SerializeToString(deterministic=True)
        groups.setdefault(key, ([], reference))[0].append(name)
    return list(groups.values())


def last_rows(chunks: Iterable[NDArray[np.float64]], window: int) -> Iterator[NDArray[np.float64]]:
    """The last `window` rows of `[n, features]` arrays that come one after the other; no more are kept than needed."""
    kept: deque[NDArray[np.float64]] = deque()
    rows = 0
    for chunk in chunks:
        kept.append(chunk)
        rows += len(chunk)
        while rows - len(kept[0]) >= window:
            rows -= len(kept.popleft())
    if kept:
        kept[0] = kept[0][max(0, rows - window) :]
    yield from kept


def run_drift(
    models: Path,
    data: Sequence[Path],
    names: Sequence[str] = (),
    *,
    profile: str = "dwcp",
    psi: float | None = None,
    wasserstein: float | None = None,
    per_feature: bool = False,
    json_file: Path | None = None,
    window: int | None = None,
    on_bad_rows: str = "fail",
) -> int:
    """Compares files or folders with the training rows for a person.

    Args:
        models: folder of the model set.
        data: recent rows.
        names: detectors whose training rows are compared with; empty means all.
        profile: how files become rows.
        psi, wasserstein: thresholds in the place of those of the model.
        per_feature: print the features that did not drift, too.
        json_file: write all figures there.
        window: compare only so many rows, the last ones.
        on_bad_rows: as of `ChunkReader`.

    Returns:
        Exit status: 0 no drift, 2 drift, 1 refused, 64 wrong usage.
    """
    compared: list[Compared] = []

    def command() -> None:
        for flag, threshold in (("--psi", psi), ("--wasserstein", wasserstein)):
            if threshold is not None and not 0 <= threshold < math.inf:
                raise UsageError(f"{flag} {threshold:g}: write a number of 0 or more")
        if window is not None and window < 1:
            raise UsageError(f"--window {window}: write a number of rows, 1 or more")
        if json_file is not None:
            check_writable(json_file.parent, "--json")
        models_set = ModelSet.open(models)
        found = _references(models_set, names)
        found = {name: reference.with_thresholds(psi, wasserstein) for name, reference in found.items()}
        described = load_profile(profile)
        features = list(dict.fromkeys(name for reference in found.values() for name in reference.names))
        check_listed(features, described)
        reader = ChunkReader(list(data), features, described, on_bad_rows=on_bad_rows)
        groups = alike(found)
        sketches = [Sketch(reference) for _, reference in groups]
        columns = [[features.index(name) for name in reference.names] for _, reference in groups]
        for values in _values(reader, window):
            for sketch, own in zip(sketches, columns, strict=True):
                sketch.add(values[:, own])
        rows = sketches[0].rows
        least = max(reference.least for _, reference in groups)
        if rows < least:
            raise RefusedError(f"{rows:,} rows are too few to compare; give at least {least} (DR4).")
        for (detectors, reference), sketch in zip(groups, sketches, strict=True):
            compared.append(Compared(detectors, reference, reference.compare(sketch)))
        listed = ", ".join(reader.files[:3]) + (f" and {len(reader.files) - 3:,} more" if len(reader.files) > 3 else "")
        out.print(f"data: {listed}, {rows:,} of {reader.report.rows_read:,} rows compared")
        print_left_out(reader.report)
        for one in compared:
            _print(one, per_feature)
        for name in models_set.metadata:
            if not names and name not in found:
                print_warning(f"{name} was left out: {_why(models_set, name)}")
        if json_file is not None:
            figures = _figures(models_set.id, reader, rows, compared)
            with whole_file(json_file) as file:
                file.write((json.dumps(figures, indent=2) + "\n").encode())

    status = guarded(command, "Nothing was compared.")
    if status == 2:
        return exit_status.USAGE
    return exit_status.DRIFT if status == 0 and any(one.drifted for one in compared) else status


def _references(models: ModelSet, names: Sequence[str]) -> dict[str, Reference]:
    """The references of the named detectors, or of all that have one."""
    for name in names:
        if name not in models.metadata:
            models.model(name)  # says which there are
    found = references(models.metadata, dict.fromkeys(names) or models.metadata)
    missing = [name for name in names if name not in found]
    if missing or not found:
        name = next(iter(missing or models.metadata))
        raise RefusedError(f"{name}: {_why(models, name)}")
    return found


def _why(models: ModelSet, name: str) -> str:
    """Why a detector has no reference."""
    metadata = models.metadata[name]
    members = [known.NAMES[member.detector] for member in metadata.ensemble.members]
    if members:
        return f"none of its members ({', '.join(members)}) has a drift reference. Train them again."
    said = [warning for warning in metadata.training.warnings if warning.startswith("no drift reference: ")]
    return said[0] if said else "it was trained before drift references existed. Train it again."


def _values(reader: ChunkReader, window: int | None) -> Iterator[NDArray[np.float64]]:
    """The rows to compare, float64 `[n, features]`, piece by piece."""

    def shown() -> Iterator[NDArray[np.float64]]:
        with progress_bar() as bar:
            task = bar.add_task("comparing", total=reader.total_bytes)
            for chunk, done in reader:
                yield chunk.values
                bar.update(task, completed=done, description=f"comparing {chunk.file}")

    return shown() if window is None else last_rows(shown(), window)


def _print(one: Compared, per_feature: bool) -> None:
    """A table of the features that drifted, or of all, and what follows, in a line."""
    reference, drifted = one.reference, one.drifted
    title = f"{', '.join(one.detectors)}: against {reference.rows:,} training rows"
    shown = one.features if per_feature else drifted
    if shown:
        table = Table("metric", title=title, title_justify="left")
        for column in ("PSI", "critical", "Wasserstein", "critical", "drifted"):
            table.add_column(column, justify="right")
        for f in shown:
            table.add_row(
                f.name, _number(f.psi), _number(f.psi_critical), _number(f.wasserstein),
                _number(f.wasserstein_critical), "yes" if f.drifted else "no",
            )  # fmt: skip
        out.print(table)
    else:
        out.print(title)
    largest = max(f.psi for f in one.features), max(f.wasserstein for f in one.features)
    limits = f"thresholds: PSI {reference.psi_threshold:g}, Wasserstein {reference.wasserstein_threshold:g}"
    if drifted:
        out.print(f"drift in {len(drifted)} of {len(one.features)} metrics ({limits})", style="yellow")
    else:
        found = f"largest PSI {_number(largest[0])}, largest Wasserstein {_number(largest[1])}"
        out.print(f"no drift in {len(one.features)} metrics: {found} ({limits})")


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 1000 else f"{value:.3g}"


def _figures(id: str, reader: ChunkReader, rows: int, compared: Sequence[Compared]) -> dict[str, Any]:
    return {
        "model_set": id,
        "data": reader.files,
        "rows": rows,
        "drift": any(one.drifted for one in compared),
        "detectors": {
            name: {
                "training_rows": one.reference.rows,
                "rate": one.reference.rate,
                "psi_threshold": one.reference.psi_threshold,
                "wasserstein_threshold": one.reference.wasserstein_threshold,
                "features": {
                    f.name: {
                        "psi": f.psi,
                        "psi_critical": f.psi_critical,
                        "wasserstein": f.wasserstein,
                        "wasserstein_critical": f.wasserstein_critical,
                        "drifted": f.drifted,
                    }
                    for f in one.features
                },
            }
            for one in compared
            for name in one.detectors
        },
    }
