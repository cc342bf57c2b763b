"""The crates of the core keep to deny.toml: what `cargo deny check licenses bans sources` says, without the tool.

`make audit` asks the tool, and the databases of known weaknesses, where they can be reached.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from typing import Any

import pytest
from tests.release.wheel import ROOT

RULES = tomllib.loads((ROOT / "deny.toml").read_text())
ALLOWED = set(RULES["licenses"]["allow"])


@pytest.fixture(scope="module")
def crates() -> list[dict[str, Any]]:
    """Every crate that a build takes, on some platform, and those of tests too."""
    told = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(told.stdout)["packages"]
    return found


def permitted(expression: str) -> bool:
    """Whether an SPDX expression leaves a choice that is allowed. Older crates write a slash for OR."""
    terms = re.sub(r"([\w.+-]+(?: WITH [\w-]+)?)", lambda found: _term(found[1]), expression)
    return bool(eval(terms.replace("/", " or "), {"__builtins__": {}}))


def _term(text: str) -> str:
    return text.lower() if text in {"AND", "OR"} else str(text in ALLOWED)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT OR Apache-2.0", True),
        ("MIT/Apache-2.0", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("(MIT OR GPL-3.0-only) AND Unicode-3.0", True),
        ("(MIT OR GPL-3.0-only) AND LGPL-2.1", False),
    ],
)
def test_expressions_are_read_as_spdx_means_them(expression: str, expected: bool) -> None:
    assert permitted(expression) is expected


def test_every_licence_is_allowed(crates: list[dict[str, Any]]) -> None:
    assert len(crates) > 50
    assert not {each["name"] for each in crates if not permitted(each["license"])}


def test_every_crate_comes_from_the_registry_or_from_here(crates: list[dict[str, Any]]) -> None:
    """None from git: what that gives can change under the same name."""
    assert RULES["sources"]["unknown-registry"] == RULES["sources"]["unknown-git"] == "deny"
    for each in crates:
        if each["source"] is None:
            assert each["manifest_path"].startswith(str(ROOT / "rust"))
        else:
            assert each["source"].startswith("registry+")


def test_the_core_does_no_io_of_its_own(crates: list[dict[str, Any]]) -> None:
    banned = {each["crate"] for each in RULES["bans"]["deny"]}
    assert banned
    assert not banned & {each["name"] for each in crates}
