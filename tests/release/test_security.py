"""SECURITY.md's table of limits is what the code does."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
UNITS = {"": 1, "KiB": 1024, "MiB": 1024**2, "s": 1, "min": 60, "h": 3600}
ROWS = re.findall(
    r"^\| .+? \| (\d+) ?(\w*) \| `(.+)` \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE
)
#: Classes whose fields all bound something.
WHOLE = ["bascule.rpc.ServerLimits", "bascule.net.HttpLimits", "FloodLimits"]


@pytest.mark.parametrize(("number", "unit", "where"), ROWS, ids=[where for _, _, where in ROWS])
def test_a_limit_is_what_the_table_says(number: str, unit: str, where: str) -> None:
    found = in_python(where) if where.startswith("bascule.") else in_rust(where)
    assert found == int(number) * UNITS[unit]


@pytest.mark.parametrize("name", WHOLE)
def test_no_limit_is_left_out(name: str) -> None:
    told = {
        where.removeprefix(f"{name}.").partition(".")[0]
        for _, _, where in ROWS
        if where.startswith(f"{name}.")
    }
    if name == "FloodLimits":
        fields = set(re.findall(r"^            (\w+): (?!None)", defaults(name), re.MULTILINE))
    else:
        kind = named(name)
        fields = {
            each.name for each in dataclasses.fields(kind) if type(each.default) in {int, float}
        }
        fields.discard("pings_without_calls")
    assert told == fields


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def in_python(where: str) -> float:
    if call := re.fullmatch(r"(.+)\((\w+)\)", where):
        default: float = inspect.signature(named(call[1])).parameters[call[2]].default
        return default
    owner, _, name = where.rpartition(".")
    try:
        constant: float = getattr(importlib.import_module(owner), name)
    except ModuleNotFoundError:
        fields = {each.name: each.default for each in dataclasses.fields(named(owner))}
        constant = fields[name]
    return constant


def defaults(name: str) -> str:
    """The body of a Rust type's ``Default``."""
    for source in sorted((ROOT / "rust/wire/src").rglob("*.rs")):
        if body := re.search(
            rf"^impl Default for {name} {{$(.*?)^}}$", source.read_text(), re.MULTILINE | re.DOTALL
        ):
            return body[1]
    raise AssertionError(f"no defaults of {name} in rust/wire")


def in_rust(where: str) -> int:
    kind, *path = where.split(".")
    text = defaults(kind)
    for name in path[:-1]:
        text = re.search(rf"\b{name}: \w+ {{(.*?)}}", text, re.DOTALL)[1]  # type: ignore[index]
    value = re.search(rf"\b{path[-1]}: (.+?),\n", text)[1]  # type: ignore[index]
    duration = re.fullmatch(r"Duration::from_secs\((.+)\)", value)
    product = 1
    for factor in (duration[1] if duration else value).split("*"):
        product *= int(factor.replace("_", ""))
    return product
