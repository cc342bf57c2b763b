"""The wheel in a clean environment: no Rust on the PATH, no checkout, none of the optional libraries."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.release.wheel import ROOT, RUNTIME, Environment, find_wheel, read_wheel
from tests.tools import tool

if TYPE_CHECKING:
    from email.message import Message

SMOKE = Path(__file__).with_name("smoke.py")


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return read_wheel(find_wheel())


@pytest.fixture(scope="module")
def metadata(files: dict[str, bytes]) -> Message:
    (found,) = (each for name, each in files.items() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(found)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel, and what it requires without extras."""
    environment = Environment(tmp_path_factory.mktemp("clean"))
    environment.install(str(find_wheel()))
    return environment


def test_one_wheel_serves_every_python_from_3_11_on(files: dict[str, bytes]) -> None:
    assert "-cp311-abi3-" in find_wheel().name
    (tags,) = (each.decode() for name, each in files.items() if name.endswith(".dist-info/WHEEL"))
    assert re.search(r"^Tag: cp311-abi3-", tags, re.MULTILINE)
    assert "Root-Is-Purelib: false" in tags
    assert [name for name in files if name.endswith((".so", ".pyd"))] == ["bascule/_core.abi3.so"]


def test_it_holds_what_is_in_the_repository_and_nothing_else(files: dict[str, bytes]) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "bascule", "bascule_shop"],
        cwd=ROOT / "python",
        capture_output=True,
        text=True,
        check=True,
    )
    own = {name for name in files if ".dist-info/" not in name}
    assert own == {*tracked.stdout.split(), "bascule/_core.abi3.so"}
    assert {"bascule/py.typed", "bascule_shop/py.typed", "bascule/_core.pyi"} <= own
    beside = {name.partition("/")[2] for name in files if ".dist-info/" in name}
    assert beside == {
        *("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"),
        "sboms/bascule-py.cyclonedx.json",
    }


def test_it_says_what_it_is(files: dict[str, bytes], metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Version"] in find_wheel().name
    assert set(metadata.get_all("Provides-Extra", [])) > {"redis", "mysql", "mongo", "otel"}
    (licence,) = (each for name, each in files.items() if name.endswith("licenses/LICENSE"))
    assert licence == (ROOT / "LICENSE").read_bytes()


def test_it_tells_every_crate_that_is_in_it(files: dict[str, bytes]) -> None:
    """CycloneDX, as PEP 770 has it in a wheel."""
    (bill,) = (json.loads(each) for name, each in files.items() if "/sboms/" in name)
    assert bill["bomFormat"] == "CycloneDX"
    told = {(each["name"], each["version"]) for each in bill["components"]}
    tree = subprocess.run(
        [
            "cargo",
            "tree",
            "--locked",
            "-p",
            "bascule-py",
            "-e",
            "normal",
            "--prefix=none",
            "-f={p}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    shipped = set(re.findall(r"^=?(\S+) v(\S+?)(?: \(.*)?$", tree.stdout, re.MULTILINE))
    assert {each for each in shipped if each[0] != "bascule-py"} <= told
    assert all(each.get("licenses") for each in bill["components"])


def test_the_programs_start(clean: Environment) -> None:
    assert "structured concurrency" in clean.run("bascule", "--help")
    assert "serve" in clean.run("bascule_shop", "--help")


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_call_is_answered(clean: Environment, loop: str) -> None:
    assert clean.run("python", "-W", "error", str(SMOKE), loop) == f"Hello, {loop}!"


def test_the_demo_runs(clean: Environment) -> None:
    """It takes ten seconds; it is what the README has people do first."""
    assert "every answer as expected" in clean.run("bascule", "demo")


def test_the_source_distribution_has_all_that_a_build_needs(
    metadata: Message, tmp_path: Path
) -> None:
    """Nothing of tests, deployment or secrets is in it."""
    maturin = Path(sys.executable).with_name("maturin")
    subprocess.run([maturin, "sdist", "--out", tmp_path], cwd=ROOT, check=True, capture_output=True)
    (made,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(made) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        about = archive.extractfile(f"{made.name.removesuffix('.tar.gz')}/PKG-INFO")
        assert about is not None
        assert message_from_bytes(about.read()).items() == metadata.items()
    wanted = subprocess.run(
        ["git", "ls-files", "python", "rust", "Cargo.lock", "LICENSE", "README.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    # Rust's own tests are no part of what is built.
    sources = {name for name in wanted.stdout.split() if "/tests/" not in name}
    assert sources <= names
    assert {name.partition("/")[0] for name in names} == {
        *("python", "rust", "Cargo.toml", "Cargo.lock", "LICENSE", "README.md"),
        *("pyproject.toml", "PKG-INFO"),
    }


def test_a_release_has_its_bills_of_materials(tmp_path: Path) -> None:
    """It takes ten seconds: it installs what the image does. The schema is checked by the script."""
    tool("cyclonedx-py")
    script = ROOT / "scripts/sbom.py"
    subprocess.run([sys.executable, script, find_wheel(), "--out", tmp_path], check=True)
    bill = json.loads((tmp_path / "bascule-python.cdx.json").read_text())
    assert bill["metadata"]["component"]["version"] in find_wheel().name
    told = {
        re.sub("[-_.]+", "-", each["name"]).lower(): each["version"] for each in bill["components"]
    }
    # What is for other platforms only is not there.
    assert set(told) <= set(RUNTIME)
    assert len(told) > 50
    assert all(RUNTIME[name] == version for name, version in told.items())
    assert (tmp_path / "bascule-rust.cdx.json").exists()
