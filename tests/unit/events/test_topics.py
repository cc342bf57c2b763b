"""What an event looks like on its way, and which bytes are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from bascule.errors import ConfigurationError, DecodeError, EncodeError
from bascule.events import Event, Topic
from bascule.observe import TraceContext, trace_variable
from bascule_shop._generated.user import User


class UserCreated(msgspec.Struct, frozen=True):
    user_id: str


@dataclass(frozen=True)
class Renamed:
    user_id: str
    names: list[str]


USER_CREATED = Topic("user.created", UserCreated)
RENAMED = Topic("user.renamed", Renamed)
GOOGLES = Topic("clock.struck", Timestamp)
BETTERPROTOS = Topic("user.changed", User)

payloads = st.one_of(
    st.tuples(st.just(USER_CREATED), st.text().map(UserCreated)),
    st.tuples(st.just(RENAMED), st.builds(Renamed, st.text(), st.lists(st.text()))),
    st.tuples(
        st.just(GOOGLES),
        st.integers(0, 2**62).map(lambda seconds: Timestamp(seconds=seconds)),
    ),
    st.tuples(st.just(BETTERPROTOS), st.text().map(lambda name: User(id="u", display_name=name))),
)


@given(payload=payloads, key=st.text(max_size=200), time=st.floats(0, 1e10))
def test_an_event_survives_its_encoding(
    payload: tuple[Topic[Any], Any], key: str, time: float
) -> None:
    topic, content = payload
    event = Event(
        topic=topic, key=key, payload=content, time=time, traceparent="00-ab", tracestate="v=1"
    )
    assert topic.decode(topic.encode(event)) == event


@given(data=st.binary(max_size=100))
def test_any_bytes_are_an_event_or_a_decode_error(data: bytes) -> None:
    for topic in (USER_CREATED, RENAMED, GOOGLES, BETTERPROTOS):
        with pytest.raises(DecodeError, match=topic.name):
            topic.decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"key":"a"}',
        b'{"key":"a","payload":{},"id":"x","time":0}',
        b'{"key":"a","payload":{"user_id":"u"},"id":"","time":0}',
        b'{"key":"a","payload":"CgF1","id":"x","time":0,"type":"user.User"}',
    ],
)
def test_bytes_that_are_no_event_of_the_topic_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match=r"user\.created"):
        USER_CREATED.decode(data)


@pytest.mark.parametrize("payload", [b'"!"', b"7", b'"/w=="'])
def test_a_payload_that_is_no_message_is_refused(payload: bytes) -> None:
    data = (
        b'{"key":"a","payload":'
        + payload
        + b',"id":"x","time":0,"type":"google.protobuf.Timestamp"}'
    )
    with pytest.raises(DecodeError, match=r"clock\.struck"):
        GOOGLES.decode(data)


def test_a_message_travels_under_the_name_of_its_type() -> None:
    data = BETTERPROTOS.encode(BETTERPROTOS.event("u", User(id="u")))
    assert b'"type":"user.User"' in data
    with pytest.raises(DecodeError, match=r"clock\.struck"):
        GOOGLES.decode(data)


def test_an_event_that_no_outbox_could_hold_is_refused() -> None:
    with pytest.raises(EncodeError, match="more than 60000"):
        USER_CREATED.encode(USER_CREATED.event("u", UserCreated("x" * 60_000)))
    with pytest.raises(EncodeError, match="key of 201"):
        USER_CREATED.encode(USER_CREATED.event("k" * 201, UserCreated("x")))


@pytest.mark.parametrize("name", ["", "a b", "a:b", "{a}", "a*", "ä", "x" * 101])
def test_a_name_that_no_stream_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="topic"):
        Topic(name, UserCreated)


def test_an_event_takes_the_trace_of_the_work_in_progress_once() -> None:
    event = USER_CREATED.event("u", UserCreated("u"))
    assert event.traced() is event
    trace = TraceContext.root()
    token = trace_variable.set(trace)
    try:
        traced = event.traced()
        assert traced.traceparent == trace.traceparent
        assert (traced.id, traced.time) == (event.id, event.time)
        trace_variable.set(TraceContext.root())
        assert traced.traced() is traced
    finally:
        trace_variable.reset(token)
