"""What ``bascule new`` writes, and what it refuses to."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bascule.cli._main import app
from bascule.cli._new_names import ProjectName
from bascule.cli._new_project import ProjectSettings, project
from bascule.errors import ConfigurationError

#: A short one, one with a dash, and the longest.
NAMES = ["a1", "my-shop", "a-name-that-has-32-characters-ok"]

#: What stands in the templates for versions and the like.
WORDS = ("bascule-version", "bascule-loop", "protobuf-version", "grpcio-tools-version")

FOLDER = Path(sys.executable).parent


def made(name: str, loop: str = "asyncio") -> dict[str, str]:
    return project(ProjectSettings(ProjectName.parse(name), loop))


@pytest.mark.parametrize("name", NAMES)
def test_generated_code_is_what_protoc_would_make(name: str, tmp_path: Path) -> None:
    """By the command of the project's own Makefile."""
    files, package = made(name), name.replace("-", "_")
    proto = tmp_path / f"protos/{package}/v1/{package}.proto"
    proto.parent.mkdir(parents=True)
    proto.write_text(files[f"protos/{package}/v1/{package}.proto"])
    makefile = files["Makefile"].replace("$(BIN)", str(FOLDER)).replace("$$", "$")
    _, _, recipe = makefile.partition("\ngenerate: ")
    command = recipe.partition("\n\n")[0].partition("\n\t")[2]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path, timeout=60)
    written = {
        path.relative_to(tmp_path).as_posix(): path.read_text()
        for path in (tmp_path / package).rglob("*")
        if path.is_file()
    }
    assert len(written) == 3
    assert written == {path: files[path] for path in written}


@pytest.mark.parametrize("name", NAMES)
def test_style_holds_whatever_the_name(name: str, tmp_path: Path) -> None:
    for path, text in made(name).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for command in (["format", "--check"], ["check"]):
        ran = subprocess.run(
            [FOLDER / "ruff", *command, "--no-cache", "."],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout


def test_nothing_of_the_templates_is_left() -> None:
    for path, text in made("my-shop", "trio").items():
        for word in ("bascule_name", "bascule-name", "BasculeName", "BASCULE_NAME", *WORDS):
            assert word not in path
            assert word not in text, path
        assert text.endswith("\n") or not text, path
    assert "--loop trio" in made("my-shop", "trio")["Makefile"]


def test_what_it_needs_is_what_there_is() -> None:
    document = tomllib.loads(made("my-shop")["pyproject.toml"])
    assert document["project"]["name"] == "my-shop"
    assert document["tool"]["setuptools"]["packages"] == ["my_shop", "my_shop.v1"]
    first, *_ = document["project"]["dependencies"]
    assert first.startswith("bascule[otel]>=")
    tools, *_ = document["project"]["optional-dependencies"]["dev"]
    assert tools == f"grpcio-tools~={version('grpcio-tools')}", "the one that tests compare with"


@pytest.mark.parametrize(
    "name",
    [
        *("", "Shop", "1shop", "my--shop", "shop-", "my.shop", "../shop", "ümlaut", "x" * 33),
        *("class", "match", "json", "bascule", "google", "tests"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^name "):
        ProjectName.parse(name)


def run(*arguments: str) -> tuple[int, str, str]:
    ran = CliRunner().invoke(app, ["new", *arguments])
    return ran.exit_code, ran.stdout, ran.stderr


def test_nothing_is_overwritten_unasked_or_unsaid(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    code, said, _ = run("my-shop", "-d", str(folder))
    assert (code, said.splitlines()[0]) == (0, f"{len(made('my-shop'))} files in {folder}")
    assert (folder / ".ci/run").stat().st_mode & 0o111
    (folder / "README.md").write_text("mine")

    code, said, complaint = run("my-shop", "-d", str(folder))
    assert (code, said) == (2, "")
    assert complaint.startswith(f"bascule new: {folder}: it has ")
    assert (folder / "README.md").read_text() == "mine"

    code, said, _ = run("my-shop", "-d", str(folder), "--force")
    assert code == 0
    overwritten = [line for line in said.splitlines() if line.startswith("overwritten: ")]
    assert overwritten == [f"overwritten: {folder}/README.md"], "the others are as they were"


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    code, _, complaint = run("my-shop", "-d", str(tmp_path))
    assert (code, len(list(tmp_path.iterdir()))) == (2, 1)
    assert "it is not empty: choose another folder, or --force" in complaint
    code, _, complaint = run("my-shop", "-d", str(tmp_path / "thesis.txt"))
    assert (code, "it is a file" in complaint) == (2, True)


def test_a_bad_name_is_said_in_a_line() -> None:
    code, said, complaint = run("Shop")
    assert (code, said) == (2, "")
    assert complaint.startswith("bascule new: name 'Shop': use small letters and digits")
    assert len(complaint.splitlines()) == 1


def test_the_page_names_files_that_are_made() -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/new-project.md").read_text()
    table, _, _ = page.partition("## Run it")
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall("`(.+?)`", row)]
    files = made("my-shop")
    assert len(named) >= 14
    for name in named:
        assert any(path == name or path.startswith(name) for path in files), name
    _, _, options = page.partition("## What you can say")
    command = typer.main.get_command(app).commands["new"]  # type: ignore[attr-defined]
    known = {name for each in command.params for name in each.opts if name.startswith("--")}
    assert known - {"--help"} == set(re.findall(r"`(--\w+)", options))
