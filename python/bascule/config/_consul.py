"""Configuration in Consul's keys and values."""

from __future__ import annotations

import secrets
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from bascule._latest import Latest
from bascule._tasks import owned_tasks
from bascule.config._document import (
    MISSING,
    Document,
    changes_between,
    check_key,
    find,
    merged,
    replaced,
)
from bascule.config._source import ConflictError, Layer, Revision, new_id
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

    from bascule.discovery.consul import ConsulClient, ConsulSettings, KeyValue, KvOperation

    #: The keys below the prefix, without it, with their JSON; "" is the prefix itself.
    Keys = Mapping[str, bytes]

__all__ = ["ConsulSource"]

#: Attempts of a change that others are in the way of.
MOST_ATTEMPTS = 8

#: Of Consul's transactions.
MOST_OPERATIONS = 64


class _Entry(msgspec.Struct):
    """What is kept of a revision: all keys as they were after it."""

    revision: Revision
    keys: dict[str, msgspec.Raw]


class ConsulSource:
    """The keys under a prefix such as ``config/shop``.

    Each value is JSON. ``config/shop`` may hold a whole document, ``config/shop/server`` and
    ``config/shop/server/port`` what belongs there; the longer key goes before the shorter one.

    A change is one transaction: the keys, if nobody has changed them meanwhile, and the revision
    under ``config-history/shop/``. Writers that go past bascule are seen by watches, and told as
    ``unknown`` in the history by the next change.

    :param prefix: begins with ``config/``
    :param client: inside of its ``async with``; None: one of its own, by ``settings``
    :param settings: None for what the environment says
    :raises ConfigurationError: if the prefix has another form
    """

    def __init__(
        self,
        prefix: str,
        *,
        client: ConsulClient | None = None,
        settings: ConsulSettings | None = None,
    ) -> None:
        root, _, rest = prefix.strip("/").partition("/")
        if root != "config" or not rest or prefix.startswith("/"):
            message = f"Consul prefix {prefix!r}: expected config/NAME"
            raise ConfigurationError(message)
        self._prefix = f"config/{rest}"
        self._history = f"config-history/{rest}/"
        self._client = client
        self._settings = settings

    @property
    def name(self) -> str:
        """``consul:PREFIX``."""
        return f"consul:{self._prefix}"

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[Layer]]:
        """Follow the keys; while Consul is away, what it said last holds."""
        latest: Latest[Layer] = Latest()
        said: Layer | None = None

        def failed(error: Exception) -> None:
            latest.put(Layer(None, str(error), away=True))

        def recovered() -> None:
            if said is not None:
                latest.put(said)

        async def follow(client: ConsulClient) -> None:
            nonlocal said
            watch = client.kv.watch(self._prefix, on_failure=failed, on_recovery=recovered)
            async with watch as states:
                async for entries in states:
                    said = self._layer(entries)
                    latest.put(said)

        async with self._opened() as client, owned_tasks() as tasks:
            tasks.start_soon(follow, client)
            yield latest
            tasks.cancel_scope.cancel()

    async def read(self) -> Document:
        """The document now.

        :raises ConsulError: if Consul is away
        :raises ConfigurationError: if a value is no JSON
        """
        async with self._opened() as client:
            keys, _ = self._take(await client.kv.list(self._prefix))
        return _document(keys)

    async def set(self, key: str, value: Any, *, by: str) -> Revision:
        """See :class:`WritableSource`.

        :raises ConsulError: if Consul is away
        """
        parts = check_key(key)
        return await self._write(lambda keys: _with_value(keys, parts, value), by)

    async def history(self, limit: int = 20) -> Sequence[Revision]:
        """See :class:`WritableSource`.

        :raises ConsulError: if Consul is away
        """
        async with self._opened() as client:
            names = await client.kv.keys(self._history)
            last = [each for each in names if each != self._head][: -limit - 1 : -1]
            entries = [await self._entry(client, each) for each in last]
        return [each.revision for each in entries if each is not None]

    async def rollback(self, revision: str, *, by: str) -> Revision:
        """See :class:`WritableSource`.

        :raises ConsulError: if Consul is away
        """
        check_key(revision)
        async with self._opened() as client:
            entry = await self._entry(client, self._history + revision)
        if entry is None:
            message = f"{self.name} has no revision {revision!r}"
            raise ConfigurationError(message)
        wanted = {name: bytes(value) for name, value in entry.keys.items()}
        return await self._write(lambda _: wanted, by, rollback=revision)

    @property
    def _head(self) -> str:
        """Holds the id of the last revision: every change compares and sets it, so that each
        revision knows all keys as they were.
        """
        return f"{self._history}head"

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[ConsulClient]:
        from bascule.discovery.consul import ConsulClient, ConsulSettings

        if self._client is not None:
            await anyio.lowlevel.checkpoint()
            yield self._client
            return
        settings = self._settings or ConsulSettings.read()
        async with ConsulClient(settings=settings) as client:
            yield client

    def _take(self, entries: Iterable[KeyValue]) -> tuple[dict[str, bytes], dict[str, int]]:
        """The keys that belong here, and their indices: Consul's prefixes know no slash."""
        keys, indices = {}, {}
        for each in entries:
            rest = each.key.removeprefix(self._prefix)
            # A folder of Consul's own page is a key that ends in a slash, without a value.
            if (rest == "" or rest.startswith("/")) and not rest.endswith("/"):
                keys[rest.removeprefix("/")] = each.value or b""
                indices[rest.removeprefix("/")] = each.modify_index
        return keys, indices

    def _layer(self, entries: Iterable[KeyValue]) -> Layer:
        keys, _ = self._take(entries)
        try:
            return Layer(_document(keys))
        except _NoJsonError as error:
            return Layer(None, error.reason, error.key)

    async def _entry(self, client: ConsulClient, name: str) -> _Entry | None:
        found = await client.kv.get(name)
        if found is None or found.value is None:
            return None
        try:
            return msgspec.json.decode(found.value, type=_Entry)
        except msgspec.MsgspecError:
            return None

    async def _write(
        self, change: Callable[[Keys], Keys], by: str, *, rollback: str = ""
    ) -> Revision:
        from bascule.discovery.consul import TransactionError

        async with self._opened() as client:
            for attempt in range(MOST_ATTEMPTS):
                try:
                    return await self._try(client, change, by, rollback)
                except TransactionError as error:
                    failure = error
                await anyio.sleep(0.01 * 2**attempt * (1 + secrets.randbelow(100) / 100))
        message = f"{self.name} is changed by others all the time: {failure}"
        raise ConflictError(message)

    async def _try(
        self, client: ConsulClient, change: Callable[[Keys], Keys], by: str, rollback: str
    ) -> Revision:
        from bascule.discovery.consul import KvOperation

        head = await client.kv.get(self._head)
        found, indices = self._take(await client.kv.list(self._prefix))
        before = {name: _as_json(value) for name, value in found.items()}
        operations = []
        known: Keys = {}
        if head is not None and head.value is not None:
            last = await self._entry(client, self._history + head.value.decode())
            if last is not None:
                known = {name: bytes(value) for name, value in last.keys.items()}
        if known != before:
            changes = changes_between(_document(known), _document(before))
            unknown = Revision(new_id(), time.time(), "unknown", changes)
            operations.append(self._remember(unknown, before))
        after = change(before)
        changes = changes_between(_document(before), _document(after))
        revision = Revision(new_id(), time.time(), by, changes, rollback)
        for name in sorted({*before, *after}):
            full = f"{self._prefix}/{name}" if name else self._prefix
            if name not in after:
                operations.append(KvOperation("delete-cas", full, index=indices[name]))
            elif found.get(name) != after[name]:
                operations.append(KvOperation("cas", full, after[name], indices.get(name, 0)))
        operations += [
            self._remember(revision, after),
            KvOperation(
                "cas", self._head, revision.id.encode(), 0 if head is None else head.modify_index
            ),
        ]
        if len(operations) > MOST_OPERATIONS:
            message = f"{self.name}: the change has {len(operations)} keys: Consul's transactions take {MOST_OPERATIONS}"
            raise ConfigurationError(message)
        await client.kv.transaction(operations)
        return revision

    def _remember(self, revision: Revision, keys: Keys) -> KvOperation:
        from bascule.discovery.consul import KvOperation

        entry = _Entry(revision, {name: msgspec.Raw(value) for name, value in keys.items()})
        return KvOperation("cas", self._history + revision.id, msgspec.json.encode(entry), 0)


class _NoJsonError(ConfigurationError):
    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.key or 'the whole'}: {self.reason}"


def _document(keys: Keys) -> dict[str, Any]:
    """:raises _NoJsonError: if a value is none"""
    document: dict[str, Any] = {}
    # Sorted, so that a shorter key comes before those below it.
    for name in sorted(keys):
        parts = tuple(name.split("/")) if name else ()
        try:
            value = msgspec.json.decode(keys[name])
        except (msgspec.DecodeError, RecursionError) as error:
            raise _NoJsonError(".".join(parts), f"it is no JSON: {error}") from error
        if parts:
            inner = find(document, parts)
            both = isinstance(inner, dict) and isinstance(value, dict)
            document = replaced(document, parts, merged(inner, value) if both else value)
        elif isinstance(value, dict):
            document = value
        else:
            raise _NoJsonError("", "it is no JSON object")
    return document


def _with_value(keys: Keys, parts: tuple[str, ...], value: Any) -> Keys:
    """Change one value where it is: in a key of its own, or inside of a shorter key's object."""
    after = {
        name: each for name, each in keys.items() if not name.startswith("/".join(parts) + "/")
    }
    own = "/".join(parts)
    for depth in range(len(parts) - 1, -1, -1):
        holder, rest = "/".join(parts[:depth]), parts[depth:]
        if holder not in after or (own in after and value is not MISSING):
            continue
        inside = msgspec.json.decode(after[holder])
        if isinstance(inside, dict) and (value is MISSING or find(inside, rest) is not MISSING):
            after[holder] = msgspec.json.encode(replaced(inside, rest, value))
            if value is not MISSING:
                return after
    if value is MISSING:
        after.pop(own, None)
    else:
        after[own] = msgspec.json.encode(value)
    return after


def _as_json(value: bytes) -> bytes:
    """What is no JSON becomes text, so that it can be changed."""
    try:
        msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return msgspec.json.encode(value.decode(errors="replace"))
    return value.strip()
