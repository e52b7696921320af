"""The quick reader of ProtoJSON reads what `json_format` reads, to the same message, and leaves to it all else (A3)."""

import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp.anomaly.v1 import fleet_pb2, golden_pb2, model_pb2
from dwcp_sidecar import protojson_plain

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "models/reference").glob("*/*.json"))


def message_of(name: str):
    kinds = {"golden": golden_pb2.GoldenFile, "metadata": model_pb2.ModelMetadata, "manifest": model_pb2.Manifest}
    return next(kind for part, kind in kinds.items() if part in name)()


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_files_of_the_frozen_sets(file):
    text = file.read_bytes()
    quick = message_of(file.name)
    assert protojson_plain.fill(text, quick), "nothing in it is unusual"
    assert bytes_of(quick) == bytes_of(json_format.Parse(text, message_of(file.name)))


def bytes_of(message) -> bytes:
    """Also NaN is equal to itself here."""
    return message.SerializeToString(deterministic=True)


def test_there_are_files():
    assert len(FILES) >= 15


UNUSUAL = {
    "camel case": {"schemaVersion": 1},
    "null": {"model_type": None},
    "a number in a string": {"threshold": "1.5"},
    "an integer as float": {"n_features": 7.0},
    "an enum by number": {"parity_class": 1},
    "too large for float32": {"calibration": {"scores": [1e39]}},
    "too large for uint32": {"n_features": 1 << 32},
    "below 0": {"n_features": -1},
    "a boolean as number": {"threshold": True},
    "a number as boolean": {"graph": {"available": 1}},
    "an unknown field": {"more": 1},
    "a list": [],
    "a list in the place of a message": {"scaler": []},
    "a message in the place of a list": {"feature_names": {}},
    "a name that is no string": {"feature_names": [1]},
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_what_is_unusual_is_left_to_json_format(what):
    message = model_pb2.ModelMetadata()
    assert not protojson_plain.fill(json.dumps(UNUSUAL[what]).encode(), message)
    assert message == model_pb2.ModelMetadata(), "and nothing of it stays"


@pytest.mark.parametrize("text", [b'{"threshold": 1, "threshold": 2}', b'{"threshold": NaN}', b"{", b"\xff", b"", b"1"])
def test_bad_texts(text):
    assert not protojson_plain.fill(text, model_pb2.ModelMetadata())


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.one_of(st.text(max_size=5), st.sampled_from(["NaN", "DETECTOR_ENSEMBLE"]))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), NUMBERS, WORDS)


def nested(inner):
    """Lists of something, and objects with it."""
    return st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)


VALUES = st.recursive(SCALARS, nested, max_leaves=6)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_it_accepts_json_format_reads_alike(data):
    """Messages with values of all kinds under the names of their fields."""
    kind = data.draw(st.sampled_from([model_pb2.ModelMetadata, golden_pb2.GoldenCase, fleet_pb2.FleetIndex]))

    def some(descriptor, depth):
        names = st.sampled_from([field.name for field in descriptor.fields])
        found = {}
        for name in data.draw(st.lists(names, unique=True, max_size=4)):
            field = descriptor.fields_by_name[name]
            if field.message_type is None or depth == 0 or field.message_type.GetOptions().map_entry:
                found[name] = data.draw(VALUES)
            else:
                inner = some(field.message_type, depth - 1)
                found[name] = [inner] if field.is_repeated else inner
        return found

    text = json.dumps(some(kind.DESCRIPTOR, 2)).encode()
    message = kind()
    if protojson_plain.fill(text, message):
        assert bytes_of(message) == bytes_of(json_format.Parse(text, kind()))
    else:
        assert message == kind()
