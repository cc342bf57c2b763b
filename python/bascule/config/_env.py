"""Configuration from environment variables."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from bascule.config._document import find, replaced
from bascule.config._source import Layer
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

__all__ = ["EnvSource"]


class EnvSource:
    """The variables that begin with a prefix: ``SHOP_SERVER__PORT=80`` is ``server.port``.

    Names are lower case, two underscores go one level down. A value is text, which becomes the
    number or the like that the schema asks for; one that begins with ``[`` or ``{`` and is JSON is
    taken as such. It is read once: a process's environment does not change.

    :param prefix: with its underscore: ``SHOP_``
    :param environment: instead of the process's own
    :raises ConfigurationError: if the prefix is empty
    """

    def __init__(self, prefix: str, environment: Mapping[str, str] | None = None) -> None:
        if not prefix:
            message = "an environment source needs a prefix: it would take all variables"
            raise ConfigurationError(message)
        self._prefix = prefix
        self._environment = os.environ if environment is None else environment

    @property
    def name(self) -> str:
        """``env:PREFIX``."""
        return f"env:{self._prefix}"

    def read(self) -> dict[str, Any]:
        """The document."""
        document: dict[str, Any] = {}
        # By depth: SHOP_SERVER={...} goes before SHOP_SERVER__PORT.
        names = [each for each in self._environment if each.startswith(self._prefix)]
        for name in sorted(names, key=lambda each: (each.count("__"), each)):
            parts = tuple(name[len(self._prefix) :].lower().split("__"))
            if not all(parts):
                continue
            if not isinstance(find(document, parts[:-1]), dict) and len(parts) > 1:
                document = replaced(document, parts[:-1], {})
            document = replaced(document, parts, _value(self._environment[name]))
        return document

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[Layer]]:
        """Give the document once."""

        async def layers() -> AsyncIterator[Layer]:
            yield Layer(self.read())
            await anyio.sleep_forever()

        yield layers()


def _value(text: str) -> Any:
    if text.startswith(("[", "{")):
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return text
    return text
