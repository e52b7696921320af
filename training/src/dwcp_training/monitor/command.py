"""Runs `dwcp monitor` for a person."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.scorer import Scorer
from dwcp_training.console import RefusedError, UsageError, check_seconds, err, guarded_pipe
from dwcp_training.data.row_judge import Chunk
from dwcp_training.monitor.alarms import Alarm, alarms_of
from dwcp_training.monitor.forward import Forwarder
from dwcp_training.monitor.lines import StandardInput
from dwcp_training.monitor.prometheus import Prometheus
from dwcp_training.monitor.source import Source
from dwcp_training.monitor.tail import Follow
from dwcp_training.monitor.web import checked_address
from dwcp_training.profiles import load_profile
from dwcp_training.prometheus_api import queries_of
from dwcp_training.score import chosen
from dwcp_training.series_scores import SeriesScorer, check_listed, features_of

LOOK_SECONDS = 1.0
"""Seconds between looks at a file."""

ASK_SECONDS = 15.0
"""Seconds between questions to a Prometheus where the model does not know its cadence."""


def run_monitor(
    models: Path,
    detectors: Sequence[str] = (),
    *,
    standard_input: str | None = None,
    follow: Path | None = None,
    prometheus: str | None = None,
    queries: Sequence[str] = (),
    profile: str = "dwcp",
    forward: str | None = None,
    as_json: bool = False,
    interval: float | None = None,
    cadence: float | None = None,
    from_start: bool = False,
    once: bool = False,
) -> int:
    """Scores samples as they come, until the source ends or the process is told to stop.

    Args:
        models: folder of the model set.
        detectors: which of the set; empty means all.
        standard_input, follow, prometheus: where samples come from; one of them.
        queries: feature=promql each, for `prometheus`.
        profile: how lines become rows.
        forward: address of an Alertmanager.
        as_json: print alarms as JSON lines.
        interval: seconds between looks.
        cadence: seconds between samples where known.
        from_start: score what a followed file holds already.
        once: score what is there now, and end.

    Returns:
        Exit status: 0 done, 1 refused or not all alarms forwarded, 2 wrong usage.
    """
    stop = threading.Event()

    def command() -> None:
        _check(standard_input, follow, prometheus, queries, interval, cadence, from_start=from_start)
        try:
            server = checked_address("--prometheus", prometheus) if prometheus else ""
            receiver = checked_address("--forward", forward) if forward else ""
        except ValueError as error:
            raise UsageError(str(error)) from None
        opened = ModelSet.open(models)
        scorable = chosen(opened, detectors)
        described = load_profile(profile)
        features = features_of(scorable)
        if not prometheus:
            check_listed(features, described)
        trained = next((model.metadata.cadence_seconds for model in scorable if model.metadata.cadence_seconds), None)
        source: Source
        if prometheus:
            asked = queries_of(queries, features)
            source = Prometheus(server, asked, stop, interval=interval or cadence or trained or ASK_SECONDS, once=once)
        elif follow is not None:
            source = Follow(
                follow,
                features,
                described,
                stop,
                cadence=cadence,
                fallback=trained,
                interval=interval or LOOK_SECONDS,
                from_start=from_start or once,
                once=once,
            )
        else:
            usual = cadence or trained
            source = StandardInput(features, described, {None: usual} if usual else {}, stop)
        with _stopped_by_signals(stop):
            _watch(source, stop, scorable, features, opened.id, receiver, as_json=as_json)

    return guarded_pipe(command, "The monitor ended.")


def _check(
    standard_input: str | None,
    follow: Path | None,
    prometheus: str | None,
    queries: Sequence[str],
    interval: float | None,
    cadence: float | None,
    *,
    from_start: bool,
) -> None:
    """Raises UsageError for flags that contradict each other."""
    if standard_input not in (None, "-"):
        raise UsageError(f"{standard_input}: to follow a file write --follow {standard_input}; - is standard input")
    if sum(given is not None for given in (standard_input, follow, prometheus)) != 1:
        raise UsageError("name one source of samples: --follow FILE, --prometheus URL, or - for standard input")
    if queries and not prometheus:
        raise UsageError("--query is what is asked of a --prometheus, which is not given")
    if from_start and follow is None:
        raise UsageError("--from-start is about a file of --follow, which is not given")
    check_seconds("--interval", interval)
    check_seconds("--cadence", cadence)


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM end the source after what it is at.

    A handler runs in the main thread, wherever that is: also inside `stop.wait`, which holds the lock that `stop.set`
    takes. So another thread sets it.
    """

    def told(*_: object) -> None:
        threading.Thread(target=stop.set, daemon=True).start()

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(
    source: Source,
    stop: threading.Event,
    models: Sequence[Scorer],
    features: Sequence[str],
    model_set: str,
    receiver: str,
    *,
    as_json: bool,
) -> None:
    """Scores, prints and forwards until the source ends, or it is to stop: not in the middle of a chunk."""
    scorers = [SeriesScorer(model, features) for model in models]
    without: set[tuple[str, str]] = set()
    counts = dict.fromkeys((model.name for model in models), 0)

    def lost(alarm: Alarm, reason: str) -> None:
        err.print(f"not forwarded ({reason}): {alarm}", style="red")

    forwarder = Forwarder(receiver, model_set, lost) if receiver else None
    names = ", ".join(model.name for model in models)
    err.print(f"watching {source.name} with {names} of model set {model_set[:16]}")
    try:
        for item in source.items():
            if not isinstance(item, Chunk):
                err.print(item, style="yellow")
                continue
            for alarm in _alarms(item, scorers):
                counts[alarm.detector] += 1
                print(alarm.as_json() if as_json else alarm, flush=True)
                if forwarder is not None:
                    forwarder.send(alarm)
            for scorer in scorers:
                for member, why in scorer.missing.items():
                    if (scorer.model.name, member) not in without:
                        without.add((scorer.model.name, member))
                        err.print(f"{scorer.model.name} is scored without {member}: {why}", style="yellow")
            if stop.is_set():
                break
    finally:
        if forwarder is not None:
            forwarder.close()
        err.print(f"{source.rows_read:,} rows read")
        for scorer in scorers:
            name, window = scorer.model.name, scorer.model.timesteps
            short = f"; {scorer.waiting:,} rows without a full window of {window}" if scorer.waiting else ""
            err.print(f"{name}: {scorer.scored:,} scored, {counts[name]:,} alarms{short}")
        if forwarder is not None:
            unsent = f", {forwarder.lost_count:,} NOT forwarded" if forwarder.lost_count else ""
            err.print(f"{forwarder.sent:,} alarms forwarded to {receiver}{unsent}")
    if forwarder is not None and forwarder.lost_count:
        raise RefusedError(f"{forwarder.lost_count:,} alarms were not forwarded; they are printed above.")


def _alarms(chunk: Chunk, scorers: Sequence[SeriesScorer]) -> list[Alarm]:
    """The alarms of all detectors, row by row."""
    found = [
        item
        for scorer in scorers
        for scored in scorer.score(chunk)
        for item in alarms_of(chunk, scorer.model, scorer.columns, scored)
    ]
    return [alarm for _, alarm in sorted(found, key=lambda item: item[0])]
