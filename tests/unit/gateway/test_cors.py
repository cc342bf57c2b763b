"""Pages of other origins: what browsers ask first, and what they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bascule.errors import ConfigurationError
from bascule.gateway import (
    CorsConfig,
    Exchange,
    Gateway,
    GatewayConfig,
    HandlerEndpoint,
    RouteConfig,
)
from bascule.net import HttpRequest, HttpResponse

if TYPE_CHECKING:
    from bascule.gateway import Authenticator

pytestmark = pytest.mark.anyio

PAGE = "https://app.example"


class Nobody:
    """Believes no token."""

    def known(self, authorization: str) -> None:
        return None

    async def verify(self, authorization: str) -> None:
        raise AssertionError(authorization)


async def answer(exchange: Exchange) -> HttpResponse:
    return HttpResponse(200, [("content-type", "text/plain")], b"hello")


async def ask(config: CorsConfig | None, method: str, path: str, **headers: str) -> HttpResponse:
    nobody: Authenticator = Nobody()  # type: ignore[assignment]
    gateway = Gateway(GatewayConfig({}, cors=config), b"", authenticator=nobody)
    gateway.router.post("/hello", HandlerEndpoint(answer, RouteConfig(public=True)))
    gateway.router.post("/closed", HandlerEndpoint(answer, RouteConfig()))
    fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return await gateway.handle(HttpRequest(method, path, fields, b"", "192.0.2.1:1", "https", "2"))


def told(response: HttpResponse) -> dict[str, str]:
    assert len(dict(response.headers)) == len(response.headers), "no header comes twice"
    return {
        name: value
        for name, value in response.headers
        if name.startswith("access-control-") or name == "vary"
    }


async def test_a_preflight_is_answered_without_a_token() -> None:
    response = await ask(
        CorsConfig((PAGE,), max_age=60.0),
        "OPTIONS",
        "/closed",
        origin=PAGE,
        access_control_request_method="POST",
    )
    assert response.status == 204
    headers = told(response)
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["access-control-allow-methods"] == "POST"
    assert "authorization" in headers["access-control-allow-headers"].split(", ")
    assert (headers["access-control-max-age"], headers["vary"]) == ("60", "origin")
    assert "access-control-allow-credentials" not in headers


async def test_a_page_may_read_refusals_too() -> None:
    response = await ask(CorsConfig((PAGE,), True), "POST", "/closed", origin=PAGE)
    assert response.status == 401
    headers = told(response)
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["access-control-allow-credentials"] == "true"
    assert "retry-after" in headers["access-control-expose-headers"].split(", ")


async def test_other_pages_are_told_nothing() -> None:
    config = CorsConfig((PAGE,))
    response = await ask(config, "POST", "/hello", origin="https://evil.example")
    assert (response.status, told(response)) == (200, {"vary": "origin"})
    response = await ask(
        config,
        "OPTIONS",
        "/hello",
        origin="https://evil.example",
        access_control_request_method="POST",
    )
    assert (response.status, told(response)) == (204, {"vary": "origin"})


async def test_every_page_is_a_star() -> None:
    response = await ask(CorsConfig(("*",)), "POST", "/hello", origin="https://any.example")
    headers = told(response)
    assert headers["access-control-allow-origin"] == "*"
    assert "vary" not in headers


async def test_a_preflight_for_what_is_not_there_says_so() -> None:
    asked = {"origin": PAGE, "access_control_request_method": "DELETE"}
    assert (await ask(CorsConfig((PAGE,)), "OPTIONS", "/hello", **asked)).status == 405
    assert (await ask(CorsConfig((PAGE,)), "OPTIONS", "/none", **asked)).status == 404


async def test_without_settings_nothing_changes() -> None:
    assert told(await ask(None, "POST", "/hello", origin=PAGE)) == {}
    asked = {"origin": PAGE, "access_control_request_method": "POST"}
    assert (await ask(None, "OPTIONS", "/hello", **asked)).status == 405


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"allow_origins": ("app.example",)}, "scheme://host"),
        ({"allow_origins": (f"{PAGE}/",)}, "scheme://host"),
        ({"allow_origins": ("*",), "allow_credentials": True}, "any page"),
        ({"allow_origins": (PAGE,), "allow_headers": ("a b",)}, "header 'a b'"),
        ({"allow_origins": (PAGE,), "max_age": -1.0}, "max_age"),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        CorsConfig(**values)  # type: ignore[arg-type]
