"""``bascule call`` against grpc-go, by its reflection (v1)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from benches.harness.process import serving
from tests.tools import tool
from typer.testing import CliRunner, Result

from bascule.cli._main import app


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving([str(tool("grpc-interop-server")), "-name", "one"], None) as running:
        yield running.address


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["call", *arguments])


def replies(result: Result) -> list[dict[str, object]]:
    assert (result.exit_code, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_calls(address: str, loop: str) -> None:
    def ask(method: str, *documents: str) -> list[dict[str, object]]:
        name = f"TestService/{method}"
        return replies(call(address, name, " ".join(documents) or "{}", "--loop", loop))

    assert ask("EmptyCall") == [{}]
    sized = '{"responseSize": 3, "payload": {"body": "AAA="}}'
    assert ask("UnaryCall", sized) == [{"payload": {"body": "AAAA"}}]
    three = ask("StreamingOutputCall", '{"responseParameters": [{"size": 1}, {"size": 2}, {}]}')
    assert [each["payload"] for each in three] == [{"body": "AA=="}, {"body": "AAA="}, {}]
    body = '{"payload": {"body": "AAAA"}}'
    assert ask("StreamingInputCall", body, body) == [{"aggregatedPayloadSize": 6}]
    one = '{"responseParameters": [{"size": 1}]}'
    assert ask("FullDuplexCall", one, one) == [{"payload": {"body": "AA=="}}] * 2


def test_what_it_has(address: str) -> None:
    assert "grpc.testing.TestService" in call(address, "--list").stdout.splitlines()
    told = call(address, "--describe", "grpc.testing.SimpleRequest").stdout
    assert "  grpc.testing.Payload payload = 3;\n" in told


def test_a_status_and_a_typo(address: str) -> None:
    asked = '{"responseStatus": {"code": 9, "message": "not now"}}'
    result = call(address, "grpc.testing.TestService/UnaryCall", asked)
    assert (result.exit_code, result.stderr) == (73, "FAILED_PRECONDITION (9): not now\n")
    assert call(address, "TestService/UnimplementedCall").exit_code == 76
    result = call(address, "TestService/UnaryCal")
    assert result.exit_code == 2
    assert "did you mean UnaryCall or CacheableUnaryCall?" in result.stderr
