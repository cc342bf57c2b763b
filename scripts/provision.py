#!/usr/bin/env python3
"""Get the tools that tests need, and print where they are.

A Go tool is a folder of its own under tests/tools with a go.mod that pins it: either the sources of a program of ours
or the one that the go.mod names as its ``tool``. It is built once for each state of that folder, into a cache outside
the checkout. A Node tool has a package-lock.json there, and npm installs what that pins beside a copy of its sources.
What Debian has comes from there, where apt may be used.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tests/tools"

#: Programs that come from a Debian package.
PACKAGES = {"h2load": "nghttp2-client"}

NODE_HINT = "install Node.js 20 or newer with npm (https://nodejs.org)"

GO_HINT = "install Go 1.26 or newer (https://go.dev/dl)"


class MissingToolError(Exception):
    """A program that a suite needs is not to be had; the message says which and how to get it."""


def main() -> int:
    """Provide each tool that is named, or say in a line why it cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names()))
    parser.add_argument("--all", action="store_true", help="every tool")
    arguments = parser.parse_args()
    wanted = names() if arguments.all else arguments.names
    if not wanted:
        parser.error("name a tool, or give --all")
    missing = 0
    for name in wanted:
        try:
            print(provide(name))
        except MissingToolError as error:
            print(f"{name}: {error}", file=sys.stderr)
            missing = 1
    return missing


def names() -> list[str]:
    """List every tool."""
    folders = [
        path.parent.name for kind in ("go.mod", "package.json") for path in TOOLS.glob(f"*/{kind}")
    ]
    return sorted([*PACKAGES, *folders])


def provide(name: str) -> Path:
    """Answer with the path of a tool; build or install it if need be.

    :raises MissingToolError: if there is none of this name, or it cannot be had on this machine
    """
    if name in PACKAGES:
        return _packaged(name)
    if (TOOLS / name / "go.mod").is_file():
        return _built(name)
    if (TOOLS / name / "package.json").is_file():
        return _installed(name)
    message = f"{name!r} is no tool of the tests: they are {', '.join(names())}"
    raise MissingToolError(message)


def require(program: str, hint: str) -> str:
    """Answer with the path of an installed program.

    :raises MissingToolError: if it is not on the PATH
    """
    path = shutil.which(program)
    if path is None:
        message = f"{program} is missing: {hint}"
        raise MissingToolError(message)
    return path


def cached(kind: str, program: str, sources: Iterable[Path]) -> Path:
    """Answer with the path for a program that is built from ``sources``, in a folder that exists."""
    digest = hashlib.sha256()
    for source in sorted(sources):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "bascule" / f"{kind}-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / program


def run(command: list[str], cwd: Path | None = None, **environment: str) -> None:
    """Run a step of a build.

    :raises RuntimeError: if it fails; the message has what it said
    """
    result = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if result.returncode:
        message = f"{' '.join(command)} failed with exit code {result.returncode}:\n{result.stdout}"
        raise RuntimeError(message)


def build_go(go: str, folder: Path, package: str, target: Path) -> None:
    """Build a Go program without C, so that it runs wherever it is copied.

    :raises RuntimeError: if it does not build
    """
    # Renamed at the end: a build that was broken off leaves nothing that looks finished.
    with tempfile.TemporaryDirectory(dir=target.parent) as fresh:
        program = Path(fresh) / target.name
        flags = ["-trimpath", "-ldflags", "-s -w", "-o", str(program)]
        run(
            [go, "build", *flags, package],
            cwd=folder,
            CGO_ENABLED="0",
            GOFLAGS="-mod=readonly -buildvcs=false",
        )
        program.replace(target)


def _built(name: str) -> Path:
    folder = TOOLS / name
    own = list(folder.glob("*.go"))
    target = cached(f"tools/{name}", name, [*own, folder / "go.mod", folder / "go.sum"])
    if target.exists():
        return target
    go = require("go", GO_HINT)
    pinned = re.search(r"^tool (\S+)$", (folder / "go.mod").read_text(), re.MULTILINE)
    package = "." if own or pinned is None else pinned[1]
    try:
        build_go(go, folder, package, target)
    except RuntimeError as error:
        reason = str(error).strip().rpartition("\n")[2]
        message = f"it could not be built from {folder.relative_to(ROOT)}: {reason}"
        raise MissingToolError(message) from error
    return target


def _installed(name: str) -> Path:
    """Answer with the folder of a Node program and of the packages that it needs."""
    folder = TOOLS / name
    own = [*folder.glob("*.mjs"), folder / "package.json", folder / "package-lock.json"]
    target = cached(f"tools/{name}", name, own)
    if target.exists():
        return target
    require("node", NODE_HINT)
    npm = require("npm", NODE_HINT)
    # Renamed at the end: an installation that was broken off leaves nothing that looks finished.
    with tempfile.TemporaryDirectory(dir=target.parent) as parent:
        fresh = Path(parent) / name
        fresh.mkdir()
        for source in own:
            shutil.copy(source, fresh)
        try:
            run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=fresh)
        except RuntimeError as error:
            message = f"npm cannot install it: {error}"
            raise MissingToolError(message) from error
        fresh.rename(target)
    return target


def _packaged(program: str) -> Path:
    package = PACKAGES[program]
    if not shutil.which(program) and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = ["apt-get", "-qq"]
        try:
            run([*quiet, "update"])
            run([*quiet, "install", "-y", package], DEBIAN_FRONTEND="noninteractive")
        except RuntimeError as error:
            raise MissingToolError(str(error)) from error
    return Path(require(program, f"`apt-get install {package}`, as root"))


if __name__ == "__main__":
    sys.exit(main())
