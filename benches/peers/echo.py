"""The one small call that every stack is measured with."""

from collections.abc import AsyncIterator

from benches._generated.bench.echo_pb2 import Chunk, Message, Total

UNARY = "/bench.Echo/Unary"
UPLOAD = "/bench.Echo/Upload"
DOWNLOAD = "/bench.Echo/Download"
CHUNK_BYTES = 64 * 1024
REQUEST = Message(id=1_234_567, name="Ada Lovelace", active=True)


def framed(message: Message) -> bytes:
    """Answer with a message as it stands in a gRPC body: not compressed, with its length."""
    data = message.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


async def unary(request: Message) -> Message:
    """Answer with what was sent: the handler of every Python stack."""
    return Message(id=request.id, name=request.name, active=request.active)


async def upload(chunks: AsyncIterator[Chunk]) -> Total:
    """Count the bytes of a stream."""
    total = 0
    async for chunk in chunks:
        total += len(chunk.data)
    return Total(bytes=total)


async def download(request: Total) -> AsyncIterator[Chunk]:
    """Send so many bytes."""
    chunk = Chunk(data=bytes(CHUNK_BYTES))
    for _ in range(request.bytes // CHUNK_BYTES):
        yield chunk
