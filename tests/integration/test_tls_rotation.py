"""Certificates and authorities are replaced while calls run, with real handshakes on both loops."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from tests.generated.echo_bascule import EchoBase, EchoStub
from tests.generated.echo_pb2 import EchoReply, EchoRequest

from bascule.errors import ConfigurationError, RpcError, Status
from bascule.net import ClientTLS, ServerTLS
from bascule.rpc import Channel, Server, call_context

pytestmark = pytest.mark.anyio


class WhoAsks(EchoBase):
    """Answers with the serial number of the client's certificate."""

    async def unary(self, request: EchoRequest) -> EchoReply:
        identity = call_context().identity
        return EchoReply(text="" if identity is None else identity["serialNumber"])


class Files:
    """The files of one server and one client, each replaced as a whole."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.authority = trustme.CA()
        self.trust(self.authority)
        self.renew_server()
        self.renew_client()

    def server_tls(self, **settings: Any) -> ServerTLS:
        files = (self.home / name for name in ("server.pem", "server.key", "ca.pem"))
        return ServerTLS(*files, **settings)

    def client_tls(self, **settings: Any) -> ClientTLS:
        return ClientTLS(ca=self.home / "ca.pem", certificate=self.home / "client.pem", **settings)

    def trust(self, *authorities: trustme.CA) -> None:
        self.write("ca.pem", b"".join(each.cert_pem.bytes() for each in authorities))

    def renew_server(self, **settings: Any) -> None:
        made = self.authority.issue_cert("127.0.0.1", "localhost", **settings)
        self.write("server.key", made.private_key_pem.bytes())
        self.write("server.pem", made.cert_chain_pems[0].bytes())

    def renew_client(self, **settings: Any) -> None:
        made = self.authority.issue_cert("me@example.org", **settings)
        self.write("client.pem", made.private_key_and_cert_chain_pem.bytes())

    def write(self, name: str, data: bytes) -> None:
        half = self.home / f"{name}.half"
        half.write_bytes(data)
        half.replace(self.home / name)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def ask(channel: Channel) -> str:
    return (await EchoStub(channel).unary(EchoRequest(), timeout=30)).text


async def ask_anew(address: str, tls: ClientTLS) -> str:
    async with Channel(address, tls=tls) as channel:
        return await ask(channel)


@pytest.mark.parametrize(
    "anyio_backend",
    [
        pytest.param("asyncio", id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        pytest.param("trio", id="trio"),
    ],
)
async def test_everything_is_replaced_under_traffic_and_no_call_fails(files: Files) -> None:
    reloads: list[ConfigurationError | None] = []
    connected = 0
    serials: set[str] = set()
    server_tls = files.server_tls(reload=0, on_reload=reloads.append)
    client_tls = files.client_tls(reload=0)
    enough = anyio.Event()
    changed = anyio.Event()

    async with (
        Server([WhoAsks()], tls=server_tls) as server,
        Channel(server.addresses[0], tls=client_tls) as old,
        anyio.create_task_group() as tasks,
    ):
        address = server.addresses[0]

        async def keep_asking(channel: Channel) -> None:
            while not enough.is_set():
                serials.add(await ask(channel))

        async def keep_connecting() -> None:
            nonlocal connected, changed
            while not enough.is_set():
                serials.add(await ask_anew(address, client_tls))
                connected += 1
                changed.set()
                changed = anyio.Event()

        async def settle() -> None:
            # The first one may have begun before the change.
            wanted = connected + 2
            while connected < wanted:
                await changed.wait()

        first = await ask(old)
        tasks.start_soon(keep_asking, old)
        tasks.start_soon(keep_connecting)
        await settle()
        # The order in which an authority is replaced: trust both, renew, forget the old one.
        retired, files.authority = files.authority, trustme.CA()
        files.trust(retired, files.authority)
        await settle()
        renewed = files.authority.issue_cert("127.0.0.1")
        files.write("server.key", renewed.private_key_pem.bytes())
        await settle()  # meanwhile the key is no other file's
        files.write("server.pem", renewed.cert_chain_pems[0].bytes())
        await settle()
        files.renew_client()
        await settle()
        files.trust(files.authority)
        await settle()
        last = await ask_anew(address, client_tls)
        # The connection that is open stays as it is.
        assert await ask(old) == first
        enough.set()
    assert first != last
    assert {first, last} <= serials
    assert [each is None for each in reloads] == [True, False, True, True]


async def test_an_identity_of_a_forgotten_authority_is_refused(files: Files) -> None:
    async with Server([WhoAsks()], tls=files.server_tls(reload=0)) as server:
        address = server.addresses[0]
        mine = files.client_tls(reload=0)
        assert await ask_anew(address, mine)
        for name in ("ca.pem", "client.pem"):
            (files.home / name.replace(".", "-old.")).write_bytes((files.home / name).read_bytes())
        old = ClientTLS(ca=files.home / "ca-old.pem", certificate=files.home / "client-old.pem")
        files.authority = trustme.CA()
        files.trust(files.authority)
        files.renew_client()
        files.renew_server()
        assert await ask_anew(address, mine)
        # The server has another authority now, for itself and for its clients.
        with pytest.raises(RpcError) as caught:
            await ask_anew(address, old)
        assert caught.value.status is Status.UNAVAILABLE
        known_server = ClientTLS(ca=files.home / "ca.pem", certificate=old.certificate)
        with pytest.raises(RpcError) as caught:
            await ask_anew(address, known_server)
        assert caught.value.status is Status.UNAVAILABLE


@pytest.mark.parametrize("side", ["server", "client"])
async def test_an_expired_certificate_is_refused_and_its_successor_taken(
    files: Files, side: str
) -> None:
    renew = files.renew_server if side == "server" else files.renew_client
    past = datetime.now(UTC) - timedelta(days=1)
    async with Server([WhoAsks()], tls=files.server_tls(reload=0)) as server:
        tls = files.client_tls(reload=0)
        renew(not_after=past)
        with pytest.raises(RpcError) as caught:
            await ask_anew(server.addresses[0], tls)
        assert caught.value.status is Status.UNAVAILABLE
        renew()
        assert await ask_anew(server.addresses[0], tls)


async def test_a_bad_file_keeps_the_last_good_one(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[ConfigurationError | None] = []
    tls = files.server_tls(reload=0, on_reload=told.append)
    async with Server([WhoAsks()], tls=tls) as server:
        address, mine = server.addresses[0], files.client_tls()
        good = (files.home / "server.pem").read_bytes()
        for bad in (b"nothing", files.authority.issue_cert("x").cert_chain_pems[0].bytes()):
            files.write("server.pem", bad)
            assert await ask_anew(address, mine)
            assert await ask_anew(address, mine)
        (files.home / "server.pem").unlink()
        assert await ask_anew(address, mine)
        files.write("server.pem", good)
        assert await ask_anew(address, mine)
    messages = [str(each) for each in told[:-1]]
    assert told[-1] is None
    # Told once for each bad version, not at each handshake.
    assert len(messages) == 3
    assert "holds no PEM block" in messages[0]
    assert "does not belong to certificate" in messages[1]
    assert "cannot be read" in messages[2]
    assert "TLS goes on with the last good files" in caplog.text


async def test_the_files_are_looked_at_now_and_then(files: Files) -> None:
    told: list[ConfigurationError | None] = []
    tls = files.server_tls(reload=3600, on_reload=told.append)
    async with Server([WhoAsks()], tls=tls) as server:
        files.renew_server()
        assert await ask_anew(server.addresses[0], files.client_tls())
    assert told == []


async def test_a_name_has_its_own_certificate(files: Files) -> None:
    other = trustme.CA()
    pairs = {}
    for name in ("shop.example", "*.wild.example"):
        made = other.issue_cert(name)
        key, certificate = files.home / f"{name}.key", files.home / f"{name}.pem"
        made.private_key_pem.write_to_path(key)
        made.cert_chain_pems[0].write_to_path(certificate)
        pairs[name] = (certificate, key)
    other.cert_pem.write_to_path(files.home / "other.pem")
    async with Server([WhoAsks()], tls=files.server_tls(names=pairs)) as server:
        address = server.addresses[0]
        assert await ask_anew(address, files.client_tls())
        for name in ("shop.example", "SHOP.example", "a.wild.example"):
            tls = ClientTLS(
                ca=files.home / "other.pem",
                certificate=files.home / "client.pem",
                server_name=name,
            )
            assert await ask_anew(address, tls)
        with pytest.raises(RpcError, match="certificate"):
            tls = files.client_tls(server_name="shop.example")
            await ask_anew(address, tls)
        # What a name presents is another certificate; who may come in is not.
        with pytest.raises(RpcError):
            nobody = ClientTLS(ca=files.home / "other.pem", server_name="shop.example")
            await ask_anew(address, nobody)
