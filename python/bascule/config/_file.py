"""Configuration in a file: JSON, TOML, or YAML where PyYAML is installed."""

from __future__ import annotations

import hashlib
import importlib
import os
import time
import tomllib
from collections import deque
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
import msgspec

from bascule._files import replace_file
from bascule.config._document import Document, changes_between, check_key, replaced
from bascule.config._source import ConflictError, Layer, Revision, new_id
from bascule.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

__all__ = ["FileSource"]

T = TypeVar("T")

#: Bytes of a file.
LARGEST = 16 * 1024 * 1024

#: Seconds for which others may hold the lock of a file that is to be changed.
LOCK_PATIENCE = 5.0


class _Entry(msgspec.Struct):
    """A line of the journal: a revision, and the document after it."""

    revision: Revision
    document: dict[str, Any]
    digest: str


class FileSource:
    """A file, which is looked at again and again.

    What was changed by :meth:`set` and :meth:`rollback` is kept in a journal beside it,
    ``NAME.history``, a line of JSON for each revision. The file itself is replaced as a whole. TOML
    can be read only: Python cannot write it.

    :param path: its suffix tells the format: ``.json``, ``.toml``, ``.yaml`` or ``.yml``
    :param optional: whether the file may be missing, which is the same as an empty one
    :param every: seconds between looks
    :raises ConfigurationError: if the suffix is none of these, or ``every`` is not above 0
    """

    def __init__(
        self, path: str | os.PathLike[str], *, optional: bool = False, every: float = 1.0
    ) -> None:
        self._path = Path(path)
        if self._path.suffix not in {".json", ".toml", ".yaml", ".yml"} or not every > 0:
            message = f"config file {str(path)!r}, every {every} s: expected .json, .toml, .yaml or .yml, and seconds above 0"
            raise ConfigurationError(message)
        self._optional = optional
        self._every = every
        self._limiter: anyio.CapacityLimiter | None = None

    @property
    def name(self) -> str:
        """``file:PATH``."""
        return f"file:{self._path}"

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[AsyncIterator[Layer]]:
        """Look at the file, and give what it says whenever it was changed."""

        async def layers() -> AsyncIterator[Layer]:
            seen: object = None
            said: Layer | None = None
            while True:
                mark = await self._in_thread(self._mark)
                # What was changed within the resolution of the clock could change unseen.
                if mark != seen or mark is None or _is_fresh(mark):
                    seen = mark
                    layer = await self._in_thread(self._layer)
                    if layer != said:
                        said = layer
                        yield layer
                await anyio.sleep(self._every)

        yield layers()

    async def set(self, key: str, value: Any, *, by: str) -> Revision:
        """See :class:`WritableSource`."""
        parts = check_key(key)
        return await self._in_thread(
            partial(self._write, lambda document: replaced(document, parts, value), by)
        )

    async def history(self, limit: int = 20) -> Sequence[Revision]:
        """See :class:`WritableSource`."""
        entries = await self._in_thread(partial(self._entries, limit))
        return [each.revision for each in reversed(entries)]

    async def rollback(self, revision: str, *, by: str) -> Revision:
        """See :class:`WritableSource`."""
        entries = await self._in_thread(partial(self._entries, None))
        found = next((each for each in entries if each.revision.id == revision), None)
        if found is None:
            message = f"{self.name} has no revision {revision!r}"
            raise ConfigurationError(message)
        document = found.document
        return await self._in_thread(
            partial(self._write, lambda _: document, by, rollback=revision)
        )

    async def _in_thread(self, function: Callable[[], T]) -> T:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(1)
        return await anyio.to_thread.run_sync(function, limiter=self._limiter)

    def _mark(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _layer(self) -> Layer:
        try:
            return Layer(self._read())
        except (OSError, ValueError, RecursionError, ConfigurationError) as error:
            return Layer(None, " ".join(str(error).split()))

    def _read(self) -> Document:
        """:raises OSError, ValueError, ConfigurationError: if there is no document"""
        try:
            with self._path.open("rb") as file:
                content = file.read(LARGEST + 1)
        except FileNotFoundError:
            if self._optional:
                return {}
            raise
        if len(content) > LARGEST:
            message = f"it has more than {LARGEST} bytes"
            raise ConfigurationError(message)
        document = self._decode(content)
        if not isinstance(document, dict) or not all(isinstance(each, str) for each in document):
            message = f"it holds {type(document).__name__}: expected names with values"
            raise ConfigurationError(message)
        return document

    def _decode(self, content: bytes) -> Any:
        if self._path.suffix == ".json":
            return msgspec.json.decode(content)
        if self._path.suffix == ".toml":
            return tomllib.loads(content.decode())
        yaml = self._yaml()
        try:
            return yaml.safe_load(content) or {}
        except yaml.YAMLError as error:
            raise ConfigurationError(str(error)) from error

    def _encode(self, document: Document) -> bytes:
        if self._path.suffix == ".json":
            return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
        if self._path.suffix == ".toml":
            message = f"{self.name} cannot be changed by bascule, which reads TOML only: edit it, or use JSON"
            raise ConfigurationError(message)
        text: str = self._yaml().safe_dump(document, sort_keys=False)
        return text.encode()

    def _yaml(self) -> Any:
        try:
            return importlib.import_module("yaml")
        except ModuleNotFoundError as error:
            message = f"{self.name} needs PyYAML: pip install pyyaml, or use JSON or TOML"
            raise ConfigurationError(message) from error

    @property
    def _journal(self) -> Path:
        return self._path.with_name(f"{self._path.name}.history")

    def _write(
        self, change: Callable[[Document], Document], by: str, *, rollback: str = ""
    ) -> Revision:
        """Replace the file, then tell the journal. What is in the file and not in the journal, because
        this process died between the two or somebody edited it, is told by the next change.
        """
        with self._locked():
            before = self._read() if self._path.exists() else {}
            last = next(iter(self._entries(1)), None)
            known = {} if last is None else last.document
            if _digest(before) != (_digest({}) if last is None else last.digest):
                self._append(
                    before,
                    Revision(new_id(), time.time(), "unknown", changes_between(known, before)),
                )
            after = change(before)
            changes = changes_between(before, after)
            self._replace(self._encode(after))
            revision = Revision(new_id(), time.time(), by, changes, rollback)
            self._append(after, revision)
        return revision

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, of all processes of this machine."""
        import fcntl  # not everywhere, and reading needs it not

        deadline = time.monotonic() + LOCK_PATIENCE
        with self._path.with_name(f".{self._path.name}.lock").open("ab") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        message = f"{self.name} is being changed by somebody else for more than {LOCK_PATIENCE} s"
                        raise ConflictError(message) from None
                    time.sleep(0.02)
                else:
                    break
            yield

    def _replace(self, content: bytes) -> None:
        target = self._path.resolve()
        mode = target.stat().st_mode & 0o7777 if target.exists() else 0o600
        replace_file(target, content, mode=mode)

    def _append(self, document: Document, revision: Revision) -> None:
        entry = _Entry(revision, dict(document), _digest(document))
        with self._journal.open("ab") as file:
            Path(self._journal).chmod(0o600)
            file.write(msgspec.json.encode(entry) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _entries(self, limit: int | None) -> Sequence[_Entry]:
        """The last ones; a line that was cut by a crash is none."""
        entries: deque[_Entry] = deque(maxlen=limit)
        try:
            with self._journal.open("rb") as file:
                for line in file:
                    with suppress(msgspec.MsgspecError):
                        entries.append(msgspec.json.decode(line, type=_Entry))
        except FileNotFoundError:
            pass
        return entries


def _digest(document: Document) -> str:
    return hashlib.sha256(msgspec.json.encode(document, order="deterministic")).hexdigest()


def _is_fresh(mark: tuple[int, int, int]) -> bool:
    return abs(time.time_ns() - mark[0]) < 2_000_000_000
