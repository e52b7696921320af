"""The alert rules fire when they should, stay quiet when they should, and say what to do."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.tools import DEPLOY, ROOT, tool

RULES = DEPLOY / "prometheus/alerts.yml"
CASES = Path(__file__).with_name("alerts_test.yml")
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
FEWEST_RUNBOOK_WORDS = 15


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_are_rules() -> None:
    assert f"{len(ALERTS)} rules found" in run(tool("promtool"), "check", "rules", "--lint-fatal", RULES)


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-kubernetes.yml"])
def test_configurations_are_configurations(name: str, tmp_path: Path) -> None:
    text = yaml.safe_load((DEPLOY / "prometheus" / name).read_text())
    for job in text["scrape_configs"]:
        job.pop("kubernetes_sd_configs", None)  # Debian builds Prometheus without it; everything else is checked
        for address in (target for entry in job.get("static_configs", []) for target in entry["targets"]):
            assert address.startswith("127.0.0.1:")
        assert re.fullmatch("dwcp-sidecar.*", job["job_name"]), "the rules look for this name"
    (tmp_path / name).write_text(yaml.safe_dump(text))
    (tmp_path / "alerts.yml").symlink_to(RULES)
    assert f"{name} is valid" in run(tool("promtool"), "check", "config", tmp_path / name)


def test_rules_fire_and_stay_quiet(tmp_path: Path) -> None:
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:  # cases state the summary; the rest would be repeated word for word
            rule["annotations"] = {"summary": rule["annotations"]["summary"]}
    for folder, name, text in (
        ("deploy/prometheus", "alerts.yml", yaml.safe_dump(rules)),
        ("tests/deploy", CASES.name, CASES.read_text()),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / name).write_text(text)
    assert "SUCCESS" in run(tool("promtool"), "test", "rules", tmp_path / "tests/deploy" / CASES.name)


def test_every_alert_has_both_cases() -> None:
    checks = [check for case in yaml.safe_load(CASES.read_text())["tests"] for check in case["alert_rule_test"]]
    fires = {check["alertname"] for check in checks if check["exp_alerts"]}
    quiet = {check["alertname"] for check in checks if not check["exp_alerts"]}
    assert fires == set(ALERTS)
    assert quiet == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_a_tired_reader_is_told_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert re.fullmatch("Dwcp[A-Za-z]+", alert)
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert len(rule["annotations"]["summary"]) <= 100
    assert len(rule["annotations"]["runbook"].split()) >= FEWEST_RUNBOOK_WORDS


def test_every_alert_has_a_section_in_the_handbook() -> None:
    sections = re.findall(r"^### (Dwcp\w+)$", (ROOT / "docs/operations.md").read_text(), re.M)
    assert sections == list(ALERTS)


def test_alerts_that_texts_name_exist() -> None:
    for rule in ALERTS.values():
        for name in re.findall(r"\bDwcp\w+", " ".join(rule["annotations"].values())):
            assert name in ALERTS
