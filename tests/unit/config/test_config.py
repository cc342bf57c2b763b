"""Layers, validation, and what is kept when a source says what cannot be used. In virtual time."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bascule.config import Changes, Config, EnvSource, Layer, MemorySource, Source
from bascule.errors import ClosedError, ConfigurationError
from bascule.observe import Metrics
from bascule.testing import virtual_backend, virtual_run

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual_backend(request.param)


class Server(msgspec.Struct, frozen=True):
    port: int
    host: str = "localhost"


class Settings(msgspec.Struct, frozen=True):
    server: Server
    debug: bool = False
    names: list[str] = []


class Scripted:
    """A source that says what the test tells it to say."""

    name = "scripted"

    def __init__(self, *layers: Layer) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[Layer](100)
        for each in layers:
            self.say(each)
        self.raising: Exception | None = None
        self.watches = 0

    def say(self, layer: Layer) -> None:
        self._send.send_nowait(layer)

    @asynccontextmanager
    async def watch(self):
        self.watches += 1
        if self.raising is not None:
            raise self.raising
        with self._send, self._receive:
            yield self._receive


async def settled() -> None:
    """Let a change be collected, validated and told."""
    await anyio.sleep(0.2)


async def test_a_later_layer_goes_before_an_earlier_one() -> None:
    defaults = MemorySource({"server": {"port": 1, "host": "a"}, "names": ["x", "y"]})
    above = MemorySource({"server": {"port": 2}, "names": ["z"]}, name="above")
    environment = EnvSource("T_", {"T_DEBUG": "true", "T_SERVER__HOST": "b", "OTHER": "1"})
    async with Config(Settings, [defaults, above, environment]) as config:
        assert config.current == Settings(Server(2, "b"), debug=True, names=["z"])
        assert config.get("server.port") == 2
        assert config.get("server.none", 7) == 7


async def test_a_change_is_swapped_in_as_a_whole_and_told() -> None:
    source = MemorySource({"server": {"port": 1}})
    async with Config(Settings, [source]) as config:
        before = config.current
        changes = config.changes()
        await source.set("server.port", 2)
        snapshot = await anext(changes)
        assert (snapshot.value.server.port, snapshot.version) == (2, 2)
        assert before.server.port == 1, "who holds a value keeps it"


async def test_who_is_slow_gets_the_last_change_only() -> None:
    source = MemorySource({"server": {"port": 1}})
    async with Config(Settings, [source]) as config:
        changes = config.changes()
        for port in (2, 3, 4):
            await source.set("server.port", port)
            await settled()
        assert (await anext(changes)).value.server.port == 4
        with anyio.move_on_after(10) as scope:
            await anext(changes)
        assert scope.cancelled_caught


async def test_what_changes_nothing_is_not_told() -> None:
    source = MemorySource({"server": {"port": 1}})
    async with Config(Settings, [source]) as config:
        await source.set("server.port", 2)
        await source.set("server.port", 1)
        await settled()
        assert config.snapshot.version == 1


async def test_a_bad_value_keeps_the_last_good_one_and_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, other = MemorySource({"server": {"port": 1}}), MemorySource(name="other")
    metrics = Metrics()
    async with Config(Settings, [good, other]) as config:
        metrics.add_samples(config.samples)
        await other.set("server.port", "many")
        await settled()
        assert config.current.server.port == 1
        (problem,) = config.problems
        assert (problem.source, problem.key) == ("other", "server.port")
        text = metrics.render()[0].decode()
        assert 'config_invalid{source="other"} 1.0' in text
        assert 'config_invalid{source="memory"} 0.0' in text
        assert "config_last_reload_success_timestamp_seconds 1." in text
        (record,) = (each for each in caplog.records if each.levelno == logging.ERROR)
        assert (record.source, record.key) == ("other", "server.port")
        assert record.reason == "Expected `int`, got `str`"

        await good.set("debug", True)
        await settled()
        assert config.current == Settings(Server(1), debug=True), "other layers go on"

        await other.set("server.port", 5)
        await settled()
        assert (config.current.server.port, config.problems) == (5, ())
        assert 'config_invalid{source="other"} 0.0' in metrics.render()[0].decode()
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 1


async def test_values_that_fit_only_together_are_taken_when_both_are_there() -> None:
    """What was refused is looked at again when another source changes."""

    def check(settings: Settings) -> None:
        if settings.debug and settings.server.port < 1024:
            message = "debugging needs a port above 1023"
            raise ValueError(message)

    one, two = MemorySource({"server": {"port": 1}}), MemorySource(name="two")
    async with Config(Settings, [one, two], validate=check) as config:
        await two.set("debug", True)
        await settled()
        assert not config.current.debug
        assert config.problems[0].reason == "debugging needs a port above 1023"
        await one.set("server.port", 8080)
        await settled()
        assert config.current == Settings(Server(8080), debug=True)
        assert config.problems == ()


async def test_a_bad_start_is_refused_with_key_and_source() -> None:
    with pytest.raises(ConfigurationError, match=r"memory: server\.port: Expected `int`"):
        async with Config(Settings, [MemorySource({"server": {"port": []}})]):
            raise AssertionError("unreachable")
    with pytest.raises(ConfigurationError, match=r"server\.port: Object missing required field"):
        async with Config(Settings, [MemorySource({"server": {}})]):
            raise AssertionError("unreachable")
    broken = Scripted(Layer(None, "line 3: it is cut", "server"))
    with pytest.raises(ConfigurationError, match="scripted: server: line 3: it is cut"):
        async with Config(Settings, [broken]):
            raise AssertionError("unreachable")


async def test_it_starts_without_a_source_that_is_away_if_the_others_are_enough() -> None:
    away = Scripted(Layer(None, "connection refused", away=True))
    metrics = Metrics()
    async with Config(Settings, [MemorySource({"server": {"port": 1}}), away]) as config:
        metrics.add_samples(config.samples)
        assert config.current.server.port == 1
        assert 'config_source_up{source="scripted"} 0.0' in metrics.render()[0].decode()
        assert 'config_invalid{source="scripted"} 0.0' in metrics.render()[0].decode()
        away.say(Layer({"server": {"port": 2}}))
        await settled()
        assert (config.current.server.port, config.problems) == (2, ())
        away.say(Layer(None, "gone again", away=True))
        await settled()
        assert config.current.server.port == 2, "what was good last holds"


async def test_it_waits_for_a_source_that_it_cannot_do_without() -> None:
    away = Scripted(Layer(None, "connection refused", away=True))

    async def come_back() -> None:
        await anyio.sleep(60)
        away.say(Layer({"server": {"port": 2}}))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(come_back)
        begun = anyio.current_time()
        async with Config(Settings, [away]) as config:
            assert config.current.server.port == 2
            assert anyio.current_time() - begun == pytest.approx(60, abs=1)


async def test_waiting_for_a_source_can_be_cancelled() -> None:
    with anyio.move_on_after(100) as scope:
        async with Config(Settings, [Scripted()]):
            raise AssertionError("unreachable")
    assert scope.cancelled_caught


async def test_a_source_that_raises_is_watched_again_after_growing_pauses() -> None:
    source = Scripted(Layer({"debug": True}))
    source.raising = OSError("no such folder")
    async with Config(Settings, [MemorySource({"server": {"port": 1}}), source]) as config:
        await anyio.sleep(60)
        assert 5 <= source.watches <= 8
        assert config.problems[0].reason == "OSError: no such folder"
        source.raising = None
        await anyio.sleep(31)
        assert config.current.debug
        assert config.problems == ()


async def test_a_source_that_raises_for_a_day_is_read_when_it_does_not() -> None:
    source = Scripted(Layer({"debug": True}))
    source.raising = OSError("no such folder")
    async with Config(Settings, [MemorySource({"server": {"port": 1}}), source]) as config:
        await anyio.sleep(86_400)
        source.raising = None
        await anyio.sleep(31)
        assert config.current.debug


async def test_pydantic_models_and_dicts_are_schemas_too() -> None:
    class Model(pydantic.BaseModel):
        port: int
        password: str = ""

    source = MemorySource({"port": "80"})
    async with Config(Model, [source]) as config:
        assert config.current == Model(port=80)
        await source.set("port", "many")
        await settled()
        assert config.problems[0].key == "port"
        assert "many" not in str(config.problems[0]), "a value may be a secret"
    async with Config(dict[str, Any], [source]) as plain:
        assert plain.current == {"port": "many"}


async def test_every_change_can_be_rolled_back() -> None:
    source = MemorySource({"server": {"port": 1}})
    first = await source.set("server.port", 2, by="ada")
    await source.replace({"debug": True}, by="ben")
    await source.rollback(first.id, by="cai")
    newest, replaced, oldest = await source.history()
    assert oldest == first
    assert (first.by, first.changes) == ("ada", {"server.port": [1, 2]})
    assert replaced.changes == {"debug": [None, True], "server.port": [2, None]}
    assert (newest.by, newest.rollback) == ("cai", first.id)
    async with Config(Settings, [source]) as config:
        assert config.current.server.port == 2
    with pytest.raises(ConfigurationError, match="no revision '99'"):
        await source.rollback("99")


async def test_it_is_used_inside_of_its_async_with() -> None:
    config = Config(Settings, [MemorySource()])
    with pytest.raises(ClosedError):
        config.current  # noqa: B018
    with pytest.raises(ClosedError):
        Changes(config)


@pytest.mark.parametrize("sources", [[], [MemorySource(), MemorySource()]])
def test_sources_need_names_of_their_own(sources: list[Source]) -> None:
    with pytest.raises(ConfigurationError, match="name of its own"):
        Config(Settings, sources)


@pytest.mark.parametrize("key", ["", ".", "a..b", "a/b", "a.", "a\n"])
async def test_a_key_that_cannot_be_one_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="expected names with dots"):
        await MemorySource().set(key, 1)


PORTS = st.one_of(st.integers(1, 3), st.just("bad"), st.none())
CHANGES = st.lists(st.tuples(st.integers(0, 2), PORTS), max_size=8)


@given(CHANGES, st.sampled_from(["asyncio", "trio"]))
def test_what_all_say_is_in_force_as_soon_as_it_can_be(
    changes: list[tuple[int, Any]], backend: str
) -> None:
    """If the merged document is valid, it is in force; if not, that is told, and what is in force is valid."""

    async def main() -> None:
        sources = [MemorySource(name=str(number)) for number in range(3)]
        base = MemorySource({"server": {"port": 0}})
        said: list[Any] = [0, None, None, None]
        async with Config(Settings, [base, *sources]) as config:
            for number, port in changes:
                await sources[number].replace({} if port is None else {"server": {"port": port}})
                await settled()
                before = config.current.server.port
                said[number + 1] = port
                newest = next(each for each in reversed(said) if each is not None)
                if newest == "bad":
                    assert {each.key for each in config.problems} == {"server.port"}
                    assert before in {0, 1, 2, 3}
                else:
                    assert (before, config.problems) == (newest, ())

    anyio.run(main, **virtual_run(backend))
