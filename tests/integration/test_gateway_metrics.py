"""A gateway's page of metrics: its formats, and that clients cannot make series."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from bascule.gateway import Exchange, Gateway, GatewayConfig, HandlerEndpoint, RouteConfig
from bascule.net import HttpResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def hello(exchange: Exchange) -> HttpResponse:
    return HttpResponse(200, [("content-type", "text/plain")], b"hello")


@asynccontextmanager
async def running() -> AsyncIterator[str]:
    gateway = Gateway(GatewayConfig({}, listen="127.0.0.1:0"), b"")
    endpoint = HandlerEndpoint(hello, RouteConfig(public=True))
    for method in ("GET", "POST", "PURGE"):
        gateway.router.route(method, "/hello/{name}", endpoint)
    async with gateway:
        yield gateway.addresses[0]


def series(families: Any) -> set[tuple[str, tuple[str, ...]]]:
    return {
        (sample.name, tuple(sorted(sample.labels.values())))
        for family in families
        for sample in family.samples
        if "event_loop" not in sample.name and not sample.name.startswith("python_")
    }


async def test_the_page_is_negotiated() -> None:
    async with running() as address, httpx.AsyncClient(base_url=f"http://{address}") as client:
        sampled = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        await client.get("/hello/you", headers=sampled)
        wanted = {"accept": "application/openmetrics-text;version=1.0.0"}
        opened = await client.get("/metrics", headers=wanted)
        assert opened.headers["content-type"].startswith("application/openmetrics-text")
        families = list(openmetrics.text_string_to_metric_families(opened.text))
        kept = [each.exemplar for family in families for each in family.samples if each.exemplar]
        assert [each.labels for each in kept] == [{"trace_id": TRACE}]
        classic = await client.get("/metrics", headers={"accept": "text/plain"})
        assert classic.headers["content-encoding"] == "gzip", "httpx accepts it"
        known = series(text_string_to_metric_families(classic.text))
        for name in (
            *("bascule_build_info", "http_requests_total", "process_open_fds"),
            *("server_connections", "worker_threads"),
        ):
            assert any(name == each for each, _ in known), name
        only = await client.get("/metrics?name[]=server_connections")
        assert {name for name, _ in series(text_string_to_metric_families(only.text))} == {
            "server_connections"
        }


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_hostile_requests_make_no_series() -> None:
    """Methods, paths, versions and headers as hypothesis makes them, through a real socket."""
    async with running() as address:
        host, _, port = address.rpartition(":")

        async def send(request: bytes) -> None:
            """Wait for an answer and go: most are no requests, after which a server lingers."""
            async with await anyio.connect_tcp(host, int(port)) as stream:
                with anyio.fail_after(30), suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                    await stream.send(request)
                    await stream.receive()

        async def seen() -> set[tuple[str, tuple[str, ...]]]:
            async with httpx.AsyncClient() as client:
                page = await client.get(f"http://{address}/metrics")
            found = series(text_string_to_metric_families(page.text))
            return {each for each in found if each[0].startswith("http_request")}

        for request in hostile_requests():
            await send(request)
        labels = {label for _, labels in await seen() for label in labels}
        # What is left are bounds of buckets and statuses.
        others = labels - ROUTES - KNOWN_METHODS - {"other", "+Inf"}
        assert {each for each in others if not re.fullmatch(r"[\d.]+", each)} == set()
        assert labels >= {"/hello/{name}", "unmatched", "GET"}


ROUTES = {"/hello/{name}", "/metrics", "unmatched"}
KNOWN_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

METHODS = st.one_of(
    st.sampled_from(["GET", "POST", "PURGE", "get", "TRACE", "CONNECT", "PRI"]),
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ!#$%&'*+-.^_`|~", min_size=1, max_size=12),
)
TARGETS = st.one_of(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), min_size=1, max_size=40),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30).map(
        lambda name: f"/hello/{name}"
    ),
)
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=30)


def hostile_requests() -> list[bytes]:
    """One gateway for all of them: a request each would be slower than what is tested."""
    made: list[bytes] = []

    @settings(max_examples=60)
    @given(METHODS, TARGETS, VALUES)
    def make(method: str, target: str, agent: str) -> None:
        head = f"{method} {target} HTTP/1.1\r\nhost: x\r\nuser-agent: {agent}\r\nconnection: close\r\n\r\n"
        made.append(head.encode("latin-1"))

    made += [b"GET /hello/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"] * 10
    make()
    return made
