"""What all servers have in common: a process with a folder, ports and a log."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import anyio
import anyio.to_thread

from bascule.testing.servers._errors import StartError
from bascule.testing.servers._ports import HeldPort
from bascule.testing.servers._program import find_program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

__all__ = ["LocalServer"]

#: Seconds between two looks at a server that is about to start or end.
PAUSE = 0.02

#: Lines of its log that tell why a server did not start.
TAIL = 15

#: Waits for the end of whoever holds the other end of its input, then ends the group of processes
#: $1 and removes the folder $2. ``prctl(PR_SET_PDEATHSIG)`` would do it when the *thread* ends.
#: A server inside of that folder may still be writing when the first attempt is made.
WATCH = """
read -r _
kill -KILL "-$1"
[ -z "$2" ] || rm -rf -- "$2" || { sleep 1; rm -rf -- "$2"; }
"""


class LocalServer(ABC):
    """A real server of a test's own, on 127.0.0.1 and in a folder that is removed at the end.

    Use it with ``with`` or ``async with``, or call :meth:`start` and :meth:`close`. All methods
    block: in a task, call those other than ``async with`` in a worker thread
    (``await anyio.to_thread.run_sync(server.kill)``). It ends with this process, however that ends.

    :param folder: where its data is to be, and to stay; by default a temporary one that
        :meth:`close` removes
    :param patience: seconds that it may take to answer
    """

    #: The program, as it is called.
    program: ClassVar[str]
    #: How to get it.
    hint: ClassVar[str]
    #: How many ports it listens on.
    port_count: ClassVar[int] = 1

    def __init__(self, *, folder: Path | None = None, patience: float = 60.0) -> None:
        self._kept = folder is not None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"bascule-{self.program}-"))
        self.patience = patience
        self._held: list[HeldPort] = []
        self._take_ports()
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None
        self._started = False

    @property
    def ports(self) -> list[int]:
        """The ports; they stay the same when it is started again."""
        return [port.number for port in self._held]

    @property
    def port(self) -> int:
        """The port that clients call."""
        return self.ports[0]

    @property
    def address(self) -> str:
        """Host and port that clients call."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process, or None if it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def data(self) -> Path:
        """The folder of what a restart keeps."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """The file of what it wrote, over all its runs."""
        return self.folder / "log"

    @classmethod
    def find(cls) -> Path:
        """Answer with the path of the program.

        :raises MissingProgramError: if it is not installed
        """
        return find_program(cls.program, cls.hint)

    @abstractmethod
    def _command(self, program: Path) -> list[str]:
        """Answer with the command line, which must not put the server in the background."""

    @abstractmethod
    def _answers(self) -> bool:
        """Ask it something in its own protocol; False or an OSError if it cannot answer yet."""

    def _environment(self) -> Mapping[str, str] | None:
        """Answer with the variables it is started with; None for this process's own."""
        return None

    def _prepare(self) -> None:  # noqa: B027 - most have nothing to do
        """Do what must be done once, before its first start."""

    def start(self) -> None:
        """Start it, again if need be with the data and on the ports it had, and wait until it answers.

        :raises MissingProgramError: if its program is not installed
        :raises StartError: if it ends, or does not answer in time
        """
        if self.pid is not None:
            return
        program = self.find()
        for _ in range(3):
            try:
                self._launch(program)
            except StartError as error:
                # Ports that clients may know already have to stay.
                if self._started or "in use" not in str(error).lower():
                    raise
                self._take_ports()
            else:
                break
        else:
            raise StartError(f"{self.program} found its ports in use three times; see {self.log}")

    def stop(self, within: float = 20.0) -> None:
        """Ask it to end, and end it after ``within`` seconds; its data stays for the next start."""
        self._end(signal.SIGTERM, within)

    def kill(self) -> None:
        """End it at once, as a crash would; its data stays as it is."""
        self._end(signal.SIGKILL, 10.0)

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after :meth:`pause`."""
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Forget all data. Only while it does not run.

        :raises RuntimeError: if it runs
        """
        if self.pid is not None:
            raise RuntimeError(f"{self.program} runs: stop it before its data is removed")
        shutil.rmtree(self.data, ignore_errors=True)

    def close(self) -> None:
        """Stop it, let go of its ports, and remove its folder unless that was given."""
        self.stop()
        for port in self._held:
            port.close()
        if not self._kept:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await anyio.to_thread.run_sync(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.close)

    def _take_ports(self) -> None:
        for port in self._held:
            port.close()
        self._held = [HeldPort() for _ in range(self.port_count)]

    def _launch(self, program: Path) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.data.exists():
            self.data.mkdir()
            try:
                self._prepare()
            except BaseException:
                # Prepared by halves, it would be taken for prepared the next time.
                self.wipe()
                raise
        with self.log.open("ab") as log:
            written = log.tell()
            # A group of its own: what it starts is ended with it, and Ctrl-C is for us to handle.
            self._process = subprocess.Popen(  # noqa: S603 - the program was asked for
                self._command(program),
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._watch(self._process.pid)
            self._wait(self._process, written)
        except BaseException:
            self.kill()
            raise
        self._started = True

    def _watch(self, group: int) -> None:
        self._watcher = subprocess.Popen(  # noqa: S603 - the script is ours
            ["/bin/sh", "-c", WATCH, "watch", str(group), "" if self._kept else str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _wait(self, process: subprocess.Popen[bytes], written: int) -> None:
        deadline = time.monotonic() + self.patience
        while True:
            with suppress(OSError):
                if self._answers():
                    return
            if (code := process.poll()) is not None:
                what = f"ended with exit code {code}"
            elif time.monotonic() > deadline:
                what = f"did not answer within {self.patience:g} s"
            else:
                time.sleep(PAUSE)
                continue
            raise StartError(f"{self.program} {what}; its log ends with:\n{self._tail(written)}")

    def _tail(self, written: int) -> str:
        with self.log.open("rb") as log:
            log.seek(written)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-TAIL:])

    def _signal(self, number: signal.Signals) -> None:
        if (pid := self.pid) is None:
            raise RuntimeError(f"{self.program} does not run")
        os.killpg(pid, number)

    def _end(self, number: signal.Signals, within: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                # One that is paused hears of it only when it goes on.
                os.killpg(process.pid, signal.SIGCONT)
                process.wait(within)
        # Whatever it had started and left behind, and itself if it did not listen.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.communicate()
            self._watcher = None
