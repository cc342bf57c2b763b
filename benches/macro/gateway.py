"""Requests a second and CPU a request of the gateways: bascule's with all on, grpc-gateway bare."""

import json
import tempfile
import urllib.request
from collections.abc import Mapping

from bascule.gateway import DevelopmentKey
from benches.harness import process
from benches.harness.figures import Figures, Key
from benches.harness.h2load import Request, Shape, load
from benches.macro._settings import Settings, Subject
from benches.macro.server import require_replies
from benches.peers import go_peer

SHAPE = Shape(1, 100)
_PATH = "/api/v1/users/42"
_USER = {
    "id": "42",
    "email": "ada@example.com",
    "displayName": "Ada Lovelace",
    "createTime": "2026-01-01T00:00:00Z",
}
_WARM_UP = 0.3  #: seconds
_TIMEOUT = 10.0  #: seconds for the first request


def measure(settings: Settings, figures: Figures) -> None:
    """Measure each gateway alone on its core; the same upstream and h2load share the other.

    :raises MissingToolError: if go is not installed
    :raises RuntimeError: if a gateway answers wrongly
    """
    peer = str(go_peer(build=not settings.smoke))
    with tempfile.TemporaryDirectory() as keys:
        token = DevelopmentKey(keys).mint_token("bench")
        with process.serving([peer, "user"], settings.load_core) as upstream:
            subjects = [
                Subject(
                    f"bascule {backend}",
                    process.python("benches.peers.gateway", backend, upstream.address, keys),
                )
                for backend in ("asyncio", "uvloop", "trio")
            ]
            subjects.append(Subject("grpc-gateway", [peer, "gateway", upstream.address]))
            for _ in range(settings.rounds):
                for subject in subjects:
                    # grpc-gateway checks no token, and would only carry it to the upstream.
                    bare = subject.name == "grpc-gateway"
                    _measure(
                        subject,
                        {} if bare else {"authorization": f"Bearer {token}"},
                        settings,
                        figures,
                    )


def _measure(
    subject: Subject, headers: Mapping[str, str], settings: Settings, figures: Figures
) -> None:
    with process.serving(subject.command, settings.subject_core) as gateway:
        url = f"http://{gateway.address}{_PATH}"
        size = _check(url, headers)
        lines = tuple(f"{name}: {value}" for name, value in headers.items())
        request = Request(url, lines)
        load(request, SHAPE, min(_WARM_UP, settings.seconds), settings.load_core)
        before = gateway.cpu_seconds()
        outcome = load(request, SHAPE, settings.seconds, settings.load_core)
        cpu = gateway.cpu_seconds() - before
        require_replies(outcome, SHAPE, size)
        key = Key("gateway", subject.name, str(SHAPE), "requests_per_second")
        command = f"{gateway.command} | {outcome.command}"
        for value in headers.values():
            command = command.replace(value, "...")
        figures.add(key, "1/s", outcome.per_second, command)
        key = key._replace(metric="cpu_per_request")
        figures.add(key, "s", cpu / outcome.succeeded, command)


def _check(url: str, headers: Mapping[str, str]) -> int:
    """Answer with the size of the right answer, in bytes."""
    request = urllib.request.Request(url, headers=dict(headers))
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        body: bytes = response.read()
    if json.loads(body) != _USER:
        message = f"{url} answered {body!r}, not {_USER}"
        raise RuntimeError(message)
    return len(body)
