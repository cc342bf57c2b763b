"""Keys that rotate, fetched from a real server over a real socket; only the clock is ours."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from joserfc.jwk import ECKey, OctKey

from bascule.errors import ConfigurationError, KeysUnavailableError
from bascule.gateway import RemoteKeys
from bascule.net import HttpRequest, HttpResponse, HttpServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


class Issuer:
    """Publishes a key set, counts who asks, and can fail."""

    def __init__(self) -> None:
        self.fetches = 0
        self.now = 1000.0
        self.failing = False
        self.body: bytes | None = None
        self.jwks: list[dict[str, Any]] = []
        self.url = ""

    def publish(self, *kids: str) -> None:
        self.jwks = [
            {**ECKey.generate_key("P-256").as_dict(private=False), "kid": kid} for kid in kids
        ]

    async def handle(self, request: HttpRequest) -> HttpResponse:
        self.fetches += 1
        if self.failing:
            return HttpResponse(500)
        body = self.body if self.body is not None else json.dumps({"keys": self.jwks}).encode()
        return HttpResponse(200, [("content-type", "application/json")], body)

    def keys(self) -> RemoteKeys:
        return RemoteKeys(self.url, clock=lambda: self.now)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with _serving() as issuer:
        yield issuer


@asynccontextmanager
async def _serving() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    async with HttpServer(issuer.handle, listen="127.0.0.1:0", grace=0.0) as server:
        issuer.url = f"http://{server.addresses[0]}/jwks.json"
        issuer.publish("a")
        yield issuer


async def test_keys_are_fetched_once_and_again_when_they_are_old(issuer: Issuer) -> None:
    keys = issuer.keys()
    for _ in range(3):
        assert len(await keys.find("a")) == 1
    assert issuer.fetches == 1
    issuer.now += 300
    await keys.find("a")
    assert issuer.fetches == 2


async def test_those_who_ask_at_once_share_a_fetch(issuer: Issuer) -> None:
    keys = issuer.keys()
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(keys.find, "a")
    assert issuer.fetches == 1


async def test_a_rotated_key_is_picked_up_after_the_cool_down(issuer: Issuer) -> None:
    keys = issuer.keys()
    await keys.find("a")
    issuer.publish("b")
    assert not await keys.find("b")
    assert issuer.fetches == 1
    issuer.now += 300
    assert await keys.find("b")
    assert not await keys.find("a"), "a key that was withdrawn is not believed any longer"


async def test_a_key_unknown_so_far_makes_one_fetch_after_the_cool_down(issuer: Issuer) -> None:
    keys = issuer.keys()
    await keys.find("a")
    issuer.publish("a", "b")
    issuer.now += 30
    assert await keys.find("b")
    assert issuer.fetches == 2


async def test_ten_thousand_random_names_cost_one_fetch_a_cool_down(issuer: Issuer) -> None:
    keys = issuer.keys()
    await keys.find("a")
    for n in range(10_000):
        issuer.now += 0.001
        assert not await keys.find(f"random-{n}")
    assert issuer.fetches == 1
    issuer.now += 30
    for n in range(1_000):
        assert not await keys.find(f"more-{n}")
    assert issuer.fetches == 2


async def test_a_name_known_to_be_unknown_makes_no_fetch_even_after_the_cool_down(
    issuer: Issuer,
) -> None:
    keys = issuer.keys()
    await keys.find("a")
    for _ in range(5):
        issuer.now += 31
        await keys.find("nobody")
    assert issuer.fetches == 2


async def test_old_keys_serve_while_the_issuer_fails_but_not_for_ever(issuer: Issuer) -> None:
    keys = issuer.keys()
    await keys.find("a")
    issuer.failing = True
    issuer.now += 300 + 3599
    assert await keys.find("a")
    issuer.now += 31
    with pytest.raises(KeysUnavailableError, match="jwks") as caught:
        await keys.find("a")
    assert caught.value.retry_after == 30
    issuer.failing = False
    issuer.now += 30
    assert await keys.find("a")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"keys": 1}', b"[" * 100_000, b"x" * 300_000])
async def test_an_answer_that_is_no_key_set_is_a_failure(issuer: Issuer, body: bytes) -> None:
    issuer.body = body
    with pytest.raises(KeysUnavailableError):
        await issuer.keys().find("a")
    assert issuer.fetches == 1


async def test_keys_that_cannot_be_used_are_passed_over(issuer: Issuer) -> None:
    secret = {**OctKey.generate_key(256).as_dict(private=True), "kid": "published-secret"}
    issuer.jwks += [{"kty": "of the future"}, secret, {"kty": "RSA", "n": "AQAB", "e": "AQAB"}]
    keys = issuer.keys()
    assert [key.kid for key in await keys.find(None)] == ["a"]
    assert not await keys.find("published-secret")


async def test_a_cancelled_fetch_is_not_repeated_at_once(issuer: Issuer) -> None:
    keys = issuer.keys()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await keys.find("a")
    assert scope.cancelled_caught
    issuer.now += 30
    assert await keys.find("a")


@pytest.mark.parametrize(
    "url", ["http://issuer.example/jwks", "ftp://localhost/", "file:///etc/passwd", ""]
)
def test_an_address_that_anybody_could_answer_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="https"):
        RemoteKeys(url)
