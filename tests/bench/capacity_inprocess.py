"""The Python core without a server, one sample or window at a time.

    python tests/bench/capacity_inprocess.py MODEL_SET ROWS.f64 DETECTOR SECONDS

Prints what the load generator prints, as far as it applies.
"""

import json
import resource
import sys
import time

import numpy as np

from dwcp_sidecar.model import Explain
from dwcp_sidecar.model_set import ModelSet


def main() -> None:
    """Scores for a fourth of the time to warm up, then counts."""
    folder, file, detector, seconds = sys.argv[1:]
    model = ModelSet.open(folder).model(detector)
    rows = np.fromfile(file, "<f8").reshape(-1, 7)
    steps = model.metadata.timesteps or 1
    windows = [rows[i : i + steps].tolist() for i in range(0, len(rows) - steps, steps)]

    def score_for(duration: float) -> tuple[int, float, float]:
        done, start, busy = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - start < duration:
            model.score(windows[done % len(windows)], Explain.ALARMS)
            done += 1
        return done, time.perf_counter() - start, time.process_time() - busy

    score_for(float(seconds) / 4)
    done, took, busy = score_for(float(seconds))
    found = {
        "requests_per_second": done / took,
        "client_cpu_share_of_a_core": busy / took,
        "resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
