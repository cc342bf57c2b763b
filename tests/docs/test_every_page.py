"""Every page is in the site's list, and no sample on any page is only text."""

from __future__ import annotations

import json
import re
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from grpc_tools import protoc
from tests.pages import NOT_RUN, ROOT, RUN_BY, Block, blocks, pages

MODULES = Path(__file__).parent
LANGUAGES = {"python", "sh", "console", "text", "json", "toml", "yaml", "proto", "ts"}
BLOCKS = [block for page in pages() for block in blocks(page)]


def handed(page: str, call: str) -> bool:
    """Whether a module of this folder hands the page to that function, or another test has taken it."""
    if page in RUN_BY:
        return Path(page).name in (ROOT / RUN_BY[page]).read_text()
    texts = [each.read_text() for each in MODULES.glob("test_*.py")]
    return any(re.search(rf'\b{call}(?:, |\(\s*)"{re.escape(page)}"', text) for text in texts)


def test_every_block_is_of_a_kind_that_is_looked_at() -> None:
    unknown = [
        f"{block}: {block.language!r}" for block in BLOCKS if block.language not in LANGUAGES
    ]
    assert unknown == [], "name the language after the ```, or teach tests/pages.py this one"
    fences = {
        page: len(re.findall(r"^ *```", (ROOT / page).read_text(), re.MULTILINE))
        for page in pages()
    }
    assert fences == {page: 2 * len(blocks(page)) for page in pages()}, "a fence does not end"


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if block.sample}))
def test_the_samples_are_executed(page: str) -> None:
    assert handed(page, "load"), f"no module in tests/docs has load({page!r}, globals())"


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if block.walked}))
def test_the_commands_and_programs_are_run(page: str) -> None:
    assert handed(page, "walk"), f"no test in tests/docs has session.walk({page!r})"


def test_what_is_not_run_is_still_there() -> None:
    commands = [(block.page, command) for block in BLOCKS for command, _ in block.commands]
    commands += [(block.page, block.text) for block in BLOCKS if block.language == "ts"]
    for page, begin in NOT_RUN:
        assert any(page == where and text.startswith(begin) for where, text in commands), (
            page,
            begin,
        )
    strange = [str(block) for block in BLOCKS if block.language == "ts"]
    assert len(strange) == sum(begin.startswith("const ") for _, begin in NOT_RUN), strange


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language in {"json", "toml", "yaml"}], ids=str
)
def test_data_is_well_formed(block: Block) -> None:
    read: dict[str, Any] = {
        "json": json.loads,
        "toml": tomllib.loads,
        "yaml": lambda text: list(yaml.safe_load_all(text)),
    }
    read[block.language](block.text)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "proto"], ids=str)
def test_protos_compile(block: Block, tmp_path: Path) -> None:
    (tmp_path / "page.proto").write_text(block.text)
    beside = [tmp_path, sysconfig.get_path("purelib"), Path(protoc.__file__).parent / "_proto"]
    include = [f"-I{folder}" for folder in beside]  # for google/api and google/protobuf
    assert (
        protoc.main(["", *include, f"--descriptor_set_out={tmp_path}/page.binpb", "page.proto"])
        == 0
    )


def test_every_page_is_in_the_list_of_the_site() -> None:
    class Loader(yaml.SafeLoader):
        """As mkdocs reads it, less its own tags."""

    listed: list[str] = []

    def collect(entry: Any) -> None:
        if isinstance(entry, str):
            listed.append(f"docs/{entry}")
        else:
            for each in entry.values() if isinstance(entry, dict) else entry:
                collect(each)

    collect(yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)["nav"])
    there = sorted(page for page in pages() if page.startswith("docs/"))
    assert sorted(listed) == there, "nav of mkdocs.yml and the pages in docs/ differ"


def test_every_public_package_is_in_the_reference() -> None:
    packages = [each.parent for each in (ROOT / "python/bascule").rglob("__init__.py")]
    public = {
        ".".join(each.relative_to(ROOT / "python").parts[1:])
        for each in packages
        if not any(part.startswith("_") for part in each.parts)
        and each.name != "bascule"
        and "cli" not in each.parts
    }
    shown = {each.stem for each in (ROOT / "docs/reference/api").glob("*.md")}
    assert public | {"errors"} == shown
