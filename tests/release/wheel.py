"""The wheel that ``make build`` made, and an environment that has it and what it needs, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

from tests.tools import lacking

ROOT = Path(__file__).parents[2]
PINS = ROOT / "requirements/dev.txt"

PIN = re.compile(r"^([a-z0-9.-]+)==(\S+)", re.MULTILINE)
#: What the image installs, and what the tests run with.
RUNTIME = dict(PIN.findall((ROOT / "requirements/runtime.txt").read_text()))
TESTED = dict(PIN.findall(PINS.read_text()))


def find_wheel() -> Path:
    """The wheel; ``BASCULE_WHEEL`` names another one."""
    if said := os.environ.get("BASCULE_WHEEL"):
        return Path(said)
    found = sorted((ROOT / ".build/wheel").glob("*.whl"))
    if not found:
        lacking("needs the wheel: `make build` makes it")
    (wheel,) = found
    return wheel


def read_wheel(wheel: Path) -> dict[str, bytes]:
    """Its files."""
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


class Environment:
    """A virtual environment that nothing of this checkout or of this machine's tools leads into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv/bin"
        self._uv("venv", "--quiet", f"--python={sys.executable}", str(folder / "venv"))

    def install(self, *what: str) -> None:
        """Install, at the versions that the tests run with."""
        self._uv(
            "pip",
            "install",
            "--quiet",
            f"--python={self.bin}/python",
            f"--constraint={PINS}",
            *what,
        )

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of it, where no compiler is to be found, with warnings of leaks as errors."""
        ran = subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.folder,
            env={"PATH": str(self.bin), "HOME": str(self.folder), "LANG": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert ran.returncode == 0, f"{program} {' '.join(arguments)}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def _uv(self, *arguments: str) -> None:
        uv = Path(sys.executable).with_name("uv")
        environment = {**os.environ, "UV_LINK_MODE": "copy"}
        environment.pop("PYTHONPATH", None)
        subprocess.run([uv, *arguments], cwd=self.folder, env=environment, check=True)
