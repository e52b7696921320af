"""Month after month of traffic that does not change: what becomes of the false alarms, and how often it promotes.

    python -m tests.retrain.months --alarms excess
    python -m tests.retrain.months --alarms all

A week of made-up rows a month, a forest of 100 trees; every limit but the recall is out of the way.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import pytest

from dwcp_training.data import write_csv
from tests.retrain.conftest import FOREST, Bench, series, write_profile
from tests.training.conftest import leave_out_cross_checks

ROWS = 7 * 1440


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alarms", choices=("excess", "all", "none"), default="excess")
    parser.add_argument("--months", type=int, choices=range(2, 13), default=9)
    given = parser.parse_args()
    leave_out_cross_checks(pytest.MonkeyPatch())
    gate = {"champion_alarms": given.alarms, "events": 140, "most_alarms": 0.5, "false_alarm_factor": 50.0}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bench = Bench(root, root / "models", write_profile(root / "p.yaml", gate, n_estimators=100))
        for month in range(1, given.months + 1):
            write_csv(series(month, ROWS), bench.data(month))
            status = bench.retrain("--data", bench.data(month), *FOREST).exit_code
            rows = bench.decision()["rows"]
            (share,) = [row["challenger"] for row in rows if row["measure"] == "false alarms"]
            lost = [row["measure"] for row in rows if not row["passed"]]
            print(
                f"month {month}: status {status}, false alarms {share:.2%}, lost: {', '.join(lost) or '-'}", flush=True
            )


if __name__ == "__main__":
    main()
