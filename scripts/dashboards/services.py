"""The dashboard of services."""

from __future__ import annotations

from scripts.dashboards.asks import (
    INSTANCE,
    JOB,
    OF,
    ON,
    SERVICE,
    heat,
    least,
    quantile,
    rate,
    total,
)
from scripts.dashboards.grafana import Dashboard, Panel, Query, Row

__all__ = ["SERVICES"]

UP = {"up": (1, "green"), "down": (0, "red")}

#: Recorded for all instances together; the gateway's HTTP side is a service like the others.
RECORDED = 'job=~"$job", service=~"$service|gateway"'


def budget(window: str) -> str:
    """Ask how many times too fast the error budget of 0.1 % is used up."""
    errors, requests = (
        f"service:{each}:rate{window}{{{RECORDED}}}" for each in ("errors", "requests")
    )
    return f"{errors} / {requests} / 0.001"


ERROR_RATIO = f"service:errors:rate5m{{{RECORDED}}} / service:requests:rate5m{{{RECORDED}}}"


SERVICES = Dashboard(
    "services",
    "bascule: services",
    "What services answer, how well and how fast. Begin here when an alert fires.",
    (JOB, INSTANCE, SERVICE),
    (
        Row(
            "Now",
            (
                Panel(
                    "Instances up",
                    "Instances that answer Prometheus.",
                    "none",
                    [Query('sum(up{job=~"$job", instance=~"$instance"})')],
                    "stat",
                ),
                Panel(
                    "Instances down",
                    "Instances that do not. See the alerts ServiceDown and InstanceDown.",
                    "none",
                    [
                        Query(
                            'count(up{job=~"$job", instance=~"$instance"}) - sum(up{job=~"$job", instance=~"$instance"})'
                        )
                    ],
                    "stat",
                    limits=[(1, "red")],
                ),
                Panel(
                    "Calls",
                    "gRPC calls answered, a second.",
                    "reqps",
                    [Query(rate("grpc_requests_total", where=OF))],
                    "stat",
                ),
                Panel(
                    "In progress",
                    "gRPC calls that are being answered.",
                    "none",
                    [Query(total("grpc_requests_in_progress", where=OF))],
                    "stat",
                ),
                Panel(
                    "Errors, worst service",
                    "Share of requests that failed by the server's fault in 5 minutes.",
                    "percentunit",
                    [Query(f"max({ERROR_RATIO})")],
                    "stat",
                    limits=[(0.001, "orange"), (0.05, "red")],
                ),
                Panel(
                    "p99, slowest service",
                    "One request in a hundred takes at least as long.",
                    "s",
                    [Query(f"max(service:latency_seconds:p99_5m{{{RECORDED}}})")],
                    "stat",
                    limits=[(0.5, "orange"), (1, "red")],
                ),
            ),
            height=4,
            across=6,
        ),
        Row(
            "Requests",
            (
                Panel(
                    "Calls by service",
                    "gRPC calls answered, a second.",
                    "reqps",
                    [Query(rate("grpc_requests_total", "service", where=OF), "{{service}}")],
                    stacked=True,
                ),
                Panel(
                    "Calls by method",
                    "Which methods are called most.",
                    "reqps",
                    [
                        Query(
                            f"topk(15, {rate('grpc_requests_total', 'service', 'method', where=OF)})",
                            "{{service}}/{{method}}",
                        )
                    ],
                ),
                Panel(
                    "Calls by status",
                    "What they are answered with. NOT_FOUND and the like are the client's business.",
                    "reqps",
                    [Query(rate("grpc_requests_total", "status", where=OF), "{{status}}")],
                    stacked=True,
                ),
                Panel(
                    "Error ratio",
                    "Share of requests that failed by the server's fault: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS, and 5xx.",
                    "percentunit",
                    [Query(ERROR_RATIO, "{{service}}")],
                    limits=[(0.05, "red")],
                ),
                Panel(
                    "In progress by service",
                    "Calls that are being answered: they pile up where something is slow.",
                    "none",
                    [Query(total("grpc_requests_in_progress", "service", where=OF), "{{service}}")],
                ),
                Panel(
                    "Calls by instance",
                    "Whether the work is spread evenly.",
                    "reqps",
                    [
                        Query(
                            rate("grpc_requests_total", "job", "instance", where=OF),
                            "{{job}} {{instance}}",
                        )
                    ],
                ),
            ),
        ),
        Row(
            "Latency",
            (
                Panel(
                    "Latency by service",
                    "All but one call in a hundred are faster, over 5 minutes.",
                    "s",
                    [Query(f"service:latency_seconds:p99_5m{{{RECORDED}}}", "{{service}}")],
                    limits=[(1, "red")],
                ),
                Panel(
                    "Slowest methods",
                    "All but one call in a hundred are faster.",
                    "s",
                    [
                        Query(
                            f"topk(10, {quantile(0.99, 'grpc_request_duration_seconds', 'service', 'method', where=OF)})",
                            "{{service}}/{{method}}",
                        )
                    ],
                ),
                Panel(
                    "Distribution",
                    "How many calls took how long.",
                    "s",
                    heat("grpc_request_duration_seconds", OF),
                    "heatmap",
                ),
            ),
        ),
        Row(
            "Error budget: 0.1 % of 30 days",
            (
                Panel(
                    "Burn rate",
                    "1 uses the budget up in just 30 days. A page comes at 14.4 for an hour, or at 6 for six hours.",
                    "none",
                    [Query(budget(window), f"{{{{service}}}} {window}") for window in ("1h", "6h")],
                    limits=[(6, "orange"), (14.4, "red")],
                ),
                Panel(
                    "Requests that failed in an hour",
                    "An alert wants ten at least.",
                    "none",
                    [Query(f"service:errors:rate1h{{{RECORDED}}} * 3600", "{{service}}")],
                ),
            ),
            across=2,
        ),
        Row(
            "Listeners",
            (
                Panel(
                    "Connections",
                    "Open connections, and how many there may be.",
                    "none",
                    [
                        Query(total("server_connections", "server"), "{{server}}"),
                        Query(
                            total("server_limit", "server", where=f'{ON}, limit="connections"'),
                            "{{server}} at most",
                        ),
                    ],
                ),
                Panel(
                    "Requests refused",
                    "Calls or requests that no handler saw. overloaded and memory: the server had no room.",
                    "reqps",
                    [
                        Query(
                            rate("server_requests_refused_total", "server", "reason"),
                            "{{server}} {{reason}}",
                        )
                    ],
                ),
                Panel(
                    "Connections cut off or refused",
                    "What floods a server is cut off by ENHANCE_YOUR_CALM; what finds no room is closed.",
                    "ops",
                    [
                        Query(
                            rate("server_floods_total", "server", "reason"), "{{server}} {{reason}}"
                        ),
                        Query(
                            rate("server_connections_refused_total", "server"), "{{server}} no room"
                        ),
                    ],
                ),
            ),
        ),
        Row(
            "Life",
            (
                Panel(
                    "Answers Prometheus",
                    "Whether each instance is up.",
                    "none",
                    [Query(f"up{{{ON}}}", "{{job}} {{instance}}")],
                    "state-timeline",
                    words=UP,
                ),
                Panel(
                    "Takes calls",
                    "Whether each instance is ready; /readyz says what it lacks.",
                    "none",
                    [Query(least("app_ready", "job", "instance"), "{{job}} {{instance}}")],
                    "state-timeline",
                    words={"ready": (1, "green"), "not ready": (0, "red")},
                ),
                Panel(
                    "Resources",
                    "Whether what each instance needs is open.",
                    "none",
                    [
                        Query(
                            least("resource_open", "job", "instance", "resource"),
                            "{{job}} {{instance}} {{resource}}",
                        )
                    ],
                    "state-timeline",
                    words={"open": (1, "green"), "away": (0, "red")},
                ),
                Panel(
                    "Registered",
                    "Whether the registry knows each instance.",
                    "none",
                    [
                        Query(
                            least("app_registered", "job", "instance", "service"),
                            "{{service}} {{instance}}",
                        )
                    ],
                    "state-timeline",
                    words={"known": (1, "green"), "unknown": (0, "red")},
                ),
                Panel(
                    "Versions",
                    "What runs where.",
                    "none",
                    [Query(f"bascule_build_info{{{ON}}}")],
                    "table",
                ),
            ),
            across=3,
        ),
    ),
)
