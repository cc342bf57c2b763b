"""One call by the names of things: find the method, send the documents, print the replies."""

from __future__ import annotations

import json
import re
import sys
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from google.protobuf import any_pb2, json_format
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from bascule.cli._describe import describe
from bascule.cli._documents import documents
from bascule.cli._explain import Account
from bascule.cli._schema import (
    DescriptorSet,
    Schema,
    find_method,
    find_symbol,
    instead,
    method_of,
    open_reflection,
)
from bascule.errors import ConfigurationError, RpcError
from bascule.rpc import Channel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from google.protobuf.descriptor_pool import DescriptorPool

    from bascule.net import ClientTLS
    from bascule.rpc import Method

__all__ = ["CallSettings", "one_request", "print_error", "run_call"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSettings:
    """What the command line asks for. Times are seconds.

    :param listing: print the services instead of calling
    :param describing: print what this name stands for instead of calling
    :param source: the request: JSON, ``@file`` or ``-``
    :param explain: tell on standard error how the call went
    """

    target: str
    method: str | None = None
    source: str = "{}"
    listing: bool = False
    describing: str | None = None
    metadata: list[tuple[str, str | bytes]] = field(default_factory=list)
    timeout: float | None = None
    descriptors: Path | None = None
    tls: ClientTLS | None = None
    indent: int | None = None
    defaults: bool = False
    json_errors: bool = False
    explain: bool = False
    compression: str | None = None
    service_config: str | None = None


async def run_call(settings: CallSettings) -> int:
    """Do what is asked and print it.

    :returns: the exit code: 0, or 64 and the status code
    :raises BasculeError: if it cannot be done
    """
    channel = Channel(
        settings.target,
        tls=settings.tls,
        metadata=settings.metadata,
        compression=settings.compression,
        service_config=settings.service_config,
    )
    async with channel, anyio.create_task_group() as tasks:
        account = Account()
        tasks.start_soon(account.watch, channel)
        error: RpcError | None = None
        failure: Exception | None = None
        try:
            await _act(channel, settings, account)
        except RpcError as status:
            error = status
            print_error(error, account.pool, as_json=settings.json_errors)
        except Exception as other:  # noqa: BLE001 - raised below, outside of the task group
            failure = other
        if settings.explain and failure is None:
            _print(account.tell(channel, error), sys.stderr)
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return 0 if error is None else 64 + error.status.value


async def _act(channel: Channel, settings: CallSettings, account: Account) -> None:
    async with _open_schema(channel, settings) as schema:
        account.pool = schema.pool
        if settings.listing:
            _print("\n".join(await schema.services()))
            return
        if settings.describing is not None:
            _print(describe(await find_symbol(schema, settings.describing)))
            return
        if settings.method is None:
            raise ConfigurationError("give the METHOD to call, or --list, or --describe NAME")
        method = method_of(await find_method(schema, settings.method))
        account.learned(schema)
    await _call(channel, method, schema.pool, settings, account)


def _open_schema(channel: Channel, settings: CallSettings) -> AbstractAsyncContextManager[Schema]:
    if settings.descriptors is not None:
        return nullcontext(DescriptorSet(settings.descriptors))
    return open_reflection(channel, settings.timeout)


async def _call(
    channel: Channel,
    method: Method[Any, Any],
    pool: DescriptorPool,
    settings: CallSettings,
    account: Account,
) -> None:
    requests = _requests(method, pool, settings.source)
    first = None
    if not method.cardinality.client_streaming:
        # Read before anything is sent: what is wrong with it is no matter of the server's.
        first = await _only(requests, method)
    failure: Exception | None = None
    async with (
        channel.stream(method, timeout=settings.timeout) as stream,
        anyio.create_task_group() as tasks,
    ):
        account.begin(stream, method.path, settings.timeout)

        async def send_all() -> None:
            nonlocal failure
            try:
                async for request in requests:
                    account.sent += 1
                    await stream.send_message(request)
                await stream.end()
            except Exception as error:  # noqa: BLE001 - raised below, outside of the task group
                failure = error
                tasks.cancel_scope.cancel()

        try:
            if first is None:
                await stream.send_request()
                tasks.start_soon(send_all)
            else:
                account.sent += 1
                await stream.send_message(first, end=True)
            async for reply in stream:
                account.reply()
                _print(_to_json(reply, pool, settings))
        except Exception as error:  # noqa: BLE001 - as above
            failure = error
        # The server has ended the call: nobody wants the rest of the requests.
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def one_request(method: Method[Any, Any], pool: DescriptorPool, source: str) -> Any:
    """Read the one request of a method.

    :param source: JSON, ``@file`` or ``-``
    :raises ConfigurationError: if it is none, or if there are several
    """
    async with aclosing(_requests(method, pool, source)) as requests:
        return await _only(requests, method)


async def _requests(
    method: Method[Any, Any], pool: DescriptorPool, source: str
) -> AsyncGenerator[Any]:
    async with aclosing(documents(source)) as found:
        async for document in found:
            try:
                yield json_format.Parse(document, method.request_type(), descriptor_pool=pool)
            except json_format.ParseError as error:
                raise ConfigurationError(_what_is_wrong(error, method.request_type)) from error


def _what_is_wrong(error: json_format.ParseError, message_type: Any) -> str:
    name = message_type.DESCRIPTOR.full_name
    reason = " ".join(str(error).split())
    unknown = re.search(r'Message type "(.+?)" has no field named "(.+?)"', reason)
    if unknown is not None:
        owner, wanted = unknown.groups()
        fields = message_type.DESCRIPTOR.file.pool.FindMessageTypeByName(owner).fields
        reason = (
            f"{owner} has no field {wanted!r}{instead(wanted, [each.json_name for each in fields])}"
        )
        name = owner
    return f"the request is no {message_type.DESCRIPTOR.full_name}: {reason}; see --describe {name}"


async def _only(requests: AsyncIterator[Any], method: Method[Any, Any]) -> Any:
    found = [each async for each in requests]
    if len(found) == 1:
        return found[0]
    raise ConfigurationError(f"{method.path} takes one message: got {len(found)} documents")


def _to_json(message: Any, pool: DescriptorPool, settings: CallSettings) -> str:
    return json_format.MessageToJson(
        message,
        indent=settings.indent,
        always_print_fields_with_no_presence=settings.defaults,
        descriptor_pool=pool,
        ensure_ascii=False,
    )


def print_error(error: RpcError, pool: DescriptorPool | None, *, as_json: bool) -> None:
    """Print a status with its details on standard error."""
    details = [_detail(each, pool) for each in error.details or ()]
    if as_json:
        document = {
            "status": error.status.name,
            "code": error.status.value,
            "message": error.message or "",
            "details": details,
        }
        _print(json.dumps(document, ensure_ascii=False), sys.stderr)
        return
    _print(f"{error.status.name} ({error.status.value}): {error.message or ''}", sys.stderr)
    for detail in details:
        name = detail.pop("@type").rpartition("/")[2]
        _print(f"  {name} {json.dumps(detail, ensure_ascii=False)}", sys.stderr)


def _detail(detail: Any, pool: DescriptorPool | None) -> dict[str, Any]:
    """A detail as JSON shows an ``Any``; one of unknown type with its bytes in base64."""
    if isinstance(detail, any_pb2.Any):
        name = detail.TypeName()
        packed = detail
        try:
            if pool is None:
                raise KeyError(name)
            detail = GetMessageClass(pool.FindMessageTypeByName(name)).FromString(packed.value)
        except (KeyError, DecodeError):
            import base64

            return {"@type": packed.type_url, "value": base64.b64encode(packed.value).decode()}
    document = json_format.MessageToDict(detail, descriptor_pool=pool)
    if not isinstance(document, dict):  # a well-known type that JSON writes as a value
        document = {"value": document}
    return {"@type": f"type.googleapis.com/{detail.DESCRIPTOR.full_name}", **document}


def _print(text: str, file: Any = None) -> None:
    # Flushed: who reads a stream by a pipe wants each reply when it comes.
    print(text, file=file or sys.stdout, flush=True)
