"""Which rows a challenger is trained on: not those it is measured on, and not those the champion takes for faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_training.console import RefusedError
from dwcp_training.data import Telemetry, time_split
from dwcp_training.feedback.marks import Mark
from dwcp_training.profiles import Gate
from dwcp_training.retrain.collect import ranges_of
from dwcp_training.retrain.marked import marked_rows
from dwcp_training.telemetry_scores import SeriesScores, series_scores


@dataclass(frozen=True)
class SetApart:
    """Attributes:
    fitted: rows to train on.
    held_out: the end by time, behind a gap of a window; nothing is left out of it, so that it favours nobody.
    left_out: rows before the gap that the champion alarmed on, by detector; a row may be of several.
    left_out_rows: how many rows that are in all.
    """

    fitted: Telemetry
    held_out: Telemetry
    left_out: dict[str, int]
    left_out_rows: int


def set_apart(
    telemetry: Telemetry,
    champion: ModelSet | None,
    gate: Gate,
    window: int,
    *,
    keep_alarms: bool = False,
    marks: Sequence[Mark] = (),
) -> SetApart:
    """Splits by time and leaves the champion's alarms out of the part to train on.

    Args:
        telemetry: what was collected, without known incidents.
        champion: the set in use, if there is one.
        gate: says how much is held out and which alarms are left out.
        window: samples in the longest window of any model.
        keep_alarms: leave nothing out: what the champion alarms on has become normal.
        marks: alarms that people called false among them stay, and are not counted as alarms.

    Raises:
        RefusedError: the champion alarms on more than `gate.most_alarms` of the rows.
        DataError: too few rows.
    """
    early, held_out = time_split(telemetry, gate.held_out, gap=window)
    if champion is None or keep_alarms or gate.champion_alarms == "none":
        return SetApart(early, held_out, {}, 0)
    alarmed, by_detector = np.zeros(len(early), bool), {}
    called_false = marked_rows(early, [mark for mark in marks if not mark.incident]).normal
    for name, model in champion.models.items():
        scores = series_scores(model, early)
        scores = replace(scores, alarmed=scores.alarmed & ~called_false)
        excess = scores.alarmed if gate.champion_alarms == "all" else excess_alarms(model, scores)
        by_detector[name] = int(excess.sum())
        alarmed |= excess
    count = int(alarmed.sum())
    if count > gate.most_alarms * len(early):
        kind = "alarms of" if gate.champion_alarms == "all" else "alarms beyond what normal data raises, by"
        named = ", ".join(f"{name} {rows:,}" for name, rows in by_detector.items())
        raise RefusedError(
            f"{count:,} of {len(early):,} rows ({100 * count / len(early):.1f} %) are {kind} the current release "
            f"({named}); at most {100 * gate.most_alarms:g} % may be. Either there were incidents: list them with "
            "--exclude, or mark them with dwcp feedback. Or the data has drifted and is normal: train on it with "
            "--keep-alarms, after you have looked."
        )
    return SetApart(early.take(ranges_of(~alarmed)) if count else early, held_out, by_detector, count)


def excess_alarms(model: Scorer, scores: SeriesScores) -> NDArray[np.bool_]:
    """The alarms beyond as many as normal data raises: whole runs, the longest first; bool ``[n]``.

    Of ``n`` calibration scores, held-out normal ones (C1), ``k`` are above the threshold: of rows like them a share of
    ``(1 + k) / (n + 1)`` alarms. Were these left out too, the next threshold would be lower, and the one after it lower
    again. A fault lasts, and alarms of normal rows are short: so the longest runs go first, and of equally long ones
    those with the highest score.
    """
    calibrated = np.array(model.metadata.calibration.scores, np.float64)
    expected = (1 + (calibrated > model.threshold).sum()) / (len(calibrated) + 1)
    left = int(scores.alarmed.sum())
    marks = np.zeros(len(scores.alarmed), bool)
    runs = ranges_of(scores.alarmed)
    for start, stop in sorted(runs, key=lambda run: (run[0] - run[1], -scores.scores[slice(*run)].max())):
        if left <= expected * scores.scored.sum():
            break
        marks[start:stop] = True
        left -= stop - start
    return marks
