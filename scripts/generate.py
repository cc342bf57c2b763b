#!/usr/bin/env python3
"""Write all generated code that is committed; with ``--check``, only tell whether it is current.

protoc (of grpcio-tools) reads the protos once for each target; messages come from it or from betterproto2's compiler,
services from bascule's own plugin. The output depends on the protos and on the pinned development tools alone; the
page of metrics on where they are declared, the dashboards on what scripts/dashboards.py says of them, and the alerts
for Kubernetes on those for Prometheus.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import difflib
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from betterproto2_compiler.lib.google.protobuf.compiler import (
    CodeGeneratorRequest as Betterproto2Request,
)
from betterproto2_compiler.plugin.parser import generate_code
from google.api import annotations_pb2  # noqa: F401 - text has its options by name
from google.protobuf import text_format
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parent.parent
# What is in this tree, whichever bascule is installed.
sys.path[:0] = [str(ROOT), str(ROOT / "python")]

from scripts.dashboards import DASHBOARDS  # noqa: E402
from scripts.kubernetes_rules import kubernetes_rules  # noqa: E402
from scripts.metrics_page import metrics_page  # noqa: E402

from bascule.cli.protoc_gen import generate  # noqa: E402

SHOP = Path("python/bascule_shop/_generated")
OWN = Path("python/bascule/rpc/_generated")
NEW = Path("python/bascule/cli/_new")
TESTS = Path("tests/generated")
BENCHES = Path("benches/_generated")
GRAFANA = Path("deploy/grafana/dashboards")
KUBERNETES = Path("deploy/k8s/components/monitoring/alerts.yaml")
METRICS = Path("docs/reference/metrics.md")
SHOP_PROTOS = [f"{name}/{name}.proto" for name in ("order", "payment", "product", "user")]
OWN_PROTOS = {
    "grpc/health/v1/health.proto": "health_pb2",
    "grpc/reflection/v1/reflection.proto": "reflection_v1_pb2",
    "grpc/reflection/v1alpha/reflection.proto": "reflection_v1alpha_pb2",
}
#: Only options refer to these; betterproto2 would make 3,000 lines of classes from them.
OPTION_PROTOS = frozenset(
    {"google/api/annotations.proto", "google/api/http.proto", "google/protobuf/descriptor.proto"}
)
BETTERPROTO2_SERVICES = "client_generation=async,server_generation=async"

Files = dict[Path, bytes]


def main() -> int:
    """Write or check, and say what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if something is not current"
    )
    check = parser.parse_args().check
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    interface = new_project()
    wanted = {
        **shop(),
        **own(),
        **tests(),
        **benches(),
        **dashboards(),
        **interface,
        KUBERNETES: kubernetes_rules().encode(),
        METRICS: metrics_page().encode(),
    }
    found = {
        path.relative_to(ROOT): path.read_bytes()
        for folder in (SHOP, OWN, TESTS, BENCHES, GRAFANA)
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    alone = [path for path in (*interface, KUBERNETES, METRICS) if (ROOT / path).exists()]
    found |= {path: (ROOT / path).read_bytes() for path in alone}
    differing = [path for path in sorted({*wanted, *found}) if wanted.get(path) != found.get(path)]
    for path in differing:
        print(describe(path, found.get(path), wanted.get(path)))
        if not check:
            write(ROOT / path, wanted.get(path))
    if check and differing:
        print(
            f"{len(differing)} of {len(wanted)} generated files are not current: run `make generate`"
        )
        return 1
    print(f"{len(wanted)} generated files are current")
    return 0


def describe(path: Path, old: bytes | None, new: bytes | None) -> str:
    """Say in a line what becomes of a file, with the numbers of added and removed lines."""
    if old is None:
        return f"  new      {path}"
    if new is None:
        return f"  left over {path}"
    try:
        diff = list(difflib.ndiff(old.decode().splitlines(), new.decode().splitlines()))
    except UnicodeDecodeError:
        return f"  changed  {path} ({len(old)} -> {len(new)} bytes)"
    added, removed = (sum(line.startswith(sign) for line in diff) for sign in "+-")
    return f"  changed  {path} (+{added} -{removed} lines)"


def write(path: Path, content: bytes | None) -> None:
    """Make the file hold ``content``; None deletes it."""
    if content is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def shop() -> Files:
    """Make the shop's messages (betterproto2), its services, and the descriptors for gateway and reflection."""
    described = parse(["protos"], SHOP_PROTOS)
    return {
        **betterproto2(SHOP, described, SHOP_PROTOS, "client_generation=none"),
        **bascule(SHOP, described, SHOP_PROTOS, "messages=betterproto2"),
        SHOP / "descriptors.binpb": without_comments(described).SerializeToString(
            deterministic=True
        ),
    }


def own() -> Files:
    """Make the messages of health and reflection, in a descriptor pool of their own."""
    # Other libraries register the same messages under other file names, which one pool refuses. So these are not
    # protoc's modules but the descriptors alone; only the types are protoc's.
    files = {OWN / "__init__.py": b'"""Messages of the services that bascule brings along."""\n'}
    stubs = protoc(["protos"], ["--pyi_out=."], OWN_PROTOS)
    for file in without_comments(parse(["protos"], OWN_PROTOS)).file:
        module = OWN_PROTOS[file.name]
        serialized = file.SerializeToString(deterministic=True)
        lines = [
            f"# Generated by scripts/generate.py from {file.name}: do not edit.",
            f'"""Messages of {file.name}."""',
            "",
            "from bascule.rpc._descriptors import own_messages",
            "",
            "DESCRIPTOR, _classes = own_messages(",
            *(f"    {serialized[at : at + 60]!r}" for at in range(0, len(serialized), 60)),
            ")",
            *(f'{item.name} = _classes["{item.name}"]' for item in file.message_type),
        ]
        files[OWN / f"{module}.py"] = ruff_format("\n".join(lines))
        files[OWN / f"{module}.pyi"] = stubs[Path(file.name.replace(".proto", "_pb2.pyi"))]
    return files


def new_project() -> Files:
    """Make what ``bascule new`` makes generated code of, without protoc: the interface of its template."""
    package = Path("bascule_name/v1")
    template = ROOT / NEW / "project/protos" / package / "bascule_name.proto.in"
    with tempfile.TemporaryDirectory() as folder:
        proto = Path(folder) / package / "bascule_name.proto"
        proto.parent.mkdir(parents=True)
        proto.write_bytes(template.read_bytes())
        roots, protos = [folder, "protos"], [(package / proto.name).as_posix()]
        described = parse(roots, protos).file[-1]
        stubs = protoc(roots, ["--pyi_out=."], protos)
    for location in described.source_code_info.location:
        location.ClearField("span")  # names of another length would make them wrong
    return {
        NEW / "interface.textproto": text_format.MessageToString(described).encode(),
        NEW / "project" / package / "bascule_name_pb2.pyi.in": stubs[
            package / "bascule_name_pb2.pyi"
        ],
    }


def tests() -> Files:
    """Make the messages of the tests in both kinds, and the services of every generator that bascule serves."""
    roots = [f"{TESTS.as_posix()}=tests/protos"]
    echo = (TESTS / "echo.proto").as_posix()
    # What they show is names and layout, so their output is there to be read and type-checked.
    odd = [
        (TESTS / "odd" / name).as_posix()
        for name in ("odd-names.proto", "rootless.proto", "shared.proto")
    ]
    described = parse(roots, [echo])
    described_odd = parse(roots, odd)
    return {
        **protoc(roots, ["--python_out=.", "--pyi_out=."], [echo, *odd]),
        **protoc(roots, ["--grpc_python_out=.", "--grpclib_python_out=."], [echo]),
        **bascule(Path(), described, [echo], "messages=google"),
        **bascule(Path(), described_odd, odd, "messages=google"),
        **betterproto2(
            TESTS / "better",
            described,
            [echo],
            f"{BETTERPROTO2_SERVICES},google_protobuf_descriptors",
        ),
        **bascule(TESTS / "better", described, [echo], "messages=betterproto2"),
        **betterproto2(TESTS / "odd/better", described_odd, odd, "client_generation=none"),
        **bascule(TESTS / "odd/better", described_odd, odd, "messages=betterproto2"),
        **codec_tests(),
        **interop_tests(),
    }


def interop_tests() -> Files:
    """Make the services of the interoperability cases, for bascule and for grpcio as its peer."""
    roots = [f"{TESTS.as_posix()}=tests/protos"]
    protos = [
        (TESTS / "interop" / f"{name}.proto").as_posix()
        for name in ("testing", "load_report", "load_service")
    ]
    return {
        **protoc(roots, ["--python_out=.", "--pyi_out=."], protos),
        **protoc(roots, ["--grpc_python_out=."], protos[:1]),
        **bascule(Path(), parse(roots, protos), [protos[0], protos[2]], "messages=google"),
    }


def benches() -> Files:
    """Make the messages of the benches."""
    outputs = ["--python_out=.", "--pyi_out=."]
    made = protoc(["benches/proto"], outputs, ["bench/echo.proto", "bench/streams.proto"])
    return {
        BENCHES / "__init__.py": b'"""Made from ``benches/proto`` by scripts/generate.py."""\n',
        BENCHES / "bench/__init__.py": b"",
        **{BENCHES / path: content for path, content in made.items()},
    }


def dashboards() -> Files:
    """Make the dashboards."""
    return {GRAFANA / f"{each.name}.json": each.render() for each in DASHBOARDS}


def codec_tests() -> Files:
    """Make messages of every kind for the codec: google's, betterproto2's, and the latter as pydantic dataclasses."""
    proto = (TESTS / "codec.proto").as_posix()
    roots = [f"{TESTS.as_posix()}=tests/protos"]
    described = parse(roots, [proto])
    return {
        **protoc(roots, ["--python_out=.", "--pyi_out=."], [proto]),
        **betterproto2(TESTS / "codec", described, [proto], "client_generation=none"),
        **betterproto2(
            TESTS / "codec_pydantic",
            described,
            [proto],
            "client_generation=none,pydantic_dataclasses",
        ),
    }


def protoc(roots: Iterable[str], outputs: Iterable[str], protos: Iterable[str]) -> Files:
    """Run protoc with ``outputs`` relative to a fresh folder; return what it wrote there."""
    mapped = [f"-I{absolute(root)}" for root in roots]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "grpc_tools.protoc", *mapped, *outputs, *protos]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"protoc failed:\n{done.stderr}")
        written = Path(folder)
        return {
            file.relative_to(written): file.read_bytes()
            for file in written.rglob("*")
            if file.is_file()
        }


def absolute(root: str) -> str:
    """Make the folder of ``FOLDER`` or ``VIRTUAL=FOLDER`` absolute."""
    virtual, equals, folder = root.rpartition("=")
    return f"{virtual}{equals}{ROOT / folder}"


def parse(roots: Iterable[str], protos: Iterable[str]) -> FileDescriptorSet:
    """Parse protos and all that they import, the imported first, with comments."""
    outputs = ["--descriptor_set_out=set.binpb", "--include_imports", "--include_source_info"]
    return FileDescriptorSet.FromString(protoc(roots, outputs, protos)[Path("set.binpb")])


def without_comments(described: FileDescriptorSet) -> FileDescriptorSet:
    """Copy what the proto files mean."""
    bare = copy.deepcopy(described)
    for file in bare.file:
        file.ClearField("source_code_info")
    return bare


def bascule(
    folder: Path, described: FileDescriptorSet, protos: Iterable[str], options: str
) -> Files:
    """Run bascule's plugin."""
    request = CodeGeneratorRequest(
        file_to_generate=protos, parameter=options, proto_file=described.file
    )
    response = generate(request)
    if response.error:
        sys.exit(f"protoc-gen-bascule failed: {response.error}")
    return {folder / file.name: file.content.encode() for file in response.file}


def betterproto2(
    folder: Path, described: FileDescriptorSet, protos: Iterable[str], options: str
) -> Files:
    """Run betterproto2's compiler without the files that only options refer to."""
    kept = copy.deepcopy([file for file in described.file if file.name not in OPTION_PROTOS])
    for file in kept:
        imported = [name for name in file.dependency if name not in OPTION_PROTOS]
        file.ClearField("dependency")
        file.dependency.extend(imported)
    request = CodeGeneratorRequest(file_to_generate=protos, parameter=options, proto_file=kept)
    # It formats by the ruff configuration of the working directory, and tells what it writes.
    with (
        tempfile.TemporaryDirectory() as plain,
        contextlib.chdir(plain),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        Path("ruff.toml").touch()
        response = generate_code(Betterproto2Request.parse(request.SerializeToString()))
    return {folder / file.name: file.content.encode() for file in response.file}


def ruff_format(text: str) -> bytes:
    """Format Python source."""
    command = ["ruff", "format", "--isolated", "--line-length=120", "-"]
    return subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
