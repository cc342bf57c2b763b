"""The files of Unix sockets: bound over what a dead server left, removed by their owner only."""

from __future__ import annotations

import os
import socket
import stat

__all__ = ["UnixSocket"]


class UnixSocket:
    """A Unix socket that was bound to its path.

    :raises OSError: if the path is taken by a server that lives, or cannot be bound
    """

    def __init__(self, path: str) -> None:
        _remove_stale(path)
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.bind(path)
        except BaseException:
            self.socket.close()
            raise
        self._path = path
        self._identity = _identity(path)

    def remove(self) -> None:
        """Remove the file, unless it is another server's by now."""
        if self._identity is not None and _identity(self._path) == self._identity:
            os.unlink(self._path)  # noqa: PTH108 - on the loop, like the others


def _remove_stale(path: str) -> None:
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return
    if is_socket:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                os.unlink(path)  # noqa: PTH108
            except OSError:
                pass  # such as a full backlog, which a dead server does not have


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino
