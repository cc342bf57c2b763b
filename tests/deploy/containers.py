"""What compose.yaml starts, started without containers: its own commands, files, accounts and passwords.

Each of the project's containers becomes a process that has a loopback address to itself, so that ports stay what
they are. Databases and the like are real servers, at the ports that are free.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from tests.deploy.composition import COMPOSE, FOLDER, SERVICES
from tests.integration.shop_processes import ServiceProcess

from bascule.testing.servers import ConsulServer, MariaDBServer, RedisServer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class ComposeConsul(ConsulServer):
    """Consul with the file that its container has."""

    def _command(self, program: Path) -> list[str]:
        http, rpc, serf = self.ports
        return [
            *(str(program), "agent", f"-config-file={FOLDER / 'consul.hcl'}"),
            *(f"-data-dir={self.data}", "-client=127.0.0.1", "-node=node"),
            *(f"-http-port={http}", f"-server-port={rpc}", f"-serf-lan-port={serf}"),
        ]


class ComposeRedis(RedisServer):
    """Redis with the command and the accounts that its container has.

    :param places: what stands for the container's paths
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        super().__init__()
        self._places = places

    def _command(self, program: Path) -> list[str]:
        command = [translated(str(each), self._places) for each in SERVICES["redis"]["command"]]
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.data)]
        return [str(program), *command[1:], *where]


class ComposeMariaDB(MariaDBServer):
    """MariaDB with the databases and accounts that MySQL's entry point and our script make."""

    def furnish(self, made: Mapping[str, str], places: Mapping[str, str]) -> None:
        for name in ("mysql-users", "mysql-orders"):
            said = SERVICES[name]["environment"]
            database, user = said["MYSQL_DATABASE"], said["MYSQL_USER"]
            password = made[said["MYSQL_PASSWORD_FILE"].rpartition("/")[2]]
            self._run(
                f"CREATE DATABASE `{database}`; CREATE USER '{user}'@'%' IDENTIFIED BY '{password}';"
                f"GRANT ALL ON `{database}`.* TO '{user}'@'%'"
            )
        script = (FOLDER / COMPOSE["configs"]["payment-database"]["file"]).read_text()
        # The entry point sources it.
        ran = subprocess.run(
            [
                "bash",
                "-euo",
                "pipefail",
                "-c",
                f"docker_process_sql() {{ cat; }}\n{translated(script, places)}",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        self._run(ran.stdout)


class Container(ServiceProcess):
    """The process of one of the project's containers. Use it with ``with``.

    :param address: its own, of this machine
    :param places: what stands for names of hosts and for paths
    """

    def __init__(self, name: str, address: str, folder: Path, places: Mapping[str, str]) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        self._address = address
        self._places = {**places, "0.0.0.0": address, "{host}": address}
        command = [self._translated(each) for each in SERVICES[name]["command"]]
        environment = {
            key: self._translated(value) for key, value in SERVICES[name]["environment"].items()
        }
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                program(command),
                cwd=folder,
                env={
                    **{
                        key: value
                        for key, value in os.environ.items()
                        if not key.startswith("SHOP_")
                    },
                    **environment,
                    "PYTHONWARNINGS": "error",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _translated(self, text: str) -> str:
        return translated(text, self._places)

    def token(self, subject: str) -> str:
        """What README.md has people run in the gateway's container."""
        file = self._translated("/etc/bascule/gateway.toml")
        command = program(["bascule", "gateway", "-c", file, "--token", subject])
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    async def until_healthy(self, within: float = 180.0) -> None:
        """Wait until the container's own health check is content."""
        with anyio.move_on_after(within):
            while not await anyio.to_thread.run_sync(self._healthy):
                assert self.process.poll() is None, f"{self.name} ended: {self.log}"
                await anyio.sleep(0.2)
            return
        raise AssertionError(f"{self.name} is not healthy after {within} s: {self.log}")

    def _healthy(self) -> bool:
        kind, program, *arguments = SERVICES[self.name]["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "python")
        here = [each.replace("127.0.0.1", self._address) for each in arguments]
        ran = subprocess.run([sys.executable, *here], capture_output=True, check=False)
        return ran.returncode == 0


def addresses(names: list[str]) -> dict[str, str]:
    """A loopback address for each name, that no other test is likely to have."""
    net = f"127.{64 + secrets.randbelow(128)}.{secrets.randbelow(256)}"
    return {name: f"{net}.{10 + number}" for number, name in enumerate(names)}


def program(command: list[str]) -> list[str]:
    """A command of the image as this Python runs it."""
    module = {"bascule": "bascule.cli", "bascule_shop": "bascule_shop.cli"}[command[0]]
    return [sys.executable, "-c", f"from {module} import main; main()", *command[1:]]


def translated(text: str, places: Mapping[str, str]) -> str:
    for name, place in places.items():
        text = text.replace(name, place)
    return text
