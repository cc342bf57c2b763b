"""What belongs to one project: its apps, its gateways' files, and the ports that it wants."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from bascule.cli.doctor._examine import Check, Report
from bascule.errors import ConfigurationError
from bascule.net import parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bascule.cli.doctor._examine import Look

__all__ = ["checks_of_apps", "checks_of_ports", "nothing_named"]

#: Seconds that importing an app may take.
_IMPORTING = 30.0

_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp


def checks_of_apps(apps: Sequence[str]) -> Iterator[Check]:
    """Give a check for each app.

    :param apps: ``MODULE:APP`` as ``bascule serve`` takes them
    """
    for app in apps:
        # In a process of its own: importing may do anything, and must be bounded.
        program = "import sys; from bascule.cli._serve import _load; _load(sys.argv[1])"
        look = _running([sys.executable, "-c", program, app], "can be imported, and is an App")
        advice = "look at `bascule serve` with it: it would say the same"
        yield Check("project", app, look, advice, _IMPORTING)


def checks_of_ports(ports: Sequence[str]) -> Iterator[Check]:
    """Give a check for each port.

    :param ports: ``PORT`` on 127.0.0.1, or ``HOST:PORT``
    """
    for port in ports:
        yield Check("ports", port, _port(port))


def nothing_named(topic: str, option: str) -> Check:
    """Give a check that says how to have something looked at."""
    return Check(topic, topic, _none_named(option))


def _none_named(option: str) -> Look:
    async def look(report: Report) -> None:
        report.unchecked("none is named", f"to look at one: {option}")

    return look


def _running(command: Sequence[str], good: str) -> Look:
    async def look(report: Report) -> None:
        ran = await anyio.run_process(command, check=False)
        if ran.returncode == 0:
            report.ok(good)
            return
        lines = ran.stderr.decode(errors="replace").strip().splitlines()
        # The last line of a traceback is what was raised; of a message, there is one.
        said = lines[-1].strip(" │") if lines else f"exit code {ran.returncode}"
        raise ConfigurationError(said)

    return look


def _port(text: str) -> Look:
    async def look(report: Report) -> None:
        address = parse_address(text if ":" in text else f"127.0.0.1:{text}")
        if address.kind != "tcp":
            raise ConfigurationError(f"--port {text!r}: expected PORT or HOST:PORT")
        family, _, _, _, name = socket.getaddrinfo(  # an address, or a name of this machine
            address.host, address.port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: what only waits for old connections to be forgotten is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(name)
                probe.listen(1)
            except OSError as error:
                who = await anyio.to_thread.run_sync(_listener, address.port)
                if who:
                    report.warning(
                        f"taken by {who}",
                        "fine if that is yours; else stop it, or listen elsewhere",
                    )
                else:
                    report.failed(
                        f"cannot be listened at: {error.strerror or error}",
                        "listen elsewhere; ports below 1024 need CAP_NET_BIND_SERVICE",
                    )
                return
        report.ok("is free")

    return look


def _listener(port: int) -> str:
    """Tell which process listens at a port, as far as /proc shows it to this user; empty if none does.

    Source: proc(5), ``/proc/net/tcp``: the state is the fourth field, the inode the tenth.
    """
    inodes: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in (line.split() for line in lines):
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return ""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(link.readlink()) in inodes for link in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().split(b"\0")
                command = b" ".join(words).decode(errors="replace").strip()
                return f"process {process.name}: {command[:80]}"
        except OSError:  # gone meanwhile, or somebody else's
            continue
    return "a process that this user may not see"
