"""Unary calls a second and CPU a call of the servers, under h2load."""

from pathlib import Path

from benches.harness import process
from benches.harness.figures import Figures, Key
from benches.harness.h2load import Outcome, Request, Shape, load
from benches.macro._settings import Settings, Subject, native_echo_subjects, python_subjects
from benches.peers import ROOT, echo

SHAPES = (Shape(1, 1), Shape(1, 10), Shape(1, 100), Shape(8, 10))
_HEADERS = ("content-type: application/grpc", "te: trailers", "grpc-timeout: 5S")
_WARM_UP = 0.3  #: seconds


def measure(settings: Settings, figures: Figures) -> None:
    """Measure every server on its core while h2load has the other.

    :raises RuntimeError: if a server answers wrongly
    """
    subjects = [*python_subjects("benches.peers.serve"), *native_echo_subjects(settings, figures)]
    # Kept, so that the command that stands beside each figure can be run again.
    body = ROOT / ".build/benches/request.grpc"
    body.parent.mkdir(parents=True, exist_ok=True)
    body.write_bytes(echo.framed(echo.REQUEST))
    for _ in range(settings.rounds):
        for subject in subjects:
            _measure(subject, body, settings, figures)


def _measure(subject: Subject, body: Path, settings: Settings, figures: Figures) -> None:
    with process.serving(subject.command, settings.subject_core) as server:
        # h2load knows HTTP only: an independent client shows that the answers are right.
        check = process.python("benches.peers.call", "grpcio", "asyncio", server.address, "--check")
        process.run(check, settings.load_core, timeout=20)
        request = Request(f"http://{server.address}{echo.UNARY}", _HEADERS, body)
        for shape in SHAPES:
            warm_up = min(_WARM_UP, settings.seconds)
            load(request, shape, warm_up, settings.load_core)
            before = server.cpu_seconds()
            outcome = load(request, shape, settings.seconds, settings.load_core)
            cpu = server.cpu_seconds() - before
            require_replies(outcome, shape, len(echo.framed(echo.REQUEST)))
            key = Key("server", subject.name, str(shape), "calls_per_second")
            figures.add(key, "1/s", outcome.per_second, f"{server.command} | {outcome.command}")
            key = key._replace(metric="cpu_per_call")
            figures.add(key, "s", cpu / outcome.succeeded, f"{server.command} | {outcome.command}")


def require_replies(outcome: Outcome, shape: Shape, size: int) -> None:
    """Check that every answer carried its message: gRPC's errors are status 200, but empty.

    :raises RuntimeError: if bytes are missing
    """
    # The replies on their way when the time was up are counted in bytes, not as requests.
    least, most = outcome.succeeded * size, (outcome.succeeded + shape.in_flight) * size
    if not least <= outcome.data_bytes <= most:
        came = outcome.data_bytes
        message = f"{outcome.command}: {came} bytes of replies came, {least} to {most} were due"
        raise RuntimeError(message)
