"""Tools are pinned, found by their names, and missed in words that help."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import provision

SCRIPT = Path(provision.__file__)


def test_an_unknown_tool_is_told_from_those_there_are() -> None:
    ran = subprocess.run(
        [sys.executable, SCRIPT, "hammer"], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("hammer: 'hammer' is no tool of the tests")
    assert "h2spec" in ran.stderr


@pytest.mark.parametrize("name", [path.parent.name for path in provision.TOOLS.glob("*/go.mod")])
def test_a_go_tool_is_pinned(name: str) -> None:
    folder = provision.TOOLS / name
    module = (folder / "go.mod").read_text()
    assert re.search(r"^module bascule/tests/tools/", module, re.MULTILINE)
    assert list(folder.glob("*.go")) or len(re.findall(r"^tool \S+$", module, re.MULTILINE)) == 1
    assert (folder / "go.sum").stat().st_size > 0


def test_without_go_it_is_said_where_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(provision.MissingToolError, match=r"go is missing: install Go 1\.26"):
        provision.provide("h2spec")


def test_a_build_that_fails_is_reported_in_a_line_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho what it tried\necho what went wrong\nexit 2\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(provision.MissingToolError, match=r"tests/tools/h2spec: what went wrong$"):
        provision.provide("h2spec")
    (made,) = (tmp_path / "bascule/tools").iterdir()
    assert not list(made.iterdir())


def test_what_is_built_depends_on_its_sources_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "main.go"
    source.write_text("one")
    first = provision.cached("tools/x", "x", [source])
    assert provision.cached("tools/x", "x", [source]) == first
    source.write_text("two")
    assert provision.cached("tools/x", "x", [source]) != first
