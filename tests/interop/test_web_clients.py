"""The Connect project's own clients, for Node and for browsers, against bascule's server.

One Node process makes all the calls, those of a test one after the other: see tests/tools/connect-node.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest
import trustme
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc.error_details_pb2 import BadRequest
from tests.generated import echo_pb2
from tests.interop.echo import SERVICES, BasculeBetterproto2, BasculeGoogle, Behaviour
from tests.tools import tool

from bascule.net import ServerTLS
from bascule.rpc import Server, ServerLimits, WebSettings
from bascule.rpc._descriptors import descriptor_set

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024

#: What a client that hangs is given, in seconds: Node is slow to start on a busy machine.
PATIENCE = 60.0

#: Transports that speak to the server over each version of HTTP. Those for browsers use fetch, which
#: speaks HTTP/1.1 where there is no TLS, and cannot stream requests.
TRANSPORTS = {
    "1.1": ["connect", "grpc-web", "browser-connect", "browser-grpc-web"],
    "2": ["connect", "grpc-web", "grpc"],
}

#: Message formats and what the clients call them.
BINARY = {"proto": True, "json": False}


def ways() -> list[Any]:
    return [
        pytest.param(http, transport, binary, id=f"{http}-{transport}-{name}")
        for http, transports in TRANSPORTS.items()
        for transport in transports
        for name, binary in BINARY.items()
        if binary or transport != "grpc"
    ]


every_way = pytest.mark.parametrize(("http", "transport", "binary"), ways())


def descriptors() -> str:
    """The echo service as the Node program takes it, with the names that protoc would have filled in."""
    files = FileDescriptorSet.FromString(descriptor_set(echo_pb2.DESCRIPTOR))
    for message in files.file[0].message_type:
        for field in message.field:
            field.json_name = field.name
    return base64.b64encode(files.SerializeToString()).decode()


@asynccontextmanager
async def serving(service: Any, **options: Any) -> AsyncIterator[Server]:
    async with Server([service], web=WebSettings(), grace=1.0, **options) as server:
        yield server


class Node:
    """A Node process that makes calls."""

    def __init__(self, **environment: str) -> None:
        program = tool("connect-node") / "call.mjs"
        self._process = subprocess.Popen(
            ["node", str(program), descriptors()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )

    async def make(self, *calls: dict[str, Any]) -> list[dict[str, Any]]:
        """Make the calls; answer with what came of each."""
        with anyio.fail_after(PATIENCE):
            line = await anyio.to_thread.run_sync(self._exchange, calls, abandon_on_cancel=True)
        results: list[dict[str, Any]] = json.loads(line)
        return results

    def _exchange(self, calls: Any) -> bytes:
        writer, reader = self._process.stdin, self._process.stdout
        assert writer is not None
        assert reader is not None
        writer.write(json.dumps(calls).encode() + b"\n")
        writer.flush()
        return reader.readline()

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    process = Node()
    yield process
    process.close()


class Caller:
    """What the calls of a test have in common."""

    def __init__(self, server: Server, http: str, transport: str, binary: bool) -> None:
        self.streams_requests = not transport.startswith("browser")
        self.streams_both_ways = self.streams_requests and http == "2"
        self._common = {
            "url": f"http://{server.addresses[0]}",
            "http": http,
            "transport": transport,
            "binary": binary,
            "service": "echo.Echo",
        }

    def call(self, method: str, *requests: dict[str, Any], **options: Any) -> dict[str, Any]:
        return self._common | {"method": method, "requests": requests or ({},)} | options


@every_way
async def test_every_kind_of_call(node: Node, http: str, transport: str, binary: bool) -> None:
    async with serving(BasculeGoogle(Behaviour())) as server:
        caller = Caller(server, http, transport, binary)
        calls = [
            caller.call(
                "Unary",
                {"text": "h\u00e4", "payloadSize": 3},
                headers={"x-echo": "a", "x-echo-bin": "AAH/"},
            ),
            caller.call("ServerStream", {"text": "s", "replies": 3}, headers={"x-echo": "a"}),
            caller.call("ServerStream", {"replies": 0}),
        ]
        if caller.streams_requests:
            calls.append(caller.call("ClientStream", {"text": "a"}, {"text": "b"}, {"text": "c"}))
        if caller.streams_both_ways:
            calls.append(caller.call("Bidi", {"text": "a", "replies": 2}, {"replies": 1}))
        unary, stream, empty, *rest = await node.make(*calls)
    assert unary["replies"] == [{"text": "h\u00e4", "payload": "eHh4"}]
    trailers = dict(unary["trailers"])
    assert trailers["x-echo"] == "a"
    assert trailers["x-echo-bin"].rstrip("=") == "AAH/"
    numbers = [reply.get("number", 0) for reply in stream["replies"]]
    assert (numbers, dict(stream["trailers"])["x-echo"]) == ([0, 1, 2], "a")
    assert empty["replies"] == []
    assert "error" not in empty
    if rest:
        assert rest[0]["replies"] == [{"text": "abc"}]
    if rest[1:]:
        assert rest[1]["replies"] == [{"text": "a"}, {"text": "a", "number": 1}, {}]


@every_way
async def test_errors_come_with_their_details(
    node: Node, http: str, transport: str, binary: bool
) -> None:
    failure = {"code": 9, "message": "n\u00f6t 100 %\n", "field": "id"}
    async with serving(BasculeGoogle(Behaviour())) as server:
        caller = Caller(server, http, transport, binary)
        headers = {"x-echo": "kept"}
        unary, stream, missing = await node.make(
            caller.call("Unary", {"failure": failure}, headers=headers),
            caller.call("ServerStream", {"failure": failure, "replies": 2}, headers=headers),
            caller.call("Missing"),
        )
        rows = {row[1]: dict(row[2]) for row in server.stats.snapshot()}
    for result, replies in ((unary, 0), (stream, 2)):
        assert len(result["replies"]) == replies
        error = result["error"]
        assert (error["code"], error["message"]) == (9, failure["message"])
        assert dict(error["metadata"])["x-echo"] == "kept"
        (detail,) = error["details"]
        assert detail["type"] == "google.rpc.BadRequest"
        violation = BadRequest.FromString(base64.b64decode(detail["value"])).field_violations[0]
        assert violation.field == "id"
    assert missing["error"]["code"] == 12
    assert rows == {
        "Unary": {"FAILED_PRECONDITION": 1},
        "ServerStream": {"FAILED_PRECONDITION": 1},
        "Missing": {"UNIMPLEMENTED": 1},
    }


@every_way
async def test_the_deadline_ends_the_handler(
    node: Node, http: str, transport: str, binary: bool
) -> None:
    behaviour = Behaviour()
    async with serving(BasculeGoogle(behaviour)) as server:
        caller = Caller(server, http, transport, binary)
        (result,) = await node.make(caller.call("Unary", {"hang": True}, timeout=500))
        assert result["error"]["code"] == 4
        with anyio.fail_after(10):
            await behaviour.cancelled.wait()


@every_way
async def test_a_client_that_gives_up_cancels_the_handler(
    node: Node, http: str, transport: str, binary: bool
) -> None:
    behaviour = Behaviour()
    async with serving(BasculeGoogle(behaviour)) as server:
        caller = Caller(server, http, transport, binary)
        request = {"hang": True, "replies": 2}
        (result,) = await node.make(caller.call("ServerStream", request, cancelAfter=2))
        assert (len(result["replies"]), result["error"]["code"]) == (2, 1)
        with anyio.fail_after(10):
            await behaviour.cancelled.wait()


@every_way
async def test_large_messages_flow_and_larger_ones_are_refused(
    node: Node, http: str, transport: str, binary: bool
) -> None:
    limits = ServerLimits(max_message=MIB)
    async with serving(BasculeGoogle(Behaviour()), limits=limits) as server:
        caller = Caller(server, http, transport, binary)
        size = 300_000
        unary, stream, refused, after = await node.make(
            caller.call("Unary", {"payloadSize": size}),
            caller.call("ServerStream", {"payloadSize": size, "replies": 8}),
            caller.call("Unary", {"payloadSize": MIB}),
            caller.call("Unary", {"text": "still here"}),
        )
    encoded = (size + 2) // 3 * 4
    assert [reply["payload"]["base64Length"] for reply in unary["replies"]] == [encoded]
    assert [reply["payload"]["base64Length"] for reply in stream["replies"]] == [encoded] * 8
    assert refused["error"]["code"] == 8
    assert after["replies"] == [{"text": "still here"}]


@pytest.mark.parametrize("service", SERVICES, ids=lambda kind: kind.__name__)
async def test_services_of_every_generator_speak_json(node: Node, service: Any) -> None:
    async with serving(service(Behaviour())) as server:
        caller = Caller(server, "2", "connect", binary=False)
        unary, joined, stream = await node.make(
            caller.call("Unary", {"text": "\u00e4", "payloadSize": 2}),
            caller.call("ClientStream", {"text": "a"}, {"text": "b"}),
            caller.call("Bidi", {"text": "c", "replies": 2}),
        )
    assert unary["replies"] == [{"text": "\u00e4", "payload": "eHg="}]
    assert joined["replies"] == [{"text": "ab"}]
    assert stream["replies"] == [{"text": "c"}, {"text": "c", "number": 1}]


@pytest.mark.parametrize("http", TRANSPORTS)
async def test_tls_carries_both_versions(http: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    chain, key, roots = (tmp_path / name for name in ("chain.pem", "key.pem", "roots.pem"))
    chain.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    roots.write_bytes(authority.cert_pem.bytes())
    service = BasculeBetterproto2(Behaviour())
    async with serving(service, tls=ServerTLS(chain, key)) as server:
        caller = Caller(server, http, "connect", binary=True)
        url = f"https://localhost:{server.addresses[0].rpartition(':')[2]}"
        trusting = Node(NODE_EXTRA_CA_CERTS=str(roots))
        unary, stream = await trusting.make(
            caller.call("Unary", {"text": "safe"}, url=url),
            caller.call("ServerStream", {"replies": 3}, url=url),
        )
        trusting.close()
    assert unary["replies"] == [{"text": "safe"}]
    assert len(stream["replies"]) == 3
