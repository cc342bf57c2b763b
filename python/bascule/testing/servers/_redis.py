"""Redis."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, ClassVar

from bascule.testing.servers._server import LocalServer

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RedisServer"]


class RedisServer(LocalServer):
    """A Redis that keeps every write it has acknowledged, unless ``durable`` is False.

    :param durable: write each command to the disk before it is acknowledged
    :param password: letters and digits that clients have to give; it is in :attr:`url`
    """

    program: ClassVar[str] = "redis-server"
    hint: ClassVar[str] = "`apt-get install redis-server`, as root"

    def __init__(
        self,
        *,
        durable: bool = True,
        password: str = "",
        folder: Path | None = None,
        patience: float = 60.0,
    ) -> None:
        super().__init__(folder=folder, patience=patience)
        self.durable = durable
        self.password = password

    @property
    def url(self) -> str:
        """For a Redis client."""
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}{self.address}/0"

    def flush(self) -> None:
        """Remove every key."""
        if not self._ask(b"FLUSHALL\r\n").startswith(b"+OK"):
            raise RuntimeError(f"the Redis at {self.address} would not remove its keys")

    def _command(self, program: Path) -> list[str]:
        command = [str(program), "--bind", "127.0.0.1", "--port", str(self.port)]
        command += ["--dir", str(self.data), "--save", ""]
        if self.password:
            command += ["--requirepass", self.password]
        if self.durable:
            return [*command, "--appendonly", "yes", "--appendfsync", "always"]
        return [*command, "--appendonly", "no"]

    def _answers(self) -> bool:
        # While it reads its data, it answers with an error.
        return self._ask(b"PING\r\n").startswith(b"+PONG")

    def _ask(self, command: bytes) -> bytes:
        with (
            socket.create_connection(("127.0.0.1", self.port), 5.0) as connection,
            connection.makefile("rb") as answers,
        ):
            if self.password:
                connection.sendall(f"AUTH {self.password}\r\n".encode())
                answers.readline()
            connection.sendall(command)
            return answers.readline()
