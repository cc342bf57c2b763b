"""Ports that nobody else is given while they are held."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["HeldPort"]


class HeldPort:
    """A free port of 127.0.0.1, kept from other programs until it is closed, used or not.

    The socket that holds it is bound alone and allows reuse only then: Linux lets the server, which
    allows reuse too, listen on the port, while nobody is given it as a free one. So a server that
    is down finds its port again. Elsewhere the port is free to all as soon as it was chosen.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform != "linux":
            self._socket.close()

    def close(self) -> None:
        """Let anybody have the port."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
