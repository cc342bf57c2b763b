"""One question over HTTP, to learn whether a server answers."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

__all__ = ["get"]


def get(
    port: int,
    path: str,
    headers: Mapping[str, str] | None = None,
    trust: ssl.SSLContext | None = None,
) -> bytes | None:
    """Ask a server on 127.0.0.1; None if it answers with an error.

    :param trust: speak TLS
    :raises OSError: if it does not answer within 5 s
    """
    if trust is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=5.0)
    else:
        connection = HTTPSConnection("127.0.0.1", port, timeout=5.0, context=trust)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        text = answer.read()
        return text if answer.status == 200 else None
    except HTTPException:
        return None
    finally:
        connection.close()
