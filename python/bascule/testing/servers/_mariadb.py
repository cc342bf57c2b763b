"""MariaDB, which speaks MySQL's protocol."""

from __future__ import annotations

import getpass
import socket
import subprocess
from typing import TYPE_CHECKING, ClassVar

from bascule.testing.servers._errors import StartError
from bascule.testing.servers._program import find_program
from bascule.testing.servers._server import LocalServer

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MariaDBServer"]


class MariaDBServer(LocalServer):
    """A MariaDB with a user who may do everything, and as many databases as are asked for."""

    program: ClassVar[str] = "mariadbd"
    hint: ClassVar[str] = "`apt-get install mariadb-server`, as root"

    #: Who may do everything.
    user: ClassVar[str] = "bascule"
    #: Guards nothing that lasts: only programs of this machine can call.
    password: ClassVar[str] = "bascule"  # noqa: S105

    def url(self, database: str = "") -> str:
        """For SQLAlchemy with PyMySQL; ``database`` must exist, see :meth:`fresh_database`."""
        return f"mysql+pymysql://{self.user}:{self.password}@{self.address}/{database}"

    def fresh_database(self, name: str) -> str:
        """Make an empty database, in place of the one of this name if there is one.

        :param name: letters, digits and underscores
        :returns: its URL
        :raises ValueError: if the name has other characters
        """
        if not name.replace("_", "").isalnum() or not name.isascii():
            raise ValueError(
                f"{name!r} cannot name a database: use letters, digits and underscores"
            )
        self._run(
            f"DROP DATABASE IF EXISTS `{name}`; CREATE DATABASE `{name}` CHARACTER SET utf8mb4"
        )
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database with all that is in it."""
        self._run(f"DROP DATABASE IF EXISTS `{name}`")

    def _run(self, statements: str) -> None:
        client = find_program("mariadb", self.hint)
        command = [str(client), "--no-defaults", "--protocol=tcp", "--host=127.0.0.1"]
        command += [f"--port={self.port}", f"--user={self.user}", f"--password={self.password}"]
        subprocess.run([*command, "--execute", statements], check=True, capture_output=True)  # noqa: S603

    def _prepare(self) -> None:
        installer = find_program("mariadb-install-db", self.hint)
        ran = subprocess.run(  # noqa: S603 - the program was asked for
            [
                str(installer),
                "--no-defaults",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                f"--user={getpass.getuser()}",
                f"--datadir={self.data}",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise StartError(f"mariadb-install-db failed:\n{ran.stdout}")
        (self.folder / "init.sql").write_text(
            f"CREATE USER IF NOT EXISTS '{self.user}'@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO '{self.user}'@'%' WITH GRANT OPTION;\n"
        )

    def _command(self, program: Path) -> list[str]:
        return [
            str(program),
            "--no-defaults",
            # It refuses to be root without being told so.
            f"--user={getpass.getuser()}",
            f"--datadir={self.data}",
            # Relative to the data: paths of sockets must be short.
            "--socket=mysql.sock",
            f"--pid-file={self.folder / 'pid'}",
            f"--init-file={self.folder / 'init.sql'}",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            "--skip-log-bin",
            "--innodb-buffer-pool-size=32M",
        ]

    def _answers(self) -> bool:
        # It greets first: length, number, then the version of the protocol, which is 10.
        # https://mariadb.com/kb/en/connection/#initial-handshake-packet
        with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
            greeting = connection.makefile("rb")
            with greeting:
                return greeting.read(5)[4:] == b"\x0a"
