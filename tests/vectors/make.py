"""Makes the golden files in tests/vectors/v1 from scikit-learn, Keras and numpy in float64; no serving code runs.

    python -m tests.vectors.make

The files are frozen once they are released (V5): one that is there is kept, unless it is named with --replace.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dwcp.anomaly.v1 import errors_pb2, features_pb2, golden_pb2
from dwcp_sidecar import protojson
from dwcp_training.detectors.base import Evaluation
from dwcp_training.golden.make import MARGIN, boundary_distance
from tests.conformance.cases import Case
from tests.conformance.inputs import generate
from tests.conformance.reference import REFERENCES, Reference, Wanted
from tests.conformance.sets import HOME

FOLDER = Path(__file__).resolve().parent / "v1"
SEED = 1
LARGEST_FILE = 1_000_000

CASES = {
    "typical": 30, "heavy_tailed": 45, "uniform": 30, "split": 60, "shape": 48, "bits": 45, "extreme": 40, "limit": 28,
    "threshold": 40, "history": 2, "row": 40, "between": 30, "tie": 60, "kernel": 60, "kink": 60,
    "saturated": 60, "row_on_split": 60, "turn": 60,
}  # fmt: skip
"""Kind of input to the number of its cases, about 300 in all with those that are errors."""

FLAGS = {
    "typical": "A random item around the training distribution.",
    "heavy_tailed": "Random values with heavy tails around the training mean.",
    "uniform": "Random values over the plausible ranges, some uniform in the logarithm.",
    "split": "Values on split thresholds or up to two float32 steps beside them. Finds wrong scaling and comparison.",
    "shape": "A window of one plain shape: constant, ramp, spike, step, metrics swapped, samples in reverse.",
    "bits": "Random finite float64 bit patterns. Finds overflow, missing clamps and lost denormals.",
    "extreme": "Huge, tiny, denormal, zero or negative zero, in one place or many.",
    "limit": "One metric at the value at which an operator wants to be warned or woken, or a float64 step beside it.",
    "threshold": "Next to where the decision changes, found by bisection. Finds wrong thresholds and rounding.",
    "row": "A row that the model stores, or a float64 step beside it. Finds wrong scaling and cancellation.",
    "between": "The midpoint of two rows that the model stores.",
    "tie": "The last neighbour and the next row are equally far, or nearly. Finds a wrong order of neighbours (LF2).",
    "kernel": "At a distance from a support vector at which the kernel is next to 1, next to 0, or between (SV2, SV3).",
    "kink": "The sum of a unit is next to 0, where its activation bends. Finds another activation.",
    "saturated": "Metrics that stay far from the mean throughout: cells at their limits, scores near 0 and 1.",
    "turn": "One metric is where its own limit takes over from the distance, or next to it. Finds a wrong limit (MD3).",
    "row_on_split": "The last sample stands on split thresholds of a member, or up to two float32 steps beside them.",
    "history": "More samples than the detector scores (W1, W2).",
    "error": "Must be refused with this code and field, and never scored.",
}
"""Flag to what it means (V3)."""


def make(reference: Reference, seed: int = SEED) -> golden_pb2.GoldenFile:
    """The golden file of one detector.

    Args:
        reference: answers everything.
        seed: of the inputs.
    """
    file = golden_pb2.GoldenFile(schema_version=1, model_type=reference.detector)
    source = reference.source()
    most = dict(CASES)
    if source.timesteps > 1:  # windows take ten times the room of single samples
        most |= {kind: CASES[kind] // (2 * len(source.special)) for kind in source.special}
    cases = sorted(generate(source, 3_000, seed), key=lambda case: case.id)
    cases = [case for case in cases if case.raw is None]  # a golden case is samples, not a line
    wanted = reference.answer(cases)
    numbers: dict[str, int] = {}
    for case, answer in _answers(cases, wanted, reference):
        kind = case.kind.removeprefix("invalid/")
        invalid = kind != case.kind
        number = numbers[kind] = numbers.get(kind, 0) + 1
        if number > (2 if invalid else most[kind]):
            continue
        flag = "error" if invalid else kind
        words = f"Must be refused: {kind.replace('_', ' ')}." if invalid else FLAGS[kind]
        made = file.cases.add(id=f"error/{kind}/{number}" if invalid else f"{kind}/{number:02d}", comment=words)
        made.flags.append(flag)
        made.samples.extend(features_pb2.Sample(values=sample) for sample in case.samples)
        if isinstance(answer, errors_pb2.ErrorInfo):
            made.error.CopyFrom(answer)
        else:
            made.score.CopyFrom(answer)
        file.flags[flag] = FLAGS[flag]
    return file


def _answers(
    cases: list[Case], wanted: Wanted, reference: Reference
) -> Iterator[tuple[Case, golden_pb2.GoldenScore | errors_pb2.ErrorInfo]]:
    """Cases with their answers; those that do not keep the margin of V4 are left out."""
    evaluation = wanted.evaluation
    keeps = np.ones(len(wanted.scored), bool)
    if reference.exact:
        items = reference.items_of([cases[i] for i in wanted.scored])
        keeps = _keeps_margin(evaluation) & ~reference.unsure(items, MARGIN)
    row_of = {int(case): row for row, case in enumerate(wanted.scored)}
    for i, (case, fault) in enumerate(zip(cases, wanted.faults, strict=True)):
        if fault is not None:
            yield case, errors_pb2.ErrorInfo(code=f"ERROR_CODE_{fault.code}", field=fault.field)
        elif keeps[row_of[i]]:
            yield case, _score(evaluation, row_of[i])


def _score(evaluation: Evaluation, row: int) -> golden_pb2.GoldenScore:
    score = evaluation.scores[row : row + 1].astype(np.float32)
    answer = golden_pb2.GoldenScore(
        score=float(score[0]),
        score_bits=int(score.view(np.uint32)[0]),
        is_anomaly=bool(evaluation.is_anomaly[row]),
        contributions=evaluation.contributions[row].astype(np.float32).tolist(),
        expected=evaluation.expected[row].astype(np.float32).tolist(),
    )
    if evaluation.depth_sums is not None:
        answer.depth_sum = float(evaluation.depth_sums[row])
    return answer


def _keeps_margin(evaluation: Evaluation) -> np.ndarray:
    """Which answers lie further than V4's margin from all midpoints of float32 numbers, bool `[n]`."""
    columns = [evaluation.scores[:, np.newaxis], evaluation.contributions]
    if not evaluation.expected_is_stored:
        columns.append(evaluation.expected)
    return (boundary_distance(np.concatenate(columns, axis=1)) > MARGIN).all(axis=1)


def main() -> int:
    """Writes the files that are not there yet."""
    parser = argparse.ArgumentParser(prog="python -m tests.vectors.make", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--replace", action="append", default=[], metavar="DETECTOR", choices=sorted(REFERENCES),
        help="make its file anew, before it is released only",
    )  # fmt: skip
    arguments = parser.parse_args()
    for detector, open_reference in REFERENCES.items():
        path = FOLDER / f"{detector}.golden.json"
        if path.exists() and detector not in arguments.replace:
            print(f"{path.name}: is there and frozen (V5)")
            continue
        file = make(open_reference(HOME[detector]))
        text = protojson.dumps(file).encode()
        if len(text) > LARGEST_FILE:
            raise ValueError(f"{path.name} would have {len(text):,} bytes; ask for fewer cases")
        path.write_bytes(text)
        print(f"{path.name}: {len(file.cases)} cases, {len(text):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
