"""A long stream through bascule's client.

``python -m benches.peers.stream BACKEND DIRECTION TARGET BYTES``

It prints one JSON object: the seconds that it took and by how many bytes the process grew.
"""

import argparse
import json
import time

from bascule.rpc import Channel
from benches._generated.bench.echo_pb2 import Chunk, Total
from benches.harness import memory
from benches.peers import echo
from benches.peers.bascule_echo import DOWNLOAD, UPLOAD
from benches.peers.serve import run


async def upload(channel: Channel, size: int) -> int:
    """Send so many bytes; answer with how many the server says have come."""
    chunk = Chunk(data=bytes(echo.CHUNK_BYTES))
    async with channel.stream(UPLOAD) as stream:
        for _ in range(size // echo.CHUNK_BYTES):
            await stream.send_message(chunk)
        await stream.end()
        total = await stream.recv_message()
    return 0 if total is None else total.bytes


async def download(channel: Channel, size: int) -> int:
    """Ask for so many bytes; answer with how many came."""
    async with channel.server_stream(DOWNLOAD, Total(bytes=size)) as stream:
        passed = 0
        async for chunk in stream:
            passed += len(chunk.data)
    return passed


async def measure(direction: str, target: str, size: int) -> dict[str, float]:
    """Stream in one direction.

    :raises ValueError: if not every byte came through
    """
    transfer = {"upload": upload, "download": download}[direction]
    async with Channel(target) as channel:
        memory.reset_peak()
        before, started = memory.resident(), time.perf_counter()
        passed = await transfer(channel, size)
        if passed != size:
            message = f"{passed} of {size} bytes came through"
            raise ValueError(message)
        return {"seconds": time.perf_counter() - started, "growth": memory.peak() - before}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=("asyncio", "uvloop", "trio"))
    parser.add_argument("direction", choices=("upload", "download"))
    parser.add_argument("target")
    parser.add_argument("bytes", type=int)
    options = parser.parse_args()

    async def main() -> None:
        """Measure and print."""
        print(json.dumps(await measure(options.direction, options.target, options.bytes)))

    run(main, options.backend)
