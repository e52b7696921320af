"""Writes data of any length, reads it in chunks or scores it, and prints peak memory and rate as JSON.

python -m tests.bench.reading write parquet|csv|npy ROWS FILE
python -m tests.bench.reading read FILE
python -m tests.bench.reading score FILE
"""

import json
import resource
import sys
import time
from pathlib import Path

PIECE = 250_000
"""Rows that are made at once."""
START = 1_704_067_200_000_000_000
"""2024-01-01 in nanoseconds."""
ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "models/reference/v1"


def write(kind: str, rows: int, file: Path) -> None:
    """Rows of the profile dwcp, one a second: a Parquet file, a CSV file, or an array without times."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    from dwcp_training.profiles import load_profile

    names = load_profile("dwcp").feature_schema.names
    rng = np.random.default_rng(0)
    means, deviations = np.array([100, 10, 0.01, 1, 45, 58, 0.001]), np.array([10, 1, 0.003, 0.3, 10, 8, 0.0003])
    schema = pa.schema([("timestamp", pa.timestamp("ns", "UTC")), *((name, pa.float64()) for name in names)])
    if kind == "npy":
        array = np.lib.format.open_memmap(file, "w+", np.float64, (rows, len(names)))
    elif kind == "parquet":
        writer = pq.ParquetWriter(file, schema, compression="none", use_dictionary=False)
    else:
        writer = pacsv.CSVWriter(file, schema)
    for first in range(0, rows, PIECE):
        count = min(PIECE, rows - first)
        values = np.round(np.abs(means + deviations * rng.standard_normal((count, len(names)))), 6)
        if kind == "npy":
            array[first : first + count] = values
            continue
        times = np.arange(first, first + count) * 1_000_000_000 + START
        columns = [pa.array(times, pa.timestamp("ns", "UTC")), *(pa.array(values[:, j]) for j in range(len(names)))]
        writer.write_table(pa.table(columns, schema=schema))
    if kind != "npy":
        writer.close()


def read(file: Path) -> int:
    """Reads a file in chunks, as `dwcp score` does; the rows in it."""
    from dwcp_training.data.chunks import ChunkReader
    from dwcp_training.profiles import load_profile

    profile = load_profile("dwcp")
    if file.suffix == ".npy":
        profile = profile.model_copy(update={"timestamp_column": None})
    reader = ChunkReader(file, profile.feature_schema.names, profile)
    return sum(len(chunk) for chunk, _ in reader)


def score(file: Path) -> int:
    """Scores a file with the forest of the reference set; the rows in it."""
    from dwcp_training.score import run_score

    output = file.with_suffix(".scores.parquet")
    assert run_score(REFERENCE, [file], ["isolation_forest"], output=str(output)) == 0
    import pyarrow.parquet as pq

    rows = pq.read_metadata(output).num_rows
    output.unlink()
    return int(rows)


def main() -> None:
    """One step in a process of its own, so that its peak is its own."""
    if sys.argv[1] == "write":
        write(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
        return
    start = time.perf_counter()
    rows = {"read": read, "score": score}[sys.argv[1]](Path(sys.argv[2]))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    main()
