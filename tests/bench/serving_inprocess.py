"""The Python core without a server: batches of one size, in one process per core, one ONNX Runtime thread each.

    python tests/bench/serving_inprocess.py MODEL_SET ROWS PROCESSES --rows-file PATH --duration S --warm-up S

Prints what the load generator prints, as far as it applies.
"""

import argparse
import json
import multiprocessing
import time

import numpy as np


def score(models: str, rows: np.ndarray, ready, begin, times: tuple[float, float], counts) -> None:
    """Scores the same rows again and again; puts batches a second, share of a core and first score into `counts`."""
    from dwcp_sidecar.model import Explain
    from dwcp_sidecar.model_set import ModelSet

    forest = ModelSet.open(models).model("isolation_forest")
    first = float(forest.score_batch(rows, Explain.ALARMS).scores[0])
    ready.release()
    begin.wait()
    warm_up, duration = times
    end = time.perf_counter() + warm_up
    while time.perf_counter() < end:
        forest.score_batch(rows, Explain.ALARMS)
    done, start, busy = 0, time.perf_counter(), time.process_time()
    while (took := time.perf_counter() - start) < duration:
        forest.score_batch(rows, Explain.ALARMS)
        done += 1
    counts.put((done / took, (time.process_time() - busy) / took, first))


def seconds(text: str) -> float:
    """A duration as the load generator takes it, such as `0.8s`."""
    return float(text.removesuffix("s"))


def main() -> None:
    """Runs one process per core and adds up their rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models")
    parser.add_argument("rows", type=int)
    parser.add_argument("processes", type=int)
    parser.add_argument("--rows-file", required=True)
    parser.add_argument("--duration", type=seconds, default=1.0)
    parser.add_argument("--warm-up", type=seconds, default=0.3)
    arguments = parser.parse_args()
    given = np.fromfile(arguments.rows_file, "<f8").reshape(-1, 7)
    rows = np.resize(given, (arguments.rows, 7))
    spawn = multiprocessing.get_context("spawn")
    ready, begin, counts = spawn.Semaphore(0), spawn.Event(), spawn.Queue()
    times = (arguments.warm_up, arguments.duration)
    workers = [
        spawn.Process(target=score, args=(arguments.models, rows, ready, begin, times, counts))
        for _ in range(arguments.processes)
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        if not ready.acquire(timeout=60):
            raise SystemExit("a process did not open the model set within 60 s")
    begin.set()
    found = [counts.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    rate = sum(batches for batches, _, _ in found)
    result = {
        "requests_per_second": rate,
        "rows_per_second": rate * arguments.rows,
        "client_cpu_share_of_a_core": sum(share for _, share, _ in found),
        "first_score": found[0][2],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
