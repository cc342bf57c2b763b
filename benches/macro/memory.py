"""Memory: what an idle connection holds, and how far a long stream makes a process grow."""

import json
import socket
import time
from contextlib import ExitStack
from typing import NamedTuple

from h2.config import H2Configuration
from h2.connection import H2Connection

from benches.harness import memory, process
from benches.harness.figures import Figures, Key
from benches.harness.process import Running
from benches.macro._settings import Settings, python_subjects
from benches.peers import MissingToolError, echo, go_peer

_SPARE_FILES = 500
_WARM_UP_CONNECTIONS = 20
_TIMEOUT = 120.0  #: seconds for a stream
_SETTINGS_ACK = bytes((0, 0, 0, 4, 1, 0, 0, 0, 0))  # RFC 9113, section 6.5
_DIRECTIONS = ("upload", "download")
_HEADERS_FRAME, _END_STREAM = 1, 1  # RFC 9113, section 6.2


def measure(settings: Settings, figures: Figures) -> None:
    """Measure once: memory, unlike time, hardly differs between runs."""
    if not memory.available():
        figures.skip("memory", "it needs Linux's /proc")
        return
    if memory.allow_files(settings.connections + _SPARE_FILES):
        _idle_connections(settings, figures)
    else:
        figures.skip(
            "idle connections",
            f"the limit of open files is below {settings.connections} (ulimit -Hn)",
        )
    try:
        _streams(str(go_peer(build=not settings.smoke)), settings, figures)
    except MissingToolError as error:
        figures.skip("long streams", str(error))


def _idle_connections(settings: Settings, figures: Figures) -> None:
    for subject in python_subjects("benches.peers.serve"):
        with process.serving(subject.command, settings.subject_core) as server:
            with ExitStack() as warm_up:
                for _ in range(_WARM_UP_CONNECTIONS):
                    warm_up.enter_context(_connection_after_one_call(server.address))
            before = memory.resident(server.pid)
            with ExitStack() as stack:
                for _ in range(settings.connections):
                    stack.enter_context(_connection_after_one_call(server.address))
                growth = memory.resident(server.pid) - before
            key = Key(
                "memory",
                subject.name,
                f"{settings.connections} idle connections",
                "bytes_per_connection",
            )
            figures.add(key, "B", growth / settings.connections, server.command)


def _connection_after_one_call(address: str) -> socket.socket:
    """Open a connection, have one call answered on it and leave it idle."""
    host, _, port = address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=_TIMEOUT)
    connection.sendall(_ONE_CALL)
    reader = connection.makefile("rb")
    while True:
        header = reader.read(9)
        if len(header) < 9:
            message = f"{address} closed the connection before it had answered"
            raise RuntimeError(message)
        reader.read(int.from_bytes(header[:3]))
        if header[3] == _HEADERS_FRAME and header[4] & _END_STREAM:
            break
    reader.detach()
    connection.sendall(_SETTINGS_ACK)
    return connection


def _one_call() -> bytes:
    """Answer with the bytes of a new connection with one call.

    They are the same for each connection, as each starts with an empty HPACK table.
    """
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": echo.UNARY,
        ":authority": "127.0.0.1",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    client.send_headers(1, list(headers.items()))
    client.send_data(1, echo.framed(echo.REQUEST), end_stream=True)
    return client.data_to_send()


_ONE_CALL = _one_call()


class _Passed(NamedTuple):
    """What a stream took, and by how many bytes its end under test grew."""

    growth: float
    seconds: float
    command: str


def _streams(peer: str, settings: Settings, figures: Figures) -> None:
    for backend in ("asyncio", "uvloop", "trio"):
        subject = f"bascule {backend}"
        serve = process.python("benches.peers.serve", "bascule", backend)
        with process.serving(serve, settings.subject_core) as server:
            for direction in _DIRECTIONS:
                passed = _through_server(peer, direction, server, settings)
                _add(figures, subject, f"server, {direction}", settings, passed)
        with process.serving([peer, "echo"], settings.load_core) as server:
            for direction in _DIRECTIONS:
                passed = _through_client(backend, direction, server, settings)
                _add(figures, subject, f"client, {direction}", settings, passed)


def _through_server(peer: str, direction: str, server: Running, settings: Settings) -> _Passed:
    size = str(settings.stream_bytes)
    memory.reset_peak(server.pid)
    before, started = memory.resident(server.pid), time.perf_counter()
    command = [peer, direction, server.address, size]
    output, readable = process.run(command, settings.load_core, _TIMEOUT)
    seconds = time.perf_counter() - started
    if output.strip() != size:
        message = f"{readable}: {output.strip()} of {size} bytes came through"
        raise RuntimeError(message)
    return _Passed(memory.peak(server.pid) - before, seconds, f"{server.command} | {readable}")


def _through_client(backend: str, direction: str, server: Running, settings: Settings) -> _Passed:
    arguments = (backend, direction, server.address, settings.stream_bytes)
    command = process.python("benches.peers.stream", *arguments)
    output, readable = process.run(command, settings.subject_core, _TIMEOUT)
    result: dict[str, float] = json.loads(output)
    return _Passed(result["growth"], result["seconds"], f"{server.command} | {readable}")


def _add(figures: Figures, subject: str, case: str, settings: Settings, passed: _Passed) -> None:
    size = settings.stream_bytes
    key = Key("memory", subject, f"{size >> 20} MiB stream, {case}", "growth")
    figures.add(key, "B", passed.growth, passed.command)
    speed = key._replace(metric="bytes_per_second")
    figures.add(speed, "B/s", size / passed.seconds, passed.command)
