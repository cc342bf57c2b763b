"""JSON documents one after another, from an argument, a file or standard input as it comes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

__all__ = ["documents"]

#: Bytes that one document may have; a message has fewer by default.
MOST = 64 * 1024 * 1024

_READ = 64 * 1024


async def documents(source: str) -> AsyncGenerator[str]:
    """The documents of ``JSON``, of ``@file``, or of standard input for ``-``, each once it is complete.

    They may stand one on each line, or anyhow one after another.

    :raises ConfigurationError: if something is no JSON, or the file cannot be read
    """
    if source == "-":
        async for document in _from_descriptor(sys.stdin.fileno()):
            yield document
        return
    splitter = _Splitter("the JSON argument")
    if source.startswith("@"):
        path = Path(source[1:])
        splitter = _Splitter(str(path))
        try:
            source = _read(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error}") from error
    for document in splitter.feed(source, last=True):
        yield document


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


async def _from_descriptor(descriptor: int) -> AsyncIterator[str]:
    splitter = _Splitter("standard input")
    pending = b""
    while True:
        try:
            await anyio.wait_readable(descriptor)
        except PermissionError:  # a file, which is always readable
            await anyio.lowlevel.checkpoint()
        data = os.read(descriptor, _READ)
        # Whole lines only: no character and no JSON token goes on after one.
        lines, newline, rest = (pending + data).rpartition(b"\n")
        pending = rest if data else b""
        try:
            text = (lines + newline if data else rest).decode()
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"standard input is no UTF-8: {error}") from error
        for document in splitter.feed(text, last=not data):
            yield document
        if not data:
            return


class _Splitter:
    def __init__(self, name: str) -> None:
        self._name = name
        self._text = ""
        self._decoder = json.JSONDecoder()

    def feed(self, text: str, *, last: bool) -> Iterator[str]:
        """Take whole lines; answer with the documents that they complete."""
        self._text += text
        start = 0
        while True:
            rest = self._text[start:].lstrip()
            start = len(self._text) - len(rest)
            if not rest:
                break
            try:
                _, end = self._decoder.raw_decode(rest)
            except json.JSONDecodeError as error:
                if not last and error.pos >= len(rest.rstrip()) and len(rest) <= MOST:
                    break  # it goes on in the lines to come
                raise ConfigurationError(f"{self._name} is no JSON: {error}") from error
            except RecursionError as error:
                raise ConfigurationError(f"{self._name} is nested too deeply") from error
            yield rest[:end]
            start += end
        self._text = self._text[start:]
