"""Headers and paths made to lead around the gateway's rules."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from tests.integration.gateway_shop import Shop, running

from bascule.net import HttpRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with running(tmp_path) as shop:
        yield shop


SMUGGLED = [
    *("grpc-timeout", "grpc-status", "grpc-encoding", "grpc-accept-encoding", "grpc-message"),
    *("te", "connection", "keep-alive", "proxy-authorization", "proxy-connection", "upgrade"),
    *("transfer-encoding", "trailer", "host", "content-length", "http2-settings", "forwarded"),
    *("x-bascule-subject", "x-bascule-anything", "trace-bin", "cookie", "x-forwarded-for"),
    *(":path", ":authority", "user-agent", "accept-encoding", "x-request-id", "traceparent"),
    *("accept-language", "idempotency-key", "tracestate", "GRPC-Timeout", "a b", ""),
]


async def test_no_set_of_headers_smuggles_metadata(shop: Shop) -> None:
    draw = Random(4711)
    characters = [chr(code) for code in range(256)]
    for _ in range(300):
        headers = [
            (name, "".join(draw.choices(characters, k=draw.randrange(20))))
            for name in draw.choices(SMUGGLED, k=draw.randrange(1, 12))
        ]
        headers.append(("content-type", "application/json"))
        body = b'{"email": "a@example.org"}'
        shop.users.metadata = {}
        response = await shop.gateway.handle(
            HttpRequest("POST", "/api/v1/users", headers, body, "192.0.2.1:1", "https", "2")
        )
        if "idempotency-key" in dict(headers):
            assert response.status in {201, 400}, "a key that is none is refused"
        else:
            assert response.status == 201
        for name, value in shop.users.metadata.items():
            if name == "user-agent":
                assert "bascule" in value, "the channel's own"
            else:
                assert name in {
                    *("x-request-id", "traceparent", "tracestate"),
                    *("accept-language", "idempotency-key"),
                }
                assert value.isascii()
                assert value.isprintable()


PIECES = [
    *(
        "/",
        "//",
        ".",
        "..",
        "/./",
        "/../",
        "%2e",
        "%2E%2E",
        "%2f",
        "%2F",
        "%5c",
        "\\",
        "%00",
        "%0a",
    ),
    *(
        "%",
        "%zz",
        "%c0%af",
        "%25",
        ";",
        ";a=b",
        "?",
        "#",
        ":",
        "*",
        "~",
        " ",
        "\t",
        "\u00e9",
        "%ff",
    ),
    *("/healthz", "/metrics", "/api/v1/products", "http://h", "@", "api", "users", "orders"),
]


async def test_no_path_leads_around_the_token(shop: Shop) -> None:
    """What the router takes for a protected route is one for the authorization, too."""
    draw = Random(4712)
    public = {"/healthz", "/readyz", "/metrics", "/api/v1/products", "/api/v1/products/{id}"}
    for n in range(1000):
        path = draw.choice(
            ["/api/v1/users", "/api/v1/users/u-1", "/api/v1/orders", "/api/v1/orders/1"]
        )
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(path) + 1)
            path = path[:at] + draw.choice(PIECES) + path[at:]
        request = HttpRequest("GET", path, [], b"", f"10.0.{n >> 8}.{n & 255}:1", "https", "2")
        shop.users.metadata = {}
        response = await shop.gateway.handle(request)
        assert not shop.users.metadata, path
        assert response.status in {400, 401, 404} or any(
            path.partition("?")[0].startswith(prefix.partition("{")[0]) for prefix in public
        ), (path, response.status)
