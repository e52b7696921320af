"""Mutations of the drift reference, which no score depends on: each contradicts itself (rules DR1 to DR5)."""

from collections.abc import Callable, Iterator
from typing import Any

from tests.conformance.cases import ENSEMBLE
from tests.conformance.drift_set import drift_json
from tests.mutation.mutation import Makers, Mutation, contradiction
from tests.mutation.scorers import FOREST

_CRITICAL = ("psi_critical", "wasserstein_critical")


def _of(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Callable[[dict[str, Any]], None]:
    """Adds a reference, changed: `change` gets it and the third of its features."""

    def mutate(metadata: dict[str, Any]) -> None:
        reference = drift_json()
        change(reference, reference["features"][2])
        metadata["drift"] = reference

    return mutate


def _swap(numbers: list[Any]) -> None:
    numbers[0], numbers[1] = numbers[1], numbers[0]


def _far_apart(feature: dict[str, Any]) -> None:
    feature["edges"][0], feature["edges"][-1] = -1e308, 1e308


def mutations() -> Iterator[Mutation]:
    """All of them, on the forest; that the ensemble has a reference is one, too."""
    changes: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
        "features/one_less": lambda drift, _: drift["features"].pop(),
        "features/one_more": lambda drift, f: drift["features"].append(f),
        "sizes/none": lambda drift, _: drift.update(sizes=[]),
        "sizes/zero": lambda drift, _: drift["sizes"].__setitem__(0, 0),
        "sizes/order": lambda drift, _: _swap(drift["sizes"]),
        "sizes/one_more": lambda drift, _: drift["sizes"].append(drift["sizes"][-1] + 1),
        "rate/zero": lambda drift, _: drift.pop("rate"),
        "rate/one": lambda drift, _: drift.update(rate=1.0),
        "psi_threshold/negative": lambda drift, _: drift.update(psi_threshold=-0.25),
        "wasserstein_threshold/nan": lambda drift, _: drift.update(wasserstein_threshold="NaN"),
        "edges/none": lambda _, f: f.update(edges=[], counts=[2000]),
        "edges/order": lambda _, f: _swap(f["edges"]),
        "edges/equal": lambda _, f: f["edges"].__setitem__(1, f["edges"][0]),
        "edges/infinite": lambda _, f: f["edges"].__setitem__(-1, "Infinity"),
        "edges/far_apart": lambda _, f: _far_apart(f),
        "counts/one_less": lambda _, f: f["counts"].pop(),
        "counts/one_more": lambda _, f: f["counts"].append(0),
        "counts/another_sum": lambda _, f: f["counts"].__setitem__(1, f["counts"][1] + 1),
        "counts/zero": lambda drift, _: [f.update(counts=[0] * len(f["counts"])) for f in drift["features"]],
        "scale/zero": lambda _, f: f.pop("scale"),
        "scale/negative": lambda _, f: f.update(scale=-f["scale"]),
        "scale/infinite": lambda _, f: f.update(scale="Infinity"),
    }
    for name in _CRITICAL:
        changes |= {
            f"{name}/one_less": lambda _, f, name=name: f[name].pop(),
            f"{name}/negative": lambda _, f, name=name: f[name].__setitem__(0, -0.1),
            f"{name}/nan": lambda _, f, name=name: f[name].__setitem__(-1, "NaN"),
        }
    make = Makers(FOREST, "drift")
    for name, change in changes.items():
        yield make.metadata(name, _of(change), contradiction(FOREST))
    of_ensemble = Makers(ENSEMBLE, "drift")
    yield of_ensemble.metadata("of_an_ensemble", _of(lambda drift, f: None), contradiction(ENSEMBLE))
