"""Peers that are gone while something is on its way to them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bascule.net._link import Link

__all__ = ["give_up_after"]

#: Linux has it; elsewhere keepalive's own timeout is all there is.
_OPTION: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)


def give_up_after(link: Link, seconds: float) -> None:
    """Lose the connection once what was sent is not acknowledged for so many seconds.

    Without it the system repeats a segment for a quarter of an hour, and no ping gets past it.
    Source: gRFC A18, which takes keepalive's timeout. Does nothing where there is no TCP.
    """
    sock = link.sock
    if sock is None or _OPTION is None or sock.family == socket.AF_UNIX:
        return
    milliseconds = min(max(int(seconds * 1000), 1), 2**31 - 1)
    sock.setsockopt(socket.IPPROTO_TCP, _OPTION, milliseconds)
