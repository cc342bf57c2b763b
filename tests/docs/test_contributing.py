"""CONTRIBUTING.md names what is there."""

from __future__ import annotations

import re

from tests.pages import ROOT

#: Made by a build, and so not there before it.
BUILT = (".build/", ".venv")


def test_every_path_exists() -> None:
    quoted = re.findall(r"`([^`\n]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    paths = {
        part
        for text in quoted
        for part in text.split()
        if re.fullmatch(r"[\w.]+/[\w./]+|\w+\.(?:toml|md|yml|txt)|protos|docs|benches", part)
    }
    assert len(paths) > 30
    missing = {path for path in paths if not (ROOT / path).exists() and not path.startswith(BUILT)}
    assert missing == set()


def test_every_package_and_crate_is_on_the_map() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    packages = [each.parent for each in (ROOT / "python/bascule").glob("*/__init__.py")]
    crates = [each.parent for each in (ROOT / "rust").glob("*/Cargo.toml")]
    suites = [each for each in (ROOT / "tests").iterdir() if any(each.glob("test_*.py"))]
    for folder in [*packages, *crates, *suites]:
        path = folder.relative_to(ROOT)
        assert f"`{path}`" in text or path.parts[-1].startswith("_"), path


def test_its_targets_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"`make (\w+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert "docs" in targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
