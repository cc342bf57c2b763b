"""One bounded request by HTTP, for commands that look at servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bascule.errors import ConfigurationError, TransportError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    import httpx

__all__ = ["Answer", "ask", "http_client"]

#: Bytes of an answer: metrics of a process with some 10,000 series have about 1 MiB.
LARGEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered.

    :ivar headers: by their names in lower case
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


def http_client(
    *, timeout: float, tls: ssl.SSLContext | None = None, base: Mapping[str, str] | None = None
) -> httpx.AsyncClient:
    """Make a client that takes nothing from the environment.

    :param timeout: seconds for each step of a request
    :param tls: context for a private authority; None for the system's
    :param base: headers of every request
    """
    import httpx

    return httpx.AsyncClient(
        verify=tls or True, timeout=timeout, trust_env=False, headers=dict(base or {})
    )


async def ask(
    client: httpx.AsyncClient, url: str, *, post: bytes | None = None, kind: str = ""
) -> Answer:
    """Ask for an address; POST if there is a body.

    :param kind: the body's content type
    :raises ConfigurationError: if it is no address
    :raises TransportError: if it does not answer, or with more than 16 MiB
    """
    import httpx

    method = "GET" if post is None else "POST"
    headers = {"content-type": kind} if kind else {}
    body = bytearray()
    try:
        async with client.stream(method, url, content=post, headers=headers) as response:
            # Read to the end: leaving midway would leave httpx's generators behind.
            async for chunk in response.aiter_bytes():
                if len(body) <= LARGEST:
                    body += chunk
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ConfigurationError(f"{url!r} is no address: {error}") from error
    except httpx.HTTPError as error:
        raise TransportError(str(error) or type(error).__name__) from error
    if len(body) > LARGEST:
        raise TransportError(f"{url} answers with more than {LARGEST} bytes")
    return Answer(response.status_code, dict(response.headers), bytes(body))
