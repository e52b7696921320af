"""A sidecar is small and starts fast: what it imports, what it takes, when it answers."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dwcp_sidecar.client import Client

pytestmark = pytest.mark.timeout(120)
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]
HEAVY = ["tensorflow", "keras", "sklearn", "scipy", "pandas", "onnx", "h5py", "joblib", "pyarrow", "pydantic", "typer"]
MAX_RSS_KB = 110 * 1024

_SERVE = """
import sys
from pathlib import Path
from dwcp_sidecar.client import Client
from dwcp_sidecar.model_set import ModelSet
from dwcp_sidecar.server import logs, single
from dwcp_sidecar.server.serving import Serving
from dwcp_sidecar.server.settings import Settings
models = Path(sys.argv[1])
app = Serving(Settings(models=models, listen="127.0.0.1:0"), ModelSet.open(models), lambda: ("", False)).app
app.start()
with Client(app.addresses[0], timeout=30) as client:
    for model in client.model_set().models:
        row = list(model.reference_values)
        assert client.score(model.model_type, [row] * (model.timesteps or 1)).verdict.score > 0
app.stop(0).wait()
print(*sorted(sys.modules))
"""


def modules(code: str, *arguments: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_serving_imports_nothing_heavy(reference_path):
    loaded = modules(_SERVE, str(reference_path))
    assert {"onnxruntime", "grpc"} <= loaded, "the list of modules must be real"
    assert loaded & {*HEAVY, "pickle5", "dwcp_training"} == set()
    assert loaded & {"prometheus_client", "opentelemetry"} == set(), "nobody asked for metrics or traces"


def test_a_supervisor_loads_nothing_that_scores():
    loaded = modules("import sys, dwcp_sidecar.server.supervisor; print(*sorted(sys.modules))")
    assert loaded & {*HEAVY, "onnxruntime", "grpc", "numpy", "prometheus_client"} == set()
    assert "subprocess" in loaded


def test_a_client_loads_no_runtime():
    loaded = modules("import sys, dwcp_sidecar.client, dwcp_sidecar.remote; print(*sorted(sys.modules))")
    assert loaded & {*HEAVY, "onnxruntime"} == set()
    assert "grpc" in loaded


def test_help_loads_neither():
    loaded = modules("import sys, dwcp_sidecar.cli; dwcp_sidecar.cli._parser(); print(*sorted(sys.modules))")
    assert loaded & {*HEAVY, "onnxruntime", "grpc", "numpy"} == set()


def test_the_core_knows_no_transport():
    code = (
        "import sys, dwcp_sidecar.model_set, dwcp_sidecar.requests, dwcp_sidecar.executor; print(*sorted(sys.modules))"
    )
    assert "grpc" not in modules(code)


def test_memory_and_first_answer(serve, reference):
    start = time.monotonic()
    with serve("--listen", "127.0.0.1:0") as server, Client(server.address, timeout=30) as client:
        client.score("isolation_forest", [ROW])
        first_answer = time.monotonic() - start
        for name, model in reference.models.items():
            for _ in range(50):
                client.score(name, [ROW] * model.timesteps)
        status = Path(f"/proc/{server.process.pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert resident <= MAX_RSS_KB
    # The target is 1 s; a machine that runs other things at the same time gets room.
    assert first_answer < 5, f"first answer after {first_answer:.2f} s"
