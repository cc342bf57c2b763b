"""What counts as one address, and the headers of a limit."""

from __future__ import annotations

import json

import pytest

from bascule.gateway import LimitConfig
from bascule.gateway._limits import RateLimit, address_of


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("127.0.0.1:1234", "127.0.0.1"),
        ("[2001:db8:1:2:3:4:5:6]:443", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::ffff]:443", "2001:db8:1:2::/64"),
        ("[fe80::1%eth0]:443", "fe80::/64"),
        ("[::ffff:192.0.2.1]:443", "192.0.2.1"),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_an_address_without_its_port(peer: str, key: str) -> None:
    assert address_of(peer) == key


def test_headers_have_the_form_of_the_draft() -> None:
    limit = RateLimit("subject", LimitConfig(requests=2, per=60.0))
    decision = limit.check("a")
    assert limit.policy == ("ratelimit-policy", '"subject";q=2;w=60')
    assert limit.header(decision) == ("ratelimit", '"subject";r=1;t=30')


def test_a_refusal_says_when_to_come_back() -> None:
    limit = RateLimit("subject", LimitConfig(requests=1, per=60.0))
    limit.check("a")
    response = limit.refusal(limit.check("a"))
    headers = dict(response.headers)
    assert response.status == 429
    assert headers["retry-after"] == "60"
    assert headers["ratelimit"] == '"subject";r=0;t=60'
    assert headers["ratelimit-policy"] == '"subject";q=1;w=60'
    assert json.loads(response.body)["code"] == 8
    assert limit.check("b").allowed
