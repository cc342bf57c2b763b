#!/usr/bin/env python3
"""Write the bills of materials of a release, as CycloneDX: what the image installs with the wheel, and the crates in the wheel.

The first is read from a fresh environment that has what requirements/runtime.txt pins, and checked against CycloneDX's
schema; the second is what maturin has put into the wheel.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.provision import ROOT, MissingToolError, provide

#: Run by the tool's own Python, which has the schemas.
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
text = open(sys.argv[1]).read()
error = JsonStrictValidator(SchemaVersion.from_version(sys.argv[2])).validate_str(text)
sys.exit(f"{sys.argv[1]}: {error}" if error else 0)
"""


def main() -> int:
    """Write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path, nargs="?", help="default: the one in .build/wheel")
    parser.add_argument("--out", type=Path, default=ROOT / ".build/sbom", metavar="FOLDER")
    arguments = parser.parse_args()
    wheels = [arguments.wheel] if arguments.wheel else sorted(ROOT.glob(".build/wheel/*.whl"))
    if len(wheels) != 1:
        parser.error("name the wheel: `make build` makes one in .build/wheel")
    try:
        tool = provide("cyclonedx-py")
    except MissingToolError as error:
        print(f"cyclonedx-py: {error}", file=sys.stderr)
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    python = arguments.out / "bascule-python.cdx.json"
    rust = arguments.out / "bascule-rust.cdx.json"
    write_python(tool, wheels[0], python)
    write_rust(wheels[0], rust)
    print(python, rust, sep="\n")
    return 0


def write_python(tool: Path, wheel: Path, target: Path) -> None:
    """What an environment has that is installed as the image's is."""
    with tempfile.TemporaryDirectory() as folder:
        python = f"{folder}/bin/python"
        uv("venv", "--quiet", f"--python={sys.executable}", folder)
        pins = ROOT / "requirements/runtime.txt"
        uv("pip", "install", "--quiet", f"--python={python}", "--require-hashes", "-r", str(pins))
        uv("pip", "install", "--quiet", f"--python={python}", "--no-deps", str(wheel))
        options = [f"--pyproject={ROOT / 'pyproject.toml'}", "--mc-type=library", "--short-PURLs"]
        # It is validated when it is complete.
        options += ["--output-reproducible", "--no-validate", f"--output-file={target}"]
        run(str(tool), "environment", *options, python)
    # The project's file does not have the version: it is Cargo.toml's.
    bill = json.loads(target.read_text())
    bill["metadata"]["component"]["version"] = wheel.name.split("-")[1]
    target.write_text(json.dumps(bill, indent=2) + "\n")
    run(str(tool.parent / "bin/python"), "-c", VALIDATE, str(target), bill["specVersion"])


def write_rust(wheel: Path, target: Path) -> None:
    """What maturin says that it has built into the wheel (PEP 770)."""
    with ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if ".dist-info/sboms/" in each)
        target.write_bytes(archive.read(name))


def uv(*arguments: str) -> None:
    run(str(Path(sys.executable).with_name("uv")), *arguments, UV_LINK_MODE="copy")


def run(*command: str, **environment: str) -> None:
    subprocess.run(command, check=True, env={**os.environ, **environment})


if __name__ == "__main__":
    sys.exit(main())
