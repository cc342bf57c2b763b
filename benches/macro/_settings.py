"""What every suite of a run is given."""

from collections.abc import Sequence
from dataclasses import dataclass

from benches.harness import machine, process
from benches.harness.figures import Figures
from benches.peers import MissingToolError, go_peer, tonic_peer


@dataclass(frozen=True)
class Settings:
    """How long and how often to measure, and where."""

    rounds: int = 3  #: interleaved: every subject is measured once before any is measured again
    seconds: float = 2.0  #: of each load
    connections: int = 10_000  #: idle ones held open
    stream_bytes: int = 1 << 30
    subject_core: int | None = None
    load_core: int | None = None
    smoke: bool = False  #: as little as shows that the harness works; compiles no peers

    @property
    def few_rounds(self) -> int:
        """Rounds of what takes long to start."""
        return max(1, self.rounds - 1)

    @property
    def short(self) -> float:
        """Seconds of each load, where there are many."""
        return self.seconds / 2

    @classmethod
    def full(cls) -> "Settings":
        """Answer with what the published figures are measured with."""
        subject, load = machine.cores()
        return cls(subject_core=subject, load_core=load)

    @classmethod
    def quick(cls) -> "Settings":
        """Answer with the shortest run that shows the harness at work; its figures say nothing."""
        subject, load = machine.cores()
        return cls(
            rounds=1,
            seconds=0.2,
            connections=200,
            stream_bytes=16 << 20,
            smoke=True,
            subject_core=subject,
            load_core=load,
        )


@dataclass(frozen=True)
class Subject:
    """A program under test."""

    name: str
    command: Sequence[str]


def python_subjects(module: str) -> list[Subject]:
    """Answer with the Python stacks: bascule on each loop first, then its peers."""
    stacks = {
        "bascule asyncio": ("bascule", "asyncio"),
        "bascule uvloop": ("bascule", "uvloop"),
        "bascule trio": ("bascule", "trio"),
        "grpcio.aio": ("grpcio", "asyncio"),
        "grpclib": ("grpclib", "asyncio"),
    }
    return [Subject(name, process.python(module, *arguments)) for name, arguments in stacks.items()]


def native_echo_subjects(settings: Settings, figures: Figures) -> list[Subject]:
    """Answer with the compiled echo servers that can be had here; note the others as skipped."""
    subjects = []
    for name, build, arguments in (("grpc-go", go_peer, ["echo"]), ("tonic", tonic_peer, [])):
        try:
            program = build(build=not settings.smoke)
            subjects.append(Subject(name, [str(program), *arguments]))
        except MissingToolError as error:
            figures.skip(name, str(error))
    return subjects
