"""The metrics of one process and of several, and the page that shows them (rules M1, M2)."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import timeit
import urllib.error
import urllib.request

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dwcp.anomaly.v1 import scoring_pb2
from dwcp.oip.v2 import inference_pb2
from dwcp_sidecar.server import metrics as metrics_module
from dwcp_sidecar.server import metrics_page
from dwcp_sidecar.server.metrics import CERTIFICATE_RELOADS, METHODS, RELOADS, Metrics, NoMetrics
from dwcp_sidecar.server.p_values import BOUNDS
from dwcp_sidecar.server.settings import StartError

pytestmark = pytest.mark.timeout(120)
WAIT = 20
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]
LOCAL = "127.0.0.1:0"
M1 = {
    "dwcp_requests": ("counter", {"method", "code"}),
    "dwcp_request_seconds": ("histogram", {"method", "le"}),
    "dwcp_in_flight": ("gauge", set()),
    "dwcp_queued": ("gauge", set()),
    "dwcp_streams": ("gauge", set()),
    "dwcp_scores": ("counter", {"detector"}),
    "dwcp_score_p_value": ("histogram", {"detector", "le"}),
    "dwcp_alarms": ("counter", {"detector", "level", "metric"}),
    "dwcp_alarm_budget_share": ("gauge", {"detector"}),
    "dwcp_refusals": ("counter", {"code"}),
    "dwcp_reloads": ("counter", {"result"}),
    "dwcp_model_sets_refused": ("counter", {"code"}),
    "dwcp_model_set_info": ("gauge", {"model_set_id"}),
    "dwcp_model_set_loaded_timestamp_seconds": ("gauge", set()),
    "dwcp_model_set_created_timestamp_seconds": ("gauge", set()),
    "dwcp_workers": ("gauge", set()),
    "dwcp_worker_restarts": ("counter", set()),
    "dwcp_certificate_expiry_timestamp_seconds": ("gauge", set()),
    "dwcp_certificate_reloads": ("counter", {"result"}),
    "dwcp_drift_rows": ("gauge", {"detector"}),
    "dwcp_drift_psi": ("gauge", {"detector", "metric"}),
    "dwcp_drift_wasserstein": ("gauge", {"detector", "metric"}),
    "dwcp_drift": ("gauge", {"detector", "metric"}),
}
"""The table of M1: name without `_total`, type, labels."""

USE_ALL = """
import numpy
class Recent:
    def compare(self):
        class Feature:
            name, psi, wasserstein, drifted = "latency", 0.5, 0.25, True
        return [("isolation_forest", 4096, [Feature])]
metrics.recent = Recent()
metrics.read(lambda: 3, lambda: 2, lambda: 1)
metrics.call("Score", "OK", 0.0007)
metrics.call("Score", "OK", 0.3)
metrics.call("ScoreBatch", "INVALID_ARGUMENT", 0.001)
metrics.call("ScoreStream", "CANCELLED", None)
metrics.answered("ScoreStream", 0.002)
metrics.answered("ScoreStream", 0.002)
metrics.scored("isolation_forest", 4096)
metrics.p_value("isolation_forest", 0.01)
metrics.p_values("isolation_forest", numpy.array([0.75, 1.0, 0.0005, 0.010000000000000002, 0.3] + [0.6] * 4090))
metrics.alarm("isolation_forest", "WARNING", "latency", 3)
metrics.alarm("isolation_forest", "CRITICAL", "")
metrics.refusal("NOT_FINITE")
metrics.reload("swapped")
metrics.set_refused("DIGEST_MISMATCH")
metrics.model_set("aa", 100.0, 50.0)
metrics.model_set("bb", 200.0, 60.0)
metrics.detectors({"isolation_forest": 0.5, "lstm_autoencoder": None, "ensemble": 0.125})
metrics.detectors({"isolation_forest": 0.25, "lstm_autoencoder": None})
metrics.worker_restart()
metrics.workers(2)
metrics.certificate(4000.0)
metrics.certificate_reload("refused")
"""


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def samples(text):
    """`name{label="value"}` to number, as on the page."""
    lines = (line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
    return {key: float(value) for key, value in lines}


@pytest.fixture
def metrics():
    made = Metrics()
    yield made
    made.close()


def used():
    metrics = Metrics()
    exec(USE_ALL, {"metrics": metrics})
    return metrics.text()


def assert_m1(text):
    """The page has all of M1 with its types and labels, and nothing else."""
    seen = families(text)
    assert set(seen) == set(M1)
    for name, (kind, labels) in M1.items():
        assert seen[name].type == kind
        assert set().union(*(sample.labels for sample in seen[name].samples)) == labels, name


def test_the_page_is_m1():
    assert_m1(used())


def test_the_page_is_m1_where_processes_share_a_folder(tmp_path):
    with processes(tmp_path) as run:
        run("w0", USE_ALL)
        text = page_of(tmp_path)
    assert_m1(text)
    values = samples(text)
    assert values.pop("dwcp_workers") == 2
    assert values == {key: value for key, value in samples(used()).items() if key != "dwcp_workers"}


def test_what_was_counted():
    values = samples(used())
    assert values['dwcp_requests_total{code="OK",method="Score"}'] == 2
    assert values['dwcp_requests_total{code="INVALID_ARGUMENT",method="ScoreBatch"}'] == 1
    assert values['dwcp_request_seconds_bucket{le="0.0005",method="Score"}'] == 0
    assert values['dwcp_request_seconds_bucket{le="0.001",method="Score"}'] == 1
    assert values['dwcp_request_seconds_count{method="Score"}'] == 2
    assert values['dwcp_request_seconds_sum{method="Score"}'] == pytest.approx(0.3007)
    assert values['dwcp_requests_total{code="CANCELLED",method="ScoreStream"}'] == 1
    assert values['dwcp_request_seconds_count{method="ScoreStream"}'] == 2
    assert values['dwcp_scores_total{detector="isolation_forest"}'] == 4096
    assert values['dwcp_alarms_total{detector="isolation_forest",level="WARNING",metric="latency"}'] == 3
    assert values['dwcp_alarms_total{detector="isolation_forest",level="CRITICAL",metric=""}'] == 1
    assert values['dwcp_refusals_total{code="NOT_FINITE"}'] == 1
    assert values['dwcp_model_sets_refused_total{code="DIGEST_MISMATCH"}'] == 1
    assert (values["dwcp_in_flight"], values["dwcp_queued"], values["dwcp_streams"]) == (3, 2, 1)
    assert values["dwcp_model_set_loaded_timestamp_seconds"] == 200
    assert values["dwcp_model_set_created_timestamp_seconds"] == 60
    assert values["dwcp_certificate_expiry_timestamp_seconds"] == 4000
    assert values['dwcp_drift_rows{detector="isolation_forest"}'] == 4096
    of_latency = '{detector="isolation_forest",metric="latency"}'
    found = [values[f"dwcp_drift{name}{of_latency}"] for name in ("_psi", "_wasserstein", "")]
    assert found == [0.5, 0.25, 1]


def test_p_values():
    values = samples(used())
    of = '{detector="isolation_forest"}'
    bounds = {
        "0.0005": 1,
        "0.005": 1,
        "0.01": 2,
        "0.02": 3,
        "0.25": 3,
        "0.5": 4,
        "0.75": 4095,
        "1.0": 4096,
        "+Inf": 4096,
    }
    for bound, count in bounds.items():
        assert values[f'dwcp_score_p_value_bucket{{detector="isolation_forest",le="{bound}"}}'] == count, bound
    assert values[f"dwcp_score_p_value_count{of}"] == values[f"dwcp_scores_total{of}"] == 4096
    assert values[f"dwcp_score_p_value_sum{of}"] == pytest.approx(0.01 + 0.75 + 1 + 0.0005 + 0.01 + 0.3 + 0.6 * 4090)


def test_a_batch_counts_as_its_items_do(metrics):
    """And both as the library's own histogram; bounds too, which are counted in the bucket that they close."""
    registry = CollectorRegistry()
    observed = Histogram("observed", "-", buckets=BOUNDS, registry=registry)
    random = np.random.default_rng(7)
    p_values = np.concatenate([random.random(500), np.repeat(BOUNDS, 3), np.nextafter(BOUNDS, 2)[:-1]])
    random.shuffle(p_values)
    for value in p_values.tolist():
        metrics.p_value("ensemble", value)
        observed.observe(value)
    metrics.p_values("isolation_forest", p_values)
    metrics.p_values("isolation_forest", p_values[:0])
    one, many, library = (
        [sample.value for sample in families(text)[name].samples if sample.labels.get("detector", wanted) == wanted]
        for text, name, wanted in (
            (metrics.text(), "dwcp_score_p_value", "ensemble"),
            (metrics.text(), "dwcp_score_p_value", "isolation_forest"),
            (generate_latest(registry), "observed", ""),
        )
    )
    assert one == pytest.approx(many, rel=1e-12)
    assert one == pytest.approx(library, rel=1e-12)
    assert one[BOUNDS.index(0.01)] == sum(value <= 0.01 for value in p_values)


def test_detectors_begin_at_0_and_a_budget_goes_with_its_set(metrics):
    metrics.detectors({"isolation_forest": 0.01, "ensemble": None})
    values = samples(metrics.text())
    for name in ("isolation_forest", "ensemble"):
        of = f'{{detector="{name}"}}'
        assert values[f"dwcp_scores_total{of}"] == values[f"dwcp_score_p_value_count{of}"] == 0
    assert budgets(values) == {'dwcp_alarm_budget_share{detector="isolation_forest"}': 0.01}
    metrics.detectors({"isolation_forest": None, "ensemble": 0.02})
    assert budgets(samples(metrics.text())) == {'dwcp_alarm_budget_share{detector="ensemble"}': 0.02}
    metrics.detectors({})
    assert budgets(samples(metrics.text())) == {}


def test_a_budget_goes_with_its_set_where_processes_share_a_folder(tmp_path):
    with processes(tmp_path) as run:
        run("w0", "metrics.detectors({'ensemble': 0.5}); metrics.detectors({})")
        assert b"dwcp_alarm_budget_share" not in page_of(tmp_path)
        run("w1", "metrics.detectors({'ensemble': 0.25}); metrics.detectors({'ensemble': 0.125})")
        assert budgets(samples(page_of(tmp_path))) == {'dwcp_alarm_budget_share{detector="ensemble"}': 0.125}


def budgets(values):
    return {key: value for key, value in values.items() if "budget" in key}


def test_only_the_set_in_use_is_named(metrics):
    for id in ("aa", "bb", "bb", "aa", "cc"):
        metrics.model_set(id, 1.0, 1.0)
        (sample,) = families(metrics.text())["dwcp_model_set_info"].samples
        assert (sample.labels, sample.value) == ({"model_set_id": id}, 1)


def test_without_certificate_none_is_said_to_expire(metrics):
    values = samples(metrics.text())
    assert not [name for name in values if "certificate" in name]
    assert values["dwcp_workers"] == 1
    assert {name: values[f'dwcp_reloads_total{{result="{name}"}}'] for name in RELOADS} == dict.fromkeys(RELOADS, 0)
    metrics.certificate(1.0)
    assert [
        samples(metrics.text())[f'dwcp_certificate_reloads_total{{result="{name}"}}'] for name in CERTIFICATE_RELOADS
    ] == [0, 0]


def test_methods_are_those_of_the_services_and_no_stranger_makes_series(metrics):
    assert {"Score", "ScoreStream", "Reload", "ModelInfer"} < METHODS
    services = [*scoring_pb2.DESCRIPTOR.services_by_name.values(), *inference_pb2.DESCRIPTOR.services_by_name.values()]
    assert len(METHODS) == sum(len(service.methods) for service in services)
    before = metrics.text()
    for i in range(1000):
        metrics.call(f"NoSuch{i}", "UNIMPLEMENTED", 0.1)
    assert metrics.text() == before


def test_gauges_are_read_when_the_page_is(metrics):
    count = [0]
    metrics.read(lambda: count[0], lambda: 0, lambda: 0)
    for count[0] in (5, 7):
        assert samples(metrics.text())["dwcp_in_flight"] == count[0]


def test_no_count_is_lost_between_threads(metrics):
    def work():
        for _ in range(2000):
            metrics.call("Score", "OK", 0.001)
            metrics.alarm("isolation_forest", "WARNING", "latency")
            metrics.p_value("isolation_forest", 0.5)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = samples(metrics.text())
    assert values['dwcp_requests_total{code="OK",method="Score"}'] == 16_000
    assert values['dwcp_request_seconds_count{method="Score"}'] == 16_000
    assert values['dwcp_score_p_value_bucket{detector="isolation_forest",le="0.5"}'] == 16_000
    assert values['dwcp_alarms_total{detector="isolation_forest",level="WARNING",metric="latency"}'] == 16_000


def test_counting_is_cheap(metrics):
    """A few microseconds; the bound has room for a machine that does other things."""
    rounds = [timeit.timeit(lambda: metrics.call("Score", "OK", 0.0007), number=2000) / 2000 for _ in range(7)]
    assert min(rounds) < 30e-6
    rounds = [timeit.timeit(lambda: metrics.p_value("ensemble", 0.6), number=2000) / 2000 for _ in range(7)]
    assert min(rounds) < 10e-6  # 1.2 us where it is quiet


def test_no_metrics_has_every_method_and_imports_nothing():
    public = {name for name, value in vars(Metrics).items() if callable(value) and not name.startswith("_")}
    assert public - set(vars(NoMetrics)) == set()
    code = (
        USE_ALL.replace("metrics.", "metrics = NoMetrics(); metrics.", 1) + "print('prometheus_client' in sys.modules)"
    )
    done = run_python(f"import sys\nfrom dwcp_sidecar.server.metrics import NoMetrics\n{code}")
    assert done.stdout == "False\n", done.stderr


# Several processes.

_HEAD = """
import sys
from dwcp_sidecar.server.metrics import Metrics
metrics = Metrics(sys.argv[1])
"""


def run_python(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=WAIT,
    )


class processes:  # noqa: N801
    """Starts processes that count into a folder and stay until they are ended, at the latest with the block."""

    def __init__(self, folder):
        self._folder, self._started = folder, []

    def __enter__(self):
        return self.run

    def run(self, identity, code):
        code = f"{_HEAD}{code}\nprint('counted', flush=True)\nsys.stdin.read()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, identity],
            env={**os.environ, metrics_module.FOLDER: str(self._folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        assert process.stdout.readline() == "counted\n"
        return process

    def __exit__(self, *_):
        for process in self._started:
            process.kill()
            process.communicate(timeout=WAIT)


def page_of(folder, before=""):
    """The page as a further process shows it, the supervisor say."""
    code = f"{_HEAD}from dwcp_sidecar.server.metrics import forget\n{before}\nsys.stdout.buffer.write(metrics.text())"
    done = subprocess.run(
        [sys.executable, "-c", code, "supervisor"],
        env={**os.environ, metrics_module.FOLDER: str(folder)},
        capture_output=True,
        timeout=WAIT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_is_the_sum(tmp_path):
    count = """
metrics.call("Score", "OK", 0.001)
metrics.read(lambda: 2, lambda: 1, lambda: 0)
import time; time.sleep(0.3)
"""
    with processes(tmp_path) as run:
        run("w0", count)
        run("w1", count)
        values = samples(page_of(tmp_path, "metrics.workers(2); metrics.reload('swapped')"))
    assert values['dwcp_requests_total{code="OK",method="Score"}'] == 2
    assert values['dwcp_request_seconds_count{method="Score"}'] == 2
    assert (values["dwcp_in_flight"], values["dwcp_queued"]) == (4, 2)
    assert values["dwcp_workers"] == 2
    assert values['dwcp_reloads_total{result="swapped"}'] == 1


def test_a_swap_in_all_workers_leaves_one_set(tmp_path):
    with processes(tmp_path) as run:
        for identity in ("w0", "w1"):
            run(identity, "metrics.model_set('aa', 1.0, 1.0); metrics.model_set('bb', 3.0, 2.0)")
        seen = families(page_of(tmp_path))
        run("w2", "metrics.model_set('aa', 1.0, 1.0)")
        during = families(page_of(tmp_path))
    assert [sample.labels for sample in seen["dwcp_model_set_info"].samples] == [{"model_set_id": "bb"}]
    assert seen["dwcp_model_set_created_timestamp_seconds"].samples[0].value == 2
    named = {sample.labels["model_set_id"]: sample.value for sample in during["dwcp_model_set_info"].samples}
    assert named == {"aa": 1, "bb": 1}, "while the workers differ the page says so"


@pytest.mark.parametrize("forgotten", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_worker_killed_and_started_again(tmp_path, forgotten):
    """Its counts go on from where they were, its gauges do not; the folder does not grow."""
    count = """
metrics.call("Score", "OK", 0.001)
metrics.read(lambda: 5, lambda: 0, lambda: 0)
metrics.model_set("aa", 1.0, 1.0)
import time; time.sleep(0.3)
"""
    with processes(tmp_path) as run:
        process = run("w0", count)
        assert samples(page_of(tmp_path))["dwcp_in_flight"] == 5
        for _ in range(3):
            process.send_signal(signal.SIGKILL)
            process.wait(WAIT)
            if forgotten:
                values = samples(page_of(tmp_path, "forget('w0')"))
                assert values["dwcp_in_flight"] == 0
                assert not [name for name in values if name.startswith("dwcp_model_set_info")]
            process = run("w0", count.replace('"aa"', '"bb"'))
        files = {path.name for path in tmp_path.iterdir() if "w0" in path.name}
        values = samples(page_of(tmp_path))
    assert values['dwcp_requests_total{code="OK",method="Score"}'] == 4
    assert values["dwcp_in_flight"] == 5
    assert [name for name in values if name.startswith("dwcp_model_set_info")] == [
        'dwcp_model_set_info{model_set_id="bb"}'
    ]
    assert len(files) <= 6


def test_the_earliest_expiry_of_the_workers_is_shown(tmp_path):
    with processes(tmp_path) as run:
        run("w0", "metrics.certificate(3000.0)")
        run("w1", "metrics.certificate(2000.0)")
        values = samples(page_of(tmp_path))
    assert values["dwcp_certificate_expiry_timestamp_seconds"] == 2000


def test_a_file_that_is_being_made_hides_nothing(tmp_path):
    """Or one whose process was killed while it made it."""
    with processes(tmp_path) as run:
        run("w0", 'metrics.call("Score", "OK", 0.001)')
        for name in ("counter_w1", "histogram_w1", "gauge_livesum_w1", "gauge_livemax_w1"):
            (tmp_path / f"{name}.db").touch()
        values = samples(page_of(tmp_path))
        assert values['dwcp_requests_total{code="OK",method="Score"}'] == 1
        run("w1", 'metrics.call("Score", "OK", 0.001)')
        assert samples(page_of(tmp_path))['dwcp_requests_total{code="OK",method="Score"}'] == 2


def test_shared_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(metrics_module.FOLDER, "")
    folder = metrics_module.shared_folder(tmp_path)
    assert folder.parent == tmp_path
    assert list(folder.iterdir()) == []
    assert os.environ[metrics_module.FOLDER] == str(folder)
    assert folder.stat().st_mode & 0o077 == 0


# The page.


def fetch(address, path="/metrics", method="GET"):
    request = urllib.request.Request(f"http://{address}{path}", method=method)
    with urllib.request.urlopen(request, timeout=WAIT) as answer:
        return answer, answer.read()


def test_page(metrics, capfd):
    metrics.call("Score", "OK", 0.001)
    address = metrics.serve_metrics(LOCAL)
    answer, body = fetch(address)
    assert body == metrics.text()
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "Python" not in answer.headers["Server"]
    assert fetch(address, "/metrics?x=1")[1] == body
    assert fetch(address, method="HEAD")[1] == b""
    for path, method, status in (("/", "GET", 404), ("/metrics/x", "GET", 404), ("/metrics", "POST", 501)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            fetch(address, path, method)
        assert caught.value.code == status
        caught.value.close()
    metrics.close()
    with pytest.raises(urllib.error.URLError):
        fetch(address)
    assert capfd.readouterr() == ("", "")


def test_a_port_that_is_taken(metrics):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"--metrics: cannot listen on 127.0.0.1:{port}: .* Stop the program"):
            metrics.serve_metrics(f"127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["9090", ":9090", "127.0.0.1:x", "127.0.0.1:70000", "no.such.host.invalid:1"])
def test_addresses_that_are_none(metrics, address):
    with pytest.raises(StartError, match="--metrics"):
        metrics.serve_metrics(address)


def test_localhost_is_one_address(metrics):
    assert re.fullmatch(r"127\.0\.0\.1:\d+", metrics.serve_metrics("localhost:0"))


def test_clients_that_say_nothing_do_not_keep_prometheus_out(metrics, monkeypatch):
    monkeypatch.setattr(metrics_page, "MAX_SECONDS", 1.0)
    host, port = metrics.serve_metrics(LOCAL).rsplit(":", 1)
    threads = threading.active_count()
    idle = [socket.create_connection((host, int(port)), WAIT) for _ in range(50)]
    try:
        for connection in idle:
            connection.sendall(b"GET /met") if connection.fileno() % 2 else None
        time.sleep(0.2)
        assert threading.active_count() - threads <= metrics_page.MAX_CONNECTIONS
        end = time.monotonic() + WAIT
        while True:
            try:
                fetch(f"{host}:{port}")
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.1)
    finally:
        for connection in idle:
            connection.close()


def test_a_client_that_drips_is_ended(metrics, monkeypatch):
    """Each byte comes in time, the request never ends."""
    monkeypatch.setattr(metrics_page, "MAX_SECONDS", 1.0)
    host, port = metrics.serve_metrics(LOCAL).rsplit(":", 1)
    start = time.monotonic()
    with socket.create_connection((host, int(port)), WAIT) as connection:
        connection.settimeout(0.1)
        ended = False
        while not ended and time.monotonic() < start + WAIT:
            try:
                connection.sendall(b"G")
                ended = connection.recv(1) == b""
            except TimeoutError:
                pass
            except OSError:
                ended = True
    assert ended
    assert 0.9 < time.monotonic() - start < WAIT / 2


def test_a_fault_is_logged_and_not_shown(metrics, monkeypatch, caplog):
    monkeypatch.setattr(metrics, "text", lambda: 1 / 0)
    address = metrics.serve_metrics(LOCAL)
    with pytest.raises(urllib.error.HTTPError) as caught:
        fetch(address)
    assert caught.value.code == 500
    assert b"ZeroDivision" not in caught.value.read()
    assert "ZeroDivisionError" in caplog.text


# The server as a whole.


def test_a_server_process_counts_its_calls(serve, reference):
    from dwcp_sidecar.client import Client
    from dwcp_sidecar.errors import ContractError

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (
        serve("--listen", LOCAL, "--metrics", f"127.0.0.1:{port}") as server,
        Client(server.address, timeout=WAIT) as client,
    ):
        for _ in range(3):
            client.score("isolation_forest", [ROW])
        with pytest.raises(ContractError):
            client.score("isolation_forest", [ROW[:3]])
        end = time.monotonic() + WAIT
        # A call is answered a moment before it is counted.
        while True:
            values = samples(fetch(f"127.0.0.1:{port}")[1])
            if values["dwcp_in_flight"] == 0 or time.monotonic() > end:
                break
            time.sleep(0.02)
    assert values['dwcp_requests_total{code="OK",method="Score"}'] == 3
    assert values['dwcp_requests_total{code="INVALID_ARGUMENT",method="Score"}'] == 1
    assert values['dwcp_refusals_total{code="WRONG_WIDTH"}'] == 1
    assert values['dwcp_scores_total{detector="isolation_forest"}'] == 3
    assert values[f'dwcp_model_set_info{{model_set_id="{reference.id}"}}'] == 1
    assert values["dwcp_in_flight"] == 0
