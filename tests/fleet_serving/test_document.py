"""The programs of docs/fleet-serving.md score what they say; its commands are run by tests/docs."""

import pytest

from dwcp_sidecar.fleet import Fleet
from tests.docs.test_documents import ADDRESS, blocks, run_go, run_python
from tests.fleet_serving.folder import make_fleet
from tests.sidecar.conftest import serving

pytestmark = pytest.mark.timeout(300)
ROW = [105.2, 10.5, 0.01, 1.2, 45.3, 58.7, 0.001]


@pytest.mark.slow
def test_programs_of_the_document(tmp_path):
    make_fleet(tmp_path, 8)
    wanted = Fleet.open(tmp_path).set("link-7").model("isolation_forest").score([ROW])
    (python,), (go,) = ([t for d, t in blocks(kind) if d == "docs/fleet-serving.md"] for kind in ("python", "go"))
    with serving("--listen", "127.0.0.1:0", models=tmp_path) as served:
        printed = run_python(python.replace(ADDRESS, served.address).replace("timeout=10", "timeout=60")).split()
    assert (float(printed[0]), printed[1]) == (float(wanted.scores[0]), "True")
    assert run_go(go.replace('"models/fleet"', f'"{tmp_path}"')).split()[1] == "NORMAL"
