"""Builds the Go package for arm64 and runs tests, golden vectors and 2,000 inputs a detector under qemu.

    bash tests/arm64/run.sh

The compiler fuses `x*y + z` on arm64 wherever the source does not forbid it; one fused operation changes bits.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.conformance import implementations, judge
from tests.conformance.go_program import BUILD, GO_FOLDER, ROOT, BuildError, build, build_tests
from tests.conformance.golden_files import cases_of, joined, read_golden, wanted_of
from tests.conformance.inputs import generate
from tests.conformance.reference import MissingByproductError, references_of
from tests.conformance.sets import detectors_of

NAME = "go-native-arm64"
ARM64 = {"CGO_ENABLED": "0", "GOOS": "linux", "GOARCH": "arm64"}
FOLDERS = {"own": judge.REFERENCE_SET, "v1": ROOT / "tests" / "vectors" / "v1"}
TEST_SECONDS = 900


def questions(models: Path, inputs: int, folder: Path) -> list[judge.Question]:
    """The set's own vectors, the frozen ones and generated inputs, for every detector."""
    made = []
    for detector, reference in references_of(models).items():
        files = [(prefix, read_golden(path / f"{detector}.golden.json")) for prefix, path in FOLDERS.items()]
        parts = [(cases_of(file, prefix), wanted_of(file)) for prefix, file in files]
        generated = generate(reference.source(), inputs, seed=64)
        cases, wanted = joined([*parts, (generated, reference.answer(generated))])
        made.append(judge.prepare(reference, cases, wanted, folder, some=sum(len(part) for part, _ in parts)))
    return made


def run_tests(qemu: str) -> int:
    """Runs the package's own tests of scores and vectors; the exit status, 1 when none ran."""
    program = BUILD / "anomaly-arm64.test"
    build_tests(".", program, **ARM64)
    command = [qemu, program, "-test.v", "-test.run", "Golden|Vector|Score|Forest|LSTM|Activation|Sigmoid|Tanh|Exp"]
    done = subprocess.run(command, cwd=GO_FOLDER, capture_output=True, text=True, timeout=TEST_SECONDS)
    ran, skipped = done.stdout.count("--- PASS: "), done.stdout.count("--- SKIP: ")
    print(f"Go tests on arm64: {ran} passed, {skipped} skipped, exit status {done.returncode}")
    if done.returncode or not ran or skipped:
        print(done.stdout[-4000:], done.stderr[-4000:])
        return 1
    return 0


def main() -> int:
    """Runs the command line: 0 when everything is equal, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.arm64.compare", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--qemu", required=True, help="path of qemu-aarch64")
    parser.add_argument("--inputs", type=int, default=2_000, metavar="N", help="inputs a detector")
    arguments = parser.parse_args()
    models = judge.REFERENCE_SET
    program = BUILD / "contract-score-arm64"
    try:
        build("./cmd/contract-score", program, **ARM64)
        command = (arguments.qemu, program, "--models", models, "--backend", "native")
        implementations.BUILDERS[NAME] = lambda *_: implementations.Program(NAME, True, command, GO_FOLDER)
        failed = run_tests(arguments.qemu)
        with tempfile.TemporaryDirectory(prefix="dwcp-arm64-") as folder:
            asked = questions(models, arguments.inputs, Path(folder))
            results = judge.judge(asked, models, [NAME], batches=[64, 1], threads=[1])
    except (BuildError, MissingByproductError, subprocess.TimeoutExpired) as error:
        print(f"test-arm64: {error}", file=sys.stderr)
        return 1
    judge.show(results, Console(width=170, highlight=False))
    good = judge.passed(results, [NAME], detectors_of(models)) and not failed
    print("PASSED: arm64 gives the same bits" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
