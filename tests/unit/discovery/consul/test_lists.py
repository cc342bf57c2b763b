"""Which of the instances that Consul lists are called."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.unit.discovery.consul.fake import entry

from bascule.discovery import Endpoint
from bascule.discovery.consul import ServiceEntry
from bascule.discovery.consul._instances import (
    Health,
    Instance,
    Protection,
    ServiceList,
    instances_of,
)
from bascule.errors import ConfigurationError


def instance(name: str, health: Health = Health.PASSING) -> Instance:
    return Instance(Endpoint(f"{name}:1"), health)


def names(listing: ServiceList) -> str:
    return "".join(sorted(each.address[0] for each in listing.endpoints))


def listed(text: str) -> list[Instance]:
    """``a b! c~ d-``: passing, critical, warning, in maintenance."""
    marks = {"!": Health.CRITICAL, "~": Health.WARNING, "-": Health.MAINTENANCE}
    return [instance(each[0], marks.get(each[1:], Health.PASSING)) for each in text.split()]


@pytest.mark.parametrize(
    ("before", "now", "called"),
    [
        ("a b c", "a b c", "abc"),
        ("a b c", "a b c!", "ab"),
        ("a b c", "a b! c!", "abc"),  # a third is below the threshold: panic
        ("a b c d", "a b", "ab"),
        ("a b c d", "a", "abcd"),  # a sharp drop
        ("a b c", "", "abc"),
        ("a b c", "d", "abcd"),  # what is new is called at once, what vanished for a while
        ("a b c", "a- b- c-", ""),  # a person's will is no fault
        ("a b c", "a b- c-", "a"),
        ("a", "a~", "a"),  # panic, too: a warning is not healthy here
        ("", "a!", "a"),
        ("", "", ""),
    ],
)
def test_panic(before: str, now: str, called: str) -> None:
    listing = ServiceList(Protection(0.5, 30.0), warnings=False)
    listing.take(listed(before), 0.0)
    listing.take(listed(now), 1.0)
    assert names(listing) == called
    healthy = {each.endpoint.address for each in listed(now) if each.health is Health.PASSING}
    assert (listing.problem is None) == ({e.address for e in listing.endpoints} == healthy)


def test_doubt_ends() -> None:
    """What has vanished for as long as the hold, is gone: absent is a state."""
    listing = ServiceList(Protection(0.5, 30.0), warnings=False)
    listing.take(listed("a b c"), 0.0)
    listing.take([], 10.0)
    assert listing.until == 40.0
    listing.take([], 39.9)
    assert names(listing) == "abc"
    listing.review(40.0)
    assert names(listing) == ""
    assert listing.problem is None
    assert listing.until == math.inf


def test_panic_does_not_end_while_instances_are_listed() -> None:
    listing = ServiceList(Protection(0.5, 30.0), warnings=False)
    listing.take(listed("a b c d"), 0.0)
    listing.take(listed("a! b! c!"), 1.0)
    assert names(listing) == "abcd"
    listing.review(31.0)
    assert names(listing) == "abc"
    listing.take(listed("a! b c"), 100.0)
    assert names(listing) == "bc"


def test_a_list_from_before_the_start_counts_as_known() -> None:
    listing = ServiceList(Protection(), warnings=False)
    listing.believe([Endpoint("a:1"), Endpoint("b:1")])
    listing.take([], 0.0)
    assert names(listing) == "ab"


def test_protection_can_be_off() -> None:
    listing = ServiceList(Protection(panic_threshold=0.0), warnings=False)
    listing.take(listed("a b c"), 0.0)
    listing.take(listed("a!"), 1.0)
    assert names(listing) == ""


def test_warnings_can_be_called() -> None:
    listing = ServiceList(Protection(), warnings=True)
    listing.take(listed("a~ b c!"), 0.0)
    assert names(listing) == "ab"


ANSWER = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(list(Health)))


@given(
    st.floats(0, 1),
    st.integers(0, 30),
    st.lists(st.tuples(st.integers(0, 40), ANSWER), min_size=1, max_size=12),
)
@example(
    # Taken out, then deregistered, while others are missed.
    1.0,
    1,
    [
        (0, {"a": Health.PASSING, "b": Health.PASSING}),
        (0, {"a": Health.MAINTENANCE}),
        (0, {}),
    ],
)
def test_never_few_of_many(
    threshold: float, hold: int, answers: list[tuple[int, dict[str, Health]]]
) -> None:
    """Whatever Consul says: all that is healthy is called; nothing in maintenance is; and fewer than the
    threshold of what is listed never are.
    """
    listing = ServiceList(Protection(threshold, float(hold)), warnings=False)
    now = 0.0
    for seconds, answer in answers:
        now += seconds
        before = {each.address[0] for each in listing.endpoints}
        listing.take([instance(name, health) for name, health in answer.items()], now)
        called = {each.address[0] for each in listing.endpoints}
        healthy = {name for name, health in answer.items() if health is Health.PASSING}
        out = {name for name, health in answer.items() if health is Health.MAINTENANCE}
        assert healthy <= called <= (set(answer) | before) - out
        assert len(called) >= threshold * len(set(answer) - out)
        assert (listing.problem is None) == (called == healthy) or called == healthy
        assert listing.until > now


def read(*entries: dict[str, object]) -> tuple[Instance, ...]:
    content = msgspec.json.encode(entries)
    decoded = msgspec.json.decode(content, type=tuple[ServiceEntry, ...])
    return instances_of("users", decoded, authority="users", in_order=False)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "unix",
        "memory:users",
        "a/b",
        "a b",
        "-a",
        "a@b",
    ],
)
def test_hostile_addresses_are_passed_over(host: str, caplog: pytest.LogCaptureFixture) -> None:
    found = read(entry("x:1", Address=host), entry("10.0.0.1:1"))
    if host == "unix":  # a name like another: there is a port, so it is no path
        assert len(found) == 2
        return
    assert [each.endpoint.address for each in found] == ["10.0.0.1:1"]
    assert "no service is called there" in caplog.text


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_ports_that_are_none(port: int) -> None:
    assert read(entry("10.0.0.1:1", Port=port)) == ()


def test_an_instance_without_an_address_is_at_its_node() -> None:
    (found,) = read(entry("x:50051", Address="", Meta={"version": "2"}, Tags=["a", "b"]))
    assert found.endpoint.address == "10.0.0.1:50051"
    assert found.endpoint.authority == "users"
    assert found.endpoint.metadata == {
        "version": "2",
        "consul.id": "users-50051",
        "consul.node": "n1",
        "consul.datacenter": "dc1",
        "consul.tags": "a,b",
    }


def test_weights_follow_health() -> None:
    weights = {"Passing": 10, "Warning": 2}
    found = read(
        entry("10.0.0.1:1", "passing", "passing", Weights=weights),
        entry("10.0.0.2:1", "passing", "warning", Weights=weights),
        entry("10.0.0.3:1", "warning", "strange", Weights=weights),
    )
    assert [each.endpoint.weight for each in found] == [10, 2, 10]
    assert [each.health for each in found] == ["passing", "warning", "critical"]


def test_maintenance_of_the_node_and_of_the_instance() -> None:
    for check in ("_node_maintenance", "_service_maintenance:users-1"):
        told = entry("10.0.0.1:1", "passing", "critical")
        told["Checks"][1]["CheckID"] = check
        (found,) = read(told)
        assert found.health is Health.MAINTENANCE


def test_one_address_is_one_endpoint() -> None:
    """Two registrations of it, of which one is a leftover."""
    (found,) = read(
        entry("10.0.0.1:1", "critical", id="old"), entry("10.0.0.1:1", "passing", id="new")
    )
    assert found.health is Health.PASSING


@pytest.mark.parametrize("wrong", [{"panic_threshold": 1.1}, {"panic_threshold": -1}, {"hold": -1}])
def test_protection_that_cannot_work(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        Protection(**wrong)
