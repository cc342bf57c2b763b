"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_service_and_client(backend: str) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert 'backend="trio"' in program
    program = program.replace('backend="trio"', f'backend="{backend}"')
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("Hello, world!\n", "")


def test_the_handler_page() -> None:
    page = README.parent / "docs/how-to/handlers.md"
    (program,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=README.parent,
    )
    assert (ran.stdout, ran.stderr) == ("INVALID_ARGUMENT: text must not be empty\n", "")


def test_the_generator(tmp_path: Path) -> None:
    (command,) = re.findall(
        r"```sh\n(\.venv/bin/python -m grpc_tools.*?)```", README.read_text(), re.DOTALL
    )
    folder = Path(sys.executable).parent
    command = command.replace(".venv/bin", str(folder)).replace("=out", f"={tmp_path}")
    subprocess.run(command, shell=True, check=True, cwd=README.parent, timeout=60)
    made = {path.name for path in tmp_path.rglob("*.py*")}
    assert {"user_pb2.py", "user_pb2.pyi", "user_bascule.py"} <= made
