"""Fleet folders made of copies of sets that are there (FL1)."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.conformance.edited_set import with_metadata

ROOT = Path(__file__).resolve().parents[2]
FOREST_AND_DENSE = ROOT / "models/reference/ensemble-v1"
"""A small set with several detectors."""


def id_of(folder: Path) -> str:
    """A1."""
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def add_set(fleet: Path, source: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """Puts an edited copy of a set into a fleet, and gives its id."""
    (fleet / "sets").mkdir(parents=True, exist_ok=True)
    draft = with_metadata(source, fleet / "sets/draft", change)
    for byproduct in [*draft.glob("*.pkl"), *draft.glob("*.keras")]:
        byproduct.unlink()
    id = id_of(draft)
    if (fleet / "sets" / id[:16]).exists():
        shutil.rmtree(draft)
    else:
        draft.rename(fleet / "sets" / id[:16])
    return id


def numbered(number: int) -> Callable[[dict[str, Any]], None]:
    """An edit that gives a set another id, and other p-values: so that no two sets answer alike."""

    def change(metadata: dict[str, Any]) -> None:
        metadata["training"]["hyperparameters"]["fleet_test"] = str(number)
        scores = metadata["calibration"]["scores"]
        del scores[: 1 + number % (len(scores) - 2)]

    return change


def schema_of(source: Path) -> dict[str, Any]:
    """The feature schema of a set."""
    metadata = next(source.glob("*metadata.json"))
    return dict(json.loads(metadata.read_bytes())["feature_schema"])


def write_index(
    fleet: Path, series: Mapping[str, str], schema: Mapping[str, Any], global_set_id: str = "", **more: Any
) -> str:
    """Writes `fleet.json` by a rename (FL1), and gives the id of the fleet."""
    listed: Sequence[dict[str, Any]] = [
        {"name": name, "model_set_id": id, "origin": "FLEET_ORIGIN_OWN", "rows": 1000}
        for name, id in sorted(series.items(), key=lambda entry: entry[0].encode())
    ]
    index = {"schema_version": 1, "feature_schema": schema, "series": listed, "global_set_id": global_set_id, **more}
    data = json.dumps(index, ensure_ascii=False).encode()
    (fleet / "draft.json").write_bytes(data)
    (fleet / "draft.json").rename(fleet / "fleet.json")
    return hashlib.sha256(data).hexdigest()


def make_fleet(to: Path, series: int, *, source: Path = FOREST_AND_DENSE, with_global: bool = False) -> dict[str, str]:
    """A fleet of series `link-0` and so on, each with a set of its own; gives their ids."""
    ids = {f"link-{number}": add_set(to, source, numbered(number)) for number in range(series)}
    global_id = add_set(to, source, numbered(series)) if with_global else ""
    write_index(to, ids, schema_of(source), global_id)
    return ids
