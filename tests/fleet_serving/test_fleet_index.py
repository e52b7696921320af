"""`fleet.json` (FL1, FL3, FL6) in both languages' words, and `dwcp-sidecar check` of a fleet."""

import json
import subprocess

import pytest

from dwcp_sidecar.cli import main
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.fleet import Fleet
from dwcp_sidecar.fleet_index import FleetIndex, is_fleet
from tests.conformance import go_program
from tests.fleet_serving.conftest import REFUSED
from tests.fleet_serving.folder import FOREST_AND_DENSE, make_fleet, schema_of

ID, OTHER = "ab" * 32, "cd" * 32


def index(**changes):
    series = [
        {"name": "a", "model_set_id": ID, "origin": "FLEET_ORIGIN_OWN"},
        {"name": "b", "model_set_id": OTHER, "origin": "FLEET_ORIGIN_CLUSTER", "cluster": "c1", "rows": 4},
        {"name": "ä", "model_set_id": ID, "origin": "FLEET_ORIGIN_GLOBAL", "reason": "young"},
    ]
    return {"schema_version": 1, "feature_schema": schema_of(FOREST_AND_DENSE), "series": series} | changes


def one(**changes):
    return index(series=[{"name": "a", "model_set_id": ID, "origin": "FLEET_ORIGIN_OWN"} | changes])


BAD = {
    "no schema_version": (index(schema_version=0), "METADATA_INVALID"),
    "a newer version": (index(schema_version=2, more=1), "SCHEMA_FROM_FUTURE"),
    "an unknown field": (index(more=1), "METADATA_INVALID"),
    "no features": (index(feature_schema={}), "METADATA_INVALID"),
    "a feature twice": (index(feature_schema={"features": [{"name": "x"}, {"name": "x"}]}), "METADATA_INVALID"),
    "names out of order": (index(series=index()["series"][::-1]), "METADATA_INVALID"),
    "a name twice": (index(series=index()["series"][:1] * 2), "METADATA_INVALID"),
    "an empty name": (one(name=""), "METADATA_INVALID"),
    "a name of 257 bytes": (one(name="x" * 257), "METADATA_INVALID"),
    "a short id": (one(model_set_id=ID[:16]), "METADATA_INVALID"),
    "an id in capitals": (one(model_set_id=ID.upper()), "METADATA_INVALID"),
    "an id with a newline": (one(model_set_id=ID[:-1] + "\n"), "METADATA_INVALID"),
    "a path as id": (one(model_set_id="../" + ID[3:]), "METADATA_INVALID"),
    "no origin": (one(origin="FLEET_ORIGIN_UNSPECIFIED"), "METADATA_INVALID"),
    "an unknown origin": (one(origin=9), "METADATA_INVALID"),
    "a bad global id": (index(global_set_id="none"), "METADATA_INVALID"),
    "a list": ([], "METADATA_INVALID"),
}


@pytest.mark.parametrize("what", BAD)
def test_an_index_that_is_refused(tmp_path, what):
    data, code = BAD[what]
    (tmp_path / "fleet.json").write_text(json.dumps(data))
    with pytest.raises(ContractError) as error:
        FleetIndex.read(tmp_path)
    assert (error.value.code, error.value.field) == (code, "fleet.json")


@pytest.mark.parametrize("what", BAD)
def test_the_go_sidecar_refuses_the_same(tmp_path, what):
    data, code = BAD[what]
    (tmp_path / "fleet.json").write_text(json.dumps(data))
    done = subprocess.run(
        [go_program.sidecar(), "--models", tmp_path, "--unix", tmp_path / "s"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"{code} fleet.json" in done.stderr


def test_a_series_and_its_set(tmp_path):
    (tmp_path / "fleet.json").write_text(json.dumps(index()))
    read = FleetIndex.read(tmp_path)
    assert [read.set_of(name) for name in ("a", "b", "ä")] == [ID, OTHER, ID]
    assert read.set_ids() == {ID, OTHER}
    for series, code in (("", "INVALID_REQUEST"), ("x" * 257, "INVALID_REQUEST"), ("x" * 256, "UNKNOWN_SERIES")):
        with pytest.raises(ContractError) as error:
            read.set_of(series)
        assert (error.value.code, error.value.field) == (code, "series")
    (tmp_path / "fleet.json").write_text(json.dumps(index(global_set_id=OTHER)))
    read = FleetIndex.read(tmp_path)
    assert (read.set_of("x"), read.set_of("a")) == (OTHER, ID)
    with pytest.raises(ContractError, match="INVALID_REQUEST"):
        read.set_of("")


def test_a_folder_that_is_no_fleet(tmp_path):
    assert not is_fleet(tmp_path)
    assert not is_fleet(FOREST_AND_DENSE)
    with pytest.raises(ContractError, match="MANIFEST_MISSING"):
        Fleet.open(tmp_path)


def test_an_evicted_set_is_freed_after_the_call_that_uses_it(tmp_path):
    """FL5: the last user lets go of its memory; and a set that was closed answers alike when it is opened again."""
    import gc
    import weakref

    make_fleet(tmp_path, 2)
    fleet = Fleet.open(tmp_path, max_sets=1)
    used = fleet.set("link-0")
    gone = weakref.ref(used)
    row = [[105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]]
    before = used.model("isolation_forest").verdict(row)
    fleet.set("link-1")
    assert used.model("isolation_forest").verdict(row) == before
    del used
    gc.collect()
    assert gone() is None
    assert fleet.set("link-0").model("isolation_forest").verdict(row) == before


def test_check_of_a_fleet(fleet, tmp_path, capsys):
    folder, ids = fleet
    assert main(["check", "--models", str(folder)]) == 1
    said = capsys.readouterr().out
    for series, code in REFUSED.items():
        assert f"set {ids[series][:16]} of 1 series is refused: {code}" in said
    assert "model sets    4 of 8 passed" in said
    assert max(map(len, said.splitlines()[-6:-1])) <= 80
    make_fleet(tmp_path / "good", 1, with_global=True)
    assert main(["check", "--models", str(tmp_path / "good")]) == 0
    assert "model sets    2 of 2 passed" in capsys.readouterr().out
