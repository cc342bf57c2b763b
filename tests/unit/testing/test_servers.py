"""Launchers start, report, restart and clean up as they say, whatever the program does."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import ClassVar

import anyio
import psutil
import pytest
from tests import tools
from tests.servers import need

from bascule.testing.servers import LocalServer, MissingProgramError, StartError
from bascule.testing.servers._ports import HeldPort


class Pages(LocalServer):
    """Python's own server of files, as a server that is everywhere."""

    program: ClassVar[str] = Path(sys.executable).name
    hint: ClassVar[str] = "it runs this test"

    def _command(self, program: Path) -> list[str]:
        serve = [str(program), "-m", "http.server", "--bind", "127.0.0.1", str(self.port)]
        return [*serve, "--directory", str(self.data)]

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=1.0)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        finally:
            connection.close()


class Script(Pages):
    """A shell script in its place."""

    script = ""

    def _command(self, program: Path) -> list[str]:
        serve = " ".join(super()._command(program))
        return ["/bin/sh", "-c", self.script.replace("SERVE", serve)]


def script(text: str) -> type[Script]:
    return type("Told", (Script,), {"script": text})


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def soon(condition: Callable[[], bool], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def pages() -> Iterator[Pages]:
    with Pages() as server:
        yield server


def test_nothing_is_left_of_it():
    before = set(psutil.Process().children())
    with Pages() as server:
        port = server.port
        (server.data / "file").write_text("kept")
        children = set(psutil.Process().children()) - before
        assert server.pid in {child.pid for child in children}
    assert not any(child.is_running() for child in children)
    assert not server.folder.exists()
    assert server.pid is None
    assert not answers(port)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_it_comes_back_on_its_port_with_its_data(pages: Pages, how: str):
    first, port = pages.pid, pages.port
    (pages.data / "file").write_text("kept")
    getattr(pages, how)()
    assert pages.pid is None
    pages.start()
    assert pages.pid not in {None, first}
    assert pages.port == port
    assert (pages.data / "file").read_text() == "kept"


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux holds a port that nobody listens on"
)
def test_a_port_that_is_held_is_given_to_nobody_but_who_knows_it():
    with HeldPort() as held:
        address = ("127.0.0.1", held.number)
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(address)
        for _ in range(2):
            with socket.create_server(address):
                assert answers(held.number)
    with socket.socket() as stranger:
        stranger.bind(address)


def test_starting_what_runs_changes_nothing(pages: Pages):
    first = pages.pid
    pages.start()
    assert pages.pid == first


def test_its_address_is_known_before_it_runs():
    server = Pages()
    try:
        address = server.address
        server.start()
        assert server.address == address
    finally:
        server.close()


def test_wiped_it_starts_anew(pages: Pages):
    (pages.data / "file").write_text("gone")
    with pytest.raises(RuntimeError, match="stop it before"):
        pages.wipe()
    pages.stop()
    pages.wipe()
    pages.start()
    assert not list(pages.data.iterdir())


def test_what_could_not_be_prepared_is_prepared_the_next_time():
    class Hesitant(Pages):
        tries = 0

        def _prepare(self) -> None:
            self.tries += 1
            (self.data / "half").touch()
            if self.tries == 1:
                raise StartError("not today")

    server = Hesitant()
    try:
        with pytest.raises(StartError, match="not today"):
            server.start()
        assert not server.data.exists()
        server.start()
        assert server.tries == 2
    finally:
        server.close()


def test_paused_it_answers_nothing_until_it_goes_on(pages: Pages):
    pages.pause()
    with pytest.raises(TimeoutError):
        pages._answers()
    pages.resume()
    assert pages._answers()


def test_one_that_is_paused_is_stopped_too(pages: Pages):
    pages.pause()
    pages.stop(within=5.0)
    assert pages.pid is None


def test_a_folder_that_was_given_stays(tmp_path: Path):
    with Pages(folder=tmp_path / "here") as server:
        (server.data / "file").write_text("kept")
    assert (tmp_path / "here/data/file").read_text() == "kept"
    with Pages(folder=tmp_path / "here") as server:
        assert (server.data / "file").read_text() == "kept"


def test_a_program_that_is_missing_is_named_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kind = type("Unheard", (Pages,), {"program": "unheard-of", "hint": "`make unheard-of`"})
    with pytest.raises(MissingProgramError, match=r"^unheard-of is missing: `make unheard-of`$"):
        kind().__enter__()


@pytest.mark.parametrize("required", [False, True])
def test_without_its_program_a_test_is_left_out_by_name_or_fails_where_it_must_not_be(
    monkeypatch: pytest.MonkeyPatch, required: bool
):
    monkeypatch.setattr(tools, "REQUIRED", required)
    kind = type("Unheard", (Pages,), {"program": "unheard-of"})
    outcome = pytest.fail.Exception if required else pytest.skip.Exception
    with pytest.raises(outcome, match="^unheard-of is missing: it runs this test"):
        need(kind)


def test_a_program_is_found_where_provision_links_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    program = tmp_path / "bascule/bin/unheard-of"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert type("Unheard", (Pages,), {"program": "unheard-of"}).find() == program


def test_what_ended_early_is_told_in_its_own_words():
    server = script("echo what went wrong; exit 3")()
    with pytest.raises(StartError, match=r"ended with exit code 3; .*\nwhat went wrong$"):
        server.__enter__()
    assert not server.folder.exists()


def test_what_does_not_answer_in_time_is_ended_with_all_it_started():
    server = script("echo still thinking; sleep 100 & sleep 100")(patience=0.3)
    try:
        with pytest.raises(StartError, match=r"did not answer within 0.3 s; .*\nstill thinking$"):
            server.start()
        assert not [
            process
            for process in psutil.process_iter(["cwd"])
            if process.info["cwd"] == str(server.folder)
        ]
    finally:
        server.close()


def test_the_words_of_an_earlier_run_are_not_taken_for_those_of_a_later_one(pages: Pages):
    pages.stop()
    pages._command = lambda program: ["/bin/sh", "-c", "echo second; exit 1"]
    with pytest.raises(StartError, match=r"ends with:\nsecond$"):
        pages.start()


def test_ports_that_were_taken_are_exchanged_before_anybody_knows_them():
    taken = "[ -e tried ] && exec SERVE; touch tried; echo 'bind: Address already in use'; exit 1"
    server = script(taken)()
    first = server.port
    with server:
        assert server.port != first


def test_ports_stay_once_they_are_known(pages: Pages):
    port = pages.port
    pages.stop()
    pages._command = lambda program: ["/bin/sh", "-c", "echo Address already in use; exit 1"]
    with pytest.raises(StartError, match="already in use"):
        pages.start()
    assert pages.port == port


def test_it_ends_with_a_process_that_was_killed(tmp_path: Path):
    starter = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[3]), *sys.path]!r}
from tests.unit.testing.test_servers import Pages
server = Pages()
server.start()
print(server.pid, server.folder, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", starter], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        pid, folder = process.stdout.readline().split()
        assert psutil.pid_exists(int(pid))
        process.kill()
    soon(lambda: not psutil.pid_exists(int(pid)))
    soon(lambda: not Path(folder).exists())


@pytest.mark.anyio
async def test_tasks_go_on_while_it_starts():
    steps = 0

    async def step() -> None:
        nonlocal steps
        while True:
            await anyio.sleep(0.005)
            steps += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(step)
        async with Pages() as server:
            assert server.pid
            assert steps
        tasks.cancel_scope.cancel()
    assert not server.folder.exists()


@pytest.mark.anyio
async def test_cancelled_it_leaves_nothing():
    server = Pages()
    with anyio.CancelScope() as scope:
        async with server:
            scope.cancel()
            await anyio.sleep_forever()
    assert server.pid is None
    assert not server.folder.exists()
