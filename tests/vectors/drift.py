"""Drift vectors: references, recent rows, and what rules DR1 to DR5 make of them, computed from their words alone.

    python -m tests.vectors.drift    # writes tests/vectors/drift/v1.json

Every implementation reads the file. The arithmetic is that of fractions where it can be, so that no library is judge of
itself; the numbers hold to 1e-12.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).parent / "drift" / "v1.json"
LARGEST = float(np.finfo(np.float64).max)


def compared(reference: dict[str, Any], rows: list[list[float]]) -> list[dict[str, Any]]:
    """What each feature gives."""
    answers = []
    for j, feature in enumerate(reference["features"]):
        values = [row[j] for row in rows]
        psi, far = _psi(feature, values), _wasserstein(feature, values)
        critical = [
            _critical(reference["sizes"], feature[name], len(rows)) for name in ("psi_critical", "wasserstein_critical")
        ]
        limits = max(critical[0], reference["psi_threshold"]), max(critical[1], reference["wasserstein_threshold"])
        answers.append(
            {
                "psi": psi,
                "psi_critical": critical[0],
                "wasserstein": far,
                "wasserstein_critical": critical[1],
                "drifted": psi > limits[0] or far > limits[1],
            }
        )
    return answers


def _counts(edges: list[float], values: list[float]) -> list[int]:
    """DR1: bin `i` holds `edges[i - 1] < x <= edges[i]`."""
    placed = Counter(sum(x > edge for edge in edges) for x in values)
    return [placed[i] for i in range(len(edges) + 1)]


def _groups(counts: list[int]) -> list[list[int]]:
    """DR2: the bins of each group."""
    inner: list[list[int]] = [[]]
    for i in range(1, len(counts) - 1):
        inner[-1].append(i)
        if 10 * sum(counts[k] for k in inner[-1]) >= sum(counts):
            inner.append([])
    left = inner.pop()
    if inner:
        inner[-1] += left
    elif left:
        inner = [left]
    return [[0], *inner, [len(counts) - 1]]


def _psi(feature: dict[str, Any], values: list[float]) -> float:
    groups = _groups(feature["counts"])

    def shares(counts: list[int]) -> list[Fraction]:
        half = Fraction(1, 2)
        return [(sum(counts[i] for i in group) + half) / (sum(counts) + half * len(groups)) for group in groups]

    recent, training = shares(_counts(feature["edges"], values)), shares(feature["counts"])
    return math.fsum(float(a - e) * math.log(a / e) for a, e in zip(recent, training, strict=True))


def _wasserstein(feature: dict[str, Any], values: list[float]) -> float:
    edges = [Fraction(edge) for edge in feature["edges"]]
    recent, training = _counts(feature["edges"], values), feature["counts"]
    apart = [
        abs(Fraction(sum(recent[: i + 1]), len(values)) - Fraction(sum(training[: i + 1]), sum(training)))
        for i in range(len(edges))
    ]
    area = sum((apart[i] + apart[i - 1]) / 2 * (edges[i] - edges[i - 1]) for i in range(1, len(edges)))
    beyond = sum(max(edges[0] - x, x - edges[-1], Fraction(0)) for x in map(Fraction, values))
    distance = (area + beyond / len(values)) / Fraction(feature["scale"])
    return LARGEST if max(beyond, distance) > LARGEST else float(distance)


def _critical(sizes: list[int], values: list[float], rows: int) -> float:
    if rows >= sizes[-1]:
        return values[-1]
    k = max(i for i, size in enumerate(sizes) if size <= rows)
    share = math.log(rows / sizes[k]) / math.log(sizes[k + 1] / sizes[k])
    return values[k] + share * (values[k + 1] - values[k])


def _feature(training: list[float], psi: list[float], far: list[float], parts: int = 50) -> dict[str, Any]:
    """Bins of training values as DR1 says, with given critical values."""
    ordered = sorted(training)
    quantiles = [ordered[(len(ordered) - 1) * i // parts] for i in range(parts + 1)]
    edges = sorted({math.nextafter(ordered[0], -math.inf), *quantiles})
    scale = float(np.std(training)) or 1.0
    counts = _counts(edges, training)
    return {"edges": edges, "counts": counts, "scale": scale, "psi_critical": psi, "wasserstein_critical": far}


def _cases() -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(11)
    far, psi = [0.5, 0.2, 0.1], [0.6, 0.3, 0.05]
    columns = {
        "smooth": random.normal(50, 3, 400).tolist(),
        "counts, most of them 0": np.floor(random.exponential(0.6, 400)).tolist(),
        "constant": [7.25] * 400,
        "two values": random.integers(0, 2, 400).astype(float).tolist(),
        "tiny": (random.normal(0, 1, 400) * 1e-200).tolist(),
    }
    reference = {
        "features": [_feature(values, psi, far) for values in columns.values()],
        "sizes": [4, 32, 256],
        "rate": 0.01,
        "psi_threshold": 0.25,
        "wasserstein_threshold": 0.15,
    }
    training = np.column_stack(list(columns.values()))
    recent = {
        "the training rows": training,
        "as few rows as are compared": training[:4],
        "between two sizes": training[100:177],
        "as many as a size": training[:32],
        "all below": np.tile([-1e3, -5.0, 7.0, -1.0, -1e-199], (40, 1)),
        "all above": np.tile([1e3, 90.0, 7.5, 3.0, 1e-198], (40, 1)),
        "on edges": np.array([[feature["edges"][i % len(feature["edges"])] for feature in reference["features"]]
                              for i in range(60)]),
        "shifted": training[:300] + np.array([1.0, 1.0, 0.1, 0.0, 1e-200]),
        "near the largest float64": np.array([[1.7e308, -1.7e308, 1e300, 1e16, 1.7e308]] * 5 + training[:30].tolist()),
        "negative zero": np.array([[-0.0] * 5, [0.0] * 5] * 3),
    }  # fmt: skip
    for name, rows in recent.items():
        yield _case(name, reference, rows.tolist())
    small = {
        **reference,
        "features": [
            {"edges": [1.5], "counts": [3, 5], "scale": 0.5, "psi_critical": [0.0], "wasserstein_critical": [0.0]}
        ],
        "sizes": [1],
        "psi_threshold": 0.0,
        "wasserstein_threshold": 0.0,
    }
    yield _case("one edge, one size, no threshold", small, [[1.0], [1.5], [2.5]])
    ends = {
        **small,
        "features": [
            {"edges": [0.0, 1.0, 2.0], "counts": [50, 1, 2, 47], "scale": 2.0, "psi_critical": [9.0],
             "wasserstein_critical": [9.0]}
        ],
    }  # fmt: skip
    yield _case("inner bins hold less than a tenth", ends, [[-1.0], [0.5], [1.5], [4.0]])
    left = {
        **small,
        "features": [
            {"edges": [0.0, 1.0, 2.0, 3.0], "counts": [0, 90, 5, 5, 0], "scale": 2.0, "psi_critical": [0.1],
             "wasserstein_critical": [0.1]}
        ],
    }  # fmt: skip
    yield _case("inner bins are left over", left, [[0.5], [1.5], [2.5], [2.5]])


def _case(name: str, reference: dict[str, Any], rows: list[list[float]]) -> dict[str, Any]:
    return {"name": name, "reference": reference, "rows": rows, "features": compared(reference, rows)}


def text() -> str:
    """The file."""
    cases = []
    references: list[dict[str, Any]] = []
    for case in _cases():
        reference = case.pop("reference")
        if reference not in references:
            references.append(reference)
        cases.append({"name": case["name"], "reference": references.index(reference), **case})
    about = "Rules DR1 to DR5. `reference` is an index into `references`. Numbers hold to 1e-12, relatively."
    lines = [json.dumps(case, allow_nan=False) for case in cases]
    kept = [json.dumps(reference, allow_nan=False) for reference in references]
    return (
        f'{{"about": {json.dumps(about)},\n"references": [\n' + ",\n".join(kept) + '\n],\n"cases": [\n'
        + ",\n".join(lines) + "\n]}\n"
    )  # fmt: skip


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text())
