"""Keys of an issuer that rotates them: fetched from its JWKS address, never more often than it is worth."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio

from bascule.errors import ConfigurationError, KeysUnavailableError
from bascule.gateway._keys import VerificationKey, jwk_entries

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

    import httpx

__all__ = ["RemoteKeys"]

_log = logging.getLogger("bascule.gateway")
_TIMEOUT = 5.0
# A set of some dozen RSA keys has 10 KiB; more is no key set.
_LARGEST_SET = 256 * 1024
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class RemoteKeys:
    """A JSON Web Key Set at an address.

    It is fetched by the first token, again when it is older than ``fresh_for``, and when a token names an
    unknown key, since that is how rotation shows; but at most once in ``cool_down`` seconds, whatever
    tokens arrive. While the address fails, the last keys serve for another ``stale_for`` seconds.

    :param url: https, or http to this machine
    :param fresh_for: seconds after which the set is fetched again
    :param cool_down: least seconds between two fetches
    :param stale_for: seconds beyond ``fresh_for`` for which keys are believed while the address fails
    :param negative: unknown names remembered until the next scheduled fetch
    :param tls: context for a private authority; None for the system's
    :param clock: monotonic seconds
    :raises ConfigurationError: if ``url`` is neither
    :ivar url: where the set is
    :ivar tls: the context for it
    """

    def __init__(
        self,
        url: str,
        *,
        fresh_for: float = 300.0,
        cool_down: float = 30.0,
        stale_for: float = 3600.0,
        negative: int = 128,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise ConfigurationError(
                f"JWKS address {url!r}: use https, or http to localhost; anybody could answer else"
            )
        self.url = url
        self._fresh_for = fresh_for
        self._cool_down = cool_down
        self._stale_for = stale_for
        self._negative_size = negative
        self.tls = tls
        self._clock = clock
        self._lock = anyio.Lock()
        self._keys: dict[str | None, list[VerificationKey]] = {}
        self._negative: dict[str, None] = {}
        self._tried_at = self._fetched_at = float("-inf")

    async def find(self, kid: str | None) -> Sequence[VerificationKey]:
        """Return the keys with this name, all if ``kid`` is None; fetch first if that may help and is due.

        :raises KeysUnavailableError: if there is no set, or the last one is older than ``stale_for``
        """
        if self._must_fetch(kid):
            async with self._lock:  # whoever waited here finds the question answered
                if self._must_fetch(kid):
                    await self._refresh()
        age = self._clock() - self._fetched_at
        if age > self._fresh_for + self._stale_for:
            raise KeysUnavailableError(
                self.url, max(0.0, self._tried_at + self._cool_down - self._clock())
            )
        if kid is None:
            return [key for keys in self._keys.values() for key in keys]
        found = self._keys.get(kid, [])
        if not found:
            self._remember_unknown(kid)
        return found

    def _must_fetch(self, kid: str | None) -> bool:
        now = self._clock()
        if now - self._tried_at < self._cool_down:
            return False
        stale = now - self._fetched_at >= self._fresh_for
        return stale or (kid is not None and kid not in self._keys and kid not in self._negative)

    def _remember_unknown(self, kid: str) -> None:
        if len(self._negative) >= self._negative_size:
            del self._negative[next(iter(self._negative))]
        self._negative[kid] = None

    async def _refresh(self) -> None:
        import httpx

        # Before the fetch: a cancelled or failed one must not be repeated at once either.
        self._tried_at = self._clock()
        try:
            async with httpx.AsyncClient(
                verify=self.tls or True, timeout=_TIMEOUT, trust_env=False
            ) as client:
                document = await self._fetch(client)
            entries = jwk_entries(json.loads(document))
        except (httpx.HTTPError, TimeoutError, ValueError, RecursionError) as error:
            _log.warning(
                "key set cannot be fetched; the last one is kept",
                extra={"url": self.url, "error": repr(error)},
            )
            return
        self._keys = {}
        for entry in entries:
            try:
                key = VerificationKey.from_jwk(entry)
            except (
                ConfigurationError
            ) as error:  # keys for encryption, curves of the future: not ours
                _log.info(
                    "key of the set is not used", extra={"url": self.url, "error": str(error)}
                )
                continue
            if "HS256" not in key.algorithms:  # a secret that is published is none
                self._keys.setdefault(key.kid, []).append(key)
        self._negative.clear()
        self._fetched_at = self._tried_at

    async def _fetch(self, client: httpx.AsyncClient) -> bytes:
        document = b""
        with anyio.fail_after(_TIMEOUT):
            async with client.stream(
                "GET", self.url, headers={"accept": "application/json"}
            ) as response:
                response.raise_for_status()
                # Read to the end, or to the deadline: leaving midway would leave httpx's generators behind.
                async for chunk in response.aiter_bytes():
                    if len(document) <= _LARGEST_SET:
                        document += chunk
        if len(document) > _LARGEST_SET:
            raise ValueError(f"the key set has more than {_LARGEST_SET} bytes")
        return document
