#!/usr/bin/env python3
"""Pin what the image installs and what it is built with, by hashes: at the versions of requirements/dev.txt, which are tested."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: What the shop's services may use. Temporal's client is larger than all the rest, and none of them needs it.
EXTRAS = ("redis", "mysql", "mongo", "otel", "uvloop")

HEADS = {
    "runtime": "# What the image installs: `make lock` makes it anew. Versions are those of dev.txt, which the tests run with.\n",
    "build": "# What the image is built with: `make lock` makes it anew.\n",
}


def main() -> int:
    """Write both files."""
    lock("runtime", "pyproject.toml", *(f"--extra={extra}" for extra in EXTRAS))
    lock("build", "-", said="maturin\n")
    return 0


def lock(name: str, *what: str, said: str = "") -> None:
    """Write one of them."""
    command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", *what, "--quiet"]
    options = ["--constraint=requirements/dev.txt", "--python-version=3.11", "--generate-hashes"]
    plain = ["--no-header", "--no-emit-index-url", "--no-annotate"]
    ran = subprocess.run(
        [*command, *options, *plain],
        cwd=ROOT,
        env=os.environ,
        input=said,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    (ROOT / f"requirements/{name}.txt").write_text(HEADS[name] + ran.stdout)


if __name__ == "__main__":
    sys.exit(main())
