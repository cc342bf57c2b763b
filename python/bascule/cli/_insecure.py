"""TLS that believes any certificate: for looking at a server by hand, and nothing else."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bascule.net import ClientTLS

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Unverified"]


@dataclass(frozen=True, slots=True)
class Unverified(ClientTLS):
    """As :class:`bascule.net.ClientTLS`, without finding out who the server is."""

    def context(self, alpn: Sequence[str]) -> ssl.SSLContext:
        """A context for the connecting side."""
        # By name: in a dataclass with slots, super() would look in the class that they replaced.
        context = ClientTLS.context(self, alpn)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
