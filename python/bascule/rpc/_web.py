"""gRPC-Web and Connect on a server's port."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bascule import _core
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grpclib.const import Handler

__all__ = ["WebSettings", "check_origin", "configure_web"]


@dataclass(frozen=True, slots=True)
class WebSettings:
    """How a server answers browsers: gRPC-Web and Connect, over HTTP/2 and HTTP/1.1.

    :param allow_origins: pages of these origins may call (``https://app.example``), besides those
        that the server's own origin serves; ``"*"`` stands for every page of the web
    :param allow_credentials: whether such pages may send cookies and client certificates
    :param max_age: seconds for which a browser may remember what it was allowed
    :raises ConfigurationError: if an origin has another form, or every page could use its
        visitor's cookies
    """

    allow_origins: tuple[str, ...] = ()
    allow_credentials: bool = False
    max_age: float = 7200.0

    def __post_init__(self) -> None:
        if isinstance(self.allow_origins, str):
            message = (
                f"allow_origins={self.allow_origins!r}: expected a tuple of origins, not a str"
            )
            raise ConfigurationError(message)
        if "*" in self.allow_origins and self.allow_credentials:
            message = (
                'allow_origins=("*",) with allow_credentials would let any page act as its visitor: '
                "name the origins"
            )
            raise ConfigurationError(message)
        for origin in self.allow_origins:
            check_origin(origin)
        if not 0 <= self.max_age < math.inf:
            message = f"max_age {self.max_age!r}: expected a finite number of seconds, 0 or more"
            raise ConfigurationError(message)


def check_origin(origin: str) -> None:
    """:raises ConfigurationError: if no browser would send this as the origin of a page"""
    parts = urlsplit(origin)
    # A browser sends exactly this, in lower case and without a path: nothing else ever matches.
    if origin != "*" and (not parts.netloc or origin != f"{parts.scheme}://{parts.netloc}".lower()):
        message = f"origin {origin!r}: expected scheme://host or scheme://host:port in lower case"
        raise ConfigurationError(message)


def configure_web(
    settings: WebSettings, handlers: Sequence[tuple[str, Handler]]
) -> _core.WebConfig:
    """What the connections need to know.

    :param handlers: path and handler of each method, in the order of their indices
    """
    unary = [
        index
        for index, (_, handler) in enumerate(handlers)
        if not (handler.cardinality.client_streaming or handler.cardinality.server_streaming)
    ]
    return _core.WebConfig(
        origins=None if "*" in settings.allow_origins else settings.allow_origins,
        credentials=settings.allow_credentials,
        max_age_ns=int(settings.max_age * 1e9),
        unary=unary,
        safe=[index for index in unary if _has_no_side_effects(*handlers[index])],
    )


def _has_no_side_effects(path: str, handler: Handler) -> bool:
    """Whether the ``.proto`` says so, as far as the request's descriptor leads to it."""
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.descriptor_pb2 import MethodOptions

    descriptor = getattr(handler.request_type, "DESCRIPTOR", None)
    if not isinstance(descriptor, Descriptor):
        return False
    _, service, name = path.split("/")
    try:
        method = descriptor.file.pool.FindServiceByName(service).methods_by_name[name]
    except KeyError:
        return False
    level = method.GetOptions().idempotency_level
    return bool(level == MethodOptions.NO_SIDE_EFFECTS)
