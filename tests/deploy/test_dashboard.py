"""The dashboard is one that Grafana shows: no panel over another, every query PromQL, every variable defined."""

import itertools
import re
from pathlib import Path

import pytest
import yaml

from tests.deploy.dashboard import DASHBOARD, PANELS, QUERIES, metrics_of
from tests.deploy.test_alerts import ALERTS, RULES, run
from tests.deploy.tools import ROOT, tool

WIDTH = 24
"""Columns of Grafana's grid."""
BUILT_IN = {"__rate_interval"}
HISTOGRAMS = {"dwcp_request_seconds", "dwcp_score_p_value"}
TYPES = {"row", "stat", "timeseries", "table"}


def metrics_of_the_contract() -> set[str]:
    """The metrics of rule M1 and what Prometheus makes of its histograms."""
    text = next(line for line in (ROOT / "proto/CONTRACT.md").read_text().split("- **") if line.startswith("M1**"))
    names = set(re.findall(r"`(dwcp_\w+)", text))
    return names | {f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")}


def test_panels_stand_beside_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= WIDTH
        for cell in itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies over {taken.get(cell)}"
            taken[cell] = panel["title"]
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel(panel: dict) -> None:
    assert panel["type"] in TYPES
    assert len(panel["description"]) > 10
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        assert 'job=~"$job", instance=~"$instance"' in target["expr"]
        # A legend names labels that the query leaves.
        kept = re.search(r"by \(([^)]*)\)", target["expr"])
        if kept:
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= set(kept[1].split(", "))


def test_variables_are_defined() -> None:
    assert DASHBOARD["schemaVersion"] >= 39  # Grafana 11 and newer
    assert DASHBOARD["id"] is None, "an id of somebody's Grafana would be overwritten"
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", " ".join(query.text for query in QUERIES) + "${datasource}"))
    assert used - BUILT_IN == defined


def test_metrics_are_those_of_the_contract() -> None:
    contract = metrics_of_the_contract()
    shown = set().union(*(metrics_of(query.text) for query in QUERIES))
    ruled = set().union(*(metrics_of(rule["expr"]) for rule in ALERTS.values()))
    assert shown | ruled <= contract
    parts = {f"{name}{part}" for name in HISTOGRAMS for part in ("", "_sum", "_count")}
    assert contract - shown - parts == set(), "a metric that nobody sees"


def test_queries_are_promql(tmp_path: Path) -> None:
    rules = [{"record": f"q{number}", "expr": query.expression()} for number, query in enumerate(QUERIES)]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(QUERIES)} rules found" in run(tool("promtool"), "check", "rules", tmp_path / "queries.yml")


def test_panels_that_runbooks_name_exist() -> None:
    titles = tuple(panel["title"] for panel in PANELS)
    texts = " ".join((RULES.read_text() + (ROOT / "docs/operations.md").read_text()).split())
    named = re.findall(r"[Tt]he panel ([A-Z].{40})", texts)
    assert len(named) >= 10
    assert [text for text in named if not text.startswith(titles)] == []
