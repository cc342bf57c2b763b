"""Details of errors: raised with messages of either library, read as either."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    PreconditionFailure,
    QuotaFailure,
    RetryInfo,
)
from tests.generated import echo_pb2
from tests.generated.better import echo as echo_better
from tests.generated.echo_bascule import EchoStub
from tests.unit.rpc.services import Echo

from bascule.errors import RpcError, Status
from bascule.rpc import ServerInterceptor
from bascule.testing import memory_channel

pytestmark = pytest.mark.anyio

KINDS = [
    BadRequest(field_violations=[BadRequest.FieldViolation(field="email", description="taken")]),
    RetryInfo(),
    ErrorInfo(reason="STOCK", domain="shop.example", metadata={"product": "7"}),
    QuotaFailure(violations=[QuotaFailure.Violation(subject="user:1")]),
    PreconditionFailure(violations=[PreconditionFailure.Violation(type="TOS")]),
]


class Failing(ServerInterceptor):
    def __init__(self, *details: Any) -> None:
        self.details = list(details)

    async def unary(self, call: Any, request: Any, proceed: Any) -> Any:
        raise RpcError(Status.FAILED_PRECONDITION, "no", self.details)


async def error_of(*details: Any) -> RpcError:
    async with memory_channel(Echo(), server_interceptors=[Failing(*details)]) as channel:
        with pytest.raises(RpcError, match="^FAILED_PRECONDITION: no$") as caught:
            await EchoStub(channel).unary(echo_pb2.EchoRequest())
    return caught.value


async def test_each_common_kind_comes_as_it_was_raised() -> None:
    error = await error_of(*KINDS)
    assert error.details == KINDS
    for each in KINDS:
        assert error.detail(type(each)) == each


async def test_one_library_reads_what_the_other_raised() -> None:
    for raised in (echo_pb2.Failure(field="a"), echo_better.Failure(field="a")):
        error = await error_of(raised, KINDS[0])
        assert error.detail(echo_pb2.Failure) == echo_pb2.Failure(field="a")
        assert error.detail(echo_better.Failure) == echo_better.Failure(field="a")
        assert error.detail(RetryInfo) is None


async def test_a_detail_of_unknown_type_is_kept() -> None:
    packed = Packed(type_url="type.example/nowhere.Unknown", value=b"\x08\x01")
    error = await error_of(packed, KINDS[1])
    assert error.details == [packed, KINDS[1]]
    assert error.detail(RetryInfo) == KINDS[1]
    assert error.detail(BadRequest) is None


async def test_bad_bytes_of_a_known_type_are_no_detail() -> None:
    name = "type.googleapis.com/echo.Failure"
    error = await error_of(Packed(type_url=name, value=b"\xff"))
    assert error.detail(echo_pb2.Failure) is None


async def test_what_is_no_message_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    error = await error_of("a text")
    assert error.details is None
    assert "'a text' is no protobuf message" in caplog.text


async def test_an_error_raised_here_has_its_details_too() -> None:
    error = RpcError(Status.NOT_FOUND, "no", [echo_better.Failure(code=5)])
    assert error.detail(echo_pb2.Failure) == echo_pb2.Failure(code=5)
    assert RpcError(Status.NOT_FOUND).detail(BadRequest) is None
    assert error.detail(str) is None
