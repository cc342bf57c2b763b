"""JSON Web Tokens: everything that must hold before a subject is believed."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from bascule.errors import AuthenticationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from bascule.gateway._config import AuthConfig
    from bascule.gateway._keys import VerificationKey

__all__ = ["Identity", "verify_token"]

# Beyond any honest token with a few claims; verifying costs in proportion.
_LONGEST_TOKEN = 8192
_LONGEST_SUBJECT = 255
# RFC 7515, 2: base64url without padding.
_LATEST_TIME = 2**53  # seconds; what JSON numbers carry exactly
_TYPES = {"jwt", "at+jwt", "application/at+jwt"}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who sends a request, as a verified token says.

    :ivar subject: the ``sub`` claim: printable ASCII, so that it travels as gRPC metadata
    :ivar scopes: what the token permits (``scope`` or ``scp``)
    :ivar expires_at: when it ends, in seconds since the epoch
    :ivar claims: all claims
    """

    subject: str
    scopes: frozenset[str]
    expires_at: float
    claims: Mapping[str, Any]


def _refuse(reason: str, message: str) -> NoReturn:
    raise AuthenticationError(reason, message)


async def verify_token(token: str, config: AuthConfig, now: float) -> Identity:
    """Verify signature, algorithm, issuer, audience and times.

    :param now: seconds since the epoch
    :raises AuthenticationError: if anything is wrong with the token
    :raises KeysUnavailableError: if the key source has no usable keys at the moment
    """
    if len(token) > _LONGEST_TOKEN or not token.isascii():
        _refuse("malformed", f"the token is longer than {_LONGEST_TOKEN} characters or not ASCII")
    segments = token.split(".")
    if len(segments) != 3:
        _refuse("malformed", "the token is no signed JWT: it needs three parts joined by dots")
    header = _object(segments[0], "header")
    algorithm, kid = _check_header(header, config.algorithms)
    key = _pick(await config.keys.find(kid), algorithm)
    _check_signature(key, algorithm, segments)
    return _identity(_object(segments[1], "payload"), config, now)


def _decode(segment: str, name: str) -> bytes:
    raw = segment.encode("ascii")
    try:
        decoded = b64decode(raw + b"=" * (-len(raw) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        decoded = b""
    # Comparing with the canonical form also refuses padding, line breaks and stray trailing bits.
    if not decoded or urlsafe_b64encode(decoded).rstrip(b"=") != raw:
        _refuse("malformed", f"the token's {name} is not base64url")
    return decoded


def _object(segment: str, name: str) -> dict[str, Any]:
    try:
        document = json.loads(
            _decode(segment, name), object_pairs_hook=_unique, parse_constant=float
        )
    except (ValueError, RecursionError):
        _refuse("malformed", f"the token's {name} is not JSON")
    if not isinstance(document, dict):
        _refuse("malformed", f"the token's {name} is not a JSON object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("duplicate key")
    return document


def _check_header(header: dict[str, Any], algorithms: Collection[str]) -> tuple[str, str | None]:
    """Return algorithm and kid. Keys that the header itself brings (jwk, jku, x5u, x5c) are never looked at."""
    if "crit" in header:
        _refuse("malformed", "the token has critical header parameters, none is understood")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        _refuse("malformed", "the token's typ is not JWT")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or _CANONICAL.get(algorithm, algorithm) not in algorithms:
        _refuse("algorithm", f"the token's algorithm is not one of {', '.join(sorted(algorithms))}")
    if kid is not None and not isinstance(kid, str):
        _refuse("malformed", "the token's kid is not a string")
    return algorithm, kid


# RFC 9864 gives EdDSA on Ed25519 the name of its curve; a configuration that allows one allows the other.
_CANONICAL = {"Ed25519": "EdDSA"}


def _pick(candidates: Collection[VerificationKey], algorithm: str) -> VerificationKey:
    fitting = [key for key in candidates if algorithm in key.algorithms]
    if not candidates:
        _refuse("key", "the token names a key that is not known here")
    if not fitting:
        _refuse("algorithm", "the token's algorithm is not the one of its key")
    if len(fitting) > 1:
        _refuse("key", "the token names no key and several could have signed it")
    return fitting[0]


def _check_signature(key: VerificationKey, algorithm: str, segments: list[str]) -> None:
    from joserfc.errors import JoseError
    from joserfc.jwa import JWS_ALGORITHMS

    model = next(model for model in JWS_ALGORITHMS if model.name == algorithm)
    signature = _decode(segments[2], "signature")
    try:
        genuine = model.verify(f"{segments[0]}.{segments[1]}".encode("ascii"), signature, key.key)
    except (JoseError, ValueError):
        genuine = False
    if not genuine:
        _refuse("signature", "the token's signature is wrong")


def _identity(claims: dict[str, Any], config: AuthConfig, now: float) -> Identity:
    expires_at = _time(claims, "exp")
    if expires_at is None:
        _refuse("expired", "the token has no exp claim: it would never end")
    if now >= expires_at + config.leeway:
        _refuse("expired", "the token has expired")
    for name in ("nbf", "iat"):
        begins = _time(claims, name)
        if begins is not None and now < begins - config.leeway:
            _refuse("not_yet_valid", f"the token is not valid yet (its {name} claim)")
    if claims.get("iss") != config.issuer:
        _refuse("issuer", "the token comes from another issuer")
    audience = claims.get("aud")
    if config.audience not in (audience if isinstance(audience, list) else [audience]):
        _refuse("audience", "the token is meant for another audience")
    subject = claims.get("sub")
    if (
        not isinstance(subject, str)
        or not 0 < len(subject) <= _LONGEST_SUBJECT
        or not (subject.isascii() and subject.isprintable())
        or subject != subject.strip()
    ):
        _refuse(
            "subject", "the token's sub claim is no printable ASCII string of 1 to 255 characters"
        )
    return Identity(subject, _scopes(claims), expires_at, claims)


def _time(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    # bool is an int in Python; NaN and the infinities fail the comparison.
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value < _LATEST_TIME
    ):
        _refuse("malformed", f"the token's {name} claim is no time")
    return value


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """RFC 8693 has one string under ``scope``; others a list under ``scp`` or ``scope``."""
    value = claims.get("scope", claims.get("scp", ""))
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        _refuse("malformed", "the token's scope claim is no string or list of strings")
    return frozenset(names)
