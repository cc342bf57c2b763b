"""Files: what is read, followed and refused; their journal; secrets in files of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from bascule.config import MISSING, Config, EnvSource, FileSource, MemorySource, source_from
from bascule.config import _config as config_module
from bascule.errors import ConfigurationError

pytestmark = pytest.mark.anyio


class Database(msgspec.Struct):
    url: str
    password: str = ""
    ca_file: str = ""


class Settings(msgspec.Struct):
    database: Database | None = None
    port: int = 0


def source(path: Path, **settings: Any) -> FileSource:
    return FileSource(path, every=0.02, **settings)


async def problem_of(config: Config[Any]) -> None:
    while not config.problems:  # noqa: ASYNC110 - files change, nobody tells
        await anyio.sleep(0.02)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"port": 80, "database": {"url": "u"}}'),
        ("a.toml", 'port = 80\n[database]\nurl = "u"\n'),
        ("a.yaml", "port: 80\ndatabase:\n  url: u\n"),
    ],
)
async def test_formats(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    async with Config(Settings, [source(tmp_path / name)]) as config:
        assert config.current == Settings(Database("u"), 80)


async def test_a_changed_file_is_followed_and_a_broken_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"port": 1}')
    with anyio.fail_after(20):
        async with Config(Settings, [source(path)]) as config:
            changes = config.changes()
            path.write_text('{"port": 2}')
            assert (await anext(changes)).value.port == 2
            path.write_text('{"port": ')
            await problem_of(config)
            assert config.current.port == 2
            assert config.problems[0].source == f"file:{path}"
            # As Kubernetes changes a ConfigMap: another file in the same place.
            other = tmp_path / "other"
            other.write_text('{"port": 3}')
            other.replace(path)
            assert (await anext(changes)).value.port == 3
            assert config.problems == ()
            path.unlink()
            await problem_of(config)
            assert config.current.port == 3


async def test_a_file_may_be_missing_only_if_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    async with Config(Settings, [source(path, optional=True)]) as config:
        assert config.current == Settings()
    with pytest.raises(ConfigurationError, match="No such file"):
        async with Config(Settings, [source(path)]):
            raise AssertionError("unreachable")


@pytest.mark.parametrize("text", ["[]", "1", '{"a"', '{"a": 1}x', "[" * 100_000, "\x00"])
async def test_what_is_no_document_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"a\.json"):
        async with Config(Settings, [source(path)]):
            raise AssertionError("unreachable")


async def test_changes_are_kept_with_who_when_and_what(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"port": 1}')
    file = source(path)
    first = await file.set("port", 2, by="ada")
    await file.set("database.url", "u", by="ben")
    await file.set("port", MISSING, by="cai")
    assert json.loads(path.read_text()) == {"database": {"url": "u"}}
    undone = await file.rollback(first.id, by="dee")
    assert json.loads(path.read_text()) == {"port": 2}
    told = [(each.by, each.changes) for each in await file.history()]
    assert told == [
        ("dee", {"database.url": ["u", None], "port": [None, 2]}),
        ("cai", {"port": [2, None]}),
        ("ben", {"database.url": [None, "u"]}),
        ("ada", {"port": [1, 2]}),
        ("unknown", {"port": [None, 1]}),
    ]
    assert undone.rollback == first.id
    assert len(await file.history(2)) == 2
    assert (tmp_path / "a.json.history").stat().st_mode & 0o777 == 0o600, "it may hold secrets"


async def test_an_edit_by_hand_is_told_by_the_next_change(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    file = source(path)
    await file.set("port", 1, by="ada")
    path.write_text('{"port": 7}')
    await file.set("port", 8, by="ada")
    told = [(each.by, each.changes) for each in await file.history()]
    assert told[:2] == [("ada", {"port": [7, 8]}), ("unknown", {"port": [1, 7]})]


async def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            set_one = source(path).set  # as other processes would: each with its own limiter
            tasks.start_soon(lambda number=number, do=set_one: do(f"k{number}", number, by="x"))
    assert len(json.loads(path.read_text())) == 20
    assert len(await source(path).history(100)) == 20


async def test_a_journal_that_was_cut_by_a_crash_is_read(tmp_path: Path) -> None:
    file = source(tmp_path / "a.json")
    await file.set("port", 1, by="ada")
    with (tmp_path / "a.json.history").open("ab") as journal:
        journal.write(b'{"revision": {"id"\n')
    assert len(await file.history()) == 1
    await file.set("port", 2, by="ada")
    assert len(await file.history()) == 2


async def test_toml_is_read_only(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("port = 1\n")
    with pytest.raises(ConfigurationError, match="reads TOML only"):
        await source(path).set("port", 2, by="x")
    assert path.read_text() == "port = 1\n"


async def test_a_secret_comes_from_a_file_and_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_module, "SECRETS_EVERY", 0.05)
    secret = tmp_path / "password"
    secret.write_text("hunter2\n")
    memory = MemorySource(
        {"database": {"url": "u", "password_file": str(secret), "ca_file": "/etc/ca.pem"}}
    )
    with anyio.fail_after(20):
        async with Config(Settings, [memory]) as config:
            assert config.current.database == Database("u", "hunter2", "/etc/ca.pem")
            assert config.get("database.password") == "***"
            assert config.get("database") == {
                "url": "u",
                "password": "***",
                "ca_file": "/etc/ca.pem",
            }
            changes = config.changes()
            secret.write_text("rotated")
            assert (await anext(changes)).value.database == Database("u", "rotated", "/etc/ca.pem")
            secret.unlink()
            await problem_of(config)
            assert config.problems[0].key == "database.password_file"
            assert config.current.database == Database("u", "rotated", "/etc/ca.pem")


def test_environment_variables_by_depth_and_form() -> None:
    environment = {
        "T_SERVER": '{"host": "a", "port": 1}',
        "T_SERVER__PORT": "2",
        "T_NAMES": '["x"]',
        "T_TEXT": "[not json",
        "T___BAD": "1",
        "T_DEEP__ER__KEY": "v",
        "TT_OTHER": "1",
    }
    assert EnvSource("T_", environment).read() == {
        "server": {"host": "a", "port": "2"},
        "names": ["x"],
        "text": "[not json",
        "deep": {"er": {"key": "v"}},
    }


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("file:/etc/a.json", "file:/etc/a.json"),
        ("env:SHOP_", "env:SHOP_"),
        ("consul:///config/shop", "consul:config/shop"),
        ("consul://127.0.0.1:8500/config/shop/x", "consul:config/shop/x"),
    ],
)
def test_sources_have_addresses(url: str, name: str) -> None:
    assert source_from(url).name == name


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:",
        "file:a.txt",
        "env:",
        "http://x",
        "consul:///",
        "consul:///other/x",
        "consul:///config",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="config|environment"):
        source_from(url)


def test_files_of_others_are_no_links_to_follow_for_the_journal(tmp_path: Path) -> None:
    """A ConfigMap's file is a link: what is replaced is the file that it means."""
    real = tmp_path / "real.json"
    real.write_text("{}")
    link = tmp_path / "a.json"
    link.symlink_to(real)

    async def main() -> None:
        await source(link).set("port", 1, by="x")

    anyio.run(main)
    assert link.is_symlink()
    assert json.loads(real.read_text()) == {"port": 1}
