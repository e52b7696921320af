"""Both sidecars with one fleet: a series is answered as by a server of its set alone, bit for bit (FL2 to FL9)."""

import itertools
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from dwcp.anomaly.v1 import scoring_pb2, scoring_pb2_grpc
from dwcp.oip.v2 import inference_pb2, inference_pb2_grpc
from dwcp_sidecar.client import Client
from dwcp_sidecar.errors import ContractError, code_name
from dwcp_sidecar.server.status import from_grpc
from dwcp_sidecar.verdicts import Explain
from tests.fleet_serving.conftest import REFUSED, SOUND, free_port, make
from tests.fleet_serving.folder import FOREST_AND_DENSE, add_set, numbered, schema_of, write_index
from tests.sidecar.conftest import serving

pytestmark = pytest.mark.timeout(120)
WAIT = 60
FOREST, CLASSIFIER, ENSEMBLE = 1, 6, 7
DETECTORS = ("isolation_forest", "dense_autoencoder", "lstm_classifier", "ensemble")
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]
ROWS = [[x * (1 + 0.37 * i) for x in ROW] for i in range(12)]


@pytest.fixture(scope="session")
def client(served):
    with Client(served.address, timeout=WAIT) as client:
        yield client


@pytest.fixture(scope="session")
def alone_at(kind, command, fleet):
    """A server of the set of one series."""
    with serving(
        "--listen", "127.0.0.1:0", models=fleet[0] / "sets" / fleet[1]["link-b"][:16], command=command(kind)
    ) as server:
        yield server.address


@pytest.fixture(scope="session")
def alone(alone_at):
    with Client(alone_at, timeout=WAIT) as client:
        yield client


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_series_is_answered_as_by_its_set_alone(client, alone, fleet, detector):
    ids = fleet[1]
    for explain in Explain:
        client.score(detector, ROWS, series="link-a")  # another one is used in between
        got = client.score(detector, ROWS, series="link-b", explain=explain)
        assert got == alone.score(detector, ROWS, series="whatever", explain=explain)
        assert got.model_set_id == ids["link-b"]
        rows = ROWS * (5 if detector in ("lstm_classifier", "ensemble") else 1)
        got = client.score_batch(detector, rows, series=True, series_name="link-b", explain=explain)
        assert got == alone.score_batch(detector, rows, series=True, explain=explain)
        assert got.model_set_id == ids["link-b"]


def test_series_have_sets_of_their_own(client, fleet):
    answers = {name: client.score("isolation_forest", ROWS, series=name) for name in SOUND}
    assert {name: answer.model_set_id for name, answer in answers.items()} == {name: fleet[1][name] for name in SOUND}
    assert len({answer.verdict.p_value for answer in answers.values()}) > 1, "the sets must not answer alike"


def test_get_model_set(client, alone, fleet):
    got, wanted = client.model_set(series="link-b"), alone.model_set(series="any")
    assert got.fleet_id
    assert not wanted.fleet_id
    assert (got.model_set_id, list(got.models)) == (fleet[1]["link-b"], list(wanted.models))
    nothing = client.model_set()
    assert nothing == scoring_pb2.GetModelSetResponse(fleet_id=got.fleet_id)


def refused(call, *arguments, **named) -> tuple[str, str]:
    with pytest.raises(ContractError) as error:
        call(*arguments, **named)
    return error.value.code, error.value.field


def test_refusals(client, fleet):
    forest, other = "isolation_forest", fleet[1]["link-a"]
    assert refused(client.score, forest, ROWS) == ("INVALID_REQUEST", "series")
    assert refused(client.score, forest, ROWS, series="nobody") == ("UNKNOWN_SERIES", "series")
    assert refused(client.score, forest, ROWS, series="ä" * 129) == ("INVALID_REQUEST", "series")
    assert refused(client.score, forest, ROWS, series="ä" * 128) == ("UNKNOWN_SERIES", "series")
    assert refused(client.score_batch, forest, ROWS, series_name="nobody") == ("UNKNOWN_SERIES", "series")
    assert refused(client.model_set, series="nobody") == ("UNKNOWN_SERIES", "series")
    assert refused(client.score, forest, ROWS, series="link-b", model_set_id=other) == (
        "MODEL_SET_MISMATCH",
        "model_set_id",
    )
    assert client.score(forest, ROWS, series="link-a", model_set_id=other).model_set_id == other
    # The series comes first, then the order of E2.
    assert refused(client.score, "one_class_svm", [], series="nobody") == ("UNKNOWN_SERIES", "series")
    assert refused(client.score, "one_class_svm", [], series="link-a") == ("DETECTOR_UNAVAILABLE", "detector")
    assert refused(client.score, forest, [ROW[:3]], series="link-a") == ("WRONG_WIDTH", "samples[0]")
    assert refused(client.pin) == ("UNKNOWN_SERIES", "series")


def test_a_single_set_takes_any_series_of_256_bytes(alone):
    assert alone.score("isolation_forest", ROWS, series="ä" * 128) == alone.score("isolation_forest", ROWS)
    assert refused(alone.score, "isolation_forest", ROWS, series="ä" * 129) == ("INVALID_REQUEST", "series")


@pytest.mark.parametrize("series", REFUSED)
def test_a_refused_set_touches_no_other_series(client, series):
    for _ in range(2):
        with pytest.raises(ContractError) as error:
            client.score("isolation_forest", ROWS, series=series)
        assert (error.value.code, error.value.field) == ("DETECTOR_UNAVAILABLE", "series")
        assert REFUSED[series] in error.value.message
    assert client.score("isolation_forest", ROWS, series="link-a").verdict.score > 0


def ask(address, *requests, timeout=WAIT):
    """Answers of a stream to requests, and the refusal that ended it."""
    with grpc.insecure_channel(address) as channel:
        answers = []
        try:
            for answer in scoring_pb2_grpc.ScoringServiceStub(channel).ScoreStream(iter(requests), timeout=timeout):
                answers.append(answer)
        except grpc.RpcError as error:
            return answers, from_grpc(error) or error
        return answers, None


def request(*samples, detectors=(), model_set_id=""):
    message = scoring_pb2.ScoreStreamRequest()
    if detectors:
        message.settings.detectors.extend(detectors)
        message.settings.explain = scoring_pb2.EXPLAIN_ALWAYS
        message.settings.model_set_id = model_set_id
    for series, row in samples:
        message.samples.add(series=series, values=row)
    return message


def test_a_stream_scores_each_sample_with_the_set_of_its_series(served, client, alone_at, fleet):
    """FL8; the windows of all series are kept while their sets are closed and opened again."""
    detectors, ids = [FOREST, CLASSIFIER, ENSEMBLE], fleet[1]
    samples = [(name, row) for row in ROWS for name in SOUND]
    requests = [request(*samples[:9], detectors=detectors), request(*samples[9:40]), request(*samples[40:])]
    answers, error = ask(served.address, *requests)
    assert error is None
    assert {answer.model_set_id for answer in answers} == {client.model_set().fleet_id}
    results = [result for answer in answers for result in answer.results]
    assert [result.model_set_id for result in results] == [ids[name] for name, _ in samples]
    own = [(name, row) for name, row in samples if name == "link-b"]
    (want,), error = ask(alone_at, request(*own, detectors=detectors))
    assert error is None
    got = [list(result.verdicts) for (name, _), result in zip(samples, results, strict=True) if name == "link-b"]
    assert got == [list(result.verdicts) for result in want.results]
    assert all(result.model_set_id == "" for result in want.results)


def test_faults_of_a_series_in_a_stream(served, fleet):
    """FL8: they are the error of each verdict, and the stream goes on; a name that is too long ends it (ST7)."""
    detectors = [FOREST, 5]
    rows = [("link-a", ROW), ("", ROW), ("nobody", ROW), ("bad-corrupt", ROW), ("link-a", ROW[:2])]
    (answer,), error = ask(served.address, request(*rows, detectors=detectors))
    assert error is None
    outcomes = [
        [(code_name(v.error.code), v.error.field) if v.HasField("error") else "verdict" for v in result.verdicts]
        for result in answer.results
    ]
    assert outcomes == [
        ["verdict", ("DETECTOR_UNAVAILABLE", "detector")],
        [("INVALID_REQUEST", "series")] * 2,
        [("UNKNOWN_SERIES", "series")] * 2,
        [("DETECTOR_UNAVAILABLE", "series")] * 2,
        [("WRONG_WIDTH", "values")] * 2,
    ]
    assert [bool(result.model_set_id) for result in answer.results] == [True, False, False, False, False]
    answers, error = ask(served.address, request(detectors=detectors), request(("x" * 257, ROW)))
    assert (len(answers), error.code, error.field) == (1, "INVALID_REQUEST", "samples[0].series")
    _, error = ask(served.address, request(detectors=[FOREST, 99]))
    assert (error.code, error.field) == ("UNKNOWN_DETECTOR", "settings.detectors[1]")
    _, error = ask(served.address, request(detectors=[FOREST], model_set_id=fleet[1]["link-a"]))
    assert (error.code, error.field) == ("MODEL_SET_MISMATCH", "settings.model_set_id")


def test_a_series_whose_set_is_refused_keeps_no_window(served):
    """A request of very many unknown names takes no place among the series (L4)."""
    names = [(f"unknown-{i}", ROW) for i in range(4096)]
    answers, error = ask(
        served.address,
        request(*names, detectors=[FOREST]),
        *[request(*names) for _ in range(2)],
        request(("link-a", ROW)),
    )
    assert error is None
    assert answers[-1].results[0].verdicts[0].HasField("verdict")


def test_the_open_inference_protocol_knows_no_set_of_a_fleet(served):
    with grpc.insecure_channel(served.address) as channel:
        stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(inference_pb2.ServerReadyRequest(), timeout=WAIT).ready
        for call, message in (
            (stub.ModelInfer, inference_pb2.ModelInferRequest(model_name="isolation_forest")),
            (stub.ModelMetadata, inference_pb2.ModelMetadataRequest(name="isolation_forest")),
            (stub.ModelReady, inference_pb2.ModelReadyRequest(name="isolation_forest")),
        ):
            with pytest.raises(grpc.RpcError) as error:
                call(message, timeout=WAIT)
            refusal = from_grpc(error.value)
            assert error.value.code() == grpc.StatusCode.NOT_FOUND
            assert (refusal.code, refusal.field) == ("UNKNOWN_SERIES", "series")


def test_metrics(served, client, fleet):
    """FL9: those of all sets, none of drift and of the alarm budget; and those of the fleet."""
    client.score("isolation_forest", ROWS, series="link-a")
    with pytest.raises(ContractError):
        client.score("isolation_forest", ROWS, series="bad-schema")
    shown = page(served)
    fleet_id = client.model_set().fleet_id
    assert shown[f'dwcp_model_set_info{{model_set_id="{fleet_id}"}}'] == 1
    assert shown["dwcp_fleet_series"] == len(fleet[1])
    assert 1 <= shown["dwcp_fleet_sets_open"] <= 2
    opened, closed = shown["dwcp_fleet_sets_opened_total"], shown["dwcp_fleet_sets_closed_total"]
    assert opened - closed == shown["dwcp_fleet_sets_open"]
    assert shown['dwcp_scores_total{detector="isolation_forest"}'] >= 1
    assert shown['dwcp_model_sets_refused_total{code="METADATA_INVALID"}'] == 1, (
        "it is tried again after a minute alone"
    )
    assert not [name for name in shown if name.startswith(("dwcp_drift", "dwcp_alarm_budget"))]
    client.score("isolation_forest", ROWS, series="link-b")
    client.score("isolation_forest", ROWS, series="link-c")
    client.score("isolation_forest", ROWS, series="link-a")
    assert page(served)["dwcp_fleet_sets_closed_total"] > closed


def page(served):
    """Values of the metrics page by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{served.metrics_port}/metrics", timeout=WAIT) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_reload_under_load(kind, command, tmp_path):
    """FL7: sets whose id stays are kept open, others go; every answer is of a set that one of the two indexes names."""
    ids = make(tmp_path / "fleet")
    folder, schema = tmp_path / "fleet", schema_of(FOREST_AND_DENSE)
    metrics = free_port()
    with (
        serving(
            "--unix",
            tmp_path / "s",
            "--metrics",
            f"127.0.0.1:{metrics}",
            "--watch",
            "0",
            models=folder,
            command=command(kind),
        ) as served,
        Client(served.address, timeout=WAIT) as client,
    ):
        served.metrics_port = metrics
        for name in SOUND:
            client.score("isolation_forest", ROWS, series=name)
        opened = page(served)["dwcp_fleet_sets_opened_total"]
        first = client.model_set().fleet_id
        new = {**ids, "link-a": add_set(folder, FOREST_AND_DENSE, numbered(20)), "link-new": ids["link-b"]}
        del new["link-c"]
        new["bad-missing"] = ids["link-b"]  # a refused set is tried again when the index changes
        with pytest.raises(ContractError):
            client.score("isolation_forest", ROWS, series="bad-missing")
        stop, seen, failures = threading.Event(), set(), []

        def load():
            while not stop.is_set():
                for name in ("link-a", "link-b"):
                    try:
                        seen.add((name, client.score("isolation_forest", ROWS, series=name).model_set_id))
                    except Exception as error:
                        failures.append(error)

        with ThreadPoolExecutor(4) as pool:
            loads = [pool.submit(load) for _ in range(4)]
            try:
                second = write_index(folder, new, schema)
                answer = client.reload()
                assert (answer.model_set_id, answer.changed) == (second, True)
                assert not client.reload().changed
                after = client.score("isolation_forest", ROWS, series="link-a").model_set_id
            finally:
                stop.set()
            for each in loads:
                each.result()
        assert not failures
        assert after == new["link-a"]
        assert seen <= {("link-a", ids["link-a"]), ("link-a", new["link-a"]), ("link-b", ids["link-b"])}
        assert (client.model_set().fleet_id, first != second) == (second, True)
        assert client.score("isolation_forest", ROWS, series="link-new").model_set_id == ids["link-b"]
        assert client.score("isolation_forest", ROWS, series="bad-missing").model_set_id == ids["link-b"]
        assert refused(client.score, "isolation_forest", ROWS, series="link-c") == ("UNKNOWN_SERIES", "series")
        assert page(served)["dwcp_fleet_sets_opened_total"] == opened + 1, "only the set that is new was opened"
        # An index that is refused leaves everything as it is.
        (folder / "fleet.json").write_text('{"schema_version": 1}')
        assert refused(client.reload) == ("METADATA_INVALID", "fleet.json")
        assert client.model_set().fleet_id == second
        assert client.score("isolation_forest", ROWS, series="link-a").model_set_id == new["link-a"]


def test_a_global_set_scores_series_that_are_not_listed(kind, command, tmp_path):
    """FL3; and FL1: the fleet is what `current` leads to, and another one when it leads elsewhere."""
    schema = schema_of(FOREST_AND_DENSE)
    ids = []
    for number, release in enumerate(("one", "two")):
        folder = tmp_path / "releases" / release
        ids.append(add_set(folder, FOREST_AND_DENSE, numbered(number)))
        write_index(folder, {}, schema, global_set_id=ids[number])
    (tmp_path / "current").symlink_to("releases/one")
    with (
        serving("--unix", tmp_path / "s", models=tmp_path, command=command(kind)) as served,
        Client(served.address, timeout=WAIT) as client,
    ):
        assert client.score("isolation_forest", ROWS, series="anything").model_set_id == ids[0]
        assert refused(client.score, "isolation_forest", ROWS) == ("INVALID_REQUEST", "series")
        (tmp_path / "next").symlink_to("releases/two")
        (tmp_path / "next").rename(tmp_path / "current")
        assert client.reload().changed
        assert client.score("isolation_forest", ROWS, series="anything").model_set_id == ids[1]


@pytest.mark.slow
def test_calls_that_need_one_set_at_once_open_it_once_and_eviction_disturbs_none(kind, command, fleet, tmp_path):
    """FL4, FL5 with one place for four sets, and eight callers."""
    metrics = free_port()
    with serving(
        "--unix", tmp_path / "s", "--max-sets", "1", "--metrics", f"127.0.0.1:{metrics}", models=fleet[0],
        command=command(kind),
    ) as served, Client(served.address, timeout=WAIT, connections=4) as client:  # fmt: skip
        served.metrics_port = metrics
        with ThreadPoolExecutor(8) as pool:
            same = list(pool.map(lambda _: client.score("isolation_forest", ROWS, series="link-a"), range(8)))
            assert all(answer == same[0] for answer in same)
            assert page(served)["dwcp_fleet_sets_opened_total"] == 1
            names = list(itertools.islice(itertools.cycle(SOUND), 24))
            mixed = list(pool.map(lambda name: client.score("isolation_forest", ROWS, series=name), names))
        assert [answer.model_set_id for answer in mixed] == [fleet[1][name] for name in names]
        assert page(served)["dwcp_fleet_sets_open"] == 1
