"""The samples of docs/how-to/kubernetes-discovery.md work as they stand there, on a real API server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from tests.pages import load

from bascule.errors import NoEndpointError
from bascule.rpc import RpcError

if TYPE_CHECKING:
    from pathlib import Path

    from bascule.testing.servers import KubeApiServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def page(greeter: list[Path], monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(greeter[0].parent)
    return load("docs/how-to/kubernetes-discovery.md")


async def test_a_service_without_pods_is_a_state_like_any_other(
    page: SimpleNamespace, kube_server: KubeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kube_server.kubeconfig))
    with pytest.raises(NoEndpointError, match=r"greeter\.shop"):
        await page.greet()


async def test_an_api_server_may_be_named(page: SimpleNamespace) -> None:
    async with page.greeter_channel("http://127.0.0.1:1") as channel:
        with pytest.raises(RpcError, match="the API server does not answer"):
            await page.GreeterStub(channel).hello(page.HelloRequest(), timeout=30.0)
