"""The exposition, read back by prometheus-client's own parser."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from bascule.gateway._stats import GatewayStats
from bascule.observe import Metrics
from bascule.rpc import Attempts
from bascule.saga import SagaState, SagaStats

BOUNDS = (0.01, 0.1)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Calls:
    """A snapshot, as Server.stats and Channel.stats give it."""

    def __init__(self, *rows: tuple[str, str, list[tuple[str, int]], list[int], float]) -> None:
        self._rows = list(rows)

    def snapshot(self) -> list[tuple[str, str, list[tuple[str, int]], list[int], float]]:
        return self._rows

    def in_progress(self) -> list[tuple[str, str, int]]:
        return [(service, method, 2) for service, method, *_ in self._rows]

    def exemplars(self) -> list[tuple[str, str, int, str, float, float]]:
        return [(service, method, 1, TRACE, 0.05, 1e9) for service, method, *_ in self._rows]


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "the same series twice is no exposition"
            found[key] = sample.value
    return found


def labels(**values: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(values.items()))


def test_calls_of_a_server_have_the_names_of_the_alerts() -> None:
    metrics = Metrics()
    metrics.add_calls(
        Calls(("user.UserService", "GetUser", [("OK", 3), ("NOT_FOUND", 1)], [2, 1, 1], 0.5)),
        side="server",
        bounds=BOUNDS,
    )
    found = samples(metrics)
    method = {"service": "user.UserService", "method": "GetUser"}
    assert found["grpc_requests_total", labels(**method, status="OK")] == 3
    assert found["grpc_requests_total", labels(**method, status="NOT_FOUND")] == 1
    buckets = [
        found["grpc_request_duration_seconds_bucket", labels(**method, le=le)]
        for le in ("0.01", "0.1", "+Inf")
    ]
    assert buckets == [2, 3, 4]
    assert found["grpc_request_duration_seconds_count", labels(**method)] == 4
    assert found["grpc_request_duration_seconds_sum", labels(**method)] == 0.5


def test_two_channels_to_one_service_are_one_series() -> None:
    metrics = Metrics(CollectorRegistry())
    for _ in range(2):
        metrics.add_calls(
            Calls(("a.B", "C", [("OK", 1)], [0, 1, 0], 0.05)), side="client", bounds=BOUNDS
        )
    found = samples(metrics)
    assert found["grpc_client_requests_total", labels(service="a.B", method="C", status="OK")] == 2
    assert (
        found["grpc_client_request_duration_seconds_sum", labels(service="a.B", method="C")] == 0.1
    )


def test_breakers_show_as_the_alert_expects_the_worst_under_one_name() -> None:
    metrics = Metrics()
    metrics.add_breakers(lambda: [("a", "closed"), ("b", "open"), ("c", "half_open")])
    metrics.add_breakers(lambda: [("c", "open"), ("b", "half_open")])
    found = samples(metrics)
    assert [found["circuit_breaker_state", labels(name=name)] for name in "abc"] == [0, 1, 1]


def test_http_requests_are_counted_by_template_and_everything_unknown_is_one_series() -> None:
    stats = GatewayStats()
    for n in range(1000):
        stats.observe("GET", "/api/v1/users/{id}", 200, 0.003)
        stats.observe(f"M{n}", "", 405, 0.0)
    stats.refused("expired")
    metrics = Metrics()
    metrics.add_http(stats)
    found = samples(metrics)
    assert (
        found["http_requests_total", labels(method="GET", route="/api/v1/users/{id}", status="200")]
        == 1000
    )
    assert (
        found["http_requests_total", labels(method="other", route="unmatched", status="405")]
        == 1000
    )
    assert found["auth_refused_total", labels(reason="expired")] == 1
    assert sum(name == "http_requests_total" for name, _ in found) == 2
    route = labels(le="0.005", method="GET", route="/api/v1/users/{id}")
    assert found["http_request_duration_seconds_bucket", route] == 1000


def test_attempts_of_channels_to_one_target_are_summed_up() -> None:
    one, other = Attempts(), Attempts()
    one.retries, one.throttled, other.retries, other.hedges = 1, 2, 3, 4
    other.failed()
    metrics = Metrics()
    metrics.add_attempts("users", one)
    metrics.add_attempts("users", other)
    found = samples(metrics)
    kinds = {"retry": 4, "hedge": 4, "throttled": 2, "transparent": 0, "pushed_back": 0}
    for kind, count in kinds.items():
        series = ("grpc_client_attempts_total", labels(target="users", kind=kind))
        assert found[series] == count
    assert found["grpc_client_retry_tokens", labels(target="users")] == 19


def test_parts_that_share_their_labels_are_one_series() -> None:
    """Two of a kind in a process, such as coordinators of one saga: the same series twice breaks the scrape."""
    metrics = Metrics()
    for _ in range(2):
        sagas, gateway = SagaStats(), GatewayStats()
        sagas.entered("order", 1)
        sagas.ended("order", "completed")
        sagas.attempted("order", "pay", "action", 0.2, ok=True)
        sagas.counted(["order"], {("order", SagaState.PARKED): 3})
        gateway.observe("GET", "/api/v1/users", 200, 0.003)
        metrics.add_sagas(sagas)
        metrics.add_http(gateway)
    found = samples(metrics)
    assert found["saga_runs_total", labels(saga="order", outcome="completed")] == 2
    assert found["saga_active", labels(saga="order")] == 2
    step = labels(saga="order", step="pay", op="action", outcome="ok")
    assert found["saga_step_duration_seconds_count", step] == 2
    assert found["saga_unfinished", labels(saga="order", state="parked")] == 3, "they share a log"
    route = labels(method="GET", route="/api/v1/users", status="200")
    assert found["http_requests_total", route] == 2
