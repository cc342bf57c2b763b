"""h2spec, which knows HTTP/2 and HPACK by their RFCs, objects to nothing, strict cases included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import anyio
import pytest
from tests.certificates import Certificates
from tests.interop.echo import BasculeGoogle, Behaviour
from tests.tools import tool

from bascule.net import HttpRequest, HttpResponse, HttpServer, ServerTLS
from bascule.rpc import Server, WebSettings

pytestmark = pytest.mark.anyio

#: Of version 2.2.1; one that is not run is no success.
CASES = 146


async def hello(request: HttpRequest) -> HttpResponse:
    # Cases that make do with fewer bytes of an answer are skipped.
    return HttpResponse(200, [("content-type", "text/plain")], b"hello world")


def grpc(tls: ServerTLS | None) -> Server:
    return Server([BasculeGoogle(Behaviour())], tls=tls, grace=1.0)


def web(tls: ServerTLS | None) -> Server:
    return Server([BasculeGoogle(Behaviour())], tls=tls, web=WebSettings(), grace=1.0)


def http(tls: ServerTLS | None) -> HttpServer:
    return HttpServer(hello, listen="127.0.0.1:0", tls=tls, grace=1.0)


@pytest.mark.parametrize("secure", [False, True], ids=["h2c", "tls"])
@pytest.mark.parametrize("kind", [grpc, web, http])
async def test_every_case_passes(
    kind: Callable[[ServerTLS | None], Server | HttpServer],
    secure: bool,
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    h2spec, report = tool("h2spec"), tmp_path / "report.xml"
    tls = ServerTLS(certificates.certificate, certificates.key) if secure else None
    async with kind(tls) as server:
        host, _, port = server.addresses[0].rpartition(":")
        command = [str(h2spec), "--strict", "-h", host, "-p", port, "-j", str(report), "-o", "10"]
        if secure:
            command += ["--tls", "--insecure"]
        with anyio.fail_after(100):
            ran = await anyio.run_process(command, check=False)
    cases = list(ET.parse(report).iter("testcase"))
    objections = [
        f"{case.get('package')}: {case.get('classname')}: {element.tag} {element.text or ''}"
        for case in cases
        for element in case
    ]
    assert not objections, ran.stdout.decode()
    assert (len(cases), ran.returncode) == (CASES, 0)
