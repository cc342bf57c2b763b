"""The dashboard of resilience."""

from __future__ import annotations

from scripts.dashboards.asks import INSTANCE, JOB, ON, rate, total, worst
from scripts.dashboards.grafana import Dashboard, Panel, Query, Row

__all__ = ["RESILIENCE"]

BREAKER = {"closed": (0, "green"), "open": (1, "red"), "half-open": (2, "orange")}


RESILIENCE = Dashboard(
    "resilience",
    "bascule: resilience",
    "What callers do about services that fail: breakers, retries, endpoints that are left out, old lists that hold.",
    (JOB, INSTANCE),
    (
        Row(
            "Breakers",
            (
                Panel(
                    "State",
                    "Closed lets calls through, open refuses them, half-open tries a few.",
                    "none",
                    [Query(f"circuit_breaker_state{{{ON}}}", "{{job}} {{name}}")],
                    "state-timeline",
                    words=BREAKER,
                ),
                Panel(
                    "State begins",
                    "How often a breaker opens, tries and closes.",
                    "ops",
                    [
                        Query(
                            rate("circuit_breaker_transitions_total", "name", "state"),
                            "{{name}} {{state}}",
                        )
                    ],
                ),
                Panel(
                    "Calls",
                    "What breakers made of calls. rejected were not made.",
                    "reqps",
                    [
                        Query(
                            rate("circuit_breaker_calls_total", "name", "outcome"),
                            "{{name}} {{outcome}}",
                        )
                    ],
                ),
                Panel(
                    "Rates",
                    "Shares of failures and of slow calls, of breakers that have a window.",
                    "percentunit",
                    [
                        Query(f"circuit_breaker_failure_rate{{{ON}}}", "{{job}} {{name}} failed"),
                        Query(f"circuit_breaker_slow_call_rate{{{ON}}}", "{{job}} {{name}} slow"),
                    ],
                ),
            ),
        ),
        Row(
            "Endpoints",
            (
                Panel(
                    "By state",
                    "Endpoints of each channel.",
                    "none",
                    [
                        Query(
                            total("grpc_client_subchannels", "job", "target", "state"),
                            "{{job}} {{target}} {{state}}",
                        )
                    ],
                ),
                Panel(
                    "Calls sent",
                    "Whether the endpoints of a target get their share.",
                    "reqps",
                    [
                        Query(
                            rate("grpc_client_picks_total", "target", "endpoint"),
                            "{{target}} {{endpoint}}",
                        )
                    ],
                ),
                Panel(
                    "Answers",
                    "What endpoints made of calls.",
                    "reqps",
                    [
                        Query(
                            rate("grpc_client_endpoint_calls_total", "endpoint", "outcome"),
                            "{{endpoint}} {{outcome}}",
                        )
                    ],
                ),
                Panel(
                    "In flight",
                    "Calls that an endpoint has not answered.",
                    "none",
                    [
                        Query(
                            total("grpc_client_endpoint_in_flight", "target", "endpoint"),
                            "{{target}} {{endpoint}}",
                        )
                    ],
                ),
                Panel(
                    "Left out",
                    "Endpoints that get no calls, since they fail more than the others.",
                    "none",
                    [
                        Query(
                            worst("grpc_client_endpoint_ejected", "target", "endpoint"),
                            "{{target}} {{endpoint}}",
                        )
                    ],
                    "state-timeline",
                    words={"used": (0, "green"), "left out": (1, "red")},
                ),
                Panel(
                    "Waiting for a connection",
                    "Calls that no endpoint is ready for.",
                    "none",
                    [Query(total("grpc_client_waiting", "target"), "{{target}}")],
                ),
            ),
        ),
        Row(
            "Attempts",
            (
                Panel(
                    "Tried again",
                    "Attempts beside the first. throttled, pushed_back and unbuffered were not made.",
                    "reqps",
                    [
                        Query(
                            rate("grpc_client_attempts_total", "target", "kind"),
                            "{{target}} {{kind}}",
                        )
                    ],
                ),
                Panel(
                    "Budget for retries",
                    "Tokens that are left: retries stop at half of what there may be.",
                    "none",
                    [Query(total("grpc_client_retry_tokens", "target"), "{{target}}")],
                ),
                Panel(
                    "Refused before sending",
                    "By a breaker or a limit of the caller.",
                    "reqps",
                    [
                        Query(
                            rate("grpc_client_refused_total", "target", "reason"),
                            "{{target}} {{reason}}",
                        )
                    ],
                ),
            ),
        ),
        Row(
            "Discovery",
            (
                Panel(
                    "Age of lists",
                    "Seconds since the registry confirmed the instances. A question blocks for five minutes.",
                    "s",
                    [
                        Query(
                            worst("discovery_list_age_seconds", "job", "service"),
                            "{{job}} {{service}}",
                        )
                    ],
                    limits=[(600, "red")],
                ),
                Panel(
                    "Failed questions",
                    "By kind.",
                    "ops",
                    [
                        Query(
                            rate("discovery_errors_total", "service", "kind"),
                            "{{service}} {{kind}}",
                        )
                    ],
                ),
                Panel(
                    "Resolvers",
                    "Whether channels can look up their targets; what they knew last holds if not.",
                    "none",
                    [
                        Query(
                            worst("grpc_client_resolver_failing", "job", "target"),
                            "{{job}} {{target}}",
                        )
                    ],
                    "state-timeline",
                    words={"works": (0, "green"), "fails": (1, "red")},
                ),
                Panel(
                    "Last named endpoints",
                    "Seconds since a resolver named endpoints. It need not, while nothing changes.",
                    "s",
                    [
                        Query(
                            worst("grpc_client_resolver_age_seconds", "job", "target"),
                            "{{job}} {{target}}",
                        )
                    ],
                ),
            ),
            across=4,
        ),
    ),
)
