"""Builds the Go and Rust peers into a cache outside the checkout, once for each state of them."""

import shutil
import sys
import tempfile
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from scripts.provision import GO_HINT, MissingToolError, build_go, cached, require, run

ROOT = Path(__file__).parents[2]
_GO = ROOT / "benches/peers/go"
_TONIC = ROOT / "benches/peers/tonic"
_PROTOS = (
    (ROOT / "benches/proto", "bench/echo.proto"),
    (ROOT / "benches/proto", "bench/streams.proto"),
    (ROOT / "protos", "user/user.proto"),
)


def go_peer(*, build: bool = True) -> Path:
    """Answer with the program of ``peers/go``, built unless the cache has it.

    :param build: whether it may be built now, which takes a minute
    :raises MissingToolError: if go is not installed, or the cache has it not
    :raises RuntimeError: if it does not build
    """
    go = require("go", GO_HINT)
    sources = [*_GO.glob("*.go"), _GO / "go.mod", _GO / "go.sum"]
    target = cached("peers/go", "peer", [*sources, *(root / name for root, name in _PROTOS)])
    return target if _have(target, build=build) else _build_go(go, sources, target)


def tonic_peer(*, build: bool = True) -> Path:
    """Answer with the echo server of ``peers/tonic``, built unless the cache has it.

    :param build: whether it may be built now, which takes a minute
    :raises MissingToolError: if cargo is not installed, or the cache has it not
    :raises RuntimeError: if it does not build
    """
    cargo = require("cargo", "install Rust (https://rustup.rs)")
    sources = [_TONIC / name for name in ("Cargo.toml", "Cargo.lock", "build.rs", "src/main.rs")]
    target = cached("peers/tonic", "peer", [*sources, ROOT / "benches/proto/bench/echo.proto"])
    if not _have(target, build=build):
        output = target.parent / "target"
        manifest = str(_TONIC / "Cargo.toml")
        run(
            [
                cargo,
                "build",
                "--release",
                "--locked",
                "--manifest-path",
                manifest,
                "--target-dir",
                str(output),
            ]
        )
        (output / "release/peer").rename(target)
        shutil.rmtree(output)
    return target


def _have(target: Path, *, build: bool) -> bool:
    if not target.exists() and not build:
        message = f"{target} is not built yet: run `make bench` once"
        raise MissingToolError(message)
    return target.exists()


def _build_go(go: str, sources: Iterable[Path], target: Path) -> Path:
    """Generate the messages beside a copy of the sources: no generated Go is kept in Git."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        work = Path(folder)
        for source in sources:
            shutil.copy(source, work)
        plugins = work / "plugins"
        run([go, "install", "tool"], cwd=work, GOBIN=str(plugins), GOFLAGS="-mod=readonly")
        for root, name in _PROTOS:
            _generate_go(root, name, plugins, work)
        build_go(go, work, ".", target)
    return target


def _generate_go(root: Path, name: str, plugins: Path, work: Path) -> None:
    package = f"bascule/benches/peers/gen/{Path(name).parent}"
    arguments: list[str] = []
    for plugin in ("go", "go-grpc", "grpc-gateway"):
        arguments += [
            f"--plugin=protoc-gen-{plugin}={plugins}/protoc-gen-{plugin}",
            f"--{plugin}_out={work}",
            f"--{plugin}_opt=module=bascule/benches/peers,M{name}={package}",
        ]
    includes = [f"-I{root}", f"-I{ROOT / 'protos'}", f"-I{files('grpc_tools') / '_proto'}"]
    run([sys.executable, "-m", "grpc_tools.protoc", *includes, *arguments, name])
