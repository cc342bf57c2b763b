"""bascule's gateway under test: ``python -m benches.peers.gateway BACKEND UPSTREAM KEYS``.

Everything is on: request id, trace context, access log, both limits, tokens, metrics. The limits
are so high that they decide on every request and refuse none.
"""

import argparse
import tempfile
from importlib.resources import files
from pathlib import Path

import anyio
from bascule.gateway import DevelopmentKey, Gateway, GatewayConfig, LimitConfig
from grpc_tools import protoc

from benches.peers import ROOT
from benches.peers.serve import ready, run

_ENDLESS = LimitConfig(requests=100_000_000, per=60.0)


def descriptors() -> bytes:
    """Answer with the descriptor set of the user service.

    :raises RuntimeError: if protoc fails
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "descriptors"
        includes = [f"-I{ROOT / 'protos'}", f"-I{files('grpc_tools') / '_proto'}"]
        options = ["--include_imports", f"--descriptor_set_out={output}"]
        if protoc.main(["protoc", *includes, *options, "user/user.proto"]):
            message = "protoc could not read protos/user/user.proto"
            raise RuntimeError(message)
        return output.read_bytes()


async def serve(upstream: str, keys: str) -> None:
    """Serve until cancelled."""
    config = GatewayConfig(
        {"user.UserService": upstream},
        listen="127.0.0.1:0",
        auth=DevelopmentKey(keys).auth,
        subject_limit=_ENDLESS,
        address_limit=_ENDLESS,
    )
    async with Gateway(config, descriptors()) as gateway:
        ready(gateway.addresses[0])
        await anyio.sleep_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=("asyncio", "uvloop", "trio"))
    parser.add_argument("upstream")
    parser.add_argument("keys")
    arguments = parser.parse_args()

    async def main() -> None:
        """Serve as the command line says."""
        await serve(arguments.upstream, arguments.keys)

    run(main, arguments.backend)
