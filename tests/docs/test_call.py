"""The commands of docs/how-to/call.md print what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.certificates import Certificates
from tests.pages import Session

SERVER = """
import anyio
from echo_bascule import EchoBase
from echo_pb2 import EchoReply
from greeter import Greeter

from bascule.net import ServerTLS
from bascule.rpc import ReflectionService, Server


class Echo(EchoBase):
    async def bidi(self, requests):
        async for request in requests:
            yield EchoReply(text=request.text)


async def main():
    services = [Greeter(), Echo()]
    services.append(ReflectionService(services))
    tls = ServerTLS("certificate.pem", "key.pem")
    async with Server(services, listen="127.0.0.1:50051"):
        async with Server(services, listen="127.0.0.1:50443", tls=tls):
            print("serving")
            await anyio.sleep_forever()


anyio.run(main)
"""


def test_the_commands(
    tmp_path: Path, greeter: list[Path], echo: list[Path], certificates: Certificates
) -> None:
    with Session(tmp_path, ports=(50051, 50443)) as session:
        session.give(*greeter, *echo, certificates.certificate, certificates.key)
        shutil.copy(certificates.ca, tmp_path / "ca.pem")
        (tmp_path / "server.py").write_text(session.text(SERVER))
        session.start("python server.py", "serving")
        said = session.walk("docs/how-to/call.md")
    assert '{"message": "Hello Ada, 3"}' in said
    assert '{"text": "b"}' in said
