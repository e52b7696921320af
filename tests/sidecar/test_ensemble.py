"""The ensemble in core and servers, held against plain Python and Python against Go (rules EN1 to EN7)."""

import functools
import json
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from dwcp.oip.v2 import inference_pb2 as oip
from dwcp.oip.v2 import inference_pb2_grpc
from dwcp_sidecar import detectors
from dwcp_sidecar.client import Client, Sample, verdicts_of_batch, verdicts_of_score
from dwcp_sidecar.ensemble import Ensemble
from dwcp_sidecar.errors import ContractError
from dwcp_sidecar.model import Model
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.server.candidate import Candidate
from dwcp_sidecar.server.live import Live
from dwcp_sidecar.server.messages import to_message
from dwcp_sidecar.server.settings import Settings
from dwcp_sidecar.verdicts import Explain, MemberVerdict, Verdict
from tests.conformance.go_program import GO_FOLDER, contract_score
from tests.conformance.server import serving
from tests.conformance.sets import METADATA
from tests.sidecar import other_set
from tests.sidecar.damaged import assert_refused, edited
from tests.sidecar.ensemble_set import (
    DENSE,
    ENSEMBLE,
    FOREST,
    GOLDEN_FILE,
    LOF,
    LSTM,
    METADATA_FILE,
    NOT_THERE,
    SVM,
    WEIGHTS,
    Said,
    compose,
    digest,
    float32,
    midpoint_below,
    plain,
    windows,
)  # fmt: skip

pytestmark = pytest.mark.timeout(300)
WAIT = 60
KINDS = ("python", "go")
NUMBER = detectors.BY_NAME[ENSEMBLE]
NO_GRAPH = "the converter failed"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Sets by name, written once and never changed: `whole`; `absent` without the LOF; `no_graph` with an LSTM that has
    no graph; `rows` without window; `empty` with no member that can be scored."""
    folder = tmp_path_factory.mktemp("ensembles")

    @functools.cache
    def make(name: str) -> Path:
        if name == "rows":
            return compose(folder / name, {FOREST: 0.75, SVM: 0.25})
        if name == "empty":
            return take_graph(compose(folder / name, {FOREST: 0.5, LSTM: 0.5}, absent=[FOREST]), LSTM)
        if name == "no_graph":
            return take_graph(compose(folder / name, absent=[LSTM]), LSTM)
        return compose(folder / name, absent=[LOF] if name == "absent" else [])

    return make


def take_graph(path: Path, name: str) -> Path:
    """Puts a member into a set, in the state in which training leaves one that no converter could handle."""
    source = Path(__file__).resolve().parents[2] / "models" / "reference" / "v1"
    metadata = json.loads((source / METADATA[name]).read_bytes())
    metadata["graph"] = {"unavailable_reason": NO_GRAPH}
    (path / METADATA[name]).write_text(json.dumps(metadata))
    manifest = json.loads((path / "manifest.json").read_bytes())
    entries = {entry["detector"]: entry for entry in manifest["models"]}
    entries[f"DETECTOR_{name.upper()}"] = {"detector": f"DETECTOR_{name.upper()}", "metadata": METADATA[name]}
    order = [f"DETECTOR_{known.upper()}" for known in detectors.BY_NAME]
    manifest["models"] = sorted(entries.values(), key=lambda entry: order.index(entry["detector"]))
    (path / "manifest.json").write_text(json.dumps(manifest))
    digest(path)
    return path


MISSING = {"whole": {}, "absent": {LOF: NOT_THERE}, "no_graph": {LSTM: NO_GRAPH}}
"""Set to its missing members and why."""


@pytest.fixture(scope="module")
def opened(made) -> Callable[[str], ModelSet]:
    return functools.cache(lambda name: ModelSet.open(made(name)))


@pytest.fixture(scope="module")
def answers(made) -> Callable[[str], list[tuple[list[list[float]], Said]]]:
    """Windows and what plain Python says of them, for the missing members of a set."""

    @functools.cache
    def answer(name: str) -> list[tuple[list[list[float]], Said]]:
        metadata = json.loads((made(name) / METADATA_FILE).read_bytes())
        return [
            (window, plain(metadata["ensemble"], metadata["threshold"], window, MISSING[name]))
            for window in (samples[-10:] for samples in windows().values())
        ]

    return answer


def told(said: Said, reasons: dict[str, str]) -> tuple[MemberVerdict, ...]:
    return tuple(
        MemberVerdict(
            detectors.BY_NAME[m["detector"]], m["weight"], m["score"], m["normalized"], reasons.get(m["detector"], "")
        )
        for m in said.members
    )


def assert_said(verdict: Verdict, said: Said, reasons: dict[str, str], *, explained: bool) -> None:
    assert verdict.score == float32(said.score)
    assert verdict.is_anomaly == said.is_anomaly
    assert verdict.level == scoring_pb2.Level.Value(f"LEVEL_{said.level}")
    assert verdict.members == told(said, reasons)
    assert verdict.contributions == ([float32(c) for c in said.contributions] if explained else None)
    assert verdict.expected == (said.expected if explained else None)


@pytest.mark.parametrize("name", MISSING)
@pytest.mark.parametrize("explain", Explain)
def test_answers_are_those_of_plain_python(name, explain, opened, answers):
    model = opened(name).model(ENSEMBLE)
    for window, said in answers(name):
        explained = explain == Explain.ALWAYS or (explain == Explain.ALARMS and said.is_anomaly)
        assert_said(model.verdict(window, explain), said, MISSING[name], explained=explained)


@pytest.mark.parametrize("name", MISSING)
@pytest.mark.parametrize("explain", Explain)
def test_a_batch_has_the_same_bits(name, explain, opened, answers):
    model = opened(name).model(ENSEMBLE)
    items = [window for window, _ in answers(name)]
    alone = [model.verdict(window, explain) for window in items]
    together = list(model.score_batch(np.array(items), explain).each())
    assert together == alone
    assert {verdict.level for verdict in alone} == {1, 2, 3}
    (single,) = model.score(items[-1], explain).each()
    assert single == alone[-1]


def test_what_all_members_find_normal(opened):
    """A score of 0: no contributions, and the expected values of the first member that answered (EN7)."""
    models = opened("rows")
    model, rows = models.model(ENSEMBLE), np.array([samples[-1] for samples in windows().values()])
    calm = [row for row in rows.tolist() if all(member.normalized == 0 for member in model.verdict([row]).members)]
    assert calm
    for row in calm:
        verdict = model.verdict([row])
        assert (verdict.score, verdict.contributions) == (0.0, [0.0] * 7)
        assert verdict.expected == models.model(FOREST).verdict([row]).expected


def test_an_ensemble_of_detectors_without_window_has_none(opened):
    model = opened("rows").model(ENSEMBLE)
    assert (model.timesteps, model.windowed) == (1, False)
    assert opened("whole").model(ENSEMBLE).timesteps == 10


def test_history_before_the_window_changes_nothing(opened):
    """All members speak of the last sample (EN6)."""
    model = opened("whole").model(ENSEMBLE)
    window = next(iter(windows().values()))[-10:]
    assert model.verdict([[5.0] * 7] * 3 + window) == model.verdict(window)
    earlier = [[value * 1.5 for value in sample] for sample in window[:-1]] + window[-1:]
    before, after = ({m.detector: m.score for m in model.verdict(w).members} for w in (window, earlier))
    assert [n for n in WEIGHTS if before[detectors.BY_NAME[n]] != after[detectors.BY_NAME[n]]] == [LSTM]


def test_a_set_without_any_member_opens_without_the_ensemble(opened, made):
    models = opened("empty")
    assert not models.models
    with pytest.raises(ContractError) as refused:
        models.model(ENSEMBLE)
    assert (refused.value.code, refused.value.field) == ("DETECTOR_UNAVAILABLE", "detector")
    assert f"{FOREST}: {NOT_THERE}; {LSTM}: {NO_GRAPH}" in refused.value.message


def test_a_member_that_fails_is_named_and_the_others_share_its_weight(opened, answers, monkeypatch):
    models = opened("whole")
    broken = models.model(DENSE)

    def fail(*arguments, **options):
        raise RuntimeError("no memory\nand more")

    monkeypatch.setattr(broken, "_fetch", fail)
    model = models.model(ENSEMBLE)
    metadata = model.metadata
    items = [window for window, _ in answers("whole")][:30]
    members = json.loads((models.path / METADATA_FILE).read_bytes())["ensemble"]
    reasons = {DENSE: "it failed: no memory"}
    for window, together in zip(items, model.run(np.array(items), Explain.ALWAYS).each(), strict=True):
        said = plain(members, metadata.threshold, window, [DENSE])
        assert_said(model.verdict(window), said, reasons, explained=True)
        assert_said(together, said, reasons, explained=True)
    with pytest.raises(RuntimeError, match=f"{DENSE}, a member of the ensemble: it failed: no memory"):
        model.score_batch(np.array(items))


def test_when_all_members_fail_the_ensemble_is_unavailable(opened, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no memory")

    monkeypatch.setattr(Model, "_fetch", fail)
    model = opened("whole").model(ENSEMBLE)
    assert isinstance(model, Ensemble)
    window = next(iter(windows().values()))
    for call in (lambda: model.verdict(window), lambda: model.score_batch([window[-10:]])):
        with pytest.raises(ContractError) as refused:
            call()
        assert (refused.value.code, refused.value.field) == ("DETECTOR_UNAVAILABLE", "detector")


# What is refused, by both languages with one code and file.

BROKEN: dict[str, Callable[[dict], object]] = {
    "weight": lambda d: member(d, 0).update(weight=0.4),
    "weight_zero": lambda d: (member(d, 0).update(weight=0.0), member(d, 1).update(weight=0.55)),
    "weight_negative": lambda d: (member(d, 0).update(weight=-0.1), member(d, 1).update(weight=0.65)),
    "weight_nan": lambda d: member(d, 0).update(weight="NaN"),
    "threshold": lambda d: member(d, 1).update(threshold=math.nextafter(member(d, 1)["threshold"], 1)),
    "no_threshold": lambda d: member(d, 1).pop("threshold"),
    "low_above_high": lambda d: member(d, 0).update(low=member(d, 0)["high"], high=member(d, 0)["low"]),
    "low_is_high": lambda d: member(d, 0).update(low=member(d, 0)["high"]),
    "high_infinite": lambda d: member(d, 0).update(high="Infinity"),
    "twice": lambda d: d["ensemble"]["members"].append(member(d, -1)),
    "out_of_order": lambda d: d["ensemble"]["members"].reverse(),
    "itself": lambda d: member(d, -1).update(detector="DETECTOR_ENSEMBLE"),
    "unspecified": lambda d: member(d, 0).update(detector="DETECTOR_UNSPECIFIED"),
    "no_members": lambda d: d["ensemble"].update(members=[]),
    "no_parameters": lambda d: d.pop("ensemble"),
    "critical_below": lambda d: d["ensemble"].update(critical_threshold=midpoint_below(0.29)),
    "critical_no_midpoint": lambda d: d["ensemble"].update(critical_threshold=0.7),
    "no_critical": lambda d: d["ensemble"].pop("critical_threshold"),
    "window_short": lambda d: d.update(timesteps=9),
    "window_long": lambda d: d.update(timesteps=11),
    "window_zero": lambda d: d.update(timesteps=0),
    "no_window": lambda d: d.pop("timesteps"),
    "tolerance": lambda d: d.update(
        parity_class="PARITY_CLASS_TOLERANCE", tolerance={"relative_score": 1e-6, "guard_band": 1e-6}
    ),
    "no_class": lambda d: d.pop("parity_class"),
    "layout": lambda d: d["graph"].update(layout="ensemble.v2"),
    "no_graph_entry": lambda d: d.pop("graph"),
    "graph_available": lambda d: d["graph"].update(available=True),
    "graph_reason": lambda d: d["graph"].update(unavailable_reason="none"),
    "graph_file": lambda d: d["graph"].update(file=f"{FOREST}.onnx", available=True),
    "precision": lambda d: d["graph"].update(precision="float64"),
    "operators": lambda d: d["graph"].update(operator_counts={"Add": 1}),
    "scaler": lambda d: d.update(scaler={"mean": [0.0] * 7, "scale": [1.0] * 7}),
    "references": lambda d: d.update(reference_values=[0.0] * 7),
    "other_parameters": lambda d: d.update(svm={"gamma": 1.0, "nu": 0.5, "support_vectors": 1}),
    "features": lambda d: (rename(d["feature_names"]), rename(d["feature_schema"]["features"], "name")),
    "calibration": lambda d: d["calibration"].update(scores=[]),
}
"""Damage of the ensemble's metadata that is METADATA_INVALID."""


def member(data: dict, index: int) -> dict:
    return data["ensemble"]["members"][index]


def rename(names: list, key: str | None = None) -> None:
    if key is None:
        names[2] = "loss"
    else:
        names[2][key] = "loss"


@pytest.mark.parametrize("damage", BROKEN)
def test_metadata_that_contradict_are_refused(damage, made, tmp_path):
    path = shutil.copytree(made("whole"), tmp_path / "set")
    assert_refused(edited(path, METADATA_FILE, BROKEN[damage]), "METADATA_INVALID", METADATA_FILE)


@pytest.mark.parametrize(
    ("change", "code", "file"),
    [
        (lambda entry: entry.pop("golden"), "METADATA_INVALID", "manifest.json"),
        (lambda entry: entry.update(graph=f"{FOREST}.onnx"), "METADATA_INVALID", "manifest.json"),
        (lambda entry: entry.update(golden=f"{SVM}.golden.json"), "METADATA_INVALID", f"{SVM}.golden.json"),
        (lambda entry: entry.update(metadata=METADATA[SVM]), "METADATA_INVALID", METADATA[SVM]),
        (lambda entry: entry.update(detector="DETECTOR_LSTM_CLASSIFIER"), "METADATA_INVALID", "manifest.json"),
    ],
)
def test_manifests_that_contradict_are_refused(change, code, file, made, tmp_path):
    path = shutil.copytree(made("whole"), tmp_path / "set")
    assert_refused(edited(path, "manifest.json", lambda d: change(d["models"][-1])), code, file)


def test_members_in_another_order_than_the_enum_are_refused(made, tmp_path):
    path = shutil.copytree(made("whole"), tmp_path / "set")
    edited(path, "manifest.json", lambda d: d["models"].insert(0, d["models"].pop()))
    assert_refused(path, "METADATA_INVALID", "manifest.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: (member(d, 0).update(weight=0.25), member(d, 1).update(weight=0.3)),
        lambda d: member(d, 4).update(low=float(np.nextafter(np.float32(member(d, 4)["low"]), np.float32(np.inf)))),
        lambda d: member(d, 4).update(high=float(np.nextafter(np.float32(member(d, 4)["high"]), np.float32(np.inf)))),
        lambda d: d.update(threshold=midpoint_below(0.05)),
    ],
    ids=["weights_swapped", "low", "high", "threshold"],
)
def test_golden_vectors_find_what_no_audit_can(change, made, tmp_path):
    path = shutil.copytree(made("whole"), tmp_path / "set")
    assert_refused(edited(path, METADATA_FILE, change), "GOLDEN_MISMATCH", GOLDEN_FILE)


def test_a_member_that_was_exchanged_is_found_though_its_threshold_is_the_same(made, tmp_path):
    """Another forest, whole in itself: the golden vectors of the ensemble tell it from the one that was there."""
    path = shutil.copytree(made("whole"), tmp_path / "set")
    other_set.edit_graph(path / f"{FOREST}.onnx", lambda tensors: other_set.move(tensors["tree.leaf_weights"], 1 / 64))
    digest(path)
    forest = ModelSet.open(path, self_test=False).model(FOREST)
    edited(path, f"{FOREST}.golden.json", lambda golden: other_set.compute(golden, forest))
    assert_refused(path, "GOLDEN_MISMATCH", GOLDEN_FILE)


def test_check_says_what_the_ensemble_is_made_of(command, made):
    done = command("check", "--models", made("absent"))
    assert done.returncode == 0
    (row,) = [line for line in done.stdout.splitlines() if line.startswith(ENSEMBLE)]
    assert "95 of 95 passed" in row
    assert f"{FOREST} 0.3, " in row
    assert f"{LOF} 0.15 (missing: {NOT_THERE})" in row
    done = command("check", "--models", made("empty"))
    assert done.returncode == 0
    (row,) = [line for line in done.stdout.splitlines() if line.startswith(ENSEMBLE)]
    assert f"cannot be scored: none of its members can be scored: {FOREST}: {NOT_THERE}; {LSTM}: {NO_GRAPH}" in row


# Servers.


@pytest.fixture(scope="module", params=MISSING)
def served(request: pytest.FixtureRequest, made) -> Iterator[tuple[str, dict[str, str]]]:
    """Name of a set, and the address of each sidecar on it."""
    with serving(made(request.param), "python") as python, serving(made(request.param), "go") as go:
        yield request.param, {"python": python, "go": go}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def client(kind: str, served) -> Iterator[Client]:
    with Client(served[1][kind], timeout=WAIT) as client:
        yield client


@pytest.mark.parametrize("explain", Explain)
def test_score(explain, client, served, opened, answers):
    name = served[0]
    models = opened(name)
    model = models.model(ENSEMBLE)
    for window, _ in answers(name)[::4]:
        response = client.score(ENSEMBLE, window, explain=explain)
        assert response.verdict == to_message(model, model.verdict(window, explain))
        assert response.model_set_id == models.id
        assert [m.missing for m in response.verdict.members] == [MISSING[name].get(n, "") for n in WEIGHTS]
        (verdict,) = verdicts_of_score(response).each()
        assert verdict.members == model.verdict(window, explain).members


@pytest.mark.parametrize("explain", Explain)
def test_a_batch_names_no_members(explain, client, served, opened, answers):
    model = opened(served[0]).model(ENSEMBLE)
    items = np.array([window for window, _ in answers(served[0])])
    response = client.score_batch(ENSEMBLE, items, explain=explain)
    wanted = model.score_batch(items, explain)
    got = verdicts_of_batch(response)
    assert got.members is None
    for field in ("scores", "is_anomaly", "p_values", "levels"):
        assert getattr(got, field).tobytes() == getattr(wanted, field).tobytes(), field
    if explain != Explain.NEVER:
        assert got.contributions.tobytes() == wanted.contributions.tobytes()
        assert got.expected.tobytes() == wanted.expected.tobytes()
    series = items.reshape(-1, 7)[:45]
    response = client.score_batch(ENSEMBLE, series, series=True)
    assert list(response.scores) == model.score_batch(series, series=True).scores.tolist()


def test_a_stream_of_the_ensemble_beside_a_member(client, served, opened):
    models = opened(served[0])
    names = [ENSEMBLE, FOREST]
    rows = np.array([w[-10:] for w in windows().values()]).reshape(-1, 7)[:400:3].tolist()
    rows[50] = [math.nan] * 7
    with client.open_stream(names, explain=Explain.ALARMS) as stream:
        results = [
            result for k in range(0, len(rows), 9) for result in stream.score([Sample("a", r) for r in rows[k : k + 9]])
        ]
    past: list[list[float]] = []
    alarms = 0
    for k, (row, result) in enumerate(zip(rows, results, strict=True)):
        past.append(row)
        ensemble, forest = result.verdicts
        if k == 50:
            assert ensemble.code == forest.code == "NOT_FINITE"
            past.clear()
            continue
        assert forest == to_message(models.model(FOREST), models.model(FOREST).verdict([row], Explain.ALARMS))
        model = models.model(ENSEMBLE)
        if len(past) < model.timesteps:
            assert (ensemble.code, ensemble.field) == ("WINDOW_TOO_SHORT", "values")
            continue
        assert ensemble == to_message(model, model.verdict(past[-model.timesteps :], Explain.ALARMS))
        assert len(ensemble.members) == len(WEIGHTS)
        alarms += ensemble.is_anomaly
    assert 10 < alarms < len(rows) - 20


def test_both_sidecars_answer_byte_for_byte(served, answers):
    name, addresses = served
    with grpc.insecure_channel(addresses["python"]) as python, grpc.insecure_channel(addresses["go"]) as go:
        stubs = [scoring_pb2_grpc.ScoringServiceStub(channel) for channel in (python, go)]
        sets = [stub.GetModelSet(scoring_pb2.GetModelSetRequest(), timeout=WAIT) for stub in stubs]
        assert sets[0] == sets[1]
        assert [m.model_type for m in sets[0].models] == [n for n in WEIGHTS if n not in MISSING[name]] + [ENSEMBLE]
        ensemble = sets[0].models[-1]
        assert len(ensemble.ensemble.members) == len(WEIGHTS)
        assert not ensemble.calibration.scores
        assert not ensemble.training.history
        for window, _ in answers(name)[::3]:
            for explain in range(4):
                request = scoring_pb2.ScoreRequest(
                    detector=NUMBER, explain=explain, samples=[{"values": sample} for sample in window]
                )
                one, other = (stub.Score(request, timeout=WAIT) for stub in stubs)
                assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def test_the_open_inference_protocol(kind, served, opened, answers):
    model = opened(served[0]).model(ENSEMBLE)
    items = np.array([window for window, _ in answers(served[0])])
    request = oip.ModelInferRequest(model_name=ENSEMBLE)
    request.inputs.add(name="samples", datatype="FP64", shape=items.shape)
    request.raw_input_contents.append(items.tobytes())
    with grpc.insecure_channel(served[1][kind]) as channel:
        service = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        metadata = service.ModelMetadata(oip.ModelMetadataRequest(name=ENSEMBLE), timeout=WAIT)
        answer = service.ModelInfer(request, timeout=WAIT)
        assert service.ModelReady(oip.ModelReadyRequest(name=ENSEMBLE), timeout=WAIT).ready
    assert [list(tensor.shape) for tensor in metadata.inputs] == [[-1, 10, 7]]
    wanted = model.score_batch(items, Explain.ALWAYS)
    got = dict(zip([output.name for output in answer.outputs], answer.raw_output_contents, strict=True))
    assert got == {
        "score": wanted.scores.tobytes(), "is_anomaly": wanted.is_anomaly.tobytes(),
        "p_value": wanted.p_values.tobytes(), "level": wanted.levels.astype("<i4").tobytes(),
        "threshold": np.array([model.threshold]).tobytes(), "contributions": wanted.contributions.tobytes(),
        "expected": wanted.expected.tobytes(),
    }  # fmt: skip


def test_json_lines_of_both_languages(command, made, answers):
    """E5: no members there."""
    lines = "".join(
        json.dumps({"id": k, "detector": ENSEMBLE, "samples": window}) + "\n"
        for k, (window, _) in enumerate(answers("absent"))
    )
    python = command("score", "--models", made("absent"), input=lines)
    go = subprocess.run(
        [contract_score("native"), "--models", made("absent"), "--backend", "native"],
        cwd=GO_FOLDER, input=lines, capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    ours, theirs = ([json.loads(line) for line in done.stdout.splitlines()] for done in (python, go))
    assert ours == theirs
    assert [answer["score"] for answer in ours] == [float32(said.score) for _, said in answers("absent")]
    assert set(ours[0]) == {"id", "score", "score_bits", "is_anomaly", "contributions", "expected"}


def test_an_ensemble_without_members_is_unavailable(kind, made):
    with serving(made("empty"), kind) as address, Client(address, timeout=WAIT) as client:
        assert not client.model_set().models
        with pytest.raises(ContractError) as refused:
            client.score(ENSEMBLE, [[1.0] * 7] * 10)
        assert (refused.value.code, refused.value.field) == ("DETECTOR_UNAVAILABLE", "detector")
        with pytest.raises(ContractError) as refused:
            client.open_stream([ENSEMBLE])
        assert (refused.value.code, refused.value.field) == ("DETECTOR_UNAVAILABLE", "settings.detectors[0]")


def test_a_reload_exchanges_the_ensemble_with_its_members(opened, made, answers):
    """R2: an ensemble holds members of its own set alone."""
    live = Live(opened("whole"))
    before = live.models.model(ENSEMBLE)
    candidate = Candidate(live, Settings(models=made("absent")))
    candidate.prepare(made("absent"))
    assert candidate.commit().changed
    after = live.models.model(ENSEMBLE)
    assert isinstance(before, Ensemble)
    assert isinstance(after, Ensemble)
    for models, ensemble in ((opened("whole"), before), (live.models, after)):
        assert all(m.model is None or m.model is models.models[m.name] for m in ensemble.members)
    window, said = answers("absent")[0]
    assert_said(after.verdict(window), said, MISSING["absent"], explained=True)
