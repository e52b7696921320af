"""Both sidecars publish the contract's metrics, and a real Prometheus finds data for every panel and every rule."""

import contextlib
import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.dashboard import QUERIES, Query, metrics_of
from tests.deploy.test_alerts import ALERTS
from tests.deploy.test_dashboard import HISTOGRAMS, metrics_of_the_contract
from tests.deploy.watched import SCRAPE_SECONDS, Prometheus, Sidecar, change_files, commands, load, prometheus, sidecar


@pytest.fixture(scope="module")
def sidecars(go_sidecar: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Sidecar]]:
    folder = tmp_path_factory.mktemp("w")
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(sidecar(name, command, folder / name)) for name, command in commands(go_sidecar).items()
        ]


@pytest.fixture(scope="module")
def watched(sidecars: list[Sidecar], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, having seen the sidecars before and after the load."""
    with prometheus(sidecars, tmp_path_factory.mktemp("p") / "prometheus") as server:
        for entry in sidecars:
            change_files(entry)
        for _ in range(2):  # a series that begins between two scrapes has grown only in the second one
            for entry in sidecars:
                load(entry)
            time.sleep(2 * SCRAPE_SECONDS)
        yield server


def families(entry: Sidecar) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(entry.page())}


def names(entry: Sidecar) -> set[str]:
    """Names of all samples."""
    return {sample.name for family in families(entry).values() for sample in family.samples}


@pytest.mark.usefixtures("watched")
def test_both_publish_the_metrics_of_the_contract(sidecars: list[Sidecar]) -> None:
    contract = metrics_of_the_contract() - HISTOGRAMS
    for entry in sidecars:
        published = {name for name in names(entry) if name.startswith("dwcp_")}
        assert published == contract, entry.name


@pytest.mark.usefixtures("watched")
def test_both_publish_them_alike(sidecars: list[Sidecar]) -> None:
    python, go = (families(entry) for entry in sidecars)
    assert python.keys() == go.keys()
    for name, family in python.items():
        assert family.type == go[name].type, name
        assert labels(family) == labels(go[name]), name


def labels(family: Metric) -> set[frozenset[str]]:
    return {frozenset(sample.labels) for sample in family.samples}


@pytest.fixture(scope="module")
def answers(watched: Prometheus, sidecars: list[Sidecar]) -> dict[tuple[str, str], int]:
    """Number of series with a value for each query and sidecar; asked together, while the load is recent."""
    found: dict[tuple[str, str], int] = {}

    def all_there() -> bool:
        for query, entry in itertools.product(QUERIES, sidecars):
            values = watched.query(query.expression(instance=entry.metrics))
            found[query.text, entry.name] = sum(math.isfinite(float(series["value"][1])) for series in values)
        return all(found.values())

    watched.until(all_there)
    return found


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.panel)
def test_panel_has_data(query: Query, answers: dict[tuple[str, str], int], sidecars: list[Sidecar]) -> None:
    assert [entry.name for entry in sidecars if not answers[query.text, entry.name]] == [], query.expression()


def test_rules_look_at_what_is_there(watched: Prometheus, sidecars: list[Sidecar]) -> None:
    for alert, rule in ALERTS.items():
        for name in metrics_of(rule["expr"]):
            instances = {series["metric"]["instance"] for series in watched.query(name)}
            assert instances == {entry.metrics for entry in sidecars}, f"{alert}: {name}"
    (state,) = {rule["health"] for group in watched.get("rules")["groups"] for rule in group["rules"]} - {"unknown"}
    assert state == "ok"


def test_the_refused_set_is_an_alert_and_the_rest_is_quiet(watched: Prometheus, sidecars: list[Sidecar]) -> None:
    def firing() -> set[tuple[str, str]]:
        alerts = watched.get("alerts")["alerts"]
        return {(a["labels"]["alertname"], a["labels"]["instance"]) for a in alerts if a["state"] == "firing"}

    expected = {("DwcpModelSetRefused", entry.metrics) for entry in sidecars}
    assert watched.until(lambda: firing() == expected), firing()
