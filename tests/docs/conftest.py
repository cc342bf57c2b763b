"""What pages take for granted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.pages import ROOT, blocks


@pytest.fixture(scope="session")
def greeter(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The service of the first tutorial and what is generated for it: other pages go on with it."""
    folder = tmp_path_factory.mktemp("greeter")
    for block in blocks("docs/tutorials/first-service.md"):
        if block.title in {"greet.proto", "greeter.py"}:
            (folder / block.title).write_text(block.text)
    return generated(folder, "greet.proto")


@pytest.fixture(scope="session")
def echo(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The echo service of pages that need any service."""
    folder = tmp_path_factory.mktemp("echo")
    shutil.copy(ROOT / "tests/protos/echo.proto", folder)
    return generated(folder, "echo.proto")


def generated(folder: Path, proto: str) -> list[Path]:
    """Generate what a proto's services need, beside it."""
    options = ["--python_out=.", "--pyi_out=.", "--bascule_out=.", "--bascule_opt=messages=google"]
    plugin = Path(sys.executable).parent / "protoc-gen-bascule"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--plugin={plugin}", *options, proto],
        cwd=folder,
        check=True,
        timeout=60,
    )
    return sorted(folder.iterdir())
