"""Sources by address, as the command line names them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bascule.config._consul import ConsulSource
from bascule.config._env import EnvSource
from bascule.config._file import FileSource
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from bascule.config._source import Source

__all__ = ["source_from"]

FORM = "expected file:PATH, env:PREFIX, consul:///config/NAME or consul://host:port/config/NAME"


def source_from(url: str) -> Source:
    """The source of an address.

    For ``consul:``, what the address does not say (the agent, token, TLS) is taken from the
    environment, as Consul's own command does.

    :raises ConfigurationError: if it has no form that is known
    """
    scheme, colon, rest = url.partition(":")
    if colon and rest and scheme == "file":
        return FileSource(rest)
    if colon and rest and scheme == "env":
        return EnvSource(rest)
    if colon and scheme == "consul":
        from bascule.discovery.consul import ConsulSettings

        parts = urlsplit(url)
        if not parts.query and not parts.fragment and "@" not in parts.netloc:
            settings = ConsulSettings.read(parts.netloc or None)
            return ConsulSource(parts.path.removeprefix("/"), settings=settings)
    message = f"config source {url!r}: {FORM}"
    raise ConfigurationError(message)
