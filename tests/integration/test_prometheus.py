"""A real Prometheus scrapes the shop: dashboards have something to show, and an alert reaches whoever is told."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from anyio.from_thread import start_blocking_portal
from tests.integration.observed_shop import ObservedShop, observed_shop
from tests.servers import need, running

from bascule.testing.servers import AlertmanagerServer, PrometheusServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bascule.testing.servers import ConsulServer, RedisServer

#: The shop starts, and Prometheus takes 5 s until its first scrape.
pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))

#: Seconds that something may take on a busy machine.
PATIENCE = 60.0

#: What Grafana puts in place of its variables.
VARIABLES = {"$__rate_interval": "30s", "$job": ".*", "$instance": ".*", "$service": ".*"}

#: Metrics that a shop in good order does not have, and why: their panels may be empty.
ABSENT = {
    "discovery_errors_total": "no question to Consul fails",
    "server_floods_total": "no client floods a server",
    "saga_lease_losses_total": "no worker is so late that another takes its runs",
}


class Inbox(ThreadingHTTPServer):
    """Takes what Alertmanager posts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.told: list[tuple[str, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def alerts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, message in list(self.told):
            for each in message["alerts"]:
                yield path, each

    def names(self) -> list[str]:
        return [f"{each['labels']['alertname']} {each['status']}" for _, each in self.alerts()]


class _Post(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Inbox)
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.told.append((self.path, json.loads(body)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def listening() -> Iterator[Inbox]:
    with Inbox() as inbox:
        thread = threading.Thread(target=inbox.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield inbox
        finally:
            inbox.shutdown()
            thread.join()


class Watched:
    """The shop, and who watches it."""

    def __init__(self, shop: ObservedShop, prometheus: PrometheusServer, inbox: Inbox) -> None:
        self.shop = shop
        self.prometheus = prometheus
        self.inbox = inbox

    def eventually(self, true: Callable[[], bool], otherwise: Callable[[], str]) -> None:
        """Wait until something holds that customers, scrapes and rules bring about."""
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < deadline, otherwise()
            time.sleep(0.2)


def hurried_rules(folder: Path) -> list[Path]:
    """Copy the rules with shorter times, so that a test can wait for an alert."""
    folder.mkdir()
    for path in RULES:
        text = re.sub(r"\b(for|interval): \w+", r"\1: 1s", path.read_text())
        text = text.replace("[2m:]", "[4s:]")
        (folder / path.name).write_text(text)
    return list(folder.iterdir())


def hurried_alertmanager(inbox: Inbox) -> dict[str, Any]:
    """Take the configuration that is shipped, with shorter times and the test as who is told."""
    text = (ROOT / "deploy/prometheus/alertmanager.yml").read_text()
    settings = yaml.safe_load(text.replace("http://alert-receiver:8080", inbox.url))
    settings["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    return settings


@pytest.fixture(scope="module")
def watched(
    redis_server: RedisServer,
    consul_server: ConsulServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Watched]:
    for kind in (PrometheusServer, AlertmanagerServer):
        need(kind)
    folder = tmp_path_factory.mktemp("observed")
    redis_server.flush()
    with (
        listening() as inbox,
        running(AlertmanagerServer, config=hurried_alertmanager(inbox)) as alertmanager,
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(
            observed_shop(folder, redis_server.url, consul_server.address)
        ) as shop,
        running(
            PrometheusServer,
            scrape=shop.scrape,
            rules=hurried_rules(folder / "rules"),
            alertmanager=alertmanager.address,
            authority=shop.authority,
        ) as prometheus,
    ):
        one = Watched(shop, prometheus, inbox)
        yield one


def test_all_that_is_scraped_is_well_formed(watched: Watched):
    """Prometheus refuses a page as a whole if a line of it is wrong."""
    missing = set(watched.shop.scrape.values())

    def all_have_been_up() -> bool:
        # On a busy machine, one may be late now and then.
        healths = watched.prometheus.targets()
        missing.difference_update([url for url, health in healths.items() if health == "up"])
        return not missing

    watched.eventually(all_have_been_up, lambda: f"never up: {missing}")


def queries(path: Path) -> list[str]:
    """What a dashboard asks, with its variables filled in."""
    panels = json.loads(path.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    for name, value in VARIABLES.items():
        found = [expression.replace(name, value) for expression in found]
    assert found
    assert not [expression for expression in found if "$" in expression]
    return found


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_has_an_answer(path: Path, watched: Watched):
    prometheus = watched.prometheus

    def answered(expression: str) -> bool:
        return any(not math.isnan(each.value) for each in prometheus.query(expression))

    empty = {each for each in queries(path) if not any(name in each for name in ABSENT)}

    def all_have_had_one() -> bool:
        # What was scraped late once has no present value.
        empty.difference_update(list(filter(answered, empty)))
        return not empty

    watched.eventually(all_have_had_one, lambda: "no data for\n" + "\n".join(empty))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_choice_of_a_dashboard_has_something_to_choose(path: Path, watched: Watched):
    for variable in json.loads(path.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(
                r"label_values\((.*), (\w+)\)", variable["definition"]
            ).groups()
            found = watched.prometheus.query(metric.replace("$job", ".*"))
            assert {each.labels[label] for each in found}, variable["name"]


def test_who_looks_for_services_in_consul_says_how_old_its_lists_are(watched: Watched):
    """Of the gateway and the order service, which the alert DiscoveryStale is about."""

    def jobs() -> set[str]:
        return {
            each.labels["job"] for each in watched.prometheus.query("discovery_list_age_seconds")
        }

    watched.eventually(lambda: jobs() >= {"gateway", "order"}, lambda: f"only {jobs()}")


def rules() -> Iterator[dict[str, Any]]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def test_every_rule_is_evaluated_and_every_indicator_recorded(watched: Watched):
    for rule in rules():
        watched.prometheus.query(rule["expr"])
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    watched.eventually(
        lambda: all(watched.prometheus.query(name) for name in recorded),
        lambda: (
            f"not recorded: {[each for each in recorded if not watched.prometheus.query(each)]}"
        ),
    )


def test_an_open_breaker_is_told_of_and_so_is_its_closing(watched: Watched):
    """From the failing service through breaker, page of metrics, rule and Alertmanager to a webhook, and back."""
    inbox, outage = watched.inbox, watched.shop.outages["product"]
    whose = {"job": "gateway", "alertname": "CircuitBreakerOpen", "severity": "critical"}

    def told(status: str) -> list[tuple[str, dict[str, Any]]]:
        """Of the breaker to this service: those to its callers open, too."""
        return [
            (path, each)
            for path, each in inbox.alerts()
            if each["status"] == status
            and whose.items() <= each["labels"].items()
            and each["labels"]["name"].startswith("product.ProductService@")
        ]

    outage.active = True
    try:
        watched.eventually(lambda: bool(told("firing")), lambda: f"only told of {inbox.names()}")
    finally:
        outage.active = False
    (path, alert) = told("firing")[0]
    assert path == "/page"
    assert alert["annotations"]["runbook_url"] == "docs/how-to/alerts.md#circuitbreakeropen"
    watched.eventually(lambda: bool(told("resolved")), lambda: f"only told of {inbox.names()}")
