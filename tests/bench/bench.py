"""Measures what the project promises, in one run, as ratios of medians over paired rounds.

    python tests/bench/bench.py                  # everything, some twenty minutes
    python tests/bench/bench.py --only graphs    # one part
    python tests/bench/bench.py --only quality   # not among everything: an hour or more

Parts: graphs, go, sidecar, memory, edge, training, adbench, quality, drift, reading, serving.

Prints a table with each bar and whether it was met, and writes build/bench.json.
"""

import argparse
import json
import os
import pickle
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "models/reference/v1"
GO = os.environ.get("GO", "go")
sys.path.insert(0, str(ROOT))  # an installed package is called tests, too


@dataclass(frozen=True)
class Result:
    """One measurement. `met` is None where there is no bar."""

    what: str
    value: str
    bar: str = ""
    met: bool | None = None


def paired(
    a: Callable[[], object], b: Callable[[], object], rounds: int, repeats: tuple[int, int]
) -> list[tuple[float, float]]:
    """Seconds per call of two functions, measured in turn so that a drift of the machine meets both."""
    a(), b()
    pairs = []
    for _ in range(rounds):
        seconds = []
        for function, repeat in zip((a, b), repeats, strict=True):
            start = time.perf_counter()
            for _ in range(repeat):
                function()
            seconds.append((time.perf_counter() - start) / repeat)
        pairs.append((seconds[0], seconds[1]))
    return pairs


def ratio_text(pairs: list[tuple[float, float]]) -> tuple[float, str]:
    """Median of the ratios b/a, and it with its spread in words."""
    ratios = sorted(b / a for a, b in pairs)
    middle = statistics.median(ratios)
    return middle, f"{middle:.1f}x [{ratios[0]:.1f} to {ratios[-1]:.1f}]"


def graphs(_: argparse.Namespace) -> list[Result]:
    """The compact forest graph against skl2onnx's own export of the same model; exact and float32 LSTM graphs."""
    import onnxruntime as ort

    from dwcp_sidecar.model import Explain
    from dwcp_sidecar.model_set import ModelSet
    from dwcp_sidecar.onnx_file import pruned
    from dwcp_training.data import forest_rows
    from dwcp_training.detectors.isolation_forest import fit_isolation_forest
    from dwcp_training.export.crosscheck_forest import skl2onnx_graph
    from dwcp_training.profiles import load_profile

    fitted = fit_isolation_forest(forest_rows(), load_profile("dwcp").detectors.isolation_forest)
    forest, scaler = (pickle.loads(fitted.byproducts[name]) for name in ("isolation_forest.pkl", "scaler.pkl"))
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4

    def session(data: bytes) -> tuple[ort.InferenceSession, float]:
        start = time.perf_counter()
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]), time.perf_counter() - start

    ours_bytes = fitted.graph().SerializeToString()
    outputs = ["score", "is_anomaly", "depth_sum"]
    theirs_bytes = skl2onnx_graph(forest, scaler)
    (ours, ours_load), (theirs, theirs_load) = session(ours_bytes), session(theirs_bytes)
    score_only, _ = session(pruned(ours_bytes, outputs))  # as the Python core when nobody asks for an explanation
    rows = fitted.fitted_items[:, 0]
    plain = np.zeros((1, rows.shape[1]), bool)
    results = []
    for count, repeats, bar in ((1, (100, 10), 50), (4096, (3, 1), 4)):
        x, x32 = rows[:count], rows[:count].astype(np.float32)

        def skl2onnx(x32: np.ndarray = x32) -> None:
            theirs.run(None, {"X": x32})

        pairs = paired(lambda x=x: score_only.run(outputs, {"samples": x, "occlusion": plain}), skl2onnx, 15, repeats)
        ratio, text = ratio_text(pairs)
        each = statistics.median(a for a, _ in pairs) * 1e6 / count
        what = f"forest ONNX against skl2onnx, {count} rows"
        results.append(Result(what, f"{text}, ours {each:.2f} us a row", f"at least {bar}x", ratio >= bar))
        explained = ratio_text(paired(lambda x=x: ours.run(None, {"samples": x}), skl2onnx, 3, repeats))[1]
        results.append(Result(f"{what}, with contributions, which skl2onnx has not", explained))
    sizes = f"{len(ours_bytes) // 1024} KB, {ours_load * 1e3:.0f} ms"
    theirs_text = f"{len(theirs_bytes) // 1024} KB, {theirs_load * 1e3:.0f} ms"
    results.append(Result("size and load time, ours / skl2onnx", f"{sizes} / {theirs_text}"))
    depth = score_only.run(["depth_sum"], {"samples": rows, "occlusion": plain})[0]
    wanted = -forest.score_samples(scaler.transform(rows))
    apart = float(np.abs(np.exp2(depth * fitted.metadata.forest.score_rate) - wanted).max())
    what = f"largest difference from scikit-learn, {len(rows)} rows"
    results.append(Result(what, f"{apart:.1e}", "at most 3e-15", apart <= 3e-15))

    lstm = ModelSet.open(REFERENCE).model("lstm_autoencoder")
    windows = np.random.default_rng(0).normal(50, 10, (256, lstm.timesteps, 7))
    for count, repeat in ((1, 50), (256, 2)):
        pairs = paired(lambda c=count: lstm.run(windows[:c], Explain.NEVER), lambda: None, 5, (repeat, 1))
        each = statistics.median(a for a, _ in pairs) * 1e6 / count
        results.append(Result(f"exact LSTM graph in the Python core, {count} windows", f"{each:.0f} us a window"))
    return results


def go(_: argparse.Namespace) -> list[Result]:
    """Go benchmarks of the native scorers."""
    command = [
        GO,
        "test",
        "-run",
        "^$",
        "-bench",
        "Forest|LSTM|Mahalanobis|OpenReferenceSet",
        "-benchmem",
        "-count",
        "5",
        ".",
    ]
    output = subprocess.run(
        command,
        cwd=ROOT / "go-contract",
        env={**os.environ, "CGO_ENABLED": "0"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found: dict[str, list[tuple[float, int]]] = {}
    for name, ns, allocs in re.findall(
        r"^Benchmark(\w+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op.*?(\d+) allocs/op", output, re.M
    ):
        found.setdefault(name, []).append((float(ns) / 1e3, int(allocs)))
    bars = {"Forest": 5.0, "LSTM": 600.0, "Mahalanobis7x5": 50.0}
    results = []
    for name, runs in found.items():
        times, allocs = [us for us, _ in runs], max(a for _, a in runs)
        micro, bar = statistics.median(times), bars.get(name)
        text = f"{micro:.2f} us [{min(times):.2f} to {max(times):.2f}], {allocs} allocations"
        met = micro <= bar and allocs == 0 if bar else None
        results.append(Result(f"Go benchmark {name}", text, f"at most {bar:g} us, 0 allocations" if bar else "", met))
    missing = set(bars) - set(found)
    if missing:
        raise SystemExit(f"Go benchmarks did not run: {sorted(missing)}")
    return results


def sidecar(_: argparse.Namespace) -> list[Result]:
    """Resident memory with both models after scoring, and time from process start to the first answer."""
    from dwcp_sidecar.client import Client
    from dwcp_sidecar.model_set import ModelSet

    models = ModelSet.open(REFERENCE)
    requests = {
        name: [list(s.values) for s in next(c for c in file.cases if c.id == "typical/0").samples]
        for name, file in models.golden.items()
    }
    starts, memories, calls = [], [], []
    for _round in range(5):
        start = time.perf_counter()
        process = subprocess.Popen(
            [Path(sys.executable).parent / "dwcp-sidecar", "serve", "--models", REFERENCE, "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            if not select.select([process.stdout], [], [], 30)[0]:
                raise SystemExit("the sidecar did not become ready within 30 s")
            address = process.stdout.readline().split()[1]
            with Client(address, timeout=10) as client:
                client.score("isolation_forest", requests["isolation_forest"])
                starts.append(time.perf_counter() - start)
                for name, samples in requests.items():
                    for _call in range(300):
                        begin = time.perf_counter()
                        client.score(name, samples)
                        if name == "isolation_forest":
                            calls.append(time.perf_counter() - begin)
                client.score_batch("lstm_autoencoder", np.tile(requests["lstm_autoencoder"], (256, 1)))
            status = Path(f"/proc/{process.pid}/status").read_text()
            memories.append(int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024)
        finally:
            process.terminate()
            process.wait(timeout=20)
    first, memory = statistics.median(starts), max(memories)
    first_text = f"{first:.2f} s [{min(starts):.2f} to {max(starts):.2f}]"
    call_text = f"{np.percentile(calls, 50) * 1e3:.2f} / {np.percentile(calls, 99) * 1e3:.2f} ms p50 / p99"
    return [
        Result("first answer after process start", first_text, "within 1 s", first <= 1),
        Result("resident memory with both models, after scoring", f"{memory:.0f} MB", "at most 110 MB", memory <= 110),
        Result("unary Score of a forest from one Python client", call_text),
    ]


def memory(_: argparse.Namespace) -> list[Result]:
    """Resident memory of both sidecars: at rest, and the most during the largest batches and reloads."""
    from concurrent.futures import ThreadPoolExecutor

    from dwcp_sidecar.client import Client
    from tests.faults.endpoint import serving

    rows = np.random.default_rng(0).normal(50, 10, (16_384, 7))
    results = []
    for kind in ("python", "go"):
        with serving(kind, REFERENCE) as sidecar, Client(sidecar.address, timeout=120, connections=8) as client:
            at_rest = sidecar.memory()
            most = at_rest
            with ThreadPoolExecutor(9) as pool:
                asked = [pool.submit(client.score_batch, "isolation_forest", rows) for _ in range(8)]
                asked.append(pool.submit(client.score_batch, "lstm_autoencoder", rows, series=True))
                asked += [pool.submit(client.reload) for _ in range(4)]
                while not all(future.done() for future in asked):
                    most = max(most, sidecar.memory())
                    time.sleep(0.01)
            for future in asked:
                future.result()
            text = f"{at_rest / 1e6:.0f} MB at rest, at most {most / 1e6:.0f} MB"
            results.append(
                Result(f"{kind} sidecar, 8 batches of 16,384 rows and one of windows at once, 4 reloads", text)
            )
    return results


def edge(_: argparse.Namespace) -> list[Result]:
    """The dense autoencoder of the profile edge-host on its host: memory with the files of the set, time of a score."""
    from dwcp_sidecar.client import Client
    from dwcp_sidecar.model_set import ModelSet
    from tests.faults.endpoint import serving

    results = []
    with tempfile.TemporaryDirectory() as folder:
        data, output = Path(folder) / "data.npy", Path(folder) / "models"
        # As the document makes it: 5,000 rows of 12 normalised features, padded to 64.
        rows = np.zeros((5000, 64), np.float32)
        rows[:, :12] = np.random.default_rng(0).random((5000, 12)) * 0.1
        np.save(data, rows)
        command = [Path(sys.executable).parent / "dwcp", "train", "dense-autoencoder", "--profile", "edge-host"]
        subprocess.run([*command, "--data", data, "--output", output], check=True, stdout=subprocess.DEVNULL)
        models = ModelSet.open(output)
        files = sum((models.path / name).stat().st_size for name in _served_files(models.path))
        sample = list(models.golden["dense_autoencoder"].cases[0].samples[0].values)
        for kind in ("python", "go"):
            with serving(kind, output) as sidecar, Client(sidecar.address, timeout=10) as client:
                calls = []
                for _call in range(2000):
                    begin = time.perf_counter()
                    client.score("dense_autoencoder", [sample])
                    calls.append(time.perf_counter() - begin)
                footprint = (sidecar.memory() + files) / 1e6
            slowest = float(np.percentile(calls, 99)) * 1e3
            text = f"{footprint:.0f} MB, of them {files / 1e6:.1f} of the set"
            results.append(
                Result(f"{kind} sidecar, edge-host: memory and files", text, "under 100 MB", footprint < 100)
            )
            text = f"{np.percentile(calls, 50) * 1e3:.2f} / {slowest:.2f} ms p50 / p99"
            results.append(
                Result(f"{kind} sidecar, edge-host: a score, with the call", text, "under 10 ms", slowest < 10)
            )
    return results


def _served_files(models: Path) -> list[str]:
    """Files of a set that a site needs to serve it."""
    entries = json.loads((models / "manifest.json").read_text())["files"]
    return ["manifest.json", *(entry["path"] for entry in entries if entry["role"] == "FILE_ROLE_SERVING")]


def training(arguments: argparse.Namespace) -> list[Result]:
    """Our LSTM training against a plain Keras fit of the same model, each in a process of its own."""

    def once(kind: str) -> dict[str, float]:
        command = [sys.executable, "-m", "tests.bench.train_once", kind, str(arguments.epochs)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1])

    ours, plain = once("ours"), once("plain")
    ratio = plain["seconds"] / ours["seconds"]
    speed = f"{ratio:.1f}x as fast: {ours['seconds']:.0f} s / {plain['seconds']:.0f} s"
    losses = f"{ours['val_loss']:.6f} / {plain['val_loss']:.6f}"
    no_worse = ours["val_loss"] <= plain["val_loss"] * 1.01
    what = f"LSTM at the seed's defaults, {arguments.epochs} epochs, against plain Keras"
    return [
        Result(what, speed, "no slower", ratio >= 1),
        Result("held-out loss, ours / plain Keras", losses, "no worse (1 %)", no_worse),
    ]


def serving(arguments: argparse.Namespace) -> list[Result]:
    """Both sidecars, a plain server, an echo server, in-process scoring and other model servers; see README.md."""
    times = ["--rounds", str(arguments.rounds), "--seconds", str(arguments.seconds)]
    done = subprocess.run([sys.executable, "-m", "tests.bench.serving", *times], cwd=ROOT)
    if done.returncode not in (0, 1):  # 1: a bar was missed
        raise SystemExit("the serving benchmark failed")
    bars = json.loads((ROOT / "build/serving.json").read_text())["bars"]
    return [Result(**bar) for bar in bars]


def adbench(_: argparse.Namespace) -> list[Result]:
    """AUCs of forest, local outlier factor and one-class SVM on the ADBench sets, beside scikit-learn's."""
    from tests.bench.adbench import CLOSE, compare, sets

    found = [comparison for path in sets() for comparison in compare(path)]
    if not found:
        return [Result("ADBench", "left out: ../shared/data/adbench is not here")]
    return [
        Result(
            f"{each.name}, {each.rows:,} rows, {each.detector}",
            f"AUC {each.ours:.6f}, scikit-learn {each.theirs:.6f}, difference {each.ours - each.theirs:.1e}"
            + (f", {each.difference:.1e} when decided alike ({each.note})" if each.note else ""),
            f"at most {CLOSE:g}",
            abs(each.difference if each.note else each.ours - each.theirs) <= CLOSE,
        )
        for each in found
    ]


def quality(_: argparse.Namespace) -> list[Result]:
    """Average precision of the ensemble on real sets beside the best baseline's, and recall of critical values."""
    from tests.bench.quality import run

    content = run()
    results = [Result(f"detection quality, {name}", "left out: not in ../shared/data") for name in content["missing"]]
    ensembles, baselines = [], []
    for name, found in content["sets"].items():
        if not (compared := found.get("compared", {}).get("ensemble")):
            continue
        ours, theirs = (found["figures"][compared[who]]["average_precision"] for who in ("ours", "baseline"))
        ensembles.append(ours)
        baselines.append(theirs)
        text = f"{ours:.3f}, {compared['baseline']} {theirs:.3f}, prevalence {found['prevalence']:.3f}"
        spread = f"{compared['value']:+.3f} [{compared['low']:+.3f} to {compared['high']:+.3f}]"
        what = f"average precision of the ensemble, {name}"
        results.append(Result(what, f"{text}, difference {spread}", "no less, within noise", compared["high"] >= 0))
    if ensembles:
        mean, bar = statistics.mean(ensembles), statistics.mean(baselines)
        results.append(Result("its mean over the sets", f"{mean:.3f}", f"above {bar:.3f}", mean > bar))
    for metric, share in content["critical"].get("ensemble", {}).items():
        what = f"recall of the ensemble, {metric} alone at its critical value"
        if metric == "typical":
            results.append(Result("share of typical rows that the ensemble alarms on", f"{share:.1%}"))
        else:
            results.append(Result(what, f"{share:.1%}", "at least 95 %", share >= 0.95))
    return results


def reading(arguments: argparse.Namespace) -> list[Result]:
    """Data larger than memory, read in chunks and scored: peak memory and rate, of the data and of a tenth of it."""
    mebibytes = 2048

    def once(*step: str | Path) -> dict[str, float]:
        command = [sys.executable, "-m", "tests.bench.reading", *map(str, step)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        return json.loads(done.stdout.splitlines()[-1]) if step[0] != "write" else {}

    results = []
    for kind, steps in (("parquet", ("read", "score")), ("csv", ("read",)), ("npy", ("read",))):
        peaks: dict[str, list[float]] = {step: [] for step in steps}
        rates = {}
        for rows in (arguments.rows // 10, arguments.rows):
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / f"data.{kind}"
                once("write", kind, str(rows), file)
                for step in steps:
                    found = once(step, file)
                    if found["rows"] != rows:
                        raise SystemExit(f"{step} of {rows} rows in {kind} found {found['rows']}")
                    peaks[step].append(found["peak_mb"])
                    rates[step] = found["rows"] / found["seconds"]
        for step in steps:
            tenth, whole = peaks[step]
            results.append(
                Result(
                    f"{step} {arguments.rows:,} rows of {kind} in chunks",
                    f"{rates[step]:,.0f} rows/s, peak {whole:.0f} MiB; {tenth:.0f} MiB on a tenth of it",
                    f"under {mebibytes} MiB, within 64 MiB of the tenth's",
                    whole < mebibytes and whole - tenth < 64,
                )
            )
    return results


def drift(_: argparse.Namespace) -> list[Result]:
    """Drift seen where there is none, in training rows drawn anew and in later ones, and where one metric shifted."""
    from dwcp_sidecar.drift import Sketch
    from dwcp_training.data import forest_rows
    from dwcp_training.drift_reference import describe
    from tests.bench import drift as cases

    results = []
    for name, process in cases.PROCESSES.items():
        for training, sizes in ((2_000, (64, 500)), (10_000, (64, 1024, 4096, 10_000))):
            for rows in sizes:
                rates = cases.false_drift(process, training, rows, 1000)
                results.append(
                    Result(
                        f"false drift, {name}: {rows:,} of {training:,} training rows, 1,000 times",
                        f"{rates.training:.2%}; later rows {rates.later:.1%} ({rates.later_critical:.1%} "
                        "without thresholds)",
                        f"at most {cases.RATE:.0%}",
                        rates.training <= cases.RATE,
                    )
                )
        for rows in (256, 1024, 4096):
            found = {shift: cases.power(process, 10_000, rows, shift) for shift in (0.25, 0.5, 1.0)}
            text = ", ".join(f"{share:.0%} at {shift:g} sd" for shift, share in found.items())
            results.append(Result(f"drift found, {name}: {rows:,} rows against 10,000", text))
    data = forest_rows()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        reference = describe(data, 42).reference
        seconds.append(time.perf_counter() - start)
    assert reference is not None
    largest = max(feature.psi for feature in reference.compare(Sketch(reference).add(data.values)))
    results.append(Result("PSI of 10,000 training rows against themselves", f"{largest:g}", "0", largest == 0))
    text = f"{statistics.median(seconds):.2f} s"
    results.append(Result(f"making the reference, {len(data):,} rows of 7 metrics", text, "1 s", max(seconds) < 1))
    return results


PARTS = {
    "graphs": graphs,
    "go": go,
    "sidecar": sidecar,
    "memory": memory,
    "edge": edge,
    "training": training,
    "adbench": adbench,
    "quality": quality,
    "drift": drift,
    "reading": reading,
    "serving": serving,
}


ASKED_FOR = ("quality",)
"""Parts that are measured only when asked for: they take an hour or more."""


def main() -> int:
    """Measures, prints and writes; exit status 1 when a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="measure this part only; may be given several times"
    )
    parser.add_argument(
        "--epochs", type=int, default=50, help="epochs of the training comparison (default 50, the seed's)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the serving benchmark (default 5)")
    parser.add_argument("--seconds", type=float, default=0.8, help="seconds of each of its measurements (default 0.8)")
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of the reading benchmark (default 5,000,000)")
    arguments = parser.parse_args()
    console = Console(width=160)
    results: list[Result] = []
    for name in arguments.only or [part for part in PARTS if part not in ASKED_FOR]:
        console.print(f"measuring {name}: {PARTS[name].__doc__}")
        results += PARTS[name](arguments)
    table = Table(title=f"{os.cpu_count()} cores; medians of paired rounds, \\[min to max]")
    for column in ("what", "measured", "bar", "met"):
        table.add_column(column, overflow="fold")
    for result in results:
        table.add_row(
            result.what, result.value, result.bar, {None: "", True: "yes", False: "[red]NO[/red]"}[result.met]
        )
    console.print(table)
    target = ROOT / "build/bench.json"
    target.parent.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False) as file:
        json.dump([asdict(result) for result in results], file, indent=1)
    Path(file.name).replace(target)
    return int(any(result.met is False for result in results))


if __name__ == "__main__":
    sys.exit(main())
