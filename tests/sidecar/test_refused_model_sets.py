"""A damaged set is refused whole, with the right code, in one line; nothing stays half open (rules A1 to A5, E1)."""

import pytest

from dwcp.anomaly.v1 import errors_pb2
from dwcp.onnx.v1 import onnx_pb2
from dwcp_sidecar import cli
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model_set import ModelSet

pytestmark = pytest.mark.timeout(60)
GRAPH, METADATA, GOLDEN = "isolation_forest.onnx", "model_metadata.json", "isolation_forest.golden.json"


def edit(name, **values):
    return lambda copy: copy.edit(name, lambda data: data.update(values))


def remove(name):
    return lambda copy: (copy.path / name).unlink()


def rewrite(name, change):
    return lambda copy: (copy.path / name).write_bytes(change((copy.path / name).read_bytes()))


def swap_first_two(data):
    data["feature_names"][:2] = data["feature_names"][1::-1]


def swap_everywhere(data):
    swap_first_two(data)
    features = data["feature_schema"]["features"]
    features[:2] = features[1::-1]


def shift_mean(data):
    data["scaler"]["mean"][0] += 1e-9


def change_bits(data):
    case = next(case for case in data["cases"] if "score" in case)
    case["score"]["score_bits"] += 1


def foreign_graph(_):
    model = onnx_pb2.ModelProto(ir_version=8)
    model.graph.node.add(op_type="Identity", input=["samples"], output=["score"])
    return model.SerializeToString()


def another_byte(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def duplicate_model(data):
    data["models"].append(data["models"][0])


def climb(data):
    data["files"][0]["path"] = "../" + data["files"][0]["path"]


def null_byte(data):
    data["files"][0]["path"] += "\0"


# Name, damage, whether the manifest is made right again, code, field.
DAMAGES = [
    ("no manifest", remove("manifest.json"), False, "MANIFEST_MISSING", "manifest.json"),
    (
        "manifest is no JSON",
        rewrite("manifest.json", lambda data: data[:100]),
        False,
        "METADATA_INVALID",
        "manifest.json",
    ),
    ("manifest from the future", edit("manifest.json", schema_version=2), False, "SCHEMA_FROM_FUTURE", "manifest.json"),
    ("manifest with an unknown field", edit("manifest.json", surprise=1), False, "METADATA_INVALID", "manifest.json"),
    ("manifest without models", edit("manifest.json", models=[]), False, "METADATA_INVALID", "manifest.json"),
    ("a model twice", lambda c: c.edit("manifest.json", duplicate_model), False, "METADATA_INVALID", "manifest.json"),
    ("a path out of the set", lambda c: c.edit("manifest.json", climb), False, "METADATA_INVALID", "manifest.json"),
    (
        "a path with a null byte",
        lambda c: c.edit("manifest.json", null_byte),
        False,
        "METADATA_INVALID",
        "manifest.json",
    ),
    ("graph missing", remove(GRAPH), False, "FILE_MISSING", GRAPH),
    ("graph of other bytes", rewrite(GRAPH, another_byte), False, "DIGEST_MISMATCH", GRAPH),
    ("graph truncated", rewrite(GRAPH, lambda data: data[: len(data) // 2]), False, "DIGEST_MISMATCH", GRAPH),
    (
        "graph truncated, digest right",
        rewrite(GRAPH, lambda data: data[: len(data) // 2]),
        True,
        "GRAPH_INVALID",
        GRAPH,
    ),
    ("graph empty, digest right", rewrite(GRAPH, lambda data: b""), True, "GRAPH_INVALID", GRAPH),
    ("graph no ONNX", rewrite(GRAPH, lambda data: b"\x00not a graph\xff" * 9), True, "GRAPH_INVALID", GRAPH),
    ("foreign graph", rewrite(GRAPH, foreign_graph), True, "GRAPH_INVALID", GRAPH),
    ("metadata from the future", edit(METADATA, schema_version=2), True, "SCHEMA_FROM_FUTURE", METADATA),
    ("metadata without version", edit(METADATA, schema_version=0), True, "METADATA_INVALID", METADATA),
    ("metadata with an unknown field", edit(METADATA, surprise=1), True, "METADATA_INVALID", METADATA),
    ("metadata is no JSON", rewrite(METADATA, lambda data: data[:-9]), True, "METADATA_INVALID", METADATA),
    ("no parity class", edit(METADATA, parity_class="PARITY_CLASS_UNSPECIFIED"), True, "METADATA_INVALID", METADATA),
    ("threshold moved", edit(METADATA, threshold=0.6), True, "METADATA_INVALID", METADATA),
    ("feature names in another order", lambda c: c.edit(METADATA, swap_first_two), True, "METADATA_INVALID", METADATA),
    ("all features in another order", lambda c: c.edit(METADATA, swap_everywhere), True, "GRAPH_INVALID", GRAPH),
    ("another scaler", lambda c: c.edit(METADATA, shift_mean), True, "GRAPH_INVALID", GRAPH),
    ("golden score of other bits", lambda c: c.edit(GOLDEN, change_bits), True, "GOLDEN_MISMATCH", GOLDEN),
    ("no golden cases", edit(GOLDEN, cases=[]), True, "GOLDEN_MISMATCH", GOLDEN),
    ("golden file from the future", edit(GOLDEN, schema_version=2), True, "SCHEMA_FROM_FUTURE", GOLDEN),
    ("golden file of another model", edit(GOLDEN, model_type="lstm_autoencoder"), True, "METADATA_INVALID", GOLDEN),
]


@pytest.fixture(params=DAMAGES, ids=[damage[0] for damage in DAMAGES])
def damaged(request, set_copy):
    _, damage, redigest, code, field = request.param
    damage(set_copy)
    if redigest:
        set_copy.redigest()
    return set_copy.path, code, field


def test_open_refuses(damaged):
    path, code, field = damaged
    with pytest.raises(ContractError) as caught:
        ModelSet.open(path)
    assert (caught.value.code, caught.value.field) == (code, field), caught.value
    assert caught.value.message.endswith("."), "what is wrong, then the remedy"


def test_commands_refuse(damaged, capfd, tmp_path):
    """One line on standard error, status 1, no trace, no socket."""
    path, code, field = damaged
    socket = tmp_path / "score.sock"
    for arguments in (["check"], ["score"], ["serve", "--unix", str(socket)]):
        assert cli.main([arguments[0], "--models", str(path), *arguments[1:]]) == 1
        out, err = capfd.readouterr()
        assert out == ""
        assert code in err
        assert field in err
        assert "Traceback" not in err
        assert len(err.splitlines()) == 1, err
    assert not socket.exists()


def test_an_untouched_copy_opens(set_copy, reference):
    assert ModelSet.open(set_copy.path).id == reference.id


def test_every_code_of_a_set_is_tested():
    codes = {name.removeprefix("ERROR_CODE_") for name, number in errors_pb2.ErrorCode.items() if 20 <= number < 40}
    signatures = {"SIGNATURE_MISSING", "SIGNATURE_INVALID"}  # in test_signatures.py: only with public keys
    assert codes == {damage[3] for damage in DAMAGES} | signatures


def test_the_process_itself(command, tmp_path):
    done = command("serve", "--models", tmp_path, "--listen", "127.0.0.1:0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "MANIFEST_MISSING (manifest.json)" in done.stderr
    assert "make train" in done.stderr
