#!/usr/bin/env python3
"""Get the tools that tests need, and print where they are.

A tool is a folder of its own under tests/tools, with a file that pins it. It is built once for each state of that
folder, into a cache outside the checkout:
- go.mod: the sources of a Go program of ours, or the program that the go.mod names as its ``tool``.
- package-lock.json: npm installs what that pins beside a copy of the sources.
- pom.xml: Maven gets the libraries, and a Main.java of ours is compiled against them.
- requirements.txt: pip installs it in a virtual environment of its own.
What Debian has comes from there, where apt may be used; the services that come with it are not started.

Programs are linked in ``bin`` of the cache by their names, where `bascule.testing.servers` looks for them.
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
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tests/tools"

#: Programs that come from a Debian package.
PACKAGES = {
    "amtool": "prometheus-alertmanager",
    "etcd": "etcd-server",
    "h2load": "nghttp2-client",
    "javac": "default-jdk-headless",
    "mariadbd": "mariadb-server",
    "mvn": "maven",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "promtool": "prometheus",
    "redis-server": "redis-server",
}

#: Whether Debian may start a service is asked here.
POLICY = Path("/usr/sbin/policy-rc.d")

#: What pins a tool of each kind.
PINS = ("go.mod", "package.json", "pom.xml", "requirements.txt")

COPY_LIBRARIES = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

#: One user of apt at a time.
_APT = threading.Lock()

NODE_HINT = "install Node.js 20 or newer with npm (https://nodejs.org)"

#: The slow part of a build is the linking, on one core; downloads leave the cores alone.
BUILDS = 2

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
    with ThreadPoolExecutor(BUILDS) as builders:
        for name, building in [(name, builders.submit(provide, name)) for name in wanted]:
            try:
                print(building.result(), flush=True)
            except MissingToolError as error:
                print(f"{name}: {error}", file=sys.stderr)
                missing = 1
    return missing


def names() -> list[str]:
    """List every tool."""
    folders = [path.parent.name for pin in PINS for path in TOOLS.glob(f"*/{pin}")]
    return sorted([*PACKAGES, *folders])


def provide(name: str) -> Path:
    """Answer with the path of a tool; build or install it if need be.

    :raises MissingToolError: if there is none of this name, or it cannot be had on this machine
    """
    if name in PACKAGES:
        return _packaged(name)
    builders = {
        "go.mod": _go_program,
        "package.json": _node_folder,
        "pom.xml": _java_program,
        "requirements.txt": _python_program,
    }
    for pin, builder in builders.items():
        if (TOOLS / name / pin).is_file():
            return builder(name)
    message = f"{name!r} is no tool of the tests: they are {', '.join(names())}"
    raise MissingToolError(message)


def require(program: str, hint: str) -> str:
    """Answer with the path of an installed program.

    :raises MissingToolError: if it is not on the PATH
    """
    path = _which(program)
    if path is None:
        message = f"{program} is missing: {hint}"
        raise MissingToolError(message)
    return path


def cache() -> Path:
    """Answer with the folder that keeps what was built."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "bascule"


def cached(kind: str, program: str, sources: Iterable[Path]) -> Path:
    """Answer with the path for a program that is built from ``sources``, in a folder that exists."""
    digest = hashlib.sha256()
    for source in sorted(sources):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    folder = cache() / f"{kind}-{digest.hexdigest()[:16]}"
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


def _which(program: str) -> str | None:
    # Debian puts daemons where only root's PATH leads.
    return shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")


@contextmanager
def _fresh(target: Path) -> Iterator[Path]:
    """Give a folder to fill, which becomes ``target`` if all goes well.

    What was broken off leaves nothing that looks finished.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as parent:
        fresh = Path(parent) / target.name
        fresh.mkdir()
        yield fresh
        fresh.rename(target)


def _linked(name: str, program: Path) -> Path:
    """Link a program by its name where the tests' servers are looked for."""
    place = cache() / "bin"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as fresh:
        link = Path(fresh) / name
        link.symlink_to(program)
        link.replace(place / name)
    return program


def _go_program(name: str) -> Path:
    folder = TOOLS / name
    own = list(folder.glob("*.go"))
    target = cached(f"tools/{name}", name, [*own, folder / "go.mod", folder / "go.sum"])
    if target.exists():
        return _linked(name, target)
    go = require("go", GO_HINT)
    pinned = re.search(r"^tool (\S+)$", (folder / "go.mod").read_text(), re.MULTILINE)
    package = "." if own or pinned is None else pinned[1]
    try:
        build_go(go, folder, package, target)
    except RuntimeError as error:
        reason = str(error).strip().rpartition("\n")[2]
        message = f"it could not be built from {folder.relative_to(ROOT)}: {reason}"
        raise MissingToolError(message) from error
    return _linked(name, target)


def _node_folder(name: str) -> Path:
    """Answer with the folder of a Node program and of the packages that it needs."""
    folder = TOOLS / name
    own = [*folder.glob("*.mjs"), folder / "package.json", folder / "package-lock.json"]
    target = cached(f"tools/{name}", name, own)
    if target.exists():
        return target
    require("node", NODE_HINT)
    npm = require("npm", NODE_HINT)
    with _fresh(target) as fresh:
        for source in own:
            shutil.copy(source, fresh)
        try:
            run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=fresh)
        except RuntimeError as error:
            message = f"npm cannot install it: {error}"
            raise MissingToolError(message) from error
    return target


def _java_program(name: str) -> Path:
    folder = TOOLS / name
    own = [folder / "pom.xml", folder / "Main.java"]
    target = cached(f"tools/{name}", name, own)
    program = target / name
    if program.exists():
        return _linked(name, program)
    maven, compiler = str(_packaged("mvn")), str(_packaged("javac"))
    with _fresh(target) as fresh:
        try:
            run(
                [
                    maven,
                    "-q",
                    "-B",
                    "-f",
                    str(own[0]),
                    COPY_LIBRARIES,
                    f"-DoutputDirectory={fresh}/lib",
                ]
            )
            run([compiler, "-cp", f"{fresh}/lib/*", "-d", f"{fresh}/own", str(own[1])])
        except RuntimeError as error:
            message = f"it cannot be built with Maven: {error}"
            raise MissingToolError(message) from error
        _write_script(fresh / name, f'java $JAVA_OPTIONS -cp "{target}/own:{target}/lib/*" Main')
    return _linked(name, program)


def _python_program(name: str) -> Path:
    pins = TOOLS / name / "requirements.txt"
    target = cached(f"tools/{name}", name, [pins])
    program = target / "run"
    if program.exists():
        return _linked(name, program)
    with _fresh(target) as fresh:
        try:
            run([sys.executable, "-m", "venv", str(fresh)])
            run([f"{fresh}/bin/python", "-m", "pip", "install", "-q", "-r", str(pins)])
        except RuntimeError as error:
            message = f"pip cannot install it: {error}"
            raise MissingToolError(message) from error
        # A script that pip wrote names the Python of the folder that it was installed in.
        is_script = (fresh / "bin" / name).read_bytes().startswith(b"#!")
        python = f'"{target}/bin/python" ' if is_script else ""
        _write_script(fresh / "run", f'{python}"{target}/bin/{name}"')
    return _linked(name, program)


def _write_script(path: Path, command: str) -> None:
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)


def _packaged(program: str) -> Path:
    package = PACKAGES[program]
    with _APT:
        if not _which(program) and os.geteuid() == 0 and shutil.which("apt-get"):
            quiet = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
            install = [*quiet, "install", "-y", "--no-install-recommends", package]
            try:
                run([*quiet, "update"])
                with _no_services():
                    run(install, DEBIAN_FRONTEND="noninteractive")
            except RuntimeError as error:
                raise MissingToolError(str(error)) from error
    return Path(require(program, f"`apt-get install {package}`, as root"))


@contextmanager
def _no_services() -> Iterator[None]:
    """Forbid Debian to start the services that it installs.

    https://people.debian.org/~hmh/invokerc.d-policyrc.d-specification.txt
    """
    if POLICY.exists():
        # The machine has a policy of its own.
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


if __name__ == "__main__":
    sys.exit(main())
