#!/usr/bin/env python3
"""Build the image with buildah, and look whether what came out is what it should be.

With --stand-ins, no registry of images is needed: the base images are made of Debian's packages, of this Python and of this
machine's Rust. What comes out is the same but for the base, so each step of the Dockerfile is tried. As root; it
takes some minutes and two gigabytes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: What Python needs of Debian; the builder has a C compiler besides, as the real one does.
LIBRARIES = (
    *("ca-certificates", "libbz2-1.0", "libexpat1", "libffi8", "liblzma5", "libncursesw6"),
    *("libreadline8", "libsqlite3-0", "libssl3", "libuuid1", "zlib1g"),
)
COMPILER = ("gcc", "libc6-dev")
PATH = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin"

#: Run in the image: it must be nobody of importance, with nothing to build or to become somebody else with.
CHECKS = """
set -eu
[ "$(id -u):$(id -g)" = 10001:10001 ]
for program in gcc cc pip cargo; do ! command -v $program; done
[ -z "$(find / -xdev -type f -perm /6000 2>/dev/null)" ]
[ -z "$(find /opt /usr /etc -xdev -writable 2>/dev/null)" ]
[ -w /var/lib/bascule ]
bascule_shop serve --help > /dev/null
cd /tmp && HOME=/tmp bascule demo
"""


def main() -> int:
    """Build it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stand-ins", action="store_true", help="make the base images here")
    parser.add_argument(
        "--mirror", default="", help="where Debian's packages come from, for debootstrap"
    )
    arguments = parser.parse_args()
    for program in ("buildah", *(["debootstrap"] if arguments.stand_ins else [])):
        if shutil.which(program) is None:
            print(f"{program} is missing: `apt-get install {program}`, as root", file=sys.stderr)
            return 1
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    image = f"bascule-shop:{version}"
    if arguments.stand_ins:
        # Works within a container too, where overlays cannot be mounted.
        os.environ.setdefault("STORAGE_DRIVER", "vfs")
    bases = stand_ins(arguments.mirror) if arguments.stand_ins else {}
    options = [f"--build-arg={name}={base}" for name, base in bases.items()]
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    # The format of OCI knows no health checks.
    buildah(
        *("build", "--isolation=chroot", "--network=host", "--format=docker", *options),
        *(f"--build-arg=VERSION={version}", f"--build-arg=REVISION={revision}"),
        *("--ignorefile=.dockerignore", "--file=deploy/Dockerfile", f"--tag={image}", "."),
    )
    container = answer("from", image)
    try:
        buildah("run", "--isolation=chroot", "--network=host", container, "--", "sh", "-c", CHECKS)
    finally:
        buildah("rm", container)
    print(f"{image} is built.")
    return 0


def stand_ins(mirror: str) -> dict[str, str]:
    """Make images that do for the Dockerfile's bases, and give them by the names of its arguments."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        for name, packages in {"builder": (*LIBRARIES, *COMPILER), "runtime": LIBRARIES}.items():
            run(
                "debootstrap",
                "--variant=minbase",
                f"--include={','.join(packages)}",
                "bookworm",
                made / name,
                mirror,
            )
            install_python(made / name)
        install_rust(made / "toolchain")
        return {
            name.upper(): commit(made / name, f"localhost/stand-in-{name}:0")
            for name in ("builder", "runtime", "toolchain")
        }


def install_python(root: Path) -> None:
    """Copy this Python, without what was installed in it, to where Python's own images have it."""
    base = Path(sys.base_prefix)
    version = sysconfig.get_python_version()
    local = root / "usr/local"
    for program in base.glob("bin/python*"):
        shutil.copy2(program, local / "bin", follow_symlinks=False)
    for library in base.glob("lib/libpython*"):
        shutil.copy2(library, local / "lib", follow_symlinks=False)
    shutil.copytree(base / "include", local / "include", dirs_exist_ok=True, symlinks=True)
    shutil.copytree(
        base / f"lib/python{version}",
        local / f"lib/python{version}",
        ignore=shutil.ignore_patterns("site-packages", "test", "__pycache__"),
        symlinks=True,
    )
    # This machine may reach the registries through a proxy of its own authority.
    for file in ("etc/ssl/certs/ca-certificates.crt", "etc/pip.conf"):
        if Path("/", file).exists():
            shutil.copy2(Path("/", file), root / file)
    run("chroot", root, "ldconfig")
    run("chroot", root, "/usr/local/bin/python3", "-m", "ensurepip")
    for name, target in {"python": "python3", "pip": "pip3"}.items():
        link = local / "bin" / name
        if not link.exists():
            link.symlink_to(target)


def install_rust(root: Path) -> None:
    """Copy this machine's Rust to where Rust's own images have it."""
    home = Path.home()
    cargo = Path(os.environ.get("CARGO_HOME") or home / ".cargo")
    rustup = Path(os.environ.get("RUSTUP_HOME") or home / ".rustup")
    (root / "usr/local/cargo/bin").mkdir(parents=True)
    for program in ("cargo", "rustc", "rustup"):
        shutil.copy2(cargo / "bin" / program, root / "usr/local/cargo/bin", follow_symlinks=False)
    active = subprocess.run(
        ["rustup", "show", "active-toolchain"], check=True, capture_output=True, text=True
    ).stdout.split()[0]
    target = root / "usr/local/rustup"
    target.mkdir(parents=True)
    shutil.copy2(rustup / "settings.toml", target)
    shutil.copytree(
        rustup / "toolchains" / active,
        target / "toolchains" / active,
        ignore=shutil.ignore_patterns("doc"),
        symlinks=True,
    )


def commit(root: Path, name: str) -> str:
    """Make an image of a folder."""
    container = answer("from", "scratch")
    buildah("add", "--quiet", container, root, "/")
    buildah("config", f"--env=PATH={PATH}", container)
    buildah("commit", "--quiet", container, name)
    buildah("rm", container)
    return name


def buildah(*arguments: str | Path) -> None:
    run("buildah", *arguments)


def answer(*arguments: str) -> str:
    """What buildah says."""
    ran = subprocess.run(
        ["buildah", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return ran.stdout.strip()


def run(*command: str | Path) -> None:
    subprocess.run([each for each in command if each], cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
