"""What the dashboards ask Prometheus, in few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.dashboards.grafana import Query, Variable

if TYPE_CHECKING:
    from collections.abc import Sequence

JOB = Variable("job", "Service", 'label_values(up{job!~"prometheus|alertmanager"}, job)')
INSTANCE = Variable("instance", "Instance", 'label_values(up{job=~"$job"}, instance)')
SERVICE = Variable(
    "service", "gRPC service", 'label_values(grpc_requests_total{job=~"$job"}, service)'
)

#: What is chosen at the top.
ON = 'job=~"$job", instance=~"$instance"'
OF = f'{ON}, service=~"$service"'


def rate(counter: str, *by: str, where: str = ON) -> str:
    """Ask how often something happens, a second."""
    return f"sum{_by(by)} (rate({counter}{{{where}}}[$__rate_interval]))"


def total(gauge: str, *by: str, where: str = ON) -> str:
    """Ask for the sum over what is not in ``by``."""
    return f"sum{_by(by)} ({gauge}{{{where}}})"


def worst(gauge: str, *by: str, where: str = ON) -> str:
    """Ask for the largest value of what several have looked at."""
    return f"max{_by(by)} ({gauge}{{{where}}})"


def least(gauge: str, *by: str, where: str = ON) -> str:
    """Ask for the smallest value of what several have looked at."""
    return f"min{_by(by)} ({gauge}{{{where}}})"


def quantile(share: float, histogram: str, *by: str, where: str = ON) -> str:
    """Ask for what all but the slowest stay below."""
    buckets = rate(f"{histogram}_bucket", *by, "le", where=where)
    return f"histogram_quantile({share}, {buckets})"


def quantiles(histogram: str, *by: str, where: str = ON) -> list[Query]:
    """Ask for the median and the slow ones."""
    name = " ".join(f"{{{{{label}}}}}" for label in by)
    return [
        Query(quantile(share, histogram, *by, where=where), f"{word} {name}".strip())
        for share, word in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
    ]


def heat(histogram: str, where: str = ON) -> list[Query]:
    """Ask how many fell into each bucket."""
    return [
        Query(f"sum by (le) (increase({histogram}_bucket{{{where}}}[$__rate_interval]))", "{{le}}")
    ]


def _by(labels: Sequence[str]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""
