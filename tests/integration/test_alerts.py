"""The alerts that are shipped: files that their programs accept, cases that fire and cases that must not."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.tools import tool

from bascule.observe._catalog import FAMILIES
from bascule_shop.app import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterator

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


DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))

#: Metrics that are not bascule's own.
FOREIGN = re.compile(r"up|(process|python)_\w+")

#: Panels that Grafana does not call deprecated.
MODERN = {"timeseries", "stat", "table", "heatmap", "state-timeline"}

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


def expressions() -> Iterator[tuple[str, str]]:
    for path in RULES:
        for group in load(path)["groups"]:
            for rule in group["rules"]:
                yield rule.get("alert") or rule["record"], rule["expr"]
    for path in DASHBOARDS:
        for panel in load(path)["panels"]:
            for target in panel.get("targets", ()):
                yield f"{path.stem}: {panel['title']}", target["expr"]


def metrics_of(expression: str) -> set[str]:
    """Which metrics an expression reads: what is left without texts, selectors, labels, functions and operators."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", " ", bare)
    bare = re.sub(r"\b(by|on|group_left)\s*\([^)]*\)", " ", bare)
    return {
        name
        for name in re.findall(r"\b[a-z][\w:]*\b(?!\s*\()", bare)
        if name not in {"or", "and", "unless", "bool", "sum", "max", "min", "by", "on"}
    }


def test_rules_and_dashboards_read_metrics_that_exist():
    """A name that nobody exports is an alert that never fires and a panel that is always empty."""
    exported = set()
    for name, family in FAMILIES.items():
        ends = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
        exported |= {name + end for end in ends.get(family.kind, [""])}
    recorded = {
        rule["record"]
        for path in RULES
        for group in load(path)["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    wrong = {
        (where, name)
        for where, expression in expressions()
        for name in metrics_of(expression)
        if name not in exported | recorded and not FOREIGN.fullmatch(name)
    }
    assert wrong == set()
    read = {name for _, expression in expressions() for name in metrics_of(expression)}
    assert len(read & exported) > 40, "the reading of expressions is broken"


def test_dashboards_are_complete():
    """What a file lacks, Grafana fills in by its own taste."""
    uids = set()
    for path in DASHBOARDS:
        board = load(path)
        uids.add(board["uid"])
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        assert {panel["type"] for panel in panels} <= MODERN
        for panel in panels:
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["datasource"]["uid"] == "${datasource}"
        numbers = [panel["id"] for panel in board["panels"]]
        assert len(numbers) == len(set(numbers))
        cells = [
            (x, y)
            for panel in board["panels"]
            for place in [panel["gridPos"]]
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert len(cells) == len(set(cells)), "panels lie over each other"
        assert max(x for x, _ in cells) < 24
    assert len(uids) == len(DASHBOARDS) == 5


def test_grafana_is_told_of_the_dashboards_and_of_prometheus():
    provisioning = ROOT / "deploy/grafana/provisioning"
    (source, *_) = load(provisioning / "datasources/prometheus.yml")["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = load(provisioning / "dashboards/bascule.yml")["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
