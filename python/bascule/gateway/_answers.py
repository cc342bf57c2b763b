"""Where answers to requests with an idempotency key are kept: in this process, or in Redis."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from bascule._redis import RedisScript
from bascule.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bascule.resilience import RedisClient

__all__ = ["Answer", "AnswerStore", "Held", "MemoryAnswers", "RedisAnswers"]


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What a request was answered with."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Held(Enum):
    """How it stands with a key that has no answer for us."""

    OURS = "ours"
    """It was free and is marked now: serve the request, then keep the answer or release the key."""
    IN_FLIGHT = "in flight"
    """The same request is being served."""
    OTHER = "other"
    """It belongs to another request."""


class AnswerStore(Protocol):
    """Keeps an answer a key. All methods may fail with :class:`StoreUnavailableError`."""

    async def begin(self, key: str, fingerprint: bytes, token: str, hold: float) -> Held | Answer:
        """Give the answer, or mark the key if it is free.

        :param fingerprint: of the request
        :param token: what :meth:`keep` and :meth:`release` must know; unique. A key that is marked
            with it is ours: to ask again after a failure does no harm
        :param hold: seconds until the mark of a crashed gateway ends
        """

    async def keep(self, key: str, token: str, answer: Answer, ttl: float) -> None:
        """Keep an answer for ``ttl`` seconds, if the mark is still ours."""

    async def release(self, key: str, token: str) -> None:
        """Free a key, if the mark is still ours."""


@dataclass(slots=True)
class _Entry:
    fingerprint: bytes
    token: str
    until: float
    answer: Answer | None = None


class MemoryAnswers:
    """Answers in this process. What is being served is never forgotten, old answers are.

    :param max_answers: the most that are kept
    :param max_bytes: the most bytes that their bodies have
    :param clock: seconds that never go backwards
    """

    def __init__(
        self, max_answers: int, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_answers = max_answers
        self._max_bytes = max_bytes
        self._clock = clock
        self._marks: dict[str, _Entry] = {}
        self._answers: dict[str, _Entry] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._marks) + len(self._answers)

    async def begin(self, key: str, fingerprint: bytes, token: str, hold: float) -> Held | Answer:
        """Give the answer, or mark the key. See :class:`AnswerStore`."""
        now = self._clock()
        while self._marks:
            oldest = next(iter(self._marks))
            if self._marks[oldest].until > now:
                break
            # Whoever made it was cut off: everybody else unmarks.
            del self._marks[oldest]
        entry = self._marks.get(key) or self._answers.get(key)
        if entry is not None and entry.until <= now:
            self._forget(key)
            entry = None
        if entry is None:
            self._marks[key] = _Entry(fingerprint, token, now + hold)
            return Held.OURS
        if entry.fingerprint != fingerprint:
            return Held.OTHER
        if entry.answer is not None:
            return entry.answer
        return Held.OURS if entry.token == token else Held.IN_FLIGHT

    async def keep(self, key: str, token: str, answer: Answer, ttl: float) -> None:
        """Keep an answer. See :class:`AnswerStore`."""
        entry = self._marks.get(key)
        if entry is None or entry.token != token:
            return
        del self._marks[key]
        entry.answer, entry.until = answer, self._clock() + ttl
        self._answers[key] = entry
        self._bytes += len(answer.body)
        while len(self._answers) > self._max_answers or self._bytes > self._max_bytes:
            self._forget(next(iter(self._answers)))

    async def release(self, key: str, token: str) -> None:
        """Free a key. See :class:`AnswerStore`."""
        entry = self._marks.get(key)
        if entry is not None and entry.token == token:
            del self._marks[key]

    def _forget(self, key: str) -> None:
        self._marks.pop(key, None)
        entry = self._answers.pop(key, None)
        if entry is not None and entry.answer is not None:
            self._bytes -= len(entry.answer.body)


# KEYS: one; ARGV: fingerprint, token, hold in ms.
_BEGIN = RedisScript("""
local known = redis.call('HMGET', KEYS[1], 'fingerprint', 'answer', 'token')
if not known[1] then
  redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'token', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 'ours'
end
if known[1] ~= ARGV[1] then return 'other' end
if known[2] then return {known[2]} end
if known[3] == ARGV[2] then return 'ours' end
return 'in flight'
""")
# KEYS: one; ARGV: token, answer, ttl in ms.
_KEEP = RedisScript("""
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'answer', ARGV[2])
redis.call('HDEL', KEYS[1], 'token')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
""")
# KEYS: one; ARGV: token.
_RELEASE = RedisScript("""
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Answer).decode


class RedisAnswers:
    """Answers that all gateways share.

    :param redis: its connection; it must be open
    :param timeout: seconds that it has to answer
    """

    def __init__(self, redis: RedisClient, timeout: float) -> None:
        self._redis = redis
        self._timeout = timeout

    async def begin(self, key: str, fingerprint: bytes, token: str, hold: float) -> Held | Answer:
        """Give the answer, or mark the key. See :class:`AnswerStore`."""
        found = await self._run(_BEGIN, key, fingerprint, token, round(hold * 1000))
        return _decode(found[0]) if isinstance(found, list) else Held(found.decode())

    async def keep(self, key: str, token: str, answer: Answer, ttl: float) -> None:
        """Keep an answer. See :class:`AnswerStore`."""
        await self._run(_KEEP, key, token, _encode(answer), round(ttl * 1000))

    async def release(self, key: str, token: str) -> None:
        """Free a key. See :class:`AnswerStore`."""
        await self._run(_RELEASE, key, token)

    async def _run(self, script: RedisScript, key: str, *arguments: str | bytes | int) -> Any:
        name = f"bascule:idempotency:{key}"
        try:
            return await self._redis.run(script, [name], arguments, timeout=self._timeout)
        except StoreUnavailableError:
            # Once more: the first command after a restart meets the old connection.
            return await self._redis.run(script, [name], arguments, timeout=self._timeout)
