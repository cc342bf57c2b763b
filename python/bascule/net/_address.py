"""Addresses as text: ``host:port``, ``unix:/path`` and ``memory:name``."""

from __future__ import annotations

import socket
from typing import NamedTuple

from bascule.errors import ConfigurationError

__all__ = ["Address", "format_peer", "parse_address"]


class Address(NamedTuple):
    """Where to listen or connect.

    ``kind`` is ``tcp``, ``unix`` or ``memory``; ``host`` is the host, the path or the name.
    """

    kind: str
    host: str
    port: int = 0

    def __str__(self) -> str:
        if self.kind != "tcp":
            return f"{self.kind}:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read an address.

    :raises ConfigurationError: if it has none of the three forms
    """
    scheme, colon, rest = text.partition(":")
    if colon and scheme in {"unix", "memory"} and rest:
        return Address(scheme, rest.removeprefix("//") if rest.startswith("///") else rest)
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isdecimal() and int(port) < 65536):
        message = f"address {text!r}: expected host:port, unix:/path or memory:name"
        raise ConfigurationError(message)
    return Address("tcp", host, int(port))


def format_peer(family: int, name: object) -> str:
    """The text of what ``getpeername`` or ``getsockname`` gave."""
    if family == socket.AF_UNIX:
        return f"unix:{name}" if name else "unix:"
    if isinstance(name, tuple) and len(name) >= 2:
        return str(Address("tcp", str(name[0]), int(name[1])))
    return "unknown"
