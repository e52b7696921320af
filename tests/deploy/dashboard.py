"""Reads the dashboard: its panels and queries."""

import json
import re
from dataclasses import dataclass

from tests.deploy.tools import DEPLOY

DASHBOARD = json.loads((DEPLOY / "grafana/dwcp-sidecar.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
_METRIC = re.compile(r"\bdwcp_\w+")


@dataclass(frozen=True)
class Query:
    """A query of a panel.

    Attributes:
        panel: title.
        text: PromQL with the dashboard's variables.
    """

    panel: str
    text: str

    def expression(self, job: str = ".*", instance: str = ".*", window: str = "1m") -> str:
        """PromQL with values for the variables, as Grafana would send it."""
        text = self.text.replace("$job", job).replace("$instance", instance)
        return text.replace("$__rate_interval", window)


QUERIES = [Query(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
QUERIES += [Query(entry["name"], entry["expr"]) for entry in DASHBOARD["annotations"]["list"] if "expr" in entry]


def metrics_of(expression: str) -> set[str]:
    """Names of the sidecars' metrics in a PromQL expression."""
    return set(_METRIC.findall(expression))
