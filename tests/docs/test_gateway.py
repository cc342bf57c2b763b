"""The samples of docs/how-to/gateway.md work as they stand there."""

from __future__ import annotations

import ssl

import anyio
import httpx
import pytest
from tests.certificates import Certificates
from tests.pages import ROOT, load

pytestmark = pytest.mark.anyio


async def test_the_gateway_serves_both_kinds_of_routes(
    certificates: Certificates, capsys: pytest.CaptureFixture[str]
) -> None:
    descriptors = ROOT / "python/bascule_shop/_generated/descriptors.binpb"
    page = load(
        "docs/how-to/gateway.md",
        replace={
            '"server.pem", "server.key"': f'"{certificates.certificate}", "{certificates.key}"',
            "shop.binpb": str(descriptors),
            "0.0.0.0:8443": "127.0.0.1:0",
        },
    )
    said = ""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(page.main)
        with anyio.fail_after(30):
            while "(" not in said:
                await anyio.sleep(0.01)
                said += capsys.readouterr().out
        address = said.split("'")[1]
        trust = ssl.create_default_context(cafile=str(certificates.ca))
        async with httpx.AsyncClient(base_url=f"https://{address}", verify=trust) as client:
            answer = await client.get("/api/v1/version")
            assert (answer.status_code, answer.json()) == (200, {"version": "1.0"})
            assert (await client.post("/api/v1/orders", json={})).status_code == 401
        tasks.cancel_scope.cancel()


async def test_the_shared_limit_is_a_setting() -> None:
    assert load("docs/how-to/gateway.md").shared.redis.startswith("rediss://")
