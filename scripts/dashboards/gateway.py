"""The dashboard of the gateway."""

from __future__ import annotations

from scripts.dashboards.asks import INSTANCE, JOB, ON, heat, quantile, quantiles, rate, total
from scripts.dashboards.grafana import Dashboard, Panel, Query, Row

__all__ = ["GATEWAY"]


GATEWAY = Dashboard(
    "gateway",
    "bascule: gateway",
    "What clients ask the gateway, what it turns away, and what it hears from the services behind it.",
    (JOB, INSTANCE),
    (
        Row(
            "Now",
            (
                Panel(
                    "Requests",
                    "HTTP requests answered, a second.",
                    "reqps",
                    [Query(rate("http_requests_total"))],
                    "stat",
                ),
                Panel(
                    "Errors",
                    "Share of answers that were 5xx in 5 minutes.",
                    "percentunit",
                    [
                        Query(
                            'sum(service:errors:rate5m{job=~"$job", service="gateway"}) / sum(service:requests:rate5m{job=~"$job", service="gateway"})'
                        )
                    ],
                    "stat",
                    limits=[(0.001, "orange"), (0.05, "red")],
                ),
                Panel(
                    "p99",
                    "One request in a hundred takes at least as long.",
                    "s",
                    [Query('max(service:latency_seconds:p99_5m{job=~"$job", service="gateway"})')],
                    "stat",
                    limits=[(0.5, "orange"), (1, "red")],
                ),
                Panel(
                    "Turned away by limits",
                    "Requests refused by 429, a second.",
                    "reqps",
                    [Query(rate("rate_limit_decisions_total", where=f'{ON}, outcome="rejected"'))],
                    "stat",
                ),
                Panel(
                    "Certificate",
                    "When the first certificate expires.",
                    "dateTimeFromNow",
                    [Query(f"1000 * min(tls_certificate_not_after_timestamp_seconds{{{ON}}})")],
                    "stat",
                ),
            ),
            height=4,
            across=5,
        ),
        Row(
            "Requests",
            (
                Panel(
                    "By status",
                    "Answers by HTTP status.",
                    "reqps",
                    [Query(rate("http_requests_total", "status"), "{{status}}")],
                    stacked=True,
                ),
                Panel(
                    "By route",
                    "Which routes are asked for most.",
                    "reqps",
                    [
                        Query(
                            f"topk(15, {rate('http_requests_total', 'method', 'route')})",
                            "{{method}} {{route}}",
                        )
                    ],
                ),
                Panel(
                    "5xx by route",
                    "Which routes fail.",
                    "reqps",
                    [
                        Query(
                            rate(
                                "http_requests_total",
                                "method",
                                "route",
                                "status",
                                where=f'{ON}, status=~"5.."',
                            ),
                            "{{method}} {{route}} {{status}}",
                        )
                    ],
                ),
                Panel(
                    "Latency",
                    "How long requests take, at the gateway.",
                    "s",
                    quantiles("http_request_duration_seconds"),
                ),
                Panel(
                    "Slowest routes",
                    "All but one request in a hundred are faster.",
                    "s",
                    [
                        Query(
                            f"topk(10, {quantile(0.99, 'http_request_duration_seconds', 'method', 'route')})",
                            "{{method}} {{route}}",
                        )
                    ],
                ),
                Panel(
                    "Distribution",
                    "How many requests took how long.",
                    "s",
                    heat("http_request_duration_seconds"),
                    "heatmap",
                ),
            ),
        ),
        Row(
            "Who is turned away",
            (
                Panel(
                    "Limits",
                    "What the limits decided.",
                    "reqps",
                    [
                        Query(
                            rate("rate_limit_decisions_total", "limit", "outcome"),
                            "{{limit}} {{outcome}}",
                        )
                    ],
                    stacked=True,
                ),
                Panel(
                    "Keys of limits",
                    "Subjects and addresses that are counted. One that is displaced starts anew.",
                    "none",
                    [
                        Query(total("rate_limit_keys", "limit"), "{{limit}}"),
                        Query(
                            rate("rate_limit_keys_displaced_total", "limit"),
                            "{{limit}} displaced a second",
                        ),
                    ],
                ),
                Panel(
                    "Limits without Redis",
                    "Decisions of a gateway by itself while the shared counts were away.",
                    "reqps",
                    [Query(rate("rate_limit_degraded_total", "limit"), "{{limit}}")],
                ),
                Panel(
                    "Tokens refused",
                    "Bearer tokens that are not believed, by reason.",
                    "reqps",
                    [Query(rate("auth_refused_total", "reason"), "{{reason}}")],
                    stacked=True,
                ),
                Panel(
                    "Idempotency keys",
                    "What became of requests with a key.",
                    "reqps",
                    [Query(rate("idempotent_requests_total", "outcome"), "{{outcome}}")],
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Services behind it",
            (
                Panel(
                    "Calls by status",
                    "What the gateway's calls are answered with.",
                    "reqps",
                    [
                        Query(
                            rate("grpc_client_requests_total", "service", "status"),
                            "{{service}} {{status}}",
                        )
                    ],
                    stacked=True,
                ),
                Panel(
                    "Latency of calls",
                    "All but one call in a hundred are faster, as the caller sees it.",
                    "s",
                    [
                        Query(
                            quantile(0.99, "grpc_client_request_duration_seconds", "service"),
                            "{{service}}",
                        )
                    ],
                ),
                Panel(
                    "Calls in progress",
                    "Calls that wait for an answer.",
                    "none",
                    [Query(total("grpc_client_requests_in_progress", "service"), "{{service}}")],
                ),
            ),
        ),
    ),
)
