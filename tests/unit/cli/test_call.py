"""``bascule call`` against servers of bascule and of grpcio."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import anyio
import grpc
import pytest
import trustme
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_reflection.v1alpha import reflection
from tests.generated import echo_pb2
from tests.generated.echo_pb2_grpc import add_EchoServicer_to_server
from tests.interop.echo import BasculeGoogle, Behaviour
from tests.interop.peers import GrpcioEcho, Peer
from typer.testing import CliRunner, Result

from bascule.cli._main import app
from bascule.net import ServerTLS
from bascule.rpc import ReflectionService, Server

LOOPS = ["asyncio", "trio"]


@contextmanager
def bascule_server(
    backend: str, *, reflected: bool = True, tls: ServerTLS | None = None
) -> Iterator[str]:
    """Serve in a thread of its own."""
    ready: Future[str] = Future()
    stop = threading.Event()

    async def serve() -> None:
        echo = BasculeGoogle(Behaviour())
        services = [echo, ReflectionService([echo])] if reflected else [echo]
        async with Server(services, tls=tls) as server:
            ready.set_result(server.addresses[0])
            await anyio.to_thread.run_sync(stop.wait)

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(lambda: anyio.run(serve, backend=backend))
        try:
            yield ready.result(30)
        finally:
            stop.set()
            running.result(30)


@contextmanager
def grpcio_server() -> Iterator[str]:
    """grpcio's server with its own reflection, which is v1alpha only."""
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads)
        add_EchoServicer_to_server(GrpcioEcho(Peer()), server)
        reflection.enable_server_reflection(["echo.Echo", reflection.SERVICE_NAME], server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()


@pytest.fixture(scope="module", params=["bascule", "grpcio"])
def target(request: pytest.FixtureRequest) -> Iterator[str]:
    with bascule_server("asyncio") if request.param == "bascule" else grpcio_server() as address:
        yield address


@pytest.fixture(scope="module")
def own() -> Iterator[str]:
    with bascule_server("trio") as address:
        yield address


@pytest.fixture(scope="module")
def unreflected() -> Iterator[str]:
    with bascule_server("asyncio", reflected=False) as address:
        yield address


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["call", *map(str, arguments)])


def replies(result: Result) -> list[object]:
    assert (result.exit_code, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("loop", LOOPS)
def test_each_kind_of_method(target: str, loop: str) -> None:
    one = replies(run(target, "echo.Echo/Unary", '{"text": "hé"}', "--loop", loop))
    assert one == [{"text": "hé"}]
    several = '{"text": "a", "replies": 2} {"text": "b", "replies": 1}'
    assert replies(run(target, "Echo/ClientStream", several, "--loop", loop)) == [{"text": "ab"}]
    asked = run(target, "/echo.Echo/ServerStream", '{"text": "a", "replies": 2}', "--loop", loop)
    assert replies(asked) == [{"text": "a"}, {"text": "a", "number": 1}]
    assert replies(run(target, "echo.Echo.Bidi", several, "--loop", loop)) == [
        {"text": "a"},
        {"text": "a", "number": 1},
        {"text": "b"},
    ]


def test_what_a_server_has(target: str) -> None:
    assert "echo.Echo" in run(target, "--list").stdout.splitlines()
    service = run(target, "--describe", "Echo").stdout
    assert "  rpc Bidi(stream echo.EchoRequest) returns (stream echo.EchoReply);\n" in service
    method = run(target, "--describe", "echo.Echo/Unary").stdout
    assert "rpc Unary(echo.EchoRequest) returns (echo.EchoReply);" in method
    assert "message echo.EchoRequest {\n  string text = 1;" in method
    assert run(target, "--describe", "Failure").stdout == (
        "message echo.Failure {\n  int32 code = 1;\n  string message = 2;\n  string field = 3;\n}\n"
    )


def test_a_status_is_the_exit_code_and_its_details_are_printed(target: str) -> None:
    request = '{"failure": {"code": 3, "message": "bad", "field": "email"}}'
    result = run(target, "Echo/Unary", request)
    assert (result.exit_code, result.stdout) == (67, "")
    assert result.stderr.startswith("INVALID_ARGUMENT (3): bad\n")
    assert '  google.rpc.BadRequest {"fieldViolations": [{"field": "email"}]}\n' in result.stderr
    result = run(target, "Echo/Unary", request, "--json-errors")
    assert json.loads(result.stderr) == {
        "status": "INVALID_ARGUMENT",
        "code": 3,
        "message": "bad",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{"field": "email"}],
            }
        ],
    }


def test_replies_before_a_status_are_printed(target: str) -> None:
    request = '{"text": "a", "replies": 1, "failure": {"code": 10, "message": "late"}}'
    result = run(target, "Echo/ServerStream", request)
    assert (result.exit_code, result.stdout) == (74, '{"text": "a"}\n')


def test_a_timeout(target: str) -> None:
    result = run(target, "Echo/Unary", '{"hang": true}', "--timeout", "0.3")
    assert result.exit_code == 68
    assert result.stderr.startswith("DEADLINE_EXCEEDED (4)")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["Echo/Unry"], "echo.Echo has no method 'Unry'; did you mean Unary?"),
        (["Eco/Unary"], "there is no service 'Eco' here; did you mean echo.Echo?"),
        (["--describe", "EchoReqest"], "nothing here is called 'EchoReqest'; did you mean echo."),
        (["Echo/Unary", '{"txet": 1}'], "EchoRequest has no field 'txet'; did you mean text?"),
        (["Echo/Unary", '{"replies": "x"}'], "the request is no echo.EchoRequest:"),
        (["Echo/Unary", '{"text": '], "the JSON argument is no JSON: Expecting value"),
        (["Echo/Unary", "{} {}"], "/echo.Echo/Unary takes one message: got 2 documents"),
        (["Echo/Bidi", "{} nonsense"], "the JSON argument is no JSON"),
        (["Echo/Unary", "@/nowhere/it.json"], "/nowhere/it.json cannot be read"),
        ([], "give the METHOD to call, or --list, or --describe NAME"),
        (["Echo/Unary", "-H", "nonsense"], "expected 'NAME: VALUE'"),
        (["Echo/Unary", "-H", "x-bin: %"], "is no base64"),
        (["Echo/Unary", "-H", "x y: z"], "expected 'NAME: VALUE'"),
        (["Echo/Unary", "-H", "upgrade: h2c"], "the name is reserved for the protocol"),
        (["Echo/Unary", "-H", "x: h\u00e9"], "a value is printable ASCII"),
        (["--list", "--proto", __file__], "is no descriptor set"),
        (["--list", "--key", "x"], "is of no use without its certificate"),
    ],
)
def test_mistakes_are_told_apart(own: str, arguments: list[str], says: str) -> None:
    result = run(own, *arguments)
    assert result.exit_code == 2
    # Where typer draws a box, it breaks lines.
    assert says.replace(" ", "") in "".join(result.stderr.split()).replace("│", "")


def test_a_server_that_is_not_there() -> None:
    result = run("127.0.0.1:1", "Echo/Unary")
    assert result.exit_code == 78
    assert result.stderr.startswith("UNAVAILABLE (14): ")
    assert "cannot connect to 127.0.0.1:1: " in result.stderr


def test_without_reflection_a_descriptor_set_serves(unreflected: str, tmp_path: Path) -> None:
    result = run(unreflected, "Echo/Unary")
    assert result.exit_code == 2
    assert "has no server reflection" in result.stderr
    assert "--proto" in result.stderr
    descriptors = FileDescriptorSet()
    echo_pb2.DESCRIPTOR.CopyToProto(descriptors.file.add())
    path = tmp_path / "echo.binpb"
    path.write_bytes(descriptors.SerializeToString())
    asked = run(unreflected, "Echo/Unary", '{"text": "x"}', "--proto", path)
    assert replies(asked) == [{"text": "x"}]
    # Without a server, too.
    assert run("127.0.0.1:1", "--list", "--proto", path).stdout == "echo.Echo\n"


def test_metadata_is_sent(own: str) -> None:
    value = base64.b64encode(b"\0\1\2\3").decode().rstrip("=")
    headers = ["-H", "X-Echo: a: b", "-H", f"x-echo-bin: {value}"]
    assert replies(run(own, "Echo/Unary", *headers)) == [{}]


@pytest.mark.parametrize("loop", LOOPS)
def test_how_a_call_went(own: str, loop: str) -> None:
    request = '{"text": "a", "replies": 2}'
    options = ["--explain", "--loop", loop, "-H", "x-echo: red", "--compression", "gzip"]
    result = run(f"static:///{own},127.0.0.1:1", "Echo/ServerStream", request, *options)
    assert len(result.stdout.splitlines()) == 2
    told = [line.split(maxsplit=1) for line in result.stderr.splitlines()]
    account = {name: text for name, text in told if name.isalpha()}
    assert account["target"] == f"static:///{own},127.0.0.1:1, ready"
    assert account["resolver"].startswith("StaticResolver: 2 endpoints, shared by ")
    assert f"endpoint  {own} ready, 2 calls, 1 answered, 0 failed\n" in result.stderr
    assert "endpoint  127.0.0.1:1 " in result.stderr
    assert account["schema"] == "server reflection v1: 2 questions, 1 file"
    assert account["deadline"] == "none"
    assert account["messages"] == "1 message sent, 2 received"
    assert account["peer"] == own
    assert account["trailer"] == r"x-echo: red"
    assert re.search(r"^time +connected after [\d.]+ ms$", result.stderr, re.MULTILINE)
    assert account["status"] == "OK (0)"


@pytest.mark.parametrize("loop", LOOPS)
def test_how_a_call_failed(own: str, loop: str, tmp_path: Path) -> None:
    retry = {
        "maxAttempts": 3,
        "initialBackoff": "0.01s",
        "maxBackoff": "0.01s",
        "backoffMultiplier": 1,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": retry}]}))
    request = '{"failure": {"code": 14, "message": "not now"}}'
    options = ["--explain", "--loop", loop, "--timeout", 60, "--service-config", f"@{config}"]
    result = run(own, "Echo/Unary", request, *options)
    assert result.exit_code == 78
    assert result.stderr.startswith("UNAVAILABLE (14): not now\n")
    assert "\nattempts  2 retries, 0 hedges, 0 transparent, 0 throttled\n" in result.stderr
    assert "\ndeadline  60 s for the call\n" in result.stderr
    assert result.stderr.endswith("\nstatus    UNAVAILABLE (14)\n")
    result = run("127.0.0.1:1", "Echo/Unary", "--explain", "--loop", loop)
    assert "target    127.0.0.1:1, transient_failure\n" in result.stderr
    assert "Connect call failed" in result.stderr or "Connection refused" in result.stderr


def test_settings_that_cannot_work(own: str) -> None:
    for options in (["--compression", "lzma"], ["--service-config", "{"]):
        assert run(own, "Echo/Unary", *options).exit_code == 2


def test_files_and_standard_input(own: str, tmp_path: Path) -> None:
    path = tmp_path / "requests.json"
    path.write_text('{\n  "text": "a"\n}\n{"text": "b"}')
    assert replies(run(own, "Echo/ClientStream", f"@{path}")) == [{"text": "ab"}]
    command = [sys.executable, "-c", "from bascule.cli import main; main()"]
    with path.open() as file:
        ran = subprocess.run(
            [*command, "call", own, "Echo/ClientStream", "-"],
            stdin=file,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert (ran.stdout, ran.stderr) == ('{"text": "ab"}\n', "")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_conversation_by_pipes(own: str, loop: str) -> None:
    command = [sys.executable, "-W", "error", "-c", "from bascule.cli import main; main()"]
    with subprocess.Popen(
        [*command, "call", own, "Echo/Bidi", "-", "--loop", loop],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as talk:
        assert talk.stdin is not None
        assert talk.stdout is not None
        for number in range(3):
            talk.stdin.write(f'{{"text": "{number}",\n"replies": 1}}\n')
            talk.stdin.flush()
            assert json.loads(talk.stdout.readline()) == {"text": str(number)}
        talk.stdin.close()
        assert talk.stdout.read() == ""
        assert talk.wait(30) == 0


@pytest.mark.parametrize("loop", LOOPS)
def test_a_server_that_ends_the_call_ends_the_conversation(own: str, loop: str) -> None:
    command = [sys.executable, "-W", "error", "-c", "from bascule.cli import main; main()"]
    with subprocess.Popen(
        [*command, "call", own, "Echo/Bidi", "-", "--loop", loop],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as talk:
        assert talk.stdin is not None
        assert talk.stderr is not None
        talk.stdin.write('{"failure": {"code": 9, "message": "enough"}}\n')
        talk.stdin.flush()
        # Standard input stays open: nothing but the status ends the command.
        assert talk.wait(30) == 73
        assert talk.stderr.read() == "FAILED_PRECONDITION (9): enough\n"


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    server, client = authority.issue_cert("localhost"), authority.issue_cert("me@example.org")
    ca, certificate, key, mine = (tmp_path / name for name in ("ca", "server", "key", "client"))
    authority.cert_pem.write_to_path(ca)
    server.cert_chain_pems[0].write_to_path(certificate)
    server.private_key_pem.write_to_path(key)
    client.private_key_and_cert_chain_pem.write_to_path(mine)
    with bascule_server("asyncio", tls=ServerTLS(certificate, key)) as address:
        named = ["--cacert", ca, "--server-name", "localhost"]
        assert replies(run(address, "Echo/Unary", '{"text": "x"}', *named)) == [{"text": "x"}]
        assert replies(run(address, "Echo/Unary", "--insecure")) == [{}]
        assert run(address, "Echo/Unary", "--tls").exit_code == 78
        assert run(address, "Echo/Unary", "--cacert", ca).exit_code == 78
        assert run(address, "Echo/Unary").exit_code == 78
    with bascule_server("trio", tls=ServerTLS(certificate, key, client_ca=ca)) as address:
        assert replies(run(address, "Echo/Unary", *named, "--cert", mine)) == [{}]
        assert run(address, "Echo/Unary", *named).exit_code == 78
