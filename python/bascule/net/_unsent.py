"""What the kernel still holds of what was written to a socket."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bascule.net._link import AnySocket

__all__ = ["unsent"]


def unsent(sock: AnySocket) -> bool:
    """Whether the peer's machine has not acknowledged all of it; true also where that cannot be told.

    Source: Linux, tcp(7) and unix(7), SIOCOUTQ.
    """
    try:
        import fcntl  # not everywhere
        import termios

        held = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except (ImportError, OSError, ValueError):
        return True
    return struct.unpack("i", held) != (0,)
