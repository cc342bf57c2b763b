"""Whatever stands in a gateway's file: it is taken, or refused by an error that names the file."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st

from bascule.errors import ConfigurationError
from bascule.gateway import GatewayFile
from bascule.gateway._file_read import alternatives, keys_of
from bascule.gateway._file_schema import FileTable

FILE = Path(__file__).parents[3] / "python/bascule_shop/gateway.toml"
ENVIRONMENT = {"X": "x", "SHOP_USER": "a:1", "SHOP_ORDER": "a:1", "SHOP_PRODUCT": "a:1"}

#: What is read from TOML, by and large: of a wrong kind more often than not.
LEAVES = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.sampled_from(
        ["", "x", "${X}", "${Y:-}", "${", "/", "a:1", "127.0.0.1:0", "consul://", "\0"]
    ),
    st.lists(
        st.sampled_from(["x", "UNAVAILABLE", "HS256", "https://a.example", "*", 5]), max_size=2
    ),
    st.dates(),
)
NAMES = st.sampled_from(
    ["user.UserService", "/user.UserService/*", "/user.UserService/GetUser", "x", ""]
)


def tables(schema: type) -> st.SearchStrategy[dict[str, Any]]:
    """Tables with a few keys of a schema: each more would be refused before the others are read."""
    keys = {name: values(kind) for name, (kind, _) in keys_of(schema).items()}
    few = st.lists(st.sampled_from(sorted(keys)), max_size=2, unique=True)
    return few.flatmap(lambda chosen: st.fixed_dictionaries({name: keys[name] for name in chosen}))


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Tables where there may be one, else leaves: those that fit, and others."""
    found: list[st.SearchStrategy[Any]] = []
    for each in alternatives(kind):
        if dataclasses.is_dataclass(each):
            found.append(tables(typing.cast("type", each)))
        elif typing.get_origin(each) is dict:
            found.append(st.dictionaries(NAMES, values(typing.get_args(each)[1]), max_size=2))
        elif typing.get_origin(each) is typing.Literal:
            found.append(st.sampled_from(typing.get_args(each)))
        elif each is float:
            found += [st.floats(0.001, 1000.0), st.floats(), st.integers()]
        elif each is int:
            found += [st.integers(1, 1000), st.integers(-(2**63), 2**63 - 1)]
    return st.one_of(found or [LEAVES])


# Each that is taken is started, too: that takes some milliseconds.
@settings(max_examples=300)
@given(over=tables(FileTable))
def test_a_file_is_taken_or_refused(over: dict[str, Any], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / "development"
    # The one development key is there: its making takes longer than all else.
    over.setdefault("auth", {"development": "x"})
    try:
        file = GatewayFile.read(FILE, environment=ENVIRONMENT, over=over, development=folder)
        file.gateway()
    except ConfigurationError as error:
        said = str(error)
    else:
        # Where it listens, and to whom it talks, is not decided by the file alone.
        upstreams = dict.fromkeys(file.config.upstreams, f"unix:{folder}/none")
        config = replace(file.config, listen="127.0.0.1:0", upstreams=upstreams)
        anyio.run(start, replace(file, config=config))
        return
    assert said.startswith(f"{FILE}: ")


async def start(file: GatewayFile) -> None:
    async with file.gateway() as gateway:
        assert gateway.addresses
