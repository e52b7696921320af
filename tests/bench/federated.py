"""Federated against central training: ranking of faults, traffic, and what a lost client costs.

    python -m tests.bench.federated
    python -m tests.bench.federated --set SMD --most 1 --detector dense-autoencoder --rounds 20

Ten clients have the rows of one series of the quality sets (see `quality_sets.py`), skewed. Both trainings have the
same hyperparameters; the central one has all rows. Each is measured by average precision on the series' faults.
"""

import argparse
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score

from dwcp_training.data.report import Report
from dwcp_training.data.telemetry import Telemetry
from dwcp_training.detectors.base import Fitted
from dwcp_training.detectors.registry import DETECTORS
from dwcp_training.federated.library import require_flower

require_flower()

from dwcp_training.federated.assemble import assembled  # noqa: E402  # after Flower's telemetry is off
from dwcp_training.federated.command import NAMES  # noqa: E402
from dwcp_training.federated.flower_fleet import Fleet  # noqa: E402
from dwcp_training.federated.plan import Plan  # noqa: E402
from dwcp_training.federated.rounds import Run, resumed  # noqa: E402
from dwcp_training.federated.simulate import Faults, in_process, in_processes  # noqa: E402
from dwcp_training.federated.split import parts  # noqa: E402
from dwcp_training.pipeline import fit  # noqa: E402
from dwcp_training.profiles import Feature, FeatureSchema, Profile, load_profile  # noqa: E402
from tests.bench.quality_sets import SETS, Series  # noqa: E402

CLIENTS = 10
BAR = 0.02
"""The federated model's average precision may be lower by so much."""


@dataclass(frozen=True)
class Case:
    """What was measured."""

    set: str
    series: str
    detector: str
    how: str
    central: float
    federated: float
    up_per_round: float
    down_per_round: float
    clients: str
    cpu_seconds: float

    @property
    def kept(self) -> bool:
        return self.federated >= self.central - BAR


def telemetry_of(series: Series, profile: Profile) -> Telemetry:
    """Its training rows; metrics are called x0, x1 and so on where the profile has others."""
    width = series.train.shape[1]
    schema = profile.feature_schema
    if len(schema.names) != width:
        schema = FeatureSchema(
            name="bench", version=1, features=tuple(Feature(name=f"x{j}", unit="") for j in range(width))
        )
    rows = len(series.train)
    return Telemetry(
        schema=schema,
        values=series.train + 0.0,
        timestamps=None,
        timestamp_column=None,
        cadence_seconds=None,
        segments=((0, rows),),
        source=series.name,
        report=Report(rows, rows),
    )


def precision(fitted: Fitted, series: Series) -> float:
    """Average precision on the test rows that count; a window's score is that of its last row."""
    steps = max(1, fitted.metadata.timesteps)
    rows = np.concatenate([series.train[len(series.train) - steps + 1 :], series.test]) if steps > 1 else series.test
    items = np.lib.stride_tricks.sliding_window_view(rows, steps, axis=0).transpose(0, 2, 1)
    scores = np.concatenate(
        [
            fitted.reference.evaluate(np.ascontiguousarray(items[i : i + 4096])).scores
            for i in range(0, len(items), 4096)
        ]
    )
    return float(average_precision_score(series.faulty[series.counted], scores[series.counted]))


def federated(telemetry: Telemetry, plan: Plan, split: str, lost: tuple[str, ...], processes: bool, timeout: float):
    """The finished state of a run and the traffic of all of it."""
    sites = parts(telemetry, CLIENTS, split, skew=0.3, seed=plan.hyperparameters.seed)
    faults = Faults.of(lost, (), CLIENTS)
    with (in_processes if processes else in_process)(sites, faults) as grid:
        fleet = Fleet(grid, timeout, lambda text: print("   ", text, flush=True))
        fleet.join(CLIENTS, 900)
        state = Run(fleet, resumed(plan, None), None).finish()
        fleet.done("finished")
    return state


def measure(options: argparse.Namespace) -> list[Case]:
    cases = []
    for data in SETS:
        if data.name not in options.set:
            continue
        profile = load_profile(data.profile)
        for series in data.load()[: options.most]:
            telemetry = telemetry_of(series, profile)
            if options.rows:
                telemetry = telemetry.rows(max(0, len(telemetry) - options.rows), len(telemetry))
            for detector in options.detector:
                cases += compared(data.name, series, telemetry, profile, detector, options)
    return cases


def compared(name: str, series: Series, telemetry: Telemetry, profile: Profile, detector: str, options) -> list[Case]:
    """One detector, trained on all rows and by every way that was asked for."""
    kind = NAMES[detector]
    settings = DETECTORS[kind].settings(**({"epochs": options.epochs} if kind != "isolation_forest" else {}))
    central = precision(fit(kind, telemetry, settings), series)
    print(f"{name} {series.name} {detector}: central {central:.3f}", flush=True)
    cases = []
    for how in options.how:
        split, _, more = how.partition("+")
        plan = Plan(
            kind,
            settings.model_dump(mode="json"),
            rounds=options.rounds,
            local_epochs=options.local_epochs,
            minimum=7,
            features=telemetry.schema.names,
            secure="secure" in more,
        )
        lost = ("3@2",) if "lost" in more else ()
        before = time.process_time()
        state = federated(telemetry, plan, split, lost, "processes" in more, options.timeout)
        used = time.process_time() - before
        counts = sorted({done.clients for done in state.rounds})
        case = Case(
            name, series.name, detector, how, central, precision(assembled(state, profile), series),
            float(np.mean([done.up for done in state.rounds])), float(np.mean([done.down for done in state.rounds])),
            " to ".join(map(str, {counts[0]: 0, counts[-1]: 0})), used,
        )  # fmt: skip
        print(row(case), flush=True)
        cases.append(case)
    return cases


HEAD = (
    "| set | series | detector | clients see | central | federated | difference | clients | up a round "
    "| down a round |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def row(case: Case) -> str:
    return (
        f"| {case.set} | {case.series} | {case.detector} | {case.how} | {case.central:.3f} | {case.federated:.3f} "
        f"| {case.federated - case.central:+.3f} | {case.clients} | {case.up_per_round / 1e6:.2f} MB "
        f"| {case.down_per_round / 1e6:.2f} MB |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", choices=("linklab", "SMD"))
    parser.add_argument("--detector", action="append", choices=tuple(NAMES))
    parser.add_argument("--how", action="append", help="split, and +secure, +lost, +processes (default dirichlet)")
    parser.add_argument("--most", type=int, default=2, help="series of a set")
    parser.add_argument("--rows", type=int, help="most training rows, the last ones (default all)")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--local-epochs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=50, help="of the central training, at most")
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.set = options.set or ["linklab", "SMD"]
    options.detector = options.detector or ["isolation-forest", "dense-autoencoder"]
    options.how = options.how or ["dirichlet"]
    logging.getLogger("absl").setLevel(logging.ERROR)
    cases = measure(options)
    print("\n" + HEAD)
    for case in cases:
        print(row(case))
    if options.json:
        options.json.write_text(json.dumps([asdict(case) for case in cases], indent=1) + "\n")
    missed = [case for case in cases if not case.kept]
    raise SystemExit(f"{len(missed)} of {len(cases)} are more than {BAR:g} below the central model" if missed else 0)


if __name__ == "__main__":
    main()
