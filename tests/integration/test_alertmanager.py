"""Who is told of what, and what is not said twice: by a real Alertmanager with the configuration that is shipped."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import yaml
from tests.servers import running
from tests.tools import tool

from bascule.testing.servers import AlertmanagerServer

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGURATION = Path(__file__).parents[2] / "deploy/prometheus/alertmanager.yml"

GONE = {"alertname": "ServiceDown", "severity": "critical", "job": "order"}
SLOW = {"alertname": "HighLatency", "severity": "warning", "service": "order.OrderService"}
BURN = {"alertname": "ErrorBudgetBurn", "job": "user", "service": "user.UserService"}
ERRORS = {"alertname": "HighErrorRate", "severity": "warning", "service": "user.UserService"}


@pytest.fixture(scope="module")
def alertmanager() -> Iterator[httpx.Client]:
    """An Alertmanager that is told of everything; nobody listens to what it says."""
    config = yaml.safe_load(CONFIGURATION.read_text())
    config["route"]["group_wait"] = "1ms"
    config["receivers"] = [{"name": each["name"]} for each in config["receivers"]]
    with (
        running(AlertmanagerServer, config=config) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        alerts = [
            GONE,
            {**SLOW, "job": "order"},
            {**SLOW, "job": "product"},
            {**BURN, "severity": "critical", "window": "1h"},
            {**BURN, "severity": "warning", "window": "3d"},
            {**ERRORS, "job": "user"},
            {**ERRORS, "job": "shop"},
        ]
        body = [{"labels": labels} for labels in alerts]
        client.post("/api/v2/alerts", json=body).raise_for_status()
        yield client


@pytest.mark.parametrize(
    ("alert", "state"),
    [
        (GONE, "active"),
        ({**SLOW, "job": "order"}, "suppressed"),
        ({**SLOW, "job": "product"}, "active"),
        ({**BURN, "severity": "critical"}, "active"),
        ({**BURN, "severity": "warning"}, "suppressed"),
        ({**ERRORS, "job": "user"}, "suppressed"),
        ({**ERRORS, "job": "shop"}, "active"),
    ],
    ids=lambda given: given if isinstance(given, str) else f"{given['alertname']} {given['job']}",
)
def test_what_a_page_says_is_not_said_by_a_ticket_too(
    alertmanager: httpx.Client, alert: dict[str, str], state: str
):
    """Of the same service only: one outage must not hide another."""

    def current() -> str:
        found = alertmanager.get("/api/v2/alerts").raise_for_status().json()
        (one,) = (each for each in found if alert.items() <= each["labels"].items())
        return one["status"]["state"]

    # It takes in what it is told bit by bit.
    deadline = time.monotonic() + 30.0
    while (now := current()) != state and time.monotonic() < deadline:
        time.sleep(0.05)
    assert now == state


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "page"), ("warning", "ticket")])
def test_severity_tells_who_is_told(severity: str, receiver: str):
    command = [tool("amtool"), "config", "routes", "test", f"--config.file={CONFIGURATION}"]
    found = subprocess.run(
        [*command, f"severity={severity}"], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.strip() == receiver
