"""Settings that cannot work are refused when they are made."""

from __future__ import annotations

from typing import Any

import pytest

from bascule.errors import ConfigurationError
from bascule.gateway import (
    AuthConfig,
    Created,
    GatewayConfig,
    LimitConfig,
    RouteConfig,
    StaticKeys,
    UpstreamConfig,
)

KEYS = StaticKeys.from_secret(b"x" * 32)


@pytest.mark.parametrize(
    ("make", "values", "words"),
    [
        (LimitConfig, {"requests": 0}, "requests"),
        (LimitConfig, {"per": float("inf")}, "per"),
        (LimitConfig, {"burst": -1}, "burst"),
        (LimitConfig, {"algorithm": "log"}, "algorithm is 'log'"),
        (LimitConfig, {"algorithm": "sliding_window", "burst": 5}, "leave it out"),
        (RouteConfig, {"timeout": 0.0}, "timeout"),
        (RouteConfig, {"public": True, "scopes": frozenset({"a"})}, "scopes"),
        (Created, {"location": "/orders/{id.__class__}"}, "braces"),
        (Created, {"location": "/orders/{}"}, "braces"),
        (AuthConfig, {"issuer": "", "audience": "a", "keys": KEYS}, "issuer"),
        (AuthConfig, {"issuer": "a", "audience": "", "keys": KEYS}, "audience"),
        (
            AuthConfig,
            {"issuer": "a", "audience": "a", "keys": KEYS, "algorithms": {"none"}},
            "none",
        ),
        (
            AuthConfig,
            {"issuer": "a", "audience": "a", "keys": KEYS, "algorithms": {"RS512"}},
            "RS512",
        ),
        (AuthConfig, {"issuer": "a", "audience": "a", "keys": KEYS, "algorithms": set()}, "choose"),
        (AuthConfig, {"issuer": "a", "audience": "a", "keys": KEYS, "leeway": 3600.0}, "leeway"),
        (AuthConfig, {"issuer": "a", "audience": "a", "keys": KEYS, "realm": 'a"b'}, "realm"),
        (GatewayConfig, {"upstreams": {}, "health_path": "healthz"}, "slash"),
        (GatewayConfig, {"upstreams": {}, "grace": -1.0}, "grace"),
    ],
)
def test_a_setting_that_cannot_work_is_named(make: Any, values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make(**values)


@pytest.mark.parametrize(
    "name",
    [
        "Accept", "grpc-timeout", "grpc-status", "x-bascule-subject", "trace-bin", "connection", "te", "host",
        "transfer-encoding", "keep-alive", "upgrade", "content-length", "traceparent", "x-request-id", ":path", "a b", "",
    ],
)  # fmt: skip
def test_a_header_that_must_not_travel_cannot_be_forwarded(name: str) -> None:
    with pytest.raises(ConfigurationError, match="forward_headers"):
        GatewayConfig({}, forward_headers=(name,))


def test_the_nearest_route_setting_holds() -> None:
    one, service, rest = (
        RouteConfig(timeout=1.0),
        RouteConfig(timeout=2.0),
        RouteConfig(timeout=3.0),
    )
    config = GatewayConfig({}, route=rest, routes={"/a.B/C": one, "/a.B/*": service})
    assert [config.settings(path) for path in ("/a.B/C", "/a.B/D", "/b.B/C")] == [
        one,
        service,
        rest,
    ]


def test_a_target_alone_is_an_upstream() -> None:
    upstream = UpstreamConfig("memory:///b.B")
    config = GatewayConfig({"a.B": "127.0.0.1:1", "b.B": upstream})
    assert config.upstream("a.B") == UpstreamConfig("127.0.0.1:1")
    assert config.upstream("b.B") is upstream
