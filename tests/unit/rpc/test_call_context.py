"""What a handler can know about its call, over real connections on both loops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest

from bascule.errors import ConfigurationError
from bascule.net import ClientTLS, ServerTLS
from bascule.rpc import Channel, Server, call_context

pytestmark = pytest.mark.anyio


class Curious(EchoBase):
    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    async def unary(self, request: EchoRequest) -> EchoReply:
        call = call_context()
        self.seen = {
            name: getattr(call, name)
            for name in ("method", "peer", "deadline", "time_left", "identity", "tls", "trace")
        }
        self.seen["metadata"] = dict(call.metadata)
        self.seen["scope"] = anyio.current_effective_deadline()
        return EchoReply()


async def test_a_plain_call() -> None:
    async with Server([curious := Curious()]) as server, Channel(server.addresses[0]) as channel:
        await EchoStub(channel).unary(EchoRequest())
        seen = curious.seen
        assert seen["method"] == "/echo.Echo/Unary"
        assert seen["peer"].startswith("127.0.0.1:")
        assert seen["deadline"] == seen["time_left"] == math.inf
        assert seen["identity"] is seen["tls"] is seen["trace"] is None

        metadata = {"x-text": "a", "x-raw-bin": b"\0\xff"}
        await EchoStub(channel).unary(EchoRequest(), timeout=30, metadata=metadata)
        assert 0 < curious.seen["time_left"] <= 30
        assert curious.seen["scope"] == pytest.approx(curious.seen["deadline"], abs=1e-3)
        assert curious.seen["metadata"].items() >= metadata.items()


async def test_a_call_by_mutual_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    server_cert, client_cert = authority.issue_cert("localhost"), authority.issue_cert("me@x.org")
    ca, certificate, key, mine = (tmp_path / name for name in ("ca", "server", "key", "client"))
    authority.cert_pem.write_to_path(ca)
    server_cert.cert_chain_pems[0].write_to_path(certificate)
    server_cert.private_key_pem.write_to_path(key)
    client_cert.private_key_and_cert_chain_pem.write_to_path(mine)
    for client_ca in (ca, None):
        tls = ClientTLS(ca=ca, certificate=mine, server_name="localhost")
        async with (
            Server([curious := Curious()], tls=ServerTLS(certificate, key, client_ca)) as server,
            Channel(server.addresses[0], tls=tls) as channel,
        ):
            await EchoStub(channel).unary(EchoRequest())
        agreed = curious.seen["tls"]
        assert (agreed.version, agreed.protocol) == ("TLSv1.3", "h2")
        assert agreed.cipher.startswith("TLS_")
        assert agreed.bits >= 128
        if client_ca is None:
            assert curious.seen["identity"] is None
        else:
            assert ("email", "me@x.org") in curious.seen["identity"]["subjectAltName"]


async def test_a_program_says_what_it_is() -> None:
    async with Server([curious := Curious()]) as server:
        for given, start in (
            (None, "grpc-python-bascule/"),
            (" shop/1.2", "shop/1.2 grpc-python-"),
        ):
            async with Channel(server.addresses[0], user_agent=given) as channel:
                await EchoStub(channel).unary(EchoRequest())
            assert curious.seen["metadata"]["user-agent"].startswith(start)
    for bad in ("", " ", "shop\r\nx: y", "läden/1"):
        with pytest.raises(ConfigurationError, match="expected printable ASCII"):
            Channel("127.0.0.1:1", user_agent=bad)


async def test_outside_of_a_handler_there_is_no_call() -> None:
    with pytest.raises(LookupError, match="works only inside a handler"):
        call_context()
