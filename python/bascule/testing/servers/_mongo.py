"""Servers of MongoDB's wire protocol."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, ClassVar

from bascule.testing.servers._server import LocalServer

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MongoJavaServer", "MongoServer", "NxMongoServer"]

#: ``{hello: 1, $db: "admin"}`` in BSON.
HELLO = b"\x1f\x00\x00\x00\x10hello\x00\x01\x00\x00\x00\x02$db\x00\x06\x00\x00\x00admin\x00\x00"

#: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/#op_msg
OP_MSG = 2013


class MongoServer(LocalServer):
    """MongoDB itself, from a ``mongod`` on the PATH."""

    program: ClassVar[str] = "mongod"
    hint: ClassVar[str] = "https://www.mongodb.com/docs/manual/installation"

    #: Whether several documents can change together.
    transactions: ClassVar[bool] = False

    @property
    def url(self) -> str:
        """For a MongoDB client."""
        return f"mongodb://{self.address}/?directConnection=true"

    def _command(self, program: Path) -> list[str]:
        where = ["--bind_ip", "127.0.0.1", "--port", str(self.port)]
        return [str(program), *where, "--dbpath", str(self.data), "--nounixsocket"]

    def _answers(self) -> bool:
        message = struct.pack("<iB", 0, 0) + HELLO
        head = struct.pack("<iiii", 16 + len(message), 1, 0, OP_MSG)
        with (
            socket.create_connection(("127.0.0.1", self.port), 5.0) as connection,
            connection.makefile("rb") as answers,
        ):
            connection.sendall(head + message)
            answer = answers.read(16)
            return len(answer) == 16 and struct.unpack("<iiii", answer)[2:] == (1, OP_MSG)


class NxMongoServer(MongoServer):
    """nx-27017, which keeps its documents in SQLite and knows transactions."""

    program: ClassVar[str] = "nx-27017"
    hint: ClassVar[str] = (
        "`python3 scripts/provision.py nx-27017` in a checkout of bascule, "
        "or `pip install nx-27017`, best in a virtual environment of its own"
    )
    transactions: ClassVar[bool] = True

    def _command(self, program: Path) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--data-dir", str(self.data)]
        files = ["--log-file", str(self.folder / "nx.log"), "--pid-file", str(self.folder / "pid")]
        return [str(program), *where, *files]


class MongoJavaServer(MongoServer):
    """mongo-java-server, which keeps its documents in H2 and knows no sessions."""

    program: ClassVar[str] = "mongo-java-server"
    hint: ClassVar[str] = (
        "`python3 scripts/provision.py mongo-java-server` in a checkout of bascule"
    )

    def _command(self, program: Path) -> list[str]:
        return [str(program), str(self.port), str(self.data / "documents.h2")]
