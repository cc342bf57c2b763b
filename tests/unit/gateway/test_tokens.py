"""Tokens: the good ones of each algorithm, and a long list of those that must never be believed."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from bascule.errors import AuthenticationError
from bascule.gateway import AuthConfig, JwtAuthenticator, StaticKeys, VerificationKey
from bascule.gateway._tokens import verify_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from joserfc.jwk import Key

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0
SECRET = b"0123456789abcdef0123456789abcdef"
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed"})
OCT = OctKey.import_key(SECRET, {"kid": "oct"})
STRANGER = ECKey.generate_key("P-256", {"kid": "ec"})
KEYS = StaticKeys([VerificationKey.from_key(key) for key in (RSA, EC, ED, OCT)])
CONFIG = AuthConfig(
    "https://issuer", "shop", KEYS, algorithms=frozenset({"RS256", "ES256", "EdDSA", "HS256"})
)

CLAIMS: dict[str, Any] = {
    "iss": "https://issuer",
    "aud": "shop",
    "sub": "user-1",
    "exp": NOW + 60,
    "nbf": NOW - 60,
    "iat": NOW - 60,
    "scope": "orders:read orders:write",
}


def b64(value: bytes | dict[str, Any] | str) -> str:
    raw = (
        value
        if isinstance(value, bytes)
        else json.dumps(value).encode()
        if isinstance(value, dict)
        else value.encode()
    )
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(claims: dict[str, Any] | bytes, key: Key = EC, alg: str = "ES256", **header: Any) -> str:
    """Sign whatever is asked for: the library would refuse much of it."""
    members = {"alg": alg, "kid": key.kid, "typ": "JWT"} | header
    members = {name: value for name, value in members.items() if value is not None}
    signing_input = f"{b64(members)}.{b64(claims)}"
    model = jws.JWSRegistry.algorithms[alg]
    return f"{signing_input}.{b64(model.sign(signing_input.encode(), key))}"


def but(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (CLAIMS | changes).items() if value is not ...}


def hmac_with(secret: bytes, **header: Any) -> str:
    """The classic confusion: the public key as the secret of an HMAC."""
    signing_input = f"{b64({'alg': 'HS256', 'typ': 'JWT'} | header)}.{b64(CLAIMS)}"
    return f"{signing_input}.{b64(hmac.digest(secret, signing_input.encode(), hashlib.sha256))}"


def unsigned(alg: object, **header: Any) -> str:
    return f"{b64({'alg': alg} | header)}.{b64(CLAIMS)}."


@pytest.mark.parametrize(
    ("key", "alg"),
    [(RSA, "RS256"), (EC, "ES256"), (ED, "EdDSA"), (ED, "Ed25519"), (OCT, "HS256")],
    ids=str,
)
async def test_a_good_token_of_each_algorithm_is_believed(key: Key, alg: str) -> None:
    identity = await verify_token(sign(CLAIMS, key, alg), CONFIG, NOW)
    assert (identity.subject, identity.expires_at) == ("user-1", NOW + 60)
    assert identity.scopes == {"orders:read", "orders:write"}


@pytest.mark.parametrize(
    "claims",
    [
        but(aud=["other", "shop"]),
        but(nbf=..., iat=..., scope=...),
        but(exp=NOW - 29.0),
        but(nbf=NOW + 29.0),
        but(scope=..., scp=["a", "b"]),
        but(sub="auth0|a b@c.example"),
    ],
)
async def test_what_the_rules_allow_is_believed(claims: dict[str, Any]) -> None:
    assert (await verify_token(sign(claims), CONFIG, NOW)).subject == claims["sub"]


GOOD = sign(CLAIMS)
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")
RSA_PEM = RSA.as_pem(private=False)
TWO_ALGORITHMS = '{"alg": "none", "alg": "ES256", "kid": "ec"}'
assert EC.private_key is not None
DER = EC.private_key.sign(f"{HEADER}.{PAYLOAD}".encode(), ECDSA(SHA256()))

BAD: dict[str, str | Callable[[], str]] = {
    "none": unsigned("none"),
    "None": unsigned("None"),
    "NONE, with a kid": unsigned("NONE", kid="ec"),
    "nOnE, old signature": f"{b64({'alg': 'nOnE', 'kid': 'ec'})}.{PAYLOAD}.{SIGNATURE}",
    "no alg": f"{b64({'kid': 'ec'})}.{PAYLOAD}.{SIGNATURE}",
    "alg null": unsigned(None),
    "alg a list": unsigned(["ES256"]),
    "alg lower case": f"{b64({'alg': 'es256', 'kid': 'ec'})}.{PAYLOAD}.{SIGNATURE}",
    "signature cut off": f"{HEADER}.{PAYLOAD}.",
    "two parts": f"{HEADER}.{PAYLOAD}",
    "four parts": f"{GOOD}.{SIGNATURE}",
    "five parts, as encrypted ones": f"{GOOD}.{SIGNATURE}.{SIGNATURE}",
    "empty": "",
    "dots": "..",
    "spaces": f"{GOOD} ",
    "not ASCII": GOOD[:-1] + "\u00e9",
    "NUL": GOOD + "\0",
    "padding": GOOD + "=",
    "not base64": f"{HEADER}.{PAYLOAD}.!!!!",
    "line break inside": f"{HEADER}.{PAYLOAD[:8]}\n{PAYLOAD[8:]}.{SIGNATURE}",
    "standard alphabet": f"{HEADER}.{PAYLOAD}.{SIGNATURE[:-4]}++//",
    "too long": f"{HEADER}.{'A' * 9000}.{SIGNATURE}",
    "header no JSON": f"{b64('{')}.{PAYLOAD}.{SIGNATURE}",
    "header a list": f"{b64('[1]')}.{PAYLOAD}.{SIGNATURE}",
    "header of 2,000 brackets": f"{b64('[' * 2000)}.{PAYLOAD}.{SIGNATURE}",
    "header with two alg": f"{b64(TWO_ALGORITHMS)}.{PAYLOAD}.{SIGNATURE}",
    "header not UTF-8": f"{b64(bytes([0xFF, 0xFE]))}.{PAYLOAD}.{SIGNATURE}",
    "payload no JSON": sign(b"hello"),
    "payload a list": sign(b"[]"),
    "payload of 2,000 brackets": sign(b"[" * 2000),
    "payload with two sub": sign(json.dumps(CLAIMS).replace("{", '{"sub": "admin", ', 1).encode()),
    "payload changed": f"{HEADER}.{b64(but(sub='admin'))}.{SIGNATURE}",
    "header changed": f"{b64({'alg': 'ES256', 'kid': 'ec', 'typ': 'JWT', 'x': 1})}.{PAYLOAD}.{SIGNATURE}",
    "signature of another token": f"{HEADER}.{PAYLOAD}.{sign(but(sub='user-2')).split('.')[2]}",
    "signature in DER": f"{HEADER}.{PAYLOAD}.{b64(DER)}",
    "all-zero signature (psychic)": f"{HEADER}.{PAYLOAD}.{b64(bytes(64))}",
    "another's key of the same kid": sign(CLAIMS, STRANGER),
    "unknown kid": sign(CLAIMS, kid="nobody"),
    "kid traversal": hmac_with(b"", kid="../../../../dev/null"),
    "kid injection": hmac_with(b"x", kid="x' UNION SELECT 'x"),
    "kid a number": sign(CLAIMS, kid=1),
    "kid empty": sign(CLAIMS, kid=""),
    "kid of another key type": sign(CLAIMS, kid="rsa"),
    "RS256 to HS256 with the PEM": hmac_with(RSA_PEM, kid="rsa"),
    "RS256 to HS256 with the stripped PEM": hmac_with(RSA_PEM.strip(), kid="rsa"),
    "ES256 to HS256 with the PEM": hmac_with(EC.as_pem(private=False), kid="ec"),
    "HS256 with an empty secret": hmac_with(b"", kid="oct"),
    "HS256 with a guessed secret": hmac_with(b"secret", kid="oct"),
    "RS512 with the right key": lambda: sign(CLAIMS, RSA, "RS512"),
    "PS256 with the right key": lambda: sign(CLAIMS, RSA, "PS256"),
    "HS512 with the right secret": lambda: sign(CLAIMS, OCT, "HS512"),
    "jwk in the header": sign(CLAIMS, STRANGER, jwk=STRANGER.as_dict(private=False), kid=None),
    "jku in the header": sign(CLAIMS, STRANGER, jku="https://evil.example/jwks.json"),
    "x5u in the header": sign(CLAIMS, STRANGER, x5u="https://evil.example/cert.pem"),
    "x5c in the header": sign(CLAIMS, STRANGER, x5c=["MIIB"]),
    "crit": sign(CLAIMS, crit=["exp"]),
    "b64 false": sign(CLAIMS, b64=False, crit=["b64"]),
    "typ of another kind": sign(CLAIMS, typ="dpop+jwt"),
    "typ a number": sign(CLAIMS, typ=7),
    "expired": sign(but(exp=NOW - 31)),
    "expires at the end of the leeway": sign(but(exp=NOW - 30)),
    "without exp": sign(but(exp=...)),
    "exp null": sign(but(exp=None)),
    "exp a string": sign(but(exp=str(NOW + 60))),
    "exp true": sign(but(exp=True)),
    "exp negative": sign(but(exp=-1)),
    "exp not a number": sign(json.dumps(but(exp=float("nan"))).encode()),
    "exp infinite": sign(json.dumps(but(exp=float("inf"))).encode()),
    "exp 1e400": sign(json.dumps(CLAIMS).replace(str(NOW + 60), "1e400").encode()),
    "exp of 400 digits": sign(but(exp=10**400)),
    "not yet valid": sign(but(nbf=NOW + 31)),
    "nbf a string": sign(but(nbf="soon")),
    "made in the future": sign(but(iat=NOW + 31)),
    "another issuer": sign(but(iss="https://issuer.evil")),
    "issuer in other case": sign(but(iss="HTTPS://issuer")),
    "issuer a list": sign(but(iss=["https://issuer"])),
    "without issuer": sign(but(iss=...)),
    "another audience": sign(but(aud="shopping")),
    "audience a part of ours": sign(but(aud="sho")),
    "audience an object": sign(but(aud={"shop": 1})),
    "without audience": sign(but(aud=...)),
    "audience an empty list": sign(but(aud=[])),
    "without subject": sign(but(sub=...)),
    "subject empty": sign(but(sub="")),
    "subject a number": sign(but(sub=1)),
    "subject with a line break": sign(but(sub="a\r\nx-admin: 1")),
    "subject not ASCII": sign(but(sub="us\u0435r")),
    "subject of spaces": sign(but(sub="  ")),
    "subject too long": sign(but(sub="a" * 256)),
    "scope a number": sign(but(scope=1)),
    "scope a list of numbers": sign(but(scope=[1])),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_token_is_never_believed(name: str) -> None:
    token = BAD[name]
    with pytest.raises(AuthenticationError) as caught:
        await verify_token(token if isinstance(token, str) else token(), CONFIG, NOW)
    assert not set(caught.value.message) & set('"\\\r\n'), "the message stands in a header"


def test_there_are_enough_bad_tokens() -> None:
    assert len(BAD) >= 40


async def test_an_algorithm_that_is_not_allowed_is_refused_with_a_good_key() -> None:
    config = AuthConfig("https://issuer", "shop", KEYS)
    with pytest.raises(AuthenticationError, match="not one of ES256, EdDSA, RS256"):
        await verify_token(sign(CLAIMS, OCT, "HS256"), config, NOW)


async def test_without_kid_only_a_single_fitting_key_is_tried() -> None:
    one = AuthConfig("https://issuer", "shop", StaticKeys([VerificationKey.from_key(EC)]))
    assert (await verify_token(sign(CLAIMS, kid=None), one, NOW)).subject == "user-1"
    both = [
        VerificationKey.from_key(EC),
        VerificationKey.from_key(ECKey.generate_key("P-256", {"kid": "other"})),
    ]
    two = AuthConfig("https://issuer", "shop", StaticKeys(both))
    with pytest.raises(AuthenticationError, match="names no key"):
        await verify_token(sign(CLAIMS, kid=None), two, NOW)


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


async def test_a_verified_token_is_remembered_until_it_expires() -> None:
    clock = Clock()
    authenticator = JwtAuthenticator(CONFIG, clock=clock)
    header = f"Bearer {sign(but(exp=NOW + 10))}"
    assert authenticator.known(header) is None
    identity = await authenticator.verify(header)
    assert authenticator.known(header) is identity
    assert authenticator.known(header + "x") is None
    clock.now += 10
    assert authenticator.known(header) is None


async def test_a_verified_token_is_verified_again_after_a_while() -> None:
    clock = Clock()
    authenticator = JwtAuthenticator(CONFIG, clock=clock)
    header = f"bearer {sign(but(exp=NOW + 3600))}"
    await authenticator.verify(header)
    clock.now += CONFIG.cache_seconds
    assert authenticator.known(header) is None


async def test_the_cache_is_bounded() -> None:
    config = AuthConfig("https://issuer", "shop", KEYS, cache_size=2)
    authenticator = JwtAuthenticator(config, clock=Clock())
    headers = [f"Bearer {sign(but(sub=str(n)))}" for n in range(3)]
    for header in headers:
        await authenticator.verify(header)
    assert [authenticator.known(header) is not None for header in headers] == [False, True, True]


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic dTpw", "Token x", "\0repeated", f"Bearer  {GOOD}"]
)
async def test_another_scheme_is_refused(header: str) -> None:
    authenticator = JwtAuthenticator(CONFIG, clock=Clock())
    assert authenticator.known(header) is None
    with pytest.raises(AuthenticationError):
        await authenticator.verify(header)
