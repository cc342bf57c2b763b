"""Consul's keys and values."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec

from bascule.discovery.consul._errors import ConsulError, ConsulStatusError, TransactionError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from bascule.discovery.consul._client import ConsulClient
    from bascule.discovery.consul._http import Answer

__all__ = ["KeyValue", "KvOperation", "KvStore"]

#: Operations in one transaction (``kv_max_value_size`` and ``txn_max_req_len`` bound their bytes).
MOST_OPERATIONS = 64

Consistency = Literal["default", "stale", "consistent"]


class KeyValue(msgspec.Struct, frozen=True, rename="pascal"):
    """One key.

    :ivar value: None for a key without one
    :ivar modify_index: grows with each change of any key: for check-and-set
    :ivar lock_index: how often it has been locked since it was made
    :ivar session: who holds it as a lock
    """

    key: str
    create_index: int
    modify_index: int
    value: bytes | None = None
    flags: int = 0
    lock_index: int = 0
    session: str | None = None


@dataclass(frozen=True, slots=True)
class KvOperation:
    """A step of a transaction.

    :param verb: ``set``, ``cas``, ``lock``, ``unlock``, ``get``, ``get-tree``, ``check-index``,
        ``check-session``, ``check-not-exists``, ``delete``, ``delete-tree`` or ``delete-cas``
    :param index: what ``cas``, ``delete-cas`` and ``check-index`` compare with ``modify_index``;
        ``cas`` with 0 sets only what does not exist
    """

    verb: str
    key: str
    value: bytes | None = None
    index: int | None = None
    flags: int | None = None
    session: str | None = None


class _TransactionFailure(msgspec.Struct, rename="pascal"):
    op_index: int = 0
    what: str = ""


class _TransactionResult(msgspec.Struct):
    kv: KeyValue | None = msgspec.field(name="KV", default=None)


class _Transaction(msgspec.Struct, rename="pascal"):
    results: list[_TransactionResult] | None = None
    errors: list[_TransactionFailure] | None = None


class KvStore:
    """Reads and writes keys. Get it as :attr:`ConsulClient.kv`.

    Every method raises :class:`ConsulError` if Consul is away, refuses or answers nonsense.
    """

    def __init__(self, client: ConsulClient) -> None:
        self._client = client

    async def get(self, key: str, *, consistency: Consistency = "default") -> KeyValue | None:
        """The key; None if it does not exist."""
        found = (await self._ask(key, recurse=False, consistency=consistency)).value
        return found[0] if found else None

    async def list(
        self, prefix: str = "", *, consistency: Consistency = "default"
    ) -> tuple[KeyValue, ...]:
        """All keys that begin with the prefix, sorted."""
        return (await self._ask(prefix, recurse=True, consistency=consistency)).value

    async def keys(self, prefix: str = "", *, separator: str | None = None) -> tuple[str, ...]:
        """The names that begin with the prefix, up to the next separator if one is given."""
        answer = await self._client.http.call(
            "GET",
            _path(prefix),
            tuple[str, ...],
            params={"keys": "true", "separator": separator},
            absent=(),
        )
        return answer.value

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        flags: int = 0,
        cas: int | None = None,
        acquire: str | None = None,
        release: str | None = None,
    ) -> bool:
        """Write a key.

        :param cas: write only if the key's ``modify_index`` is still this one; 0: only if it does not
            exist
        :param acquire: id of a session that is to hold it
        :param release: id of the session that holds it and is to leave it
        :return: whether it was written: False if the condition did not hold
        """
        params = {
            "flags": str(flags) if flags else None,
            "cas": None if cas is None else str(cas),
            "acquire": acquire,
            "release": release,
        }
        answer = await self._client.http.call("PUT", _path(key), bool, params=params, body=value)
        return answer.value

    async def delete(self, key: str, *, recurse: bool = False, cas: int | None = None) -> bool:
        """Delete a key; with ``recurse``, all that begin so.

        :param cas: only if the key's ``modify_index`` is still this one, above 0
        :return: False if the condition did not hold; a key that is not there counts as deleted
        """
        params = {
            "recurse": "true" if recurse else None,
            "cas": None if cas is None else str(cas),
        }
        return (await self._client.http.call("DELETE", _path(key), bool, params=params)).value

    async def transaction(self, operations: Sequence[KvOperation]) -> tuple[KeyValue, ...]:
        """Do all operations, at most 64, or none.

        :return: what they read or wrote, in order; a written key comes without its value
        :raises TransactionError: if one of them cannot be done
        """
        if len(operations) > MOST_OPERATIONS:
            message = f"{len(operations)} operations: a transaction takes {MOST_OPERATIONS}"
            raise ValueError(message)
        body = msgspec.json.encode([{"KV": _operation(each)} for each in operations])
        try:
            answer = await self._client.http.call("PUT", "/v1/txn", _Transaction, body=body)
        except ConsulStatusError as error:
            if error.status != 409:
                raise
            raise TransactionError(_failures(error.body)) from error
        return tuple(each.kv for each in answer.value.results or () if each.kv is not None)

    @asynccontextmanager
    async def watch(
        self,
        prefix: str,
        *,
        recurse: bool = True,
        consistency: Consistency = "default",
        on_failure: Callable[[ConsulError], None] | None = None,
        on_recovery: Callable[[], None] | None = None,
    ) -> AsyncIterator[AsyncIterator[tuple[KeyValue, ...]]]:
        """Follow the keys that begin with a prefix, or one key.

        The iterator gives what is there, an empty tuple included, then again whenever the content
        has changed. While Consul fails, it waits and tries again by Consul's rules for
        blocking queries; what it gave last stays true as far as anybody knows.

        :param recurse: False: ``prefix`` is the name of one key
        :param on_failure: told of each failure
        :param on_recovery: told when Consul answers again after one
        """

        async def states() -> AsyncGenerator[tuple[KeyValue, ...]]:
            async def ask(index: int, wait: float, timeout: float) -> Answer[tuple[KeyValue, ...]]:
                return await self._ask(
                    prefix,
                    recurse=recurse,
                    consistency=consistency,
                    index=index,
                    wait=wait,
                    timeout=timeout,
                )

            said: tuple[KeyValue, ...] | None = None
            failed = False
            with self._client.blocking(ask) as query:
                while True:
                    try:
                        answer = await query.next()
                    except ConsulError as error:
                        failed = True
                        if on_failure is not None:
                            on_failure(error)
                        continue
                    if failed and on_recovery is not None:
                        on_recovery()
                    failed = False
                    if answer.value != said:
                        said = answer.value
                        yield said

        async with aclosing(states()) as each:
            yield each

    async def _ask(
        self, key: str, *, recurse: bool, consistency: Consistency, **blocking: Any
    ) -> Answer[tuple[KeyValue, ...]]:
        params = {
            "recurse": "true" if recurse else None,
            consistency: None if consistency == "default" else "true",
        }
        return await self._client.http.call(
            "GET", _path(key), tuple[KeyValue, ...], params=params, absent=(), **blocking
        )


def _path(key: str) -> str:
    if key.startswith("/"):
        message = f"key {key!r}: Consul's keys begin without a slash"
        raise ValueError(message)
    # A dot segment would be resolved on the way, and name another key or another API.
    if any(part in {".", ".."} for part in key.split("/")):
        message = f"key {key!r}: a part of it must not be '.' or '..'"
        raise ValueError(message)
    return f"/v1/kv/{quote(key)}"


def _operation(each: KvOperation) -> dict[str, Any]:
    fields = {
        "Verb": each.verb,
        "Key": each.key,
        "Value": each.value,
        "Index": each.index,
        "Flags": each.flags,
        "Session": each.session,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _failures(body: bytes) -> tuple[tuple[int, str], ...]:
    try:
        answer = msgspec.json.decode(body, type=_Transaction)
    except (msgspec.MsgspecError, RecursionError):
        return ((0, body[:300].decode(errors="replace")),)
    return tuple((each.op_index, each.what) for each in answer.errors or ())
