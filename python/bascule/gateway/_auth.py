"""Who asks: bearer tokens, verified once and remembered for a short while."""

from __future__ import annotations

import time
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from bascule.errors import AuthenticationError
from bascule.gateway._tokens import Identity, verify_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from bascule.gateway._config import AuthConfig

__all__ = ["Authenticator", "JwtAuthenticator"]


class Authenticator(Protocol):
    """Turns an ``Authorization`` header into an identity. A later data path in Rust replaces `known`."""

    def known(self, authorization: str) -> Identity | None:
        """Return the identity if these very credentials were verified a moment ago. Never waits."""
        ...

    async def verify(self, authorization: str) -> Identity:
        """Verify the credentials.

        :raises AuthenticationError: if they are malformed or wrong
        :raises KeysUnavailableError: if they cannot be verified at the moment
        """
        ...


class JwtAuthenticator:
    """Bearer tokens that are JSON Web Tokens.

    A verified token is remembered by its hash until it expires, for ``config.cache_seconds`` at most:
    that bounds how long a key that was withdrawn lives on, and how much an attacker can make us keep.

    :param config: keys and rules
    :param clock: seconds since the epoch
    """

    def __init__(self, config: AuthConfig, *, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._clock = clock
        self._cache: dict[bytes, tuple[Identity, float]] = {}

    def known(self, authorization: str) -> Identity | None:
        """Return the identity if this header was verified a moment ago."""
        entry = self._cache.get(sha256(authorization.encode()).digest())
        return None if entry is None or entry[1] <= self._clock() else entry[0]

    async def verify(self, authorization: str) -> Identity:
        """Verify the token of a header: see :meth:`Authenticator.verify`."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise AuthenticationError(
                "scheme", "the Authorization header is not of the form 'Bearer TOKEN'"
            )
        now = self._clock()
        identity = await verify_token(token, self._config, now)
        self._remember(
            authorization, identity, min(identity.expires_at, now + self._config.cache_seconds)
        )
        return identity

    def _remember(self, authorization: str, identity: Identity, until: float) -> None:
        if len(self._cache) >= self._config.cache_size:
            del self._cache[next(iter(self._cache))]  # the oldest: a dict keeps its order
        self._cache[sha256(authorization.encode()).digest()] = (identity, until)
