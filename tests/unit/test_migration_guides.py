"""The programs of the migration guides run, and print what the guides say."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

GUIDES = Path(__file__).parents[2] / "docs/how-to"

#: The programs of each guide, by the text that follows them.
PROGRAMS = {
    "migrate-from-grpclib.md": [["before.py", "after.py"], ["typed.py"]],
    "migrate-from-grpcio.md": [["before.py", "after.py"]],
}


def blocks(guide: str, language: str) -> list[str]:
    text = (GUIDES / guide).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run(command: list[str], folder: Path) -> str:
    # What is generated is imported from the folder; the plugins are beside the interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


@pytest.mark.parametrize("guide", PROGRAMS)
def test_the_programs_of(guide: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for block in [*blocks(guide, "proto"), *blocks(guide, "python")]:
        name = re.match(r"(?:#|//) (\S+)\n", block)
        assert name is not None, block
        (tmp_path / name[1]).write_text(block.replace("50051", port))
    for command in blocks(guide, "sh"):
        run([sys.executable, *command.split()[1:]], tmp_path)
    said = blocks(guide, "text")
    assert len(said) == len(PROGRAMS[guide])
    for programs, expected in zip(PROGRAMS[guide], said, strict=True):
        for program in programs:
            assert run([sys.executable, program], tmp_path) == expected, program
