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
    """Scores the same rows again and again; puts batches, seconds and the first score into `counts`."""
    from dwcp_sidecar.model import Explain
    from dwcp_sidecar.model_set import ModelSet

    forest = ModelSet.open(models).model("isolation_forest")
    first = float(forest.score_batch(rows, Explain.ALARMS).scores[0])
    ready.release()
    begin.wait()
    warm_up, duration = times
    done, start, end = 0, time.perf_counter() + warm_up, 0.0
    while end < start + duration:
        forest.score_batch(rows, Explain.ALARMS)
        end = time.perf_counter()
        done += end - start > 0
    counts.put((done, end - start, first))


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
    rate = sum(batches / took for batches, took, _ in found)
    print(
        json.dumps({"rows_per_second": rate * arguments.rows, "requests_per_second": rate, "first_score": found[0][2]})
    )


if __name__ == "__main__":
    main()
