"""The keys that tokens are verified with, each pinned to the algorithms of its type."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from joserfc.jwk import Key

__all__ = ["KeySource", "StaticKeys", "VerificationKey"]

# NIST SP 800-131A: nothing below 112 bits of strength; RFC 7518, 3.2: HS256 wants a key of 256 bits.
_LEAST_RSA_BITS = 2048
_LEAST_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A key and the only algorithms that it is used with, whatever a token's header says.

    :ivar kid: the name by which tokens refer to it, None if they do not
    :ivar algorithms: ``{"RS256"}``, ``{"ES256"}``, ``{"EdDSA", "Ed25519"}`` or ``{"HS256"}``
    """

    kid: str | None
    algorithms: frozenset[str]
    key: Key

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> VerificationKey:
        """Read one JSON Web Key.

        :raises ConfigurationError: if its type or curve is unsupported, it is too short, is not for
            signatures, or its ``alg`` contradicts its type
        """
        from joserfc.errors import JoseError, SecurityWarning
        from joserfc.jwk import import_key

        name = repr(jwk.get("kid", "without kid"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SecurityWarning)  # short keys are refused below
                key = import_key(cast("Any", dict(jwk)))
            return cls.from_key(key)
        except ConfigurationError:
            raise
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(f"JSON Web Key {name} cannot be read: {error}") from error

    @classmethod
    def from_key(cls, key: Key) -> VerificationKey:
        """Pin a key to its algorithms: see :meth:`from_jwk`."""
        kid = key.kid
        name = f"JSON Web Key {kid!r}" if kid else "JSON Web Key without kid"
        if key.get("use", "sig") != "sig" or "verify" not in key.get("key_ops", ["verify"]):  # type: ignore[operator]
            raise ConfigurationError(
                f"{name} is not meant to verify signatures (its use or key_ops)"
            )
        algorithms = _algorithms(key, name)
        declared = key.get("alg")
        if declared is not None:
            if declared not in algorithms:
                raise ConfigurationError(
                    f"{name} says alg {declared!r}, its type takes {sorted(algorithms)}"
                )
            if key.key_type != "OKP":  # RFC 9864 renamed EdDSA: there, both names mean the same
                algorithms = frozenset({str(declared)})
        return cls(kid, algorithms, key)


def _algorithms(key: Key, name: str) -> frozenset[str]:
    raw: Any = key.raw_value
    if key.key_type == "RSA":
        if raw.key_size < _LEAST_RSA_BITS:
            raise ConfigurationError(
                f"{name} has {raw.key_size} bits, RSA needs {_LEAST_RSA_BITS} or more"
            )
        return frozenset({"RS256"})
    if key.key_type == "oct":
        if len(raw) < _LEAST_SECRET_BYTES:
            raise ConfigurationError(
                f"{name} has {len(raw)} bytes, HS256 needs {_LEAST_SECRET_BYTES} or more"
            )
        return frozenset({"HS256"})
    curve = getattr(key, "curve_name", None)
    if curve == "P-256":
        return frozenset({"ES256"})
    if curve == "Ed25519":
        return frozenset({"EdDSA", "Ed25519"})
    raise ConfigurationError(
        f"{name} is of type {key.key_type!r}, curve {curve!r}: use RSA, P-256, Ed25519 or oct"
    )


class KeySource(Protocol):
    """Where verification keys come from. Answers from memory or refreshes first."""

    async def find(self, kid: str | None) -> Sequence[VerificationKey]:
        """Return the keys with this name; all keys if the token names none.

        :raises KeysUnavailableError: if the keys cannot be fetched and the last ones are too old
        """
        ...


class StaticKeys:
    """Keys that are known at the start.

    :param keys: the keys, each with a ``kid`` of its own where there are several
    :raises ConfigurationError: if there is no key or two have the same ``kid``
    """

    def __init__(self, keys: Sequence[VerificationKey]) -> None:
        if not keys:
            raise ConfigurationError("a key set without keys verifies nothing: give at least one")
        names = [key.kid for key in keys]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ConfigurationError(
                f"several keys are named {sorted(map(str, twice))}: give each its own kid"
            )
        self._keys = tuple(keys)
        self._by_kid = {key.kid: (key,) for key in keys if key.kid is not None}

    @classmethod
    def from_jwks(cls, jwks: Mapping[str, Any]) -> StaticKeys:
        """Read a JSON Web Key Set, RFC 7517.

        :raises ConfigurationError: if a key of it cannot be used
        """
        return cls([VerificationKey.from_jwk(jwk) for jwk in jwk_entries(jwks)])

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> StaticKeys:
        """Read a file that holds a JSON Web Key Set.

        :raises ConfigurationError: if the file cannot be read or a key of it cannot be used
        """
        try:
            return cls.from_jwks(json.loads(Path(path).read_bytes()))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"key set {str(path)!r} cannot be used: {error}") from error

    @classmethod
    def from_secret(cls, secret: bytes, *, kid: str | None = None) -> StaticKeys:
        """Share a secret with the issuer (HS256, which ``AuthConfig.algorithms`` has to name).

        :raises ConfigurationError: if it has less than 32 bytes
        """
        from joserfc.jwk import OctKey

        return cls(
            [VerificationKey.from_key(OctKey.import_key(secret, {"kid": kid} if kid else None))]
        )

    async def find(self, kid: str | None) -> Sequence[VerificationKey]:
        """Return the keys with this name; all keys if the token names none."""
        return self._keys if kid is None else self._by_kid.get(kid, ())


def jwk_entries(document: object) -> Sequence[Mapping[str, Any]]:
    """Return the entries of a JSON Web Key Set.

    :raises ConfigurationError: if the document has not its form
    """
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ConfigurationError(
            'a JSON Web Key Set is an object with a list of objects under "keys"'
        )
    return entries
