"""Key sets, and the key for development."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from bascule.errors import ConfigurationError
from bascule.gateway import DevelopmentKey, JwtAuthenticator, StaticKeys, VerificationKey

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


def jwk(key: Any, **changes: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": "k", **changes}


def short_rsa() -> dict[str, Any]:
    with pytest.warns(SecurityWarning):
        return jwk(RSAKey.generate_key(1024))


EC = ECKey.generate_key("P-256")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (short_rsa(), "1024 bits"),
        (jwk(ECKey.generate_key("P-384")), "P-384"),
        (jwk(OKPKey.generate_key("X25519")), "X25519"),
        ({"kty": "oct", "k": "c2hvcnQ"}, "5 bytes"),
        (jwk(EC, use="enc"), "not meant to verify"),
        (jwk(EC, key_ops=["sign"]), "not meant to verify"),
        (jwk(EC, alg="RS256"), "says alg 'RS256'"),
        (jwk(EC, alg="none"), "says alg 'none'"),
        ({"kty": "EC", "crv": "P-256", "x": "AA"}, "cannot be read"),
        ({"kty": "moon"}, "cannot be read"),
        ({}, "cannot be read"),
    ],
)
def test_a_key_that_cannot_be_used_says_why(document: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        VerificationKey.from_jwk(document)


def test_a_declared_algorithm_narrows_the_key() -> None:
    assert VerificationKey.from_jwk(jwk(EC, alg="ES256")).algorithms == {"ES256"}
    ed = OKPKey.generate_key("Ed25519")
    assert VerificationKey.from_jwk(jwk(ed, alg="EdDSA")).algorithms == {"EdDSA", "Ed25519"}
    secret = OctKey.generate_key(256)
    assert VerificationKey.from_key(secret).algorithms == {"HS256"}


@pytest.mark.parametrize(
    "document", [[], {}, {"keys": {}}, {"keys": [1]}, {"keys": []}, {"keys": [jwk(EC), jwk(EC)]}]
)
def test_a_set_of_another_form_is_refused(document: Any) -> None:
    with pytest.raises(ConfigurationError):
        StaticKeys.from_jwks(document)


async def test_a_file_is_read_and_its_faults_name_it(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk(EC)]}))
    keys = StaticKeys.from_file(path)
    assert len(await keys.find("k")) == len(await keys.find(None)) == 1
    assert not await keys.find("other")
    path.write_text("{")
    with pytest.raises(ConfigurationError, match="jwks"):
        StaticKeys.from_file(path)
    with pytest.raises(ConfigurationError, match="absent"):
        StaticKeys.from_file(tmp_path / "absent.json")


async def test_the_development_key_is_made_once_and_its_tokens_are_believed(tmp_path: Path) -> None:
    first = DevelopmentKey(tmp_path / "new" / "state")
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    again = DevelopmentKey(tmp_path / "new" / "state")
    token = first.mint_token("user-1", scopes=["a", "b"])
    identity = await JwtAuthenticator(again.auth).verify(f"Bearer {token}")
    assert identity.subject == "user-1"
    assert identity.scopes == {"a", "b"}
    assert list(first.path.parent.iterdir()) == [first.path]


def test_a_development_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = DevelopmentKey(tmp_path).path
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="644"):
        DevelopmentKey(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{}", json.dumps(EC.as_dict(private=False)), '{"kty": "oct", "k": "AA"}']
)
def test_a_damaged_development_key_is_refused(tmp_path: Path, content: str) -> None:
    path = DevelopmentKey(tmp_path).path
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="damaged"):
        DevelopmentKey(tmp_path)


def test_a_development_key_needs_a_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be kept"):
        DevelopmentKey(tmp_path / "file")
