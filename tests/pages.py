"""Runs what the documentation shows, so that no sample is only text.

A fenced block is one of these, and `tests/docs/test_every_page.py` fails for any other:

- Python without a title: executed in the module of tests/docs that stands for the page, by :func:`load`. Test
  functions among the samples are then pytest's, on both loops, with the fixtures of all tests.
- Python with ``anyio.run(main)`` at its end, or trio's or asyncio's ``run``: a program. It is run, and so is what has a title (its file) and what
  is a command (``sh``, or ``console`` with its output), all in their order in one folder, by :class:`Session`.
- ``text`` after a command or program: what that prints; ``...`` stands for anything.
- JSON, TOML and YAML are parsed, a ``.proto`` is compiled.

What cannot be run stands in :data:`NOT_RUN`, with the reason; a page that is a whole test's business in
:data:`RUN_BY`.
"""

from __future__ import annotations

import contextlib
import doctest
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from tests.generated import echo_bascule, echo_pb2

from bascule.testing.servers._ports import HeldPort

ROOT = Path(__file__).parents[1]

#: Commands of pages, by how they begin, that no test runs: and why.
NOT_RUN: dict[tuple[str, str], str] = {
    (
        "docs/how-to/new-project.md",
        "bascule new",
    ): "make install needs a network; tests/integration/test_new.py makes a project and runs its checks",
    ("docs/how-to/new-project.md", "make serve"): "tests/integration/test_new.py serves it",
    ("docs/how-to/new-project.md", "TOKEN="): "tests/integration/test_new.py calls it",
    (
        "README.md",
        "python3 scripts/provision.py",
    ): "CI gets every program by it; tests/integration/test_demo.py takes the tour on these servers",
    (
        "README.md",
        "make demo",
    ): "CI runs make test itself; tests/integration/test_demo.py takes the tour",
    (
        "docs/tutorials/first-service.md",
        "python -m venv",
    ): "installs from the network; the tests' own environment has it all",
    (
        "docs/how-to/tracing.md",
        "bascule demo --with jaeger",
    ): "tests/integration/test_demo.py takes the tour with Jaeger",
    ("docs/zh/quick-start.md", "python -m venv"): "installs from the network",
    (
        "docs/zh/quick-start.md",
        "bascule demo",
    ): "tests/integration/test_demo.py takes the tour",
    (
        "docs/tutorials/shop.md",
        "bascule demo",
    ): "tests/integration/test_demo.py takes the tour",
    (
        "docs/how-to/browsers.md",
        "const client",
    ): "needs a browser; tests/interop calls by the same client on Node",
    (
        "docs/how-to/sagas.md",
        "bascule saga check",
    ): "takes minutes; tests/integration/test_saga_check.py runs it",
    (
        "docs/how-to/test-with-real-servers.md",
        ".venv/bin/python scripts/servers.py",
    ): "tests/integration/test_servers.py runs it",
    (
        "docs/how-to/run-the-shop.md",
        ".venv/bin/python scripts/servers.py",
    ): "tests/integration/test_servers.py runs it",
    (
        "docs/how-to/deploy-kubernetes.md",
        "docker build",
    ): "needs Docker and a cluster; tests/deploy/kubernetes holds folders and names to the manifests",
    (
        "docs/how-to/deploy-kubernetes.md",
        "kubectl -n shop-dev port-forward",
    ): "needs a cluster that runs containers; tests/deploy/kubernetes holds names to the manifests",
    (
        "docs/how-to/deploy-kubernetes.md",
        "kustomize build",
    ): "tests/deploy/kubernetes/test_page.py runs it; kubectl needs a cluster",
    (
        "docs/how-to/deploy-kubernetes.md",
        "kubectl -n shop rollout",
    ): "needs a cluster that runs containers; tests/deploy/kubernetes holds names to the manifests",
}

#: Pages whose samples are run by a test elsewhere, which has more to do with them than to follow them.
RUN_BY: dict[str, str] = {
    "docs/how-to/metrics-and-alerts.md": "tests/integration/test_alerts_page.py",
    "docs/how-to/deploy-kubernetes.md": "tests/deploy/kubernetes/test_page.py",
    "docs/how-to/bench.md": "tests/integration/cli/test_pages.py",
    "docs/how-to/doctor.md": "tests/integration/cli/test_pages.py",
    "docs/how-to/top.md": "tests/integration/cli/test_pages.py",
}

_FENCE = re.compile(r"^( *)```(\w*)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
_RUN = re.compile(
    r'^(    )?((?:raise SystemExit\()?anyio\.run\([^,()]+)(?:, backend="\w+")?\)', re.MULTILINE
)

# Samples that use "the echo service" have its generated modules beside them.
sys.modules.setdefault("echo_bascule", echo_bascule)
sys.modules.setdefault("echo_pb2", echo_pb2)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, and what it holds."""

    page: str
    line: int
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def program(self) -> bool:
        """Whether it is all of a program."""
        return (
            self.language == "python"
            and re.search(r"^(anyio|asyncio|trio)\.run\(", self.text, re.MULTILINE) is not None
        )

    @property
    def sample(self) -> bool:
        """Whether it belongs to the page's module."""
        return self.language == "python" and not self.title and not self.program

    @property
    def commands(self) -> list[tuple[str, str | None]]:
        """The commands in it, with what they print where the block says so."""
        if self.title:
            return []
        if self.language == "sh":
            return [(self.text, None)]
        if self.language != "console":
            return []
        found = re.findall(r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", self.text, re.MULTILINE)
        return [(command, output) for command, output in found]

    @property
    def walked(self) -> bool:
        """Whether a session has to do something about it."""
        return bool(
            self.title or self.program or any(not skipped(self.page, c) for c, _ in self.commands)
        )


def pages() -> list[str]:
    """Every page, by its path in the checkout."""
    top = [
        name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md") if (ROOT / name).exists()
    ]
    return top + sorted(str(each.relative_to(ROOT)) for each in (ROOT / "docs").rglob("*.md"))


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = (ROOT / page).read_text()
    found = []
    for match in _FENCE.finditer(text):
        indent, language, more, body = match.groups()
        title = _TITLE.search(more)
        body = re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, language, title[1] if title else "", body))
    return found


def skipped(page: str, command: str) -> bool:
    """Whether a command is declared as one that no test runs."""
    return any(page == where and command.startswith(begin) for where, begin in NOT_RUN)


def load(
    page: str, names: dict[str, Any] | None = None, replace: Mapping[str, str] | None = None
) -> SimpleNamespace:
    """Execute the samples of a page in a module, one after the other.

    :param names: the module's globals, so that pytest finds the tests among the samples; or whatever they
        take from elsewhere
    :param replace: what samples say, and what has to stand there instead
    :returns: what the samples have defined
    """
    names = {} if names is None else names
    names.setdefault("__name__", "page")
    for block in blocks(page):
        if block.sample:
            text = block.text
            for old, new in (replace or {}).items():
                text = text.replace(old, new)
            # So many empty lines that errors name the lines of the page.
            code = compile("\n" * block.line + text, str(ROOT / page), "exec", dont_inherit=True)
            exec(code, names)
    return SimpleNamespace(**names)


class Session:
    """A folder in which pages are followed as a reader would: files made, commands run, in order.

    :param folder: where it happens; empty at first
    :param ports: those that the pages name; free ones take their place
    :param loop: the event loop of programs that end with ``anyio.run``
    :param environment: variables beside those of this process
    """

    def __init__(
        self,
        folder: Path,
        *,
        ports: tuple[int, ...] = (),
        loop: str = "asyncio",
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._loop = loop
        self._ports = [HeldPort() for _ in ports]
        self._replaced = {
            str(old): str(new.number) for old, new in zip(ports, self._ports, strict=True)
        }
        self._environment = {
            **os.environ,
            **(environment or {}),
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "120",
        }
        self._environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._groups: list[int] = []
        self._running: list[tuple[str, subprocess.Popen[bytes], Path]] = []
        self._replaced[".venv/bin/"] = f"{Path(sys.executable).parent}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for _command, process, _log in reversed(self._running):
            self._stop(process)
        for group in self._groups:  # what commands have left behind by `&`
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        for port in self._ports:
            port.close()

    def give(self, *paths: Path) -> None:
        """Copy files to where the pages are followed: what they take for granted."""
        for path in paths:
            text = path.read_text()
            (self.folder / path.name).write_text(self.text(text) if path.suffix == ".py" else text)

    def replace(self, old: str, new: str) -> None:
        """Have something else where pages say `old`."""
        self._replaced[old] = new

    def text(self, text: str) -> str:
        """A text of a page as it has to be here."""
        for old, new in self._replaced.items():
            text = text.replace(old, new)
        return _RUN.sub(rf'\1\2, backend="{self._loop}")', text)

    def walk(self, page: str, *, background: dict[str, str] | None = None) -> str:
        """Do what a page says.

        :param background: commands, by how they begin, that go on running, with the pattern of what they
            print once what follows may begin
        :returns: all that was printed
        """
        said: list[str] = []
        for block in blocks(page):
            if block.title:
                path = self.folder / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.text(block.text))
            elif block.program:
                said.append(self._program(block))
            elif block.language == "text" and said:
                expect(str(block), self.text(block.text), said[-1])
            for command, output in block.commands:
                if not skipped(page, command):
                    said.append(self._command(block, command, background or {}))
                    if output:
                        expect(str(block), self.text(output), said[-1])
        return "".join(said)

    def _command(self, block: Block, command: str, background: Mapping[str, str]) -> str:
        for begin, ready in background.items():
            if command.startswith(begin):
                return self.start(command, ready)
        return self.run(command, str(block))

    def on(self, loop: str, *programs: str) -> None:
        """Run programs that pages have made on another loop, which must print the same."""
        self._loop = loop
        for name in programs:
            path = self.folder / name
            before = self.run(f"python {name}")
            text = path.read_text()
            path.write_text(self.text(text))
            assert path.read_text() != text, f"{name} has no anyio.run(...) at its end"
            expect(name, before, self.run(f"python {name}"))

    def run(self, command: str, where: str = "") -> str:
        """Run a command to its end; what it exports and where it goes holds for the next ones."""
        script = f"[ -f .exported ] && . ./.exported; set -e\n{self.text(command)}\nexport -p > '{self.folder}/.exported'"
        with subprocess.Popen(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            self._groups.append(process.pid)
            out, err = process.communicate(timeout=110)
        assert process.returncode == 0, f"{where}: {command}\n{out}{err}{self.logs()}"
        return out

    def start(self, command: str, ready: str, *, patience: float = 60.0) -> str:
        """Start a command that goes on until the session ends, and wait until it has printed `ready`."""
        log = self.folder / f".background-{len(self._running)}.log"
        script = f"[ -f .exported ] && . ./.exported; exec {self.text(command).strip()}"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append((command.strip(), process, log))
        deadline = time.monotonic() + patience
        while re.search(ready, log.read_text()) is None:
            assert process.poll() is None, f"{command} ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, (
                f"{command} never said {ready!r}:\n{log.read_text()}"
            )
            time.sleep(0.05)
        return log.read_text()

    def stop(self, begin: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop what was started by a command that begins so."""
        (found,) = [each for each in self._running if each[0].startswith(begin)]
        self._running.remove(found)
        self._stop(found[1], number)

    def logs(self) -> str:
        """What commands in the background have printed, for messages."""
        return "".join(f"\n--- {command}\n{log.read_text()}" for command, _, log in self._running)

    def _program(self, block: Block) -> str:
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", self.text(block.text)],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, ""), f"{block}\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    def _stop(
        self, process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM
    ) -> None:
        if process.poll() is None:
            os.killpg(process.pid, number)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def expect(where: str, wanted: str, got: str) -> None:
    """Compare what a page says is printed with what was; ``...`` stands for anything."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    matches = doctest.OutputChecker().check_output(wanted, got, flags)
    assert matches, f"{where} says\n{wanted}\nbut this was printed:\n{got}"
