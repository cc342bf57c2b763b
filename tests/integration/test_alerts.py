"""The alerts that are shipped: files that their programs accept, cases that fire and cases that must not."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.tools import tool

from bascule_shop.app import SERVICES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy/prometheus"
RULES = sorted((DEPLOY / "rules").glob("*.yml"))
CASES = sorted((DEPLOY / "tests").glob("*.yml"))
RUNBOOK = "docs/how-to/alerts.md"


def check(program: str, *arguments: str | Path) -> None:
    ran = subprocess.run(
        [tool(program), *arguments],
        cwd=DEPLOY,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@cache
def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def alerts() -> list[dict[str, Any]]:
    return [
        rule
        for path in RULES
        for group in load(path)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]


NAMES = sorted({alert["alert"] for alert in alerts()})


def test_prometheus_accepts_its_configuration():
    check("promtool", "check", "config", "prometheus.yml")


def test_prometheus_accepts_the_rules():
    check("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES)


def test_alertmanager_accepts_its_configuration():
    check("amtool", "check-config", "alertmanager.yml")


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_at_no_other_time(cases: Path):
    check("promtool", "test", "rules", cases)


def test_every_service_is_scraped_and_missed():
    """A service that Prometheus does not look for is never down."""
    jobs = {each["job_name"] for each in load(DEPLOY / "prometheus.yml")["scrape_configs"]}
    wanted = {"gateway", *SERVICES}
    assert wanted <= jobs
    (down,) = (alert for alert in alerts() if alert["alert"] == "ServiceDown")
    assert set(re.findall(r'absent\(up\{job="(\w+)"\}\)', down["expr"])) == wanted
    assert set(re.search(r'job=~"([\w|]+)"', down["expr"])[1].split("|")) == wanted


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_has_a_case_that_fires_and_one_that_must_not(name: str):
    """By severity: what is only a ticket must not be proven by the page of the same name."""
    told = [
        case["exp_alerts"]
        for path in CASES
        for test in load(path)["tests"]
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == name
    ]
    fired = {each["exp_labels"]["severity"] for found in told for each in found}
    assert fired == {each["labels"]["severity"] for each in alerts() if each["alert"] == name}
    assert [] in told


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_what_to_do(alert: dict[str, Any]):
    assert alert["labels"]["severity"] in {"critical", "warning"}
    said = alert["annotations"]
    assert said.keys() == {"summary", "description", "runbook_url"}
    assert "$value" in said["description"]
    assert said["runbook_url"] == f"{RUNBOOK}#{alert['alert'].lower()}"


def test_the_runbook_has_a_chapter_for_every_alert_and_no_other():
    chapters = re.split(r"^## ", (ROOT / RUNBOOK).read_text(), flags=re.MULTILINE)[1:]
    titles = [chapter.partition("\n")[0] for chapter in chapters]
    assert sorted(titles) == NAMES
    for title, chapter in zip(titles, chapters, strict=True):
        for part in ("**Means**", "**Look at**", "**Do**"):
            assert part in chapter, f"{title}: {part}"
