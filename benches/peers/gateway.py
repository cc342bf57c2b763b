"""bascule's gateway under test: ``python -m benches.peers.gateway BACKEND UPSTREAM KEYS``.

Everything is on: request id, trace context, access log, both limits, tokens, metrics. The limits
are so high that they decide on every request and refuse none.
"""

import argparse

import anyio

from bascule.gateway import DevelopmentKey, Gateway, GatewayConfig, LimitConfig
from bascule_shop._descriptors import descriptor_set
from benches.peers.serve import ready, run

_ENDLESS = LimitConfig(requests=100_000_000, per=60.0)


async def serve(upstream: str, keys: str) -> None:
    """Serve until cancelled."""
    config = GatewayConfig(
        {"user.UserService": upstream},
        listen="127.0.0.1:0",
        auth=DevelopmentKey(keys).auth,
        subject_limit=_ENDLESS,
        address_limit=_ENDLESS,
    )
    async with Gateway(config, descriptor_set()) as gateway:
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
