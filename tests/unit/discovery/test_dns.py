"""Endpoints from DNS: a real server on loopback answers, on both loops."""

from __future__ import annotations

import json

import anyio
import pytest
from tests.generated.echo_bascule import EchoStub
from tests.generated.echo_pb2 import EchoRequest
from tests.unit.discovery.nameserver import Nameserver
from tests.unit.rpc.services import Echo

from bascule.discovery import DnsResolver, Endpoint, RefreshableResolver
from bascule.errors import ConfigurationError, RpcError, Status, TransportError
from bascule.rpc import Channel, MethodConfig, Server

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server():
    async with Nameserver().serving() as nameserver:
        yield nameserver


async def first(resolver: DnsResolver):
    async with resolver.watch() as states:
        return await anext(states)


async def addresses(resolver: DnsResolver) -> list[str]:
    return [each.address for each in (await first(resolver)).endpoints]


async def test_addresses_of_both_families(server) -> None:
    server.records["echo.test", "A"] = ["127.0.0.1", "127.0.0.2"]
    server.records["echo.test", "AAAA"] = ["::1"]
    state = await first(DnsResolver("echo.test:80", nameserver=server.address))
    assert set(state.endpoints) == {
        Endpoint("[::1]:80", authority="echo.test:80"),
        Endpoint("127.0.0.1:80", authority="echo.test:80"),
        Endpoint("127.0.0.2:80", authority="echo.test:80"),
    }
    assert state.endpoints[0].address == "[::1]:80"


async def test_one_family_is_enough(server) -> None:
    server.records["echo.test", "A"] = ["127.0.0.1"]
    assert await addresses(DnsResolver("echo.test:80", nameserver=server.address)) == [
        "127.0.0.1:80"
    ]


async def test_services_of_the_best_priority(server) -> None:
    server.records["_grpc._tcp.echo.test", "SRV"] = [
        "10 3 8001 a.test.",
        "10 0 8002 b.test.",
        "10 1 8004 gone.test.",
        "20 9 8003 c.test.",
    ]
    for number, name in enumerate("abc", 1):
        server.records[f"{name}.test", "A"] = [f"127.0.0.{number}"]
    state = await first(DnsResolver("_grpc._tcp.echo.test", nameserver=server.address))
    assert state.endpoints == (
        Endpoint("127.0.0.1:8001", weight=3, authority="echo.test"),
        Endpoint("127.0.0.2:8002", weight=1, authority="echo.test"),
    )


async def test_the_hosts_of_a_service_are_looked_up_together(server, monkeypatch) -> None:
    """One that is silent does not hold up the others, and costs its own time only."""
    monkeypatch.setattr("bascule.discovery._dns.LIFETIME", 1.0)
    names = [f"h{number:02}.test" for number in range(20)]
    server.records["_grpc._tcp.echo.test", "SRV"] = [f"1 1 80 {name}." for name in names]
    for number, name in enumerate(names, 1):
        server.records[name, "A"] = [f"127.0.0.{number}"]
    server.silent.update(names[:5])
    begun = anyio.current_time()
    found = await addresses(DnsResolver("_grpc._tcp.echo.test", nameserver=server.address))
    assert found == [f"127.0.0.{number}:80" for number in range(6, 21)]
    # The silent ones were waited for together: one after another takes 5 s.
    assert anyio.current_time() - begun < 3


async def test_an_answer_without_end_is_cut(server, monkeypatch, caplog) -> None:
    monkeypatch.setattr("bascule.discovery._dns.MOST_ENDPOINTS", 10)
    monkeypatch.setattr("bascule.discovery._dns.MOST_HOSTS", 2)
    server.records["echo.test", "A"] = [f"127.0.0.{number}" for number in range(1, 21)]
    assert len(await addresses(DnsResolver("echo.test:80", nameserver=server.address))) == 10
    server.records["_grpc._tcp.echo.test", "SRV"] = [f"1 1 80 h{n}.test." for n in range(5)]
    for number in range(5):
        server.records[f"h{number}.test", "A"] = [f"127.0.0.{number + 1}"]
    found = await addresses(DnsResolver("_grpc._tcp.echo.test", nameserver=server.address))
    assert found == ["127.0.0.1:80", "127.0.0.2:80"]
    assert "20 addresses: the first 10" in caplog.text
    assert "5 hosts: the first 2" in caplog.text


async def test_a_service_that_is_not_there(server) -> None:
    server.records["_grpc._tcp.echo.test", "SRV"] = ["0 0 0 ."]
    with pytest.raises(TransportError, match="no address"):
        await first(DnsResolver("_grpc._tcp.echo.test", nameserver=server.address))


@pytest.mark.parametrize("name", ["echo.test:80", "_grpc._tcp.echo.test"])
async def test_a_name_that_does_not_exist(server, name) -> None:
    with pytest.raises(TransportError, match="does not exist"):
        await first(DnsResolver(name, nameserver=server.address))


async def test_a_server_that_fails(server) -> None:
    server.failing.add("echo.test")
    with pytest.raises(TransportError, match="echo.test"):
        await first(DnsResolver("echo.test:80", nameserver=server.address))


async def test_a_server_that_is_silent(server, monkeypatch) -> None:
    monkeypatch.setattr("bascule.discovery._dns.LIFETIME", 0.2)
    server.silent.add("echo.test")
    with pytest.raises(TransportError, match="echo.test"):
        await first(DnsResolver("echo.test:80", nameserver=server.address))


async def test_addresses_where_no_service_can_be_are_passed_over(server, caplog) -> None:
    server.records["echo.test", "A"] = ["169.254.169.254", "0.0.0.0", "224.0.0.1", "127.0.0.1"]
    server.records["echo.test", "AAAA"] = ["fe80::1", "::ffff:169.254.169.254", "::"]
    assert await addresses(DnsResolver("echo.test:80", nameserver=server.address)) == [
        "127.0.0.1:80"
    ]
    assert "169.254.169.254" in caplog.text


async def test_what_changes_is_told_when_its_time_is_over(server, monkeypatch) -> None:
    monkeypatch.setattr("bascule.discovery._dns.LEAST_TTL", 0.01)
    server.ttl = 0
    server.records["echo.test", "A"] = ["127.0.0.1"]
    resolver = DnsResolver("echo.test:80", nameserver=server.address)
    async with resolver.watch() as states:
        assert len((await anext(states)).endpoints) == 1
        server.records["echo.test", "A"] = ["127.0.0.1", "127.0.0.2"]
        with anyio.fail_after(10):
            assert len((await anext(states)).endpoints) == 2
            # What has not changed is not told again.
            asked = sum(kind == "A" for _, kind in server.queries)
            async with anyio.create_task_group() as group:
                group.start_soon(anext, states)
                await server.until_asked(asked + 3, "A")
                group.cancel_scope.cancel()


async def test_a_refresh_asks_again_but_not_too_often(server) -> None:
    server.records["echo.test", "A"] = ["127.0.0.1"]
    resolver = DnsResolver("echo.test:80", nameserver=server.address, min_interval=0.0)
    patient = DnsResolver("echo.test:80", nameserver=server.address, min_interval=1000.0)
    assert isinstance(resolver, RefreshableResolver)
    for each in (resolver, patient):
        server.queries.clear()
        async with each.watch() as states, anyio.create_task_group() as group:
            await anext(states)
            group.start_soon(anext, states)
            await anyio.wait_all_tasks_blocked()
            each.refresh()
            if each is resolver:
                with anyio.fail_after(10):
                    await server.until_asked(2, "A")
            else:
                await anyio.wait_all_tasks_blocked()
                assert sum(kind == "A" for _, kind in server.queries) == 1
            group.cancel_scope.cancel()


async def test_the_operating_system_may_be_asked() -> None:
    found = await addresses(DnsResolver("localhost:80"))
    assert "127.0.0.1:80" in found or "[::1]:80" in found
    assert await addresses(DnsResolver("127.0.0.1:80")) == ["127.0.0.1:80"]
    assert await addresses(DnsResolver("[::1]:80")) == ["[::1]:80"]
    with pytest.raises(TransportError, match="nowhere.invalid"):
        await first(DnsResolver("nowhere.invalid:80"))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("echo.test", {}),
        ("_grpc.echo.test", {}),
        ("unix:/x", {}),
        ("memory:x", {}),
        ("a:1", {"nameserver": "dns.test"}),
        ("a:1", {"nameserver": "dns.test:53"}),
        ("a:1", {"every": 0}),
        ("a:1", {"every": float("nan")}),
        ("a:1", {"min_interval": -1}),
    ],
)
async def test_what_cannot_work_is_refused(name, settings) -> None:
    with pytest.raises(ConfigurationError):
        DnsResolver(name, **settings)


@pytest.mark.parametrize("target", ["dns:///", "dns:///a", "dns://x/a:1", "dns:", "dns://1.1.1.1"])
async def test_a_target_without_meaning_is_refused(target) -> None:
    with pytest.raises(ConfigurationError):
        Channel(target)


def choices(*configs: object) -> list[str]:
    text = "grpc_config=" + json.dumps(configs)
    parts = [text[at : at + 200] for at in range(0, len(text), 200)]
    return [" ".join(json.dumps(part) for part in parts)]


async def test_a_service_config_in_dns(server) -> None:
    wanted = {"methodConfig": [{"name": [{}], "timeout": "7s"}]}
    server.records["echo.test", "A"] = ["127.0.0.1"]
    server.records["_grpc_config.echo.test", "TXT"] = choices(
        {"clientLanguage": ["go"], "serviceConfig": {}},
        {"clientHostname": ["elsewhere"], "serviceConfig": {}},
        {"percentage": 0, "serviceConfig": {}},
        {"clientLanguage": ["Python"], "percentage": 100, "serviceConfig": wanted},
        {"serviceConfig": {}},
    )
    asking = DnsResolver("echo.test:80", nameserver=server.address, service_config=True)
    assert (await first(asking)).service_config == wanted
    assert (
        await first(DnsResolver("echo.test:80", nameserver=server.address))
    ).service_config is None
    for text in ('"v=spf1"', '"grpc_config={}"', '"grpc_config=["', '"grpc_config=[1]"'):
        server.records["_grpc_config.echo.test", "TXT"] = [text]
        config = (await first(asking)).service_config
        assert config is None if "spf1" in text else config == text.strip('"')


async def test_a_channel_over_dns(server) -> None:
    async with Server([Echo()], listen="127.0.0.1:0") as one:
        port = one.addresses[0].rpartition(":")[2]
        server.records["echo.test", "A"] = ["127.0.0.1"]
        server.records["_grpc_config.echo.test", "TXT"] = choices(
            {"serviceConfig": {"methodConfig": [{"name": [{}], "timeout": "7s"}]}}
        )
        async with Channel(f"dns://{server.address}/echo.test:{port}") as channel:
            assert (await EchoStub(channel).unary(EchoRequest(text="x"))).text == "x"
        resolver = DnsResolver(f"echo.test:{port}", nameserver=server.address, service_config=True)
        async with Channel("echo", resolver=resolver) as channel:
            await EchoStub(channel).unary(EchoRequest(text="x"))
            snapshot = channel.snapshot()
            assert snapshot.resolver.service_config.method("/a/b") == MethodConfig(7.0)
            assert snapshot.resolver.kind == "DnsResolver"
            assert snapshot.subchannels[0].address == f"127.0.0.1:{port}"
        async with Channel(f"dns://{server.address}/gone.test:1") as channel:
            with pytest.raises(RpcError, match="gone.test") as raised:
                await EchoStub(channel).unary(EchoRequest())
            assert raised.value.status is Status.UNAVAILABLE


async def test_a_lost_connection_leads_to_another_address(server, tmp_path) -> None:
    async with Server([Echo()], listen="127.0.0.1:0") as one:
        port = one.addresses[0].rpartition(":")[2]
        server.records["echo.test", "A"] = ["127.0.0.1"]
        resolver = DnsResolver(f"echo.test:{port}", nameserver=server.address, min_interval=0.0)
        async with Channel("echo", resolver=resolver, wait_for_ready=True) as channel:
            await EchoStub(channel).unary(EchoRequest())
            async with Server([Echo()], listen=f"127.0.0.2:{port}"):
                server.records["echo.test", "A"] = ["127.0.0.2"]
                await one.drain()
                with anyio.fail_after(20):
                    await EchoStub(channel).unary(EchoRequest(text="y"))
                    while channel.snapshot().subchannels[0].address != f"127.0.0.2:{port}":
                        await channel._pool.wait_change()
