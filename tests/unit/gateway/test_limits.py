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


def test_a_limit_counts_by_the_algorithm_of_its_settings() -> None:
    """A window that was used up at once has nothing back before it ends: GCRA has, after 18 s."""
    hour = LimitConfig(requests=200, per=3600.0, algorithm="sliding_window")
    limit = RateLimit("subject", hour)
    for _ in range(200):
        assert limit.check("a").allowed
    assert limit.keys == 1
    refused = limit.check("a")
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert refused.retry_after is not None
    assert 18.0 < refused.retry_after <= 3618.0
    assert refused.reset_after > 3600.0
    assert limit.policy == ("ratelimit-policy", '"subject";q=200;w=3600')


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
