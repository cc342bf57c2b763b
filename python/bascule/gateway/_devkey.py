"""A signing key for development: made at the first start, so that the tour needs no identity provider."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import tempfile
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bascule.errors import ConfigurationError
from bascule.gateway._config import AuthConfig
from bascule.gateway._keys import StaticKeys, VerificationKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from joserfc.jwk import ECKey

__all__ = ["DevelopmentKey"]

_FILE = "development-key.json"


class DevelopmentKey:
    """An ES256 key in a file that only its owner can read, and tokens signed with it. Never for production.

    :param directory: where the file lives; made if it does not exist
    :param issuer: the ``iss`` claim of its tokens
    :param audience: the ``aud`` claim of its tokens
    :raises ConfigurationError: if the file cannot be read or written, holds no such key, or others may read it
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        issuer: str = "https://localhost/bascule/development",
        audience: str = "bascule-gateway",
    ) -> None:
        self.path = Path(directory) / _FILE
        self.issuer = issuer
        self.audience = audience
        try:
            self._key = _load_or_make(self.path)
        except OSError as error:
            raise ConfigurationError(
                f"the development key {str(self.path)!r} cannot be kept: {error.strerror or error}; "
                "name a directory that this user may write"
            ) from error

    @cached_property
    def auth(self) -> AuthConfig:
        """The configuration of a gateway that believes this key's tokens, and no others."""
        key = VerificationKey.from_jwk(self._key.as_dict(private=False))
        return AuthConfig(
            self.issuer, self.audience, StaticKeys([key]), algorithms=frozenset({"ES256"})
        )

    def mint_token(
        self, subject: str, *, scopes: Iterable[str] = (), lifetime: float = 3600.0
    ) -> str:
        """Sign a token.

        :param subject: who its bearer is
        :param scopes: what it permits
        :param lifetime: seconds until it expires
        """
        from joserfc import jwt

        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "iat": now,
            "exp": now + lifetime,
            "jti": secrets.token_hex(8),
            "scope": " ".join(scopes),
        }
        return jwt.encode(
            {"alg": "ES256", "kid": self._key.kid}, claims, self._key, algorithms=["ES256"]
        )


def _load_or_make(path: Path) -> ECKey:
    from joserfc.errors import JoseError
    from joserfc.jwk import ECKey

    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ECKey.generate_key(
            "P-256", {"use": "sig", "alg": "ES256", "kid": f"dev-{secrets.token_hex(4)}"}
        )
        _publish(path, json.dumps(key.as_dict(private=True)).encode())
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigurationError(
            f"the development key {str(path)!r} may be read by others (mode {mode:o}): whoever read it can sign "
            "tokens; delete it, and the next start makes a new one"
        )
    try:
        key = ECKey.import_key(json.loads(path.read_bytes()))
        if not key.is_private:
            raise ValueError("it has no private part")
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(
            f"the development key {str(path)!r} is damaged ({error}): delete it, and the next start makes a new one"
        ) from error
    return key


def _publish(path: Path, content: bytes) -> None:
    """Write the whole file or nothing; if another process was first, its key stands."""
    handle, name = tempfile.mkstemp(dir=path.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
